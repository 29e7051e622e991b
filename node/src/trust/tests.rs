use super::certificate::Facts;
use super::verify::{OfClients, OfServers, Pinned, server_name};
use super::*;
use proto::NodeId;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 24 * 60 * 60;

fn at(secs: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(secs))
}

fn authority() -> Authority {
    Authority::make(NOW).unwrap()
}

fn signed(authority: &Authority, node: u64) -> (Identity, CertificateDer<'static>) {
    let identity = Identity::make().unwrap();
    let certificate = authority
        .sign(&identity.csr().unwrap(), NodeId(node), NOW)
        .unwrap();
    (identity, certificate)
}

fn bundle(authorities: &[&Authority]) -> Arc<Bundle> {
    let certificates = authorities
        .iter()
        .map(|authority| authority.certificate().clone());
    Arc::new(Bundle::new(certificates.collect()).unwrap())
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("cluster-trust-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_certificate_names_the_node_and_holds_a_day() {
    let authority = authority();
    let (identity, certificate) = signed(&authority, 42);
    let facts = Facts::of(&certificate).unwrap();
    assert_eq!(facts.node, Some(NodeId(42)));
    assert_eq!(facts.spki, identity.spki_hash());
    assert_eq!(
        (facts.not_before_secs, facts.not_after_secs),
        (NOW - 300, NOW + DAY)
    );
    let peer = PeerIdentity::of_chain(&[certificate]).unwrap();
    assert!(peer.is_current(NOW) && peer.is_current(NOW + DAY) && peer.is_current(NOW - 300));
    assert!(!peer.is_current(NOW + DAY + 1) && !peer.is_current(NOW - 301));
}

#[test]
fn both_sides_accept_what_the_authority_signed_at_any_time() {
    let authority = authority();
    let (_, certificate) = signed(&authority, 1);
    let (clients, servers) = (OfClients(bundle(&[&authority])), OfServers(bundle(&[&authority])));
    for now in [0, NOW - DAY, NOW, NOW + 365 * DAY] {
        assert!(
            clients.verify_client_cert(&certificate, &[], at(now)).is_ok(),
            "{now}"
        );
        assert!(
            servers
                .verify_server_cert(&certificate, &[], &server_name(), &[], at(now))
                .is_ok(),
            "{now}"
        );
    }
}

#[test]
fn neither_side_accepts_another_authority_or_one_that_is_only_brought_along() {
    let (ours, theirs) = (authority(), authority());
    let (_, certificate) = signed(&theirs, 1);
    let brought = [theirs.certificate().clone()];
    let (clients, servers) = (OfClients(bundle(&[&ours])), OfServers(bundle(&[&ours])));
    assert!(
        clients
            .verify_client_cert(&certificate, &brought, at(NOW))
            .is_err()
    );
    assert!(
        servers
            .verify_server_cert(&certificate, &brought, &server_name(), &[], at(NOW))
            .is_err()
    );
}

#[test]
fn a_node_cannot_sign_others() {
    let authority = authority();
    let (node, certificate) = signed(&authority, 1);
    let as_authority = Authority::from_parts(certificate.clone(), &node.key_pem()).unwrap();
    let victim = Identity::make().unwrap();
    let forged = as_authority.sign(&victim.csr().unwrap(), NodeId(2), NOW).unwrap();
    let brought = [certificate, authority.certificate().clone()];
    let clients = OfClients(bundle(&[&authority]));
    assert!(clients.verify_client_cert(&forged, &brought, at(NOW)).is_err());
    let pinned = Pinned {
        authority: authority.spki_hash(),
    };
    assert!(
        pinned
            .verify_server_cert(&forged, &brought, &server_name(), &[], at(NOW))
            .is_err()
    );
}

#[test]
fn a_pin_accepts_exactly_its_authority_and_current_certificates() {
    let (ours, theirs) = (authority(), authority());
    let (_, certificate) = signed(&ours, 1);
    let (_, foreign) = signed(&theirs, 1);
    let pinned = Pinned {
        authority: ours.spki_hash(),
    };
    let verify = |leaf: &CertificateDer<'_>, brought: &[&Authority], now| {
        let brought: Vec<_> = brought
            .iter()
            .map(|authority| authority.certificate().clone())
            .collect();
        pinned
            .verify_server_cert(leaf, &brought, &server_name(), &[], at(now))
            .is_ok()
    };
    assert!(verify(&certificate, &[&ours], NOW));
    assert!(!verify(&certificate, &[], NOW), "the authority must be shown");
    assert!(!verify(&foreign, &[&theirs], NOW));
    assert!(
        !verify(&foreign, &[&theirs, &ours], NOW),
        "shown, but it has not signed"
    );
    assert!(!verify(&certificate, &[&ours], NOW + 2 * DAY));
}

#[test]
fn the_wishes_in_a_request_do_not_count() {
    let authority = authority();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let uri = "cluster://node/1".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let csr = params.serialize_request(&key).unwrap();
    let certificate = authority.sign(csr.der(), NodeId(9), NOW).unwrap();
    assert_eq!(Facts::of(&certificate).unwrap().node, Some(NodeId(9)));
    let bytes = certificate.as_ref();
    assert!(!bytes.windows(17).any(|part| part == b"elsewhere.example"));
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    assert!(!parsed.is_ca());
}

#[test]
fn requests_for_other_keys_and_damaged_ones_are_refused() {
    let authority = authority();
    let sign = |csr: &[u8]| authority.sign(csr, NodeId(1), NOW);
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(sign(csr.der()).is_err(), "{algorithm:?}");
    }
    assert!(sign(&vec![0; 1 << 20]).is_err());
    let identity = Identity::make().unwrap();
    let csr = identity.csr().unwrap();
    assert!(sign(&csr).is_ok());
    for end in 0..csr.len() {
        assert!(sign(&csr[..end]).is_err(), "cut at {end}");
    }
    let mut accepted = 0;
    for bit in 0..csr.len() * 8 {
        let mut bad = csr.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // The wrapping around what was signed may be read leniently, as long as the key is the one that signed.
        if let Ok(certificate) = sign(&bad) {
            assert_eq!(
                Facts::of(&certificate).unwrap().spki,
                identity.spki_hash(),
                "bit {bit}"
            );
            accepted += 1;
        }
    }
    assert!(accepted < 64, "{accepted} damaged requests were signed");
}

#[test]
fn damaged_certificates_are_refused() {
    let authority = authority();
    let (_, certificate) = signed(&authority, 7);
    let clients = OfClients(bundle(&[&authority]));
    for bit in 0..certificate.len() * 8 {
        let mut bad = certificate.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let bad = CertificateDer::from(bad);
        assert!(
            clients.verify_client_cert(&bad, &[], at(NOW)).is_err(),
            "bit {bit}"
        );
    }
    for end in 0..certificate.len() {
        let bad = CertificateDer::from(&certificate[..end]);
        assert!(
            clients.verify_client_cert(&bad, &[], at(NOW)).is_err(),
            "cut at {end}"
        );
    }
}

#[test]
fn files_hold_what_was_stored_and_are_for_their_owner_alone() {
    let folder = folder("files");
    let (certificate_file, key_file) = (folder.join("authority.pem"), folder.join("authority.key"));
    let authority = authority();
    authority.store(&certificate_file, &key_file).unwrap();
    authority.store(&certificate_file, &key_file).unwrap();
    let again = Authority::load(&certificate_file, &key_file).unwrap();
    assert_eq!(again.certificate(), authority.certificate());
    let (identity, certificate) = signed(&again, 3);
    identity
        .set_chain(vec![certificate, again.certificate().clone()])
        .unwrap();
    identity.store_key(&folder.join("node.key")).unwrap();
    identity.store_chain(&folder.join("node.pem")).unwrap();
    let back = Identity::load(&folder.join("node.key"), &folder.join("node.pem")).unwrap();
    assert_eq!(back.spki_hash(), identity.spki_hash());
    assert_eq!(back.chain(), identity.chain());
    assert_eq!(back.node(), Some(NodeId(3)));
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{entry:?}"
        );
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_key_of_another_authority_is_refused_with_its_file() {
    let folder = folder("mixed");
    let (one, two) = (authority(), authority());
    one.store(&folder.join("1.pem"), &folder.join("1.key")).unwrap();
    two.store(&folder.join("2.pem"), &folder.join("2.key")).unwrap();
    let Err(error) = Authority::load(&folder.join("1.pem"), &folder.join("2.key")) else {
        panic!("mixed files were taken");
    };
    assert!(error.to_string().contains("2.key"), "{error}");
    std::fs::write(folder.join("1.key"), "nothing").unwrap();
    assert!(Authority::load(&folder.join("1.pem"), &folder.join("1.key")).is_err());
    assert!(Authority::load(&folder.join("none.pem"), &folder.join("1.key")).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_chain_must_be_for_the_key_and_is_renewed_at_half_of_its_life() {
    let authority = authority();
    let (identity, certificate) = signed(&authority, 5);
    let (_, foreign) = signed(&authority, 5);
    assert!(identity.is_due(NOW) && identity.node().is_none());
    assert!(identity.set_chain(vec![foreign]).is_err());
    assert!(identity.set_chain(vec![]).is_err());
    identity.set_chain(vec![certificate]).unwrap();
    let half_over = NOW - 300 + (DAY + 300) / 2;
    assert!(!identity.is_due(half_over - 1) && identity.is_due(half_over));
    // Whoever signed it lived in the future; others would not believe it before its day has come.
    assert!(!identity.is_due(NOW - 300) && identity.is_due(NOW - 301));
    assert_eq!(identity.expires_at(), Some(NOW + DAY));
    assert_eq!(identity.derived_secret("a"), identity.derived_secret("a"));
    assert_ne!(identity.derived_secret("a"), identity.derived_secret("b"));
}

#[test]
fn two_authorities_are_trusted_during_a_change_and_one_before_and_after() {
    let (old, new) = (authority(), authority());
    let (_, of_old) = signed(&old, 1);
    let (_, of_new) = signed(&new, 2);
    let trusted = bundle(&[&old]);
    let clients = OfClients(trusted.clone());
    let verdicts = || [&of_old, &of_new].map(|leaf| clients.verify_client_cert(leaf, &[], at(NOW)).is_ok());
    assert_eq!(verdicts(), [true, false]);
    trusted
        .replace(vec![old.certificate().clone(), new.certificate().clone()])
        .unwrap();
    assert_eq!(verdicts(), [true, true]);
    trusted.replace(vec![new.certificate().clone()]).unwrap();
    assert_eq!(verdicts(), [false, true]);
    assert!(trusted.replace(vec![]).is_err());
    assert!(trusted.replace(vec![old.certificate().clone(); 3]).is_err());
    assert_eq!(trusted.spki_hashes(), vec![new.spki_hash()]);
}
