//! `cluster token`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::report::CreatedToken;
use crate::control::{ControlRequest, client};
use crate::hex;
use crate::trust::JoinToken;
use crate::trust::token::ID_BYTES;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

/// Join tokens: each lets one node into the cluster
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Create(Create),
    Revoke(Revoke),
}

const EXAMPLES: &str = "\
Examples:
  cluster token create
  cluster token create --role worker --ttl 10m
  cluster token revoke 9f2c61d07a5b
  ssh other-host cluster up --http 0.0.0.0:8000 --join \"$(cluster token create)\"";

/// Make a token and print it, alone on stdout; it lets one node in, once
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct Create {
    /// What the node may become: a voter takes part in agreement where it is needed, a worker never does
    #[arg(long, value_enum, default_value_t = AsRole::Voter)]
    role: AsRole,
    /// How long it can be used, at most an hour: 90s, 10m, 1h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = secs)]
    ttl: u64,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"token", "id", "role", "expires_at_secs"}
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum AsRole {
    Voter,
    Worker,
}

impl AsRole {
    fn name(self) -> &'static str {
        match self {
            AsRole::Voter => "voter",
            AsRole::Worker => "worker",
        }
    }
}

fn secs(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.iter().find_map(|(unit, secs)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*secs)
    });
    match parsed {
        Some(secs @ 1..=3600) => Ok(secs),
        Some(_) => Err("a token lives for 1s to 1h".to_owned()),
        None => Err("a time is a number with s, m or h, as in 10m".to_owned()),
    }
}

fn in_words(secs: u64) -> String {
    match secs % 60 {
        0 => format!("{} min", secs / 60),
        _ => format!("{secs} s"),
    }
}

/// Of a token, or of what may be its id.
fn id_of(text: &str) -> Result<String, String> {
    if let Ok(token) = text.parse::<JoinToken>() {
        return Ok(hex::encode(&token.id));
    }
    match hex::decode::<ID_BYTES>(text) {
        Some(id) => Ok(hex::encode(&id)),
        None => Err(format!(
            "it is neither a token nor the id of one, which has {} digits, as in 9f2c61d07a5b: `cluster token create` prints both",
            2 * ID_BYTES
        )),
    }
}

impl Token {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Create(create) => create.run(),
            What::Revoke(revoke) => revoke.run(),
        }
    }
}

/// Take back a token that was not used yet
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster token revoke 9f2c61d07a5b")]
struct Revoke {
    /// The token, or its id
    #[arg(value_name = "TOKEN", value_parser = id_of)]
    id: String,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"id", "revoked": true}
    #[arg(long)]
    json: bool,
}

impl Revoke {
    fn run(self) -> anyhow::Result<()> {
        let id = self.id;
        let request = ControlRequest::RevokeToken { id: id.clone() };
        let (): () = client::ask(&self.data_dir.folder()?, &request)?;
        match self.json {
            true => tell!("{}", json!({"id": id, "revoked": true})),
            false => tell!("revoked {id}"),
        }
        Ok(())
    }
}

impl Create {
    fn run(self) -> anyhow::Result<()> {
        let request = ControlRequest::CreateToken {
            role: self.role.name().to_owned(),
            ttl_secs: self.ttl,
        };
        let created: CreatedToken = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            tell!("{}", serde_json::to_string(&created)?);
        } else {
            tell!("{}", created.token);
            eprintln!(
                "token {}, for one {}, within {}: cluster up --join TOKEN",
                created.id,
                created.role,
                in_words(self.ttl)
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{id_of, in_words, secs};

    #[test]
    fn times_are_a_number_and_a_unit_within_an_hour() {
        assert_eq!(secs("90s"), Ok(90));
        assert_eq!(secs("10m"), Ok(600));
        assert_eq!(secs("1h"), Ok(3600));
        for unfit in ["", "10", "2h", "0s", "m", "-1m", "99999999999999999999h"] {
            assert!(secs(unfit).is_err(), "{unfit}");
        }
    }

    #[test]
    fn how_long_a_token_lives_is_said_as_it_is() {
        assert_eq!(in_words(2), "2 s");
        assert_eq!(in_words(90), "90 s");
        assert_eq!(in_words(3600), "60 min");
    }

    #[test]
    fn what_is_no_token_and_no_id_is_told_what_they_are() {
        let id = "9f2c61d07a5b";
        assert_eq!(id_of(id), Ok(id.to_owned()));
        for unfit in ["nonsense", "", "9f2c", "v1.voter.12"] {
            let told = id_of(unfit).unwrap_err();
            assert!(told.contains("neither a token nor the id"), "{unfit}: {told}");
        }
    }
}
