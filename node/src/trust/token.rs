//! Join tokens: `v1.<role>.<authority>.<id>.<secret>@<address>[,<address>…]`.
//!
//! The authority's hash lets the joiner check whom it talks to before it says the secret. The cluster keeps the
//! secret's hash only.

use super::{SpkiHash, sha256};
use crate::{hex, random};
use proto::join::Role;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use subtle::ConstantTimeEq;

pub const ID_BYTES: usize = 6;
pub const SECRET_BYTES: usize = 16;
/// A token is pasted by people; one that names a whole large cluster would not be.
const ADDRESSES_MAX: usize = 16;
const TEXT_BYTES_MAX: usize = 2048;

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub role: Role,
    pub authority: SpkiHash,
    pub id: [u8; ID_BYTES],
    pub secret: [u8; SECRET_BYTES],
    /// Of nodes' QUIC ports; at least one.
    pub addresses: Vec<SocketAddr>,
}

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum TokenError {
    #[error("a join token has at most {TEXT_BYTES_MAX} characters; this has {0}")]
    TooLong(usize),
    #[error("a join token looks like `v1.worker.<hex>.<hex>.<hex>@<ip>:<port>`; {0}")]
    Shape(&'static str),
    #[error("this join token is of version `{0}`; this program knows `v1`")]
    Version(String),
    #[error("`{0}` is no role; a join token is for a `voter` or a `worker`")]
    Role(String),
    #[error("the {part} of this join token must be {digits} hexadecimal digits; was it copied whole?")]
    Digits { part: &'static str, digits: usize },
    #[error("`{0}` in this join token is no address; nodes are named as `ip:port` or `[ipv6]:port`")]
    Address(String),
    #[error("a join token names 1 to {ADDRESSES_MAX} addresses")]
    Addresses,
}

impl JoinToken {
    /// A new one, of random id and secret.
    pub fn draw(
        role: Role,
        authority: SpkiHash,
        addresses: Vec<SocketAddr>,
    ) -> Result<JoinToken, TokenError> {
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Addresses);
        }
        Ok(JoinToken {
            role,
            authority,
            id: random::bytes(),
            secret: random::bytes(),
            addresses,
        })
    }

    /// What the cluster keeps.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }
}

/// Of 128 random bits, a fast hash is enough.
pub fn secret_hash(secret: &[u8; SECRET_BYTES]) -> [u8; 32] {
    sha256(secret)
}

/// In constant time.
pub fn secret_opens(secret: &[u8; SECRET_BYTES], kept_hash: &[u8; 32]) -> bool {
    kept_hash.ct_eq(&secret_hash(secret)).into()
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let (head, addresses) = text
            .split_once('@')
            .ok_or(TokenError::Shape("here the `@` is missing"))?;
        let parts: Vec<&str> = head.split('.').collect();
        if let Some(version) = parts.first().filter(|version| **version != "v1") {
            return Err(TokenError::Version((*version).to_owned()));
        }
        let [_, role, authority, id, secret] = parts[..] else {
            return Err(TokenError::Shape(
                "here the number of parts before the `@` is another",
            ));
        };
        let addresses: Result<Vec<SocketAddr>, TokenError> = addresses
            .split(',')
            .map(|address| {
                address
                    .parse()
                    .map_err(|_| TokenError::Address(address.to_owned()))
            })
            .collect();
        let addresses = addresses?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(TokenError::Addresses);
        }
        Ok(JoinToken {
            role: Role::named(role).ok_or_else(|| TokenError::Role(role.to_owned()))?,
            authority: digits("authority", authority)?,
            id: digits("id", id)?,
            secret: digits("secret", secret)?,
            addresses,
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        write!(
            formatter,
            "v1.{}.{}.{}.{}@{}",
            self.role.name(),
            hex::encode(&self.authority),
            hex::encode(&self.id),
            hex::encode(&self.secret),
            addresses.join(",")
        )
    }
}

/// Without the secret: it must not get into a log.
impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JoinToken")
            .field("role", &self.role)
            .field("id", &hex::encode(&self.id))
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

fn digits<const N: usize>(part: &'static str, text: &str) -> Result<[u8; N], TokenError> {
    hex::decode(text).ok_or(TokenError::Digits { part, digits: 2 * N })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            role: Role::Worker,
            authority: [0xab; 32],
            id: [1, 2, 3, 4, 5, 6],
            secret: [0xcd; 16],
            addresses: vec![
                "10.0.0.1:7600".parse().unwrap(),
                "[fd00::1]:7600".parse().unwrap(),
            ],
        }
    }

    const TEXT: &str = "v1.worker.abababababababababababababababababababababababababababababababab.010203040506.\
                        cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd@10.0.0.1:7600,[fd00::1]:7600";

    #[test]
    fn its_text_and_itself_are_the_same_thing() {
        assert_eq!(token().to_string(), TEXT);
        assert_eq!(TEXT.parse(), Ok(token()));
        assert_eq!(format!("  {TEXT}\n").parse(), Ok(token()), "as people paste it");
        let drawn = JoinToken::draw(Role::Voter, [9; 32], token().addresses).unwrap();
        assert_eq!(drawn.to_string().parse(), Ok(drawn));
    }

    #[test]
    fn no_beginning_of_a_token_is_a_token_of_another_cluster_or_secret() {
        for end in 0..TEXT.len() {
            if let Ok(found) = TEXT[..end].parse::<JoinToken>() {
                let whole = token();
                assert_eq!(
                    (found.authority, found.id, found.secret),
                    (whole.authority, whole.id, whole.secret)
                );
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |from: &str, to: &str| TEXT.replacen(from, to, 1).parse::<JoinToken>().unwrap_err();
        assert_eq!(wrong("v1", "v2"), TokenError::Version("v2".to_owned()));
        assert_eq!(wrong("worker", "boss"), TokenError::Role("boss".to_owned()));
        assert_eq!(wrong("@", "#"), TokenError::Shape("here the `@` is missing"));
        assert_eq!(
            wrong("10.0.0.1:7600", "host:1"),
            TokenError::Address("host:1".to_owned())
        );
        let digits = |part, digits| TokenError::Digits { part, digits };
        assert_eq!(wrong(".ab", "."), digits("authority", 64));
        assert_eq!(wrong("010203", "0102"), digits("id", 12));
        assert_eq!(wrong("cdcd@", "cdcz@"), digits("secret", 32));
        let many = vec!["127.0.0.1:1"; 17].join(",");
        assert_eq!(wrong("10.0.0.1:7600", &many), TokenError::Addresses);
        assert_eq!(
            "x".repeat(5000).parse::<JoinToken>(),
            Err(TokenError::TooLong(5000))
        );
    }

    #[test]
    fn only_its_own_secret_opens_and_it_is_not_shown() {
        let token = token();
        assert!(secret_opens(&token.secret, &token.secret_hash()));
        assert!(!secret_opens(&[0xcc; 16], &token.secret_hash()));
        assert!(!format!("{token:?}").contains("cdcd") && !format!("{token:?}").contains("205"));
    }
}
