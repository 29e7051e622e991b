//! What no node of ours would do.

use super::support::*;
use crate::clock;
use crate::transport::protocol::Protocol;
use crate::transport::*;
use crate::trust::verify::OfServers;
use crate::trust::{Identity, SERVER_NAME};
use proto::join::*;
use proto::peer::*;
use proto::wire::{self, HEADER_BYTES, Kind};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::ResolvesClientCert;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(3);

/// A client that follows no rule of ours: it has a member's key, or none, and opens what it likes.
struct Rogue {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl Rogue {
    async fn connect(node: &Node, protocol: &[u8], identity: Option<Arc<Identity>>) -> Rogue {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint
            .connect_with(
                Rogue::config(node, protocol, identity),
                node.address(),
                SERVER_NAME,
            )
            .unwrap();
        Rogue {
            connection: connecting.await.unwrap(),
            _endpoint: endpoint,
        }
    }

    fn config(node: &Node, protocol: &[u8], identity: Option<Arc<Identity>>) -> quinn::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfServers(node.bundle.clone())));
        let mut config = match identity {
            Some(identity) => config.with_client_cert_resolver(identity as Arc<dyn ResolvesClientCert>),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        config.enable_early_data = true;
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
    }

    async fn member(node: &Node, class: Class, identity: &Arc<Identity>) -> Rogue {
        Rogue::connect(node, Protocol::Peer(class).alpn(), Some(identity.clone())).await
    }

    /// It cannot open a stream, and is told these words.
    async fn assert_shut_out(&self, words: &str) {
        // Opened before the server has closed: it gives no credit for a stream.
        let opened = timeout(SOON, self.connection.open_bi()).await.expect("an end");
        assert!(opened.is_err(), "where `{words}` was due");
        assert_closed_with(&self.connection.closed().await.to_string(), words);
    }

    /// Writes these bytes on a new stream, and gives what the connection is closed with; `None`: it stays open.
    async fn say(&self, bytes: &[u8], wait: Duration) -> Option<String> {
        if let Ok(Ok((mut send, _receive))) = timeout(wait, self.connection.open_bi()).await {
            let _ = send.write_all(bytes).await;
            let _ = send.finish();
            let closed = timeout(wait, self.connection.closed()).await;
            return closed.ok().map(|reason| reason.to_string());
        }
        let closed = timeout(wait, self.connection.closed()).await;
        closed.ok().map(|reason| reason.to_string())
    }
}

fn ping() -> Vec<u8> {
    let nonce = Box::new(Nonce { nonce: 1 });
    wire::frame(Kind::PeerRequest, 0, &PeerRequest::Ping(nonce))
}

fn join_request() -> Vec<u8> {
    let joining = Joining {
        token_id: [1; 6],
        secret: [2; 16],
        csr: Identity::make().unwrap().csr().unwrap(),
        quic_address: String::new(),
        http_url: String::new(),
        program_version: String::new(),
        feature_level: 0,
    };
    wire::frame(Kind::JoinRequest, 0, &JoinRequest::V1(Box::new(joining)))
}

/// A cluster with two nodes that speak, and a key of a member for the rogue.
fn stage() -> (Cluster, Node, Node, Arc<Identity>) {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    let identity = cluster.identity(3);
    cluster.roster.add(identity.spki_hash(), 3, Role::Voter);
    (cluster, one, two, identity)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_no_stream_of_peers_can_even_be_opened() {
    let (_cluster, one, two, _) = stage();
    let of_members = Protocol::ALL
        .into_iter()
        .filter(|protocol| *protocol != Protocol::Join);
    for protocol in of_members {
        let rogue = Rogue::connect(&two, protocol.alpn(), None).await;
        rogue
            .assert_shut_out("certificate of the cluster is needed")
            .await;
    }
    assert!(two.service.calls.lock().unwrap().is_empty());
    one.ping(two.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_certificate_that_does_not_count_no_stream_can_be_opened_either() {
    let (cluster, one, two, member) = stage();
    let stranger = cluster.identity(4);
    let late = cluster.identity(5);
    cluster.chain_at(&late, 5, clock::unix_secs() - 3 * 24 * 60 * 60);
    cluster.roster.add(late.spki_hash(), 5, Role::Voter);
    for class in Class::ALL {
        let rogue = Rogue::member(&two, class, &stranger).await;
        rogue.assert_shut_out("no member").await;
        let rogue = Rogue::member(&two, class, &late).await;
        rogue.assert_shut_out("does not hold").await;
    }
    let rogue = Rogue::connect(&two, Protocol::Renew.alpn(), Some(stranger)).await;
    rogue.assert_shut_out("no member").await;
    let rogue = Rogue::connect(&two, Protocol::Join.alpn(), Some(member)).await;
    rogue.assert_shut_out("not how nodes speak").await;
    let service = &two.service;
    assert!(service.calls.lock().unwrap().is_empty() && service.streams.lock().unwrap().is_empty());
    assert!(service.joins.lock().unwrap().is_empty() && service.renewals.lock().unwrap().is_empty());
    one.ping(two.id).await.unwrap();
}

/// Early data (0-RTT) would be read before it is known from whom, and could be said again by others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_can_be_said_before_the_handshake_is_over() {
    let (_cluster, _one, two, identity) = stage();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let protocol = Protocol::Peer(Class::Control).alpn();
    // One memory of sessions for both connections.
    let config = Rogue::config(&two, protocol, Some(identity));
    let connect = || {
        endpoint
            .connect_with(config.clone(), two.address(), SERVER_NAME)
            .unwrap()
    };
    let first = connect().await.unwrap();
    let (mut send, mut receive) = first.open_bi().await.unwrap();
    send.write_all(&ping()).await.unwrap();
    let _ = send.finish();
    assert!(!receive.read_to_end(1000).await.unwrap().is_empty());
    assert!(connect().into_0rtt().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_that_is_not_known_gets_no_handshake() {
    let (_cluster, _one, two, _) = stage();
    let attempt = tokio::spawn(async move {
        Rogue::connect(&two, b"cluster-peer/9", None).await;
    });
    assert!(attempt.await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_place_on_a_stream_closes_the_connection() {
    let (_cluster, one, two, identity) = stage();
    let drain = wire::frame(Kind::ToEngine, 0, &proto::engine::ToEngine::Drain);
    let hello = wire::frame(Kind::Hello, 0, &hello(Class::Control));
    let mut unknown = ping();
    unknown[6..8].copy_from_slice(&999_u16.to_le_bytes());
    let mut version = ping();
    version[4] = 9;
    let mut too_long = ping();
    too_long[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut twice = hello.clone();
    twice.extend_from_slice(&hello);
    let of_stranger = join_request();
    let cases: [(&str, &[u8]); 7] = [
        ("a later message first", &drain),
        ("an unknown kind", &unknown),
        ("another version", &version),
        ("a length beyond all bounds", &too_long),
        ("a second hello", &twice),
        ("a request to join", &of_stranger),
        ("noise", b"GET / HTTP/1.1\r\nHost: cluster\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let rogue = Rogue::member(&two, Class::Control, &identity).await;
        let reason = rogue
            .say(bytes, SOON)
            .await
            .unwrap_or_else(|| panic!("{what} was taken"));
        assert_closed_with(&format!("{what}: {reason}"), "not how nodes speak");
    }
    assert!(two.service.calls.lock().unwrap().is_empty());
    one.ping(two.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damaged_bit_and_every_cut_of_a_request_is_refused_and_others_are_served() {
    let (_cluster, one, two, identity) = stage();
    let good = ping();
    let cuts = (1..good.len()).map(|end| good[..end].to_vec());
    let flips = (0..good.len() * 8).map(|bit| {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        bad
    });
    let mut rogue = Rogue::member(&two, Class::Control, &identity).await;
    for bad in flips.chain(cuts) {
        if rogue.connection.close_reason().is_some() {
            rogue = Rogue::member(&two, Class::Control, &identity).await;
        }
        let Ok((mut send, mut receive)) = rogue.connection.open_bi().await else {
            continue;
        };
        let _ = send.write_all(&bad).await;
        let _ = send.finish();
        let answer = timeout(SOON, receive.read_to_end(1000)).await.expect("an end");
        assert!(answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()));
    }
    assert!(
        two.service.calls.lock().unwrap().is_empty(),
        "a damaged request was carried out"
    );
    one.ping(two.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_of_many_bytes_takes_no_memory_and_no_streams_from_others() {
    let (_cluster, one, two, identity) = stage();
    let rogue = Rogue::member(&two, Class::Control, &identity).await;
    let bytes = vec![0; Kind::PeerRequest.payload_bytes_max()];
    let header = wire::try_header_bytes(Kind::PeerRequest, 0, &bytes).unwrap();
    let mut open = Vec::new();
    // As many streams as it may have, each with a header that promises 8 MiB: 2 GiB.
    while let Ok(Ok((mut send, receive))) =
        timeout(Duration::from_millis(300), rogue.connection.open_bi()).await
    {
        send.write_all(&header).await.unwrap();
        open.push((send, receive));
    }
    assert_eq!(
        open.len(),
        tuning::Limits::of(Class::Control).streams_max as usize
    );
    assert!(memory_bytes() < 1 << 30, "{} bytes", memory_bytes());
    one.ping(two.id).await.unwrap();
}

/// Of this process, resident.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_say_one_short_thing() {
    let (_cluster, one, two, _) = stage();
    let mut long = join_request();
    long[16..20].copy_from_slice(&(17_u32 << 10).to_le_bytes());
    let rogue = Rogue::connect(&two, Protocol::Join.alpn(), None).await;
    let reason = rogue.say(&long, SOON).await.expect("it is closed");
    assert_closed_with(&reason, "not how nodes speak");

    let rogue = Rogue::connect(&two, Protocol::Join.alpn(), None).await;
    let reason = rogue.say(&ping(), SOON).await.expect("it is closed");
    assert_closed_with(&reason, "not how nodes speak");

    let rogue = Rogue::connect(&two, Protocol::Join.alpn(), None).await;
    let (mut send, _receive) = rogue.connection.open_bi().await.unwrap();
    send.write_all(&join_request()[..HEADER_BYTES]).await.unwrap();
    let second = timeout(Duration::from_millis(300), rogue.connection.open_bi()).await;
    assert!(second.is_err(), "there is no second stream");
    assert!(two.service.joins.lock().unwrap().is_empty());
    one.ping(two.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_disturbs_nobody() {
    let (_cluster, one, two, _) = stage();
    one.ping(two.id).await.unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut packet = vec![0; 1500];
    for round in 0..3000_usize {
        for byte in &mut packet {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        // Also what begins as a packet of QUIC does: long header, version 1, all types; and short headers.
        if round % 2 == 0 {
            packet[0] = 0xc0 | (packet[0] & 0x3f);
            packet[1..5].copy_from_slice(&[0, 0, 0, 1]);
            packet[5] = (round % 22) as u8;
        }
        let length = round % packet.len();
        socket.send_to(&packet[..length], two.address()).unwrap();
        if round % 500 == 0 {
            one.ping(two.id).await.unwrap();
        }
    }
    one.ping(two.id).await.unwrap();
    let fresh = one.peers.open(two.id, Class::Bulk, hello(Class::Bulk)).await;
    assert!(fresh.is_ok(), "new connections are let in");
}
