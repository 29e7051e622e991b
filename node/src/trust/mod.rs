//! Who is a node of this cluster: an authority that signs, keys that never leave their node, and what both sides of a
//! connection verify about each other.
//!
//! Being signed is not enough to be let in: that is committed membership, which `transport` asks for.

pub mod authority;
pub mod bundle;
pub mod identity;
pub mod token;
pub mod verify;

mod certificate;
mod pem_file;
pub(crate) mod signatures;

pub use authority::Authority;
pub use bundle::Bundle;
pub use identity::Identity;
pub use token::JoinToken;
pub use verify::PeerIdentity;

use proto::NodeId;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// SHA-256 of a public key, as SubjectPublicKeyInfo in DER. It names a node's key, and pins an authority.
pub type SpkiHash = [u8; 32];

/// The name in every node's certificate that peers verify. It is no host: nodes are found by address.
pub const SERVER_NAME: &str = "node.cluster.internal";

/// Each says what is wrong with what, and what belongs there.
#[derive(thiserror::Error, Debug)]
pub enum TrustError {
    /// It is missing, or holds something else.
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    /// What it holds is not known.
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("this certificate cannot be used: {0}")]
    Certificate(String),
    #[error("this request for a certificate is refused: {0}")]
    Request(String),
    #[error("this key cannot be used: {0}")]
    Key(String),
    #[error("this is no set of authorities: {0}")]
    Bundle(String),
}

impl TrustError {
    /// Of what this file holds.
    fn in_file(self, path: &Path) -> TrustError {
        TrustError::File {
            path: path.to_owned(),
            reason: self.to_string(),
        }
    }
}

/// The hash of the public key in a certificate (DER).
pub fn spki_of(certificate: &[u8]) -> Result<SpkiHash, TrustError> {
    Ok(certificate::Facts::of(&certificate.into())?.spki)
}

/// Whom the first certificate of a file names, and its key, where that can be read.
pub fn named_in(certificates: &Path) -> Option<(NodeId, SpkiHash)> {
    let text = pem_file::read(certificates).ok()?;
    let chain = pem_file::parse_certificates(certificates, &text).ok()?;
    let facts = certificate::Facts::of(chain.first()?).ok()?;
    Some((facts.node?, facts.spki))
}

/// Seconds since 1970 from which a certificate (DER) holds. Of two authorities of a cluster the new one's are more: see
/// [`Authority::make_after`].
pub fn made_at(certificate: &[u8]) -> Result<u64, TrustError> {
    Ok(certificate::Facts::of(&certificate.into())?.not_before_secs)
}

/// Which of these has signed a certificate; its place in the list.
pub fn signer_of(certificate: &CertificateDer<'_>, authorities: &[CertificateDer<'_>]) -> Option<usize> {
    authorities
        .iter()
        .position(|authority| certificate::is_issued_by(certificate, authority))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests;
