//! The accept loop, over real sockets.

use super::fake::{FakeGateway, KEY, hello, said, started};
use crate::http::{Limits, SeatsMax, Transport, router, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn server(gateway: Arc<FakeGateway>, limits: Limits) -> Server {
    server_over(Transport::Plain, gateway, limits).await
}

async fn server_over(transport: Transport, gateway: Arc<FakeGateway>, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let routes = router(gateway, limits.clone());
    let serving = serve(listener, transport, routes, limits, async {
        let _ = stopped.await;
    });
    Server {
        address,
        stop: Some(stop),
        task: tokio::spawn(serving),
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }
}

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

async fn all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn streaming_request() -> String {
    let body = r#"{"stream":true,"messages":[{"role":"user","content":"fox"}]}"#;
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let limits = Limits {
        header_wait_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = server(FakeGateway::new(hello), limits).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /health HTTP/1.1\r\nhost:").await.unwrap();
    all(slow).await;
    server.end().await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_before_and_between_requests() {
    let limits = Limits {
        idle_wait_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = server(FakeGateway::new(hello), limits).await;
    let silent = server.connect().await;
    assert_eq!(all(silent).await, "");
    let mut kept_alive = server.connect().await;
    kept_alive
        .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(all(kept_alive).await.starts_with("HTTP/1.1 200"));
    server.end().await;
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_with_its_reason() {
    let limits = Limits {
        body_grace: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = server(FakeGateway::new(hello), limits).await;
    let mut slow = server.connect().await;
    let request = streaming_request();
    slow.write_all(&request.as_bytes()[..request.len() - 1])
        .await
        .unwrap();
    let answer = all(slow).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("body_timeout"), "{answer}");
    server.end().await;
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_refused_as_everything_else_is() {
    let server = server(FakeGateway::new(hello), Limits::default()).await;
    let long = ["a: b\r\n".repeat(101), format!("a: {}\r\n", "b".repeat(64 << 10))];
    let long = long.map(|fields| (431, format!("GET /health HTTP/1.1\r\nhost: a\r\n{fields}\r\n")));
    let garbage = [
        "\u{1}\u{2}\r\n\r\n",
        "GET  HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\na b: c\r\n\r\n",
    ];
    let garbage = garbage.map(|head| (400, head.to_string()));
    for (status, request) in long.into_iter().chain(garbage) {
        for before in ["", "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut stream = server.connect().await;
            if !before.is_empty() {
                stream.write_all(before.as_bytes()).await.unwrap();
                let length = content_length(&head_of(&mut stream).await);
                stream.read_exact(&mut vec![0; length]).await.unwrap();
            }
            stream.write_all(request.as_bytes()).await.unwrap();
            let head = head_of(&mut stream).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
            assert!(head.contains("\r\nx-request-id: "), "{head}");
            assert!(head.contains("\r\nconnection: close"), "{head}");
            let mut body = vec![0; content_length(&head)];
            stream.read_exact(&mut body).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["type"], "invalid_request_error");
        }
    }
    server.end().await;
}

fn content_length(head: &str) -> usize {
    let (_, rest) = head.split_once("content-length: ").unwrap();
    rest.lines().next().unwrap().parse().unwrap()
}

/// A request without a key, of which the body comes later than its answer can.
fn keyless_head(length: usize, more: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{more}\r\n")
}

async fn head_of(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test]
async fn an_answer_that_came_before_the_body_leaves_the_connection_open() {
    let limits = Limits {
        unread_wait_max: Duration::from_secs(60),
        ..Limits::default()
    };
    let server = server(FakeGateway::new(hello), limits).await;
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    stream.write_all(keyless_head(2, "").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(b"{}").await.unwrap();
    let head = head_of(&mut stream).await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    assert!(!head.contains("connection: close"), "{head}");
    stream.write_all(HEALTH).await.unwrap();
    assert!(all(stream).await.contains("HTTP/1.1 200"));
    server.end().await;
}

#[tokio::test]
async fn a_body_that_is_not_read_has_its_close_announced_and_waited_for() {
    let limits = Limits {
        unread_wait_max: Duration::from_millis(1),
        linger_max: Duration::from_secs(60),
        ..Limits::default()
    };
    let long = 8 << 20;
    let upgrade = "connection: upgrade\r\nupgrade: h2c\r\n";
    for (length, more) in [
        (2, ""),
        (2, "expect: 100-continue\r\n"),
        (long, ""),
        (long, upgrade),
    ] {
        let server = server(FakeGateway::new(hello), limits.clone()).await;
        let mut stream = server.connect().await;
        stream
            .write_all(keyless_head(length, more).as_bytes())
            .await
            .unwrap();
        let head = head_of(&mut stream).await;
        assert!(head.starts_with("http/1.1 401"), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        // All of it is taken, though nobody reads it: no reset.
        stream.write_all(&vec![b' '; length]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(all(stream).await.contains("invalid_api_key"));
        server.end().await;
    }
}

#[tokio::test]
async fn what_follows_a_broken_body_or_head_does_not_cost_the_answer() {
    let server = server(FakeGateway::new(hello), Limits::default()).await;
    let chunked = format!(
        "POST /tokenize HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n"
    );
    for (start, status) in [(chunked.as_str(), "400"), ("no head\r\n", "400")] {
        let mut stream = server.connect().await;
        stream.write_all(start.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&[b' '; 1 << 20]).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = all(stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_peer_that_never_stops_sending_is_cut_off() {
    let limits = Limits {
        linger_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = server(FakeGateway::new(hello), limits).await;
    let mut stream = server.connect().await;
    stream
        .write_all(keyless_head(1 << 30, "").as_bytes())
        .await
        .unwrap();
    while stream.write_all(&[b' '; 4096]).await.is_ok() {}
    server.end().await;
}

fn seats(total: usize, per_loopback: usize) -> Limits {
    Limits {
        seats: SeatsMax {
            total,
            per_neighbourhood: total,
            per_loopback,
        },
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_full_house_of_idle_connections_makes_room_for_a_new_client() {
    let server = server(FakeGateway::new(hello), seats(2, 2)).await;
    let longest = server.connect().await;
    let mut served_before = server.connect().await;
    served_before
        .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    served_before.read_u8().await.unwrap();
    let mut new = server.connect().await;
    new.write_all(HEALTH).await.unwrap();
    assert!(all(new).await.starts_with("HTTP/1.1 200"));
    assert_eq!(all(longest).await, "");
    server.end().await;
}

#[tokio::test]
async fn a_full_house_of_requests_turns_a_new_client_away_at_once() {
    for (limits, status) in [(seats(1, 1), "429"), (seats(1, 2), "503")] {
        let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0)]));
        let server = server(gateway.clone(), limits).await;
        let mut served = server.connect().await;
        served.write_all(streaming_request().as_bytes()).await.unwrap();
        served.read_u8().await.unwrap();
        let answer = all(server.connect().await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        drop(served);
        while gateway.signals().dropped == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.end().await;
    }
}

#[tokio::test]
async fn the_head_of_a_stream_goes_out_before_the_first_token() {
    let gateway = FakeGateway::new(|_, _| Ok(Vec::new()));
    let server = server(
        gateway,
        Limits {
            drain_max: Duration::ZERO,
            ..Limits::default()
        },
    )
    .await;
    let mut stream = server.connect().await;
    stream.write_all(streaming_request().as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    server.end().await;
}

#[tokio::test]
async fn a_closed_connection_cancels_its_stream() {
    let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0)]));
    let server = server(gateway.clone(), Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(streaming_request().as_bytes()).await.unwrap();
    stream.read_u8().await.unwrap();
    drop(stream);
    while gateway.signals().dropped == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.end().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let gateway = FakeGateway::new(|request, model| {
        let mut events = vec![started(0, 0)];
        let many = "The fox ".repeat(20_000);
        events.extend(said(request, model, 0, 0, &many));
        Ok(events)
    });
    let limits = Limits {
        write_wait_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = server(gateway.clone(), limits).await;
    let mut stream = server.connect().await;
    stream.write_all(streaming_request().as_bytes()).await.unwrap();
    while gateway.signals().dropped == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(stream);
    server.end().await;
}

#[tokio::test]
async fn who_stands_at_the_door_when_the_node_ends_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(HEALTH).await.unwrap();
        clients.push(client);
    }
    // One that has not asked yet.
    let mut late = TcpStream::connect(address).await.unwrap();
    let limits = Limits::default();
    let routes = router(FakeGateway::new(hello), limits.clone());
    let serving = serve(listener, Transport::Plain, routes, limits, std::future::ready(()));
    let serving = tokio::spawn(serving);
    for client in clients {
        assert!(all(client).await.starts_with("HTTP/1.1 200"));
    }
    late.write_all(HEALTH).await.unwrap();
    assert!(all(late).await.starts_with("HTTP/1.1 200"));
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_the_node_lets_idle_connections_go_and_cuts_off_what_outlasts_the_drain() {
    let gateway = FakeGateway::new(|_, _| Ok(vec![started(0, 0)]));
    let limits = Limits {
        drain_max: Duration::from_millis(20),
        ..Limits::default()
    };
    let server = server(gateway.clone(), limits).await;
    let mut stream = server.connect().await;
    stream.write_all(streaming_request().as_bytes()).await.unwrap();
    stream.read_u8().await.unwrap();
    let _idle = server.connect().await;
    server.end().await;
    assert_eq!(gateway.signals().dropped, 1);
}

mod tls {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_rustls::TlsConnector;

    struct Files {
        folder: std::path::PathBuf,
        certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
    }

    impl Files {
        fn new(name: &str) -> Files {
            let folder = std::env::temp_dir().join(format!("cluster-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(folder.join("cert.pem"), certificate.cert.pem()).unwrap();
            std::fs::write(folder.join("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
            std::fs::write(folder.join("no.pem"), "no certificate and no key\n").unwrap();
            Files { folder, certificate }
        }

        fn transport(&self, certificate: &str, key: &str) -> Result<Transport, String> {
            let built = Transport::tls(&self.folder.join(certificate), &self.folder.join(key));
            built.map_err(|error| error.to_string())
        }

        fn connector(&self) -> TlsConnector {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.cert.der().clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    #[tokio::test]
    async fn https_is_served_to_a_client_that_checks_the_certificate() {
        let files = Files::new("serves");
        let transport = files.transport("cert.pem", "key.pem").unwrap();
        let server = server_over(transport, FakeGateway::new(hello), Limits::default()).await;
        let stream = server.connect().await;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = files.connector().connect(name, stream).await.unwrap();
        stream.write_all(HEALTH).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        server.end().await;
    }

    #[tokio::test]
    async fn a_body_that_is_not_read_costs_no_answer_over_https_either() {
        let files = Files::new("lingers");
        let transport = files.transport("cert.pem", "key.pem").unwrap();
        let server = server_over(transport, FakeGateway::new(hello), Limits::default()).await;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = server.connect().await;
        let mut stream = files.connector().connect(name, stream).await.unwrap();
        let length = 2 << 20;
        stream
            .write_all(keyless_head(length, "").as_bytes())
            .await
            .unwrap();
        assert!(head_of(&mut stream).await.contains("connection: close"));
        stream.write_all(&vec![b' '; length]).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("invalid_api_key"), "{rest}");
        drop(stream);
        server.end().await;
    }

    #[tokio::test]
    async fn plain_http_is_told_that_the_port_speaks_https() {
        let files = Files::new("plain");
        let transport = files.transport("cert.pem", "key.pem").unwrap();
        let server = server_over(transport, FakeGateway::new(hello), Limits::default()).await;
        let mut stream = server.connect().await;
        stream.write_all(HEALTH).await.unwrap();
        let text = all(stream).await;
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        for words in [
            "this port speaks HTTPS",
            "\r\nconnection: close",
            "\r\nx-request-id: ",
        ] {
            assert!(text.contains(words), "{text}");
        }
        server.end().await;
    }

    #[tokio::test]
    async fn a_handshake_that_stalls_is_cut_off() {
        let files = Files::new("stalls");
        let limits = Limits {
            header_wait_max: Duration::from_millis(20),
            ..Limits::default()
        };
        let transport = files.transport("cert.pem", "key.pem").unwrap();
        let server = server_over(transport, FakeGateway::new(hello), limits).await;
        let mut stalled = server.connect().await;
        stalled.write_all(&[22, 3, 1]).await.unwrap();
        let mut rest = Vec::new();
        let _cut = stalled.read_to_end(&mut rest).await;
        server.end().await;
    }

    #[test]
    fn files_that_are_no_certificate_or_key_are_named() {
        let files = Files::new("names");
        let other = Files::new("names-other");
        let refused = |certificate, key| files.transport(certificate, key).err().unwrap();
        assert!(refused("no.pem", "key.pem").contains("no certificate in it"));
        assert!(refused("cert.pem", "cert.pem").contains("no private key in it"));
        assert!(refused("missing.pem", "key.pem").contains("missing.pem: No such file"));
        let foreign = other.folder.join("key.pem");
        let error = Transport::tls(&files.folder.join("cert.pem"), &foreign)
            .err()
            .unwrap();
        assert!(error.to_string().contains("cannot be used together"), "{error}");
    }
}
