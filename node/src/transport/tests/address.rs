//! Whoever has not shown that it receives what is sent to its address: it costs the node nothing, and nobody else anything.

use super::support::*;
use crate::transport;
use crate::transport::tls;
use crate::trust::{Identity, JoinToken, SERVER_NAME};
use proto::join::*;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);
const ANYWHERE: &str = "127.0.0.1:0";
/// Of Ethernet.
const PACKET_BYTES: usize = 1500;

/// A client of QUIC whose packets pass through our hands.
struct Client {
    endpoint: quinn::Endpoint,
    /// The client's server, as it believes.
    hands: UdpSocket,
}

impl Client {
    async fn knock() -> Client {
        let crypto = tls::joining([0; 32]).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let endpoint = quinn::Endpoint::client(ANYWHERE.parse().unwrap()).unwrap();
        let hands = UdpSocket::bind(ANYWHERE).await.unwrap();
        let server = hands.local_addr().unwrap();
        let connecting = endpoint.connect_with(config, server, SERVER_NAME).unwrap();
        tokio::spawn(connecting);
        Client { endpoint, hands }
    }

    /// The next packet that it wants to send.
    async fn says(&self) -> Vec<u8> {
        received(&self.hands).await
    }

    async fn hears(&self, packet: &[u8]) {
        let client = self.endpoint.local_addr().unwrap();
        self.hands.send_to(packet, client).await.unwrap();
    }
}

/// A first packet, valid and without a token.
async fn first_packet() -> Vec<u8> {
    let packet = Client::knock().await.says().await;
    let parsed = Packet::of(&packet);
    assert_eq!((parsed.form, parsed.version), (Form::Initial, 1));
    packet
}

async fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut packet = vec![0; 65_535];
    let length = timeout(SOON, socket.recv(&mut packet)).await.expect("an answer");
    packet.truncate(length.unwrap());
    packet
}

async fn socket_to(node: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(ANYWHERE).await.unwrap();
    socket.connect(node).await.unwrap();
    socket
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Initial,
    Retry,
    Other,
}

/// What of a packet with a long header can be read by everybody (RFC 9000, section 17.2).
#[derive(Debug)]
struct Packet<'a> {
    form: Form,
    version: u32,
    to: &'a [u8],
    from: &'a [u8],
}

impl Packet<'_> {
    fn of(bytes: &[u8]) -> Packet<'_> {
        let form = match bytes[0] & 0xf0 {
            0xc0 => Form::Initial,
            0xf0 => Form::Retry,
            _other => Form::Other,
        };
        let (version, ids) = bytes[1..].split_first_chunk().unwrap();
        let (to, rest) = ids[1..].split_at(usize::from(ids[0]));
        let from = &rest[1..][..usize::from(rest[0])];
        Packet {
            form,
            version: u32::from_be_bytes(*version),
            to,
            from,
        }
    }
}

fn assert_is_retry(answer: &[u8], asked: &[u8]) {
    let (answered, asking) = (Packet::of(answer), Packet::of(asked));
    assert_eq!((answered.form, answered.version), (Form::Retry, 1));
    assert_eq!(answered.to, asking.from);
    assert!(answer.len() < asked.len(), "nobody else is flooded by way of us");
}

async fn assert_lets_strangers_in(cluster: &Cluster, node: &Node) {
    let authority = cluster.authority.spki_hash();
    let token = JoinToken::draw(Role::Worker, authority, vec![node.address()]).unwrap();
    let request = JoinRequest::V1(Box::new(Joining {
        token_id: token.id,
        secret: token.secret,
        csr: Identity::make().unwrap().csr().unwrap(),
        quic_address: String::new(),
        http_url: String::new(),
        program_version: String::new(),
        feature_level: 1,
    }));
    transport::join(&token, &request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_has_to_show_its_address_and_until_then_nothing_is_kept_of_it() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let socket = socket_to(two.address()).await;
    let asked = first_packet().await;
    // More often than there is room for strangers. Had anything been kept, the same packet would be answered in another way.
    for _ in 0..300 {
        socket.send(&asked).await.unwrap();
        assert_is_retry(&received(&socket).await, &asked);
    }
    assert_lets_strangers_in(&cluster, &two).await;
    let more = socket.try_recv(&mut [0; 1500]);
    assert!(more.is_err(), "nothing follows by itself: {more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_address_was_sent_opens_nothing_for_another() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let (own, other) = (socket_to(two.address()).await, socket_to(two.address()).await);
    let client = Client::knock().await;
    own.send(&client.says().await).await.unwrap();
    let retry = received(&own).await;
    client.hears(&retry).await;
    let shown = loop {
        let packet = client.says().await;
        // It may have said the first one again.
        if Packet::of(&packet).to == Packet::of(&retry).from {
            break packet;
        }
    };
    other.send(&shown).await.unwrap();
    let farewell = received(&other).await;
    assert!(farewell.len() < 100, "{} bytes", farewell.len());
    own.send(&shown).await.unwrap();
    let welcome = received(&own).await;
    assert!(welcome.len() > 1000, "{} bytes", welcome.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_members_live_a_flood_has_to_show_its_address_too() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    two.knows(&one);
    let mut knocks = Vec::new();
    for _ in 0..40 {
        knocks.push((socket_to(two.address()).await, first_packet().await));
    }
    for (socket, asked) in &knocks {
        socket.send(asked).await.unwrap();
    }
    let mut retries = 0;
    for (socket, asked) in &knocks {
        let first = received(socket).await;
        if Packet::of(&first).form == Form::Retry {
            assert_is_retry(&first, asked);
            retries += 1;
            continue;
        }
        let mut bytes = first.len();
        let mut packet = vec![0; 65_535];
        while let Ok(length) = socket.try_recv(&mut packet) {
            bytes += length;
        }
        // quinn begins no packet beyond three times what came, and ends the last one.
        let bytes_max = 3 * asked.len() + PACKET_BYTES;
        assert!(bytes < bytes_max, "{bytes} bytes for {}", asked.len());
    }
    assert!((20..40).contains(&retries), "{retries}");
    // A member's own address opens the door.
    one.knows(&two);
    one.ping(two.id).await.unwrap();
}
