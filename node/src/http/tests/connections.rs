//! The accept loop, over real sockets.

use super::fake::{FakeGateway, KEY, hello, said, started};
use crate::http::{Limits, router, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn server(gateway: Arc<FakeGateway>, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(listener, router(gateway, limits.clone()), limits, async {
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
    let idle = server.connect().await;
    assert_eq!(all(idle).await, "");
    server.end().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let server = server(FakeGateway::new(hello), limits).await;
    let first = server.connect().await;
    let mut second = server.connect().await;
    second.write_all(HEALTH).await.unwrap();
    let waiting = tokio::spawn(all(second));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200"));
    server.end().await;
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
