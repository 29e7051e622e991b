//! The cluster's own authority: it signs the keys of nodes, and nothing else.

use super::certificate::{Facts, NODE_URI};
use super::{SERVER_NAME, SpkiHash, TrustError, pem_file};
use crate::{hex, random};
use proto::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::path::Path;
use std::time::Duration;

/// How long a node's certificate holds.
pub const NODE_VALID_SECS: u64 = 24 * 60 * 60;
/// Clocks of nodes may differ by this much.
const CLOCK_DIFFERENCE_SECS: u64 = 5 * 60;
const AUTHORITY_VALID_SECS: u64 = 10 * 365 * 24 * 60 * 60;
/// A request for a P-256 key takes some 300 bytes.
const CSR_BYTES_MAX: usize = 4 << 10;
/// An uncompressed point of P-256.
const POINT_BYTES: usize = 65;
/// 9999-12-31; X.509 has no later date.
const LAST_SECS: u64 = 253_402_214_400;

/// Holds the key, so whoever has one can let in whom he likes.
pub struct Authority {
    certificate: CertificateDer<'static>,
    spki: SpkiHash,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, with a key drawn now.
    pub fn make(now_secs: u64) -> Result<Authority, TrustError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(key_error)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // Two authorities of one cluster must be told apart by name: that is how a verifier finds the right one.
        let name = format!("cluster authority {}", hex::encode(&random::bytes::<8>()));
        params.distinguished_name.push(DnType::CommonName, name);
        set_validity(
            &mut params,
            now_secs,
            now_secs.saturating_add(AUTHORITY_VALID_SECS),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(serial());
        let certificate = params.self_signed(&key).map_err(certificate_error)?;
        Authority::new(certificate.der().clone(), key)
    }

    /// As [`Authority::make`], and later than `old` whatever the clock says: of two, the new one is told by that.
    pub fn make_after(old: &CertificateDer<'_>, now_secs: u64) -> Result<Authority, TrustError> {
        let old_secs = Facts::of(old)?.not_before_secs;
        Authority::make(now_secs.max(old_secs.saturating_add(CLOCK_DIFFERENCE_SECS + 1)))
    }

    /// From two PEM files, as [`Authority::store`] writes them.
    pub fn load(certificate: &Path, key: &Path) -> Result<Authority, TrustError> {
        let certificate_text = pem_file::read(certificate)?;
        let der = CertificateDer::from_pem_slice(certificate_text.as_bytes()).map_err(|error| {
            TrustError::File {
                path: certificate.to_owned(),
                reason: format!("there is no certificate in it: {error}"),
            }
        })?;
        let authority = Authority::from_parts(der, &pem_file::read(key)?);
        authority.map_err(|error| error.in_file(key))
    }

    /// `key` is PKCS#8 in PEM. Refused where it does not belong to the certificate.
    pub fn from_parts(certificate: CertificateDer<'static>, key: &str) -> Result<Authority, TrustError> {
        Authority::new(certificate, KeyPair::from_pem(key).map_err(key_error)?)
    }

    /// Files for their owner alone; written and synced when this returns, the key first.
    pub fn store(&self, certificate: &Path, key: &Path) -> Result<(), TrustError> {
        pem_file::write(key, &self.key_pem())?;
        pem_file::write(
            certificate,
            &pem_file::certificates(std::slice::from_ref(&self.certificate)),
        )
    }

    /// PKCS#8. For the disks of those who hold the authority.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What a join token pins.
    pub fn spki_hash(&self) -> SpkiHash {
        self.spki
    }

    /// A certificate for the key in `csr`, which must have signed it; nothing else in there counts. It names `node`
    /// and holds for [`NODE_VALID_SECS`] from `now_secs`, or for as long as the authority does.
    pub fn sign(
        &self,
        csr: &[u8],
        node: NodeId,
        now_secs: u64,
    ) -> Result<CertificateDer<'static>, TrustError> {
        let key = requested_key(csr)?;
        let own = Facts::of(&self.certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("node {node}"));
        params.subject_alt_names = vec![
            SanType::URI(name(&format!("{NODE_URI}{node}"))?),
            SanType::DnsName(name(SERVER_NAME)?),
        ];
        let until_secs = now_secs.saturating_add(NODE_VALID_SECS).min(own.not_after_secs);
        set_validity(&mut params, now_secs, until_secs);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, &self.issuer).map_err(certificate_error)?;
        Ok(signed.der().clone())
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Authority, TrustError> {
        let spki = Facts::of(&certificate)?.spki;
        if spki != super::sha256(&key.subject_public_key_info()) {
            return Err(TrustError::Key(
                "it does not belong to the authority's certificate; both must come from the same backup"
                    .to_owned(),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(certificate_error)?;
        Ok(Authority {
            certificate,
            spki,
            issuer,
        })
    }
}

/// The hash of the key that a request asks a certificate for; checked as [`Authority::sign`] checks it.
pub fn requested_spki(csr: &[u8]) -> Result<SpkiHash, TrustError> {
    Ok(super::sha256(&requested_key(csr)?.subject_public_key_info()))
}

fn requested_key(csr: &[u8]) -> Result<rcgen::PublicKey, TrustError> {
    if csr.len() > CSR_BYTES_MAX {
        return Err(TrustError::Request(format!(
            "it has {} bytes; at most {CSR_BYTES_MAX} are read",
            csr.len()
        )));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|error| TrustError::Request(error.to_string()))?;
    let key = request.public_key;
    // One kind of key is enough for a cluster, and the only one that is tested.
    let is_p256 = key.algorithm() == &PKCS_ECDSA_P256_SHA256
        && key.der_bytes().len() == POINT_BYTES
        && key.der_bytes()[0] == 4;
    match is_p256 {
        true => Ok(key),
        false => Err(TrustError::Request(
            "its key is not one of ECDSA P-256".to_owned(),
        )),
    }
}

/// 127 random bits, as a positive number.
fn serial() -> SerialNumber {
    let mut bytes = random::bytes::<16>();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

fn name(text: &str) -> Result<rcgen::string::Ia5String, TrustError> {
    text.try_into().map_err(certificate_error)
}

fn set_validity(params: &mut CertificateParams, now_secs: u64, until_secs: u64) {
    let date = |secs: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs.min(LAST_SECS));
    params.not_before = date(now_secs.saturating_sub(CLOCK_DIFFERENCE_SECS));
    params.not_after = date(until_secs);
}

fn certificate_error(error: impl std::fmt::Display) -> TrustError {
    TrustError::Certificate(error.to_string())
}

fn key_error(error: rcgen::Error) -> TrustError {
    TrustError::Key(error.to_string())
}
