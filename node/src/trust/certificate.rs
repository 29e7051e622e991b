//! What a certificate says, read once.

use super::{SpkiHash, TrustError, sha256};
use proto::NodeId;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Before the id in the name of a node.
pub const NODE_URI: &str = "cluster://node/";

/// Of any certificate: the hash of its key and the seconds since 1970 from and to which it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    pub spki: SpkiHash,
    pub not_before_secs: u64,
    pub not_after_secs: u64,
    /// `None`: it is no node's certificate.
    pub node: Option<NodeId>,
}

impl Facts {
    pub fn of(der: &CertificateDer<'_>) -> Result<Facts, TrustError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| TrustError::Certificate(format!("it is not DER of X.509: {error}")))?;
        if !rest.is_empty() {
            return Err(TrustError::Certificate("bytes follow after its end".to_owned()));
        }
        let validity = certificate.validity();
        Ok(Facts {
            spki: sha256(certificate.public_key().raw),
            not_before_secs: u64::try_from(validity.not_before.timestamp()).unwrap_or(0),
            not_after_secs: u64::try_from(validity.not_after.timestamp()).unwrap_or(0),
            node: node_named(&certificate)?,
        })
    }

    /// The moment nearest to `now` at which it is valid.
    pub fn clamped(&self, now_secs: u64) -> u64 {
        now_secs.min(self.not_after_secs).max(self.not_before_secs)
    }
}

/// Has this authority signed the certificate? Whether it is still good is for the verifiers to say.
pub fn is_issued_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let parsed = (
        X509Certificate::from_der(certificate),
        X509Certificate::from_der(authority),
    );
    match parsed {
        (Ok((_, certificate)), Ok((_, authority))) => {
            certificate.issuer().as_raw() == authority.subject().as_raw()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        }
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn node_named(certificate: &X509Certificate<'_>) -> Result<Option<NodeId>, TrustError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| TrustError::Certificate(format!("its names cannot be read: {error}")))?;
    let Some(names) = names else { return Ok(None) };
    let mut ids = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_URI),
        _ => None,
    });
    match (ids.next(), ids.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => match id.parse() {
            // One text for each id: neither `+1` nor `01`.
            Ok(number) if id == format!("{number}") => Ok(Some(NodeId(number))),
            Ok(_) | Err(_) => Err(TrustError::Certificate(format!("{NODE_URI}{id} names no node"))),
        },
        (Some(_), Some(_)) => Err(TrustError::Certificate("it names two nodes".to_owned())),
    }
}
