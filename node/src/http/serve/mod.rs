//! The accept loop. Our own, because `axum::serve` sets no timeouts and no bounds.
//!
//! A connection has a seat (`seats`) from its arrival to its end, and a pace (`pace`) that ends it when its peer is too
//! slow. Until its first byte it costs a socket and a small task, no buffers.

mod pace;
mod remainder;
mod seats;
mod tls;
mod unheard;
mod watched;

pub use seats::SeatsMax;
pub use tls::Transport;

use super::held_body::HeldBody;
use super::limits::Limits;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use metrics::{counter, describe_counter};
use pace::TooSlow;
use remainder::{Remainder, linger};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_tcp_user_timeout};
use seats::{Crowd, SeatId, Seating, Seats};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tls::{Greeting, greet};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use watched::{Paced, Watch, Watched, lock};

const CUT: &str = "cluster_http_connections_cut_total";
const REFUSED: &str = "cluster_http_connections_refused_total";
/// After a failed accept (no file descriptors left, most likely) there is no use in trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What the kernel keeps of an answer that is not read: enough for any line, and it bounds what slow readers cost.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Who has connected and not asked yet when the node ends has so long to ask, and hears that it ends. To close at once would look
/// to him like an answer that was lost.
const LATECOMER_MAX: Duration = Duration::from_millis(300);
const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// As a reason for which a connection is cut: another one came for which there was no seat.
const FOR_ROOM: &str = "room";

/// Shows what is counted of connections, as zeros, before there is any.
pub fn describe() {
    describe_counter!(CUT, "Connections that were cut off, by why.");
    describe_counter!(
        REFUSED,
        "Connections that were turned away since there were too many, by where."
    );
    for reason in [TooSlow::Idle, TooSlow::Head, TooSlow::Reading].map(TooSlow::name) {
        counter!(CUT, "reason" => reason).increment(0);
    }
    counter!(CUT, "reason" => FOR_ROOM).increment(0);
    for crowd in [Crowd::Everywhere, Crowd::Neighbourhood].map(Crowd::name) {
        counter!(REFUSED, "crowd" => crowd).increment(0);
    }
}

/// Serves until `shutdown` completes; then takes no new connections, lets running requests finish for
/// `limits.drain_max`, and cuts off the rest. Only a fault of the listener itself is an error.
pub async fn serve(
    listener: TcpListener,
    transport: Transport,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let (ending, ends) = watch::channel(());
    let drain_max = limits.drain_max;
    let mut hall = Hall::new(Server {
        transport,
        router,
        ends,
        seats: Arc::new(Mutex::new(Seats::new(limits.seats))),
        limits: Arc::new(limits),
    });
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = hall.connections.join_next() => hall.ended(ended),
            accepted = accept(&listener) => {
                let (stream, address) = accepted?;
                hall.receive(stream, address);
            }
        }
    }
    for (stream, address) in at_the_door(listener)? {
        hall.receive(stream, address);
    }
    // Every connection hears of it and closes after the request it is on, or the one that it has come for.
    drop(ending);
    hall.drain(drain_max).await;
    Ok(())
}

/// Those who have connected and were not let in yet. They must be, before the listener goes: the kernel would reset them.
fn at_the_door(listener: TcpListener) -> io::Result<Vec<(TcpStream, IpAddr)>> {
    // The runtime may not have heard of all of them; the socket itself has.
    let listener = listener.into_std()?;
    let mut waiting = Vec::new();
    while let Ok((stream, peer)) = listener.accept() {
        stream.set_nonblocking(true)?;
        waiting.push((TcpStream::from_std(stream)?, peer.ip()));
    }
    Ok(waiting)
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, IpAddr)> {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Ok((stream, peer.ip())),
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Errors of one connection or of a moment, not of the listener.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::NOBUFS
                | Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::AGAIN
                | Errno::PERM
                | Errno::PROTO
        )
    )
}

/// All connections there are.
struct Hall {
    server: Server,
    connections: JoinSet<SeatId>,
    /// Of those that run; for the one that has to make room.
    running: HashMap<SeatId, AbortHandle>,
}

/// What every connection needs.
#[derive(Clone)]
struct Server {
    transport: Transport,
    router: Router,
    limits: Arc<Limits>,
    seats: Arc<Mutex<Seats>>,
    ends: watch::Receiver<()>,
}

impl Hall {
    fn new(server: Server) -> Hall {
        Hall {
            server,
            connections: JoinSet::new(),
            running: HashMap::new(),
        }
    }

    fn receive(&mut self, stream: TcpStream, address: IpAddr) {
        let seating = lock(&self.server.seats).arrive(address);
        match seating {
            Seating::Taken(seat) => self.seat(stream, seat),
            Seating::TakenInsteadOf { seat, gone } => {
                counter!(CUT, "reason" => FOR_ROOM).increment(1);
                if let Some(connection) = self.running.remove(&gone) {
                    connection.abort();
                }
                self.seat(stream, seat);
            }
            Seating::Refused(crowd) => self.turn_away(&stream, crowd),
        }
    }

    fn seat(&mut self, stream: TcpStream, seat: SeatId) {
        let connection = self.connections.spawn(self.server.clone().serve(stream, seat));
        self.running.insert(seat, connection);
    }

    /// Costs no task and waits for nothing: the answer is written once, to a client that may not even listen.
    fn turn_away(&self, stream: &TcpStream, crowd: Crowd) {
        let reason = crowd.name();
        counter!(REFUSED, "crowd" => reason).increment(1);
        match self.server.transport {
            Transport::Plain => {
                // What the client has sent already would turn the close into a reset, which overtakes the answer.
                let _ = stream.try_read(&mut [0; 4096]);
                let _ = stream.try_write(&unheard::last_words(&unheard::crowded(crowd)));
            }
            Transport::Tls(_) => {}
        }
    }

    fn ended(&mut self, ended: Result<SeatId, JoinError>) {
        match ended {
            Ok(seat) => drop(self.running.remove(&seat)),
            // It made room, and was forgotten then.
            Err(error) if error.is_cancelled() => {}
            Err(_fault_of_ours) => self.running.retain(|_, connection| !connection.is_finished()),
        }
    }

    async fn drain(mut self, drain_max: Duration) {
        let connections = &mut self.connections;
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(drain_max, drained).await.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "requests cut off at the end of the drain"
            );
        }
        self.connections.shutdown().await;
    }
}

/// Gives the seat back however its connection ends.
struct Seated {
    seat: SeatId,
    seats: Arc<Mutex<Seats>>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        lock(&self.seats).leave(self.seat);
    }
}

impl Server {
    async fn serve(self, stream: TcpStream, seat: SeatId) -> SeatId {
        let _seated = Seated {
            seat,
            seats: self.seats.clone(),
        };
        let mut ends = self.ends.clone();
        let last_call = async {
            let _ending = ends.changed().await;
            sleep(LATECOMER_MAX).await;
        };
        let spoke = tokio::select! {
            spoke = timeout(self.limits.idle_wait_max, stream.readable()) => matches!(spoke, Ok(Ok(()))),
            () = last_call => false,
        };
        if spoke {
            // Boxed, so that a silent connection does not pay for what a speaking one needs.
            Box::pin(self.converse(stream, seat)).await;
        }
        seat
    }

    async fn converse(self, stream: TcpStream, seat: SeatId) {
        set_options(&stream, &self.limits);
        match self.transport.clone() {
            Transport::Plain => self.serve_http(stream, seat).await,
            Transport::Tls(acceptor) => {
                match timeout(self.limits.header_wait_max, greet(&acceptor, stream)).await {
                    Ok(Ok(Greeting::Tls(stream))) => self.serve_http(stream, seat).await,
                    Ok(Ok(Greeting::PlainHttp(stream))) => self.end_plain_http(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            }
        }
    }

    async fn end_plain_http(self, mut stream: TcpStream) {
        let answer = unheard::last_words(&unheard::plain_http());
        // A client that does not take it has no use for it.
        let _ = timeout(self.limits.write_wait_max, stream.write_all(&answer)).await;
        linger(stream, &self.limits).await;
    }

    async fn serve_http(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, seat: SeatId) {
        let watch = Watch::new(self.limits.clone(), self.seats.clone(), seat);
        let stream = Watched::new(stream, watch.clone());
        let served = (self.router.clone(), self.limits.clone(), watch.clone());
        let service = service_fn(move |request| {
            let (router, limits, watch) = served.clone();
            answer(router, limits, watch, request)
        });
        let connection = http1::Builder::new()
            // The pace knows better: hyper has one timeout for a silent peer and for a head that drips.
            .header_read_timeout(None)
            .max_headers(self.limits.headers_max)
            .max_header_size(self.limits.header_bytes_max)
            .max_buf_size(self.limits.header_bytes_max)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = Paced::new(connection, watch.clone());
        let last_call = async {
            let _ending = self.ends.changed().await;
            let _ = timeout(LATECOMER_MAX, watch.first_request()).await;
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = last_call => {
                connection.connection().graceful_shutdown();
                (&mut connection).await
            }
        };
        let stream = connection.into_connection().into_parts().io;
        match ended {
            Ok(Ok(())) => match watch.remainder() {
                Remainder::Read => {}
                Remainder::Unread => linger(stream.into_inner(), &self.limits).await,
            },
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection ended early");
                let mut stream = stream.into_inner();
                if stream.answered_unasked() {
                    let answer = unheard::last_words(&unheard::bad_head(&error));
                    // A client that does not take it has no use for it.
                    let _ = timeout(self.limits.write_wait_max, stream.stream.write_all(&answer)).await;
                }
                linger(stream, &self.limits).await;
            }
            Err(why) => {
                counter!(CUT, "reason" => why.name()).increment(1);
                tracing::debug!(?why, "a connection was cut off");
            }
        }
    }
}

async fn answer(
    router: Router,
    limits: Arc<Limits>,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Body>, SeatLost> {
    let serving = watch.begin().ok_or(SeatLost)?;
    let (head, body) = request.into_parts();
    // Reading on would tell a client to send what it holds back until it is asked for.
    let waits = head.headers.contains_key(header::EXPECT);
    let (body, lender) = remainder::lend(body);
    let mut response = router
        .oneshot(Request::from_parts(head, Body::new(body)))
        .await
        .unwrap_or_else(|never| match never {});
    let remainder = match waits {
        true => lender.look(),
        false => lender.read_on(&limits).await,
    };
    watch.leave(remainder);
    match remainder {
        Remainder::Read => {}
        Remainder::Unread => drop(response.headers_mut().insert(header::CONNECTION, CLOSE)),
    }
    Ok(response.map(|body| HeldBody::wrap(body, serving)))
}

/// The connection had to make room for another one just when its request came.
#[derive(thiserror::Error, Debug)]
#[error("the connection had to make room")]
struct SeatLost;

/// Without these a stream would work, only slower or longer, so a failure is no reason to turn a client away.
fn set_options(stream: &TcpStream, limits: &Limits) {
    // Tokens are small writes that must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    if let Err(error) = set_socket_send_buffer_size(stream, SEND_BUFFER_BYTES) {
        tracing::debug!(%error, "SO_SNDBUF could not be set");
    }
    let wait_millis = u32::try_from(limits.write_wait_max.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, wait_millis) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT could not be set");
    }
}
