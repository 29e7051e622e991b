//! Connections that want nothing: silent ones, and ones whose request never ends.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Slow senders add a byte this often.
const DRIP: Duration = Duration::from_secs(1);
/// Strangers do not act at the same moment, so each part of the crowd has its own within `DRIP`: a thousand bytes and ten
/// thousand looks at once would take 20 ms of a core, most of them of this process and not the server's.
const PARTS: u32 = 100;

/// How many of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrowdSize {
    pub idle: usize,
    pub slow_headers: usize,
}

/// Holds the connections, and opens a new one for each that the server ends; until it is dropped.
pub struct Crowd {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// Each of a part; after `PARTS` of them everything was seen open.
    turns: AtomicUsize,
    reopened: AtomicUsize,
}

impl Crowd {
    /// Returns when all of them stand.
    pub fn gather(address: SocketAddr, size: CrowdSize) -> Crowd {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || stand(address, size, &of_thread));
        while shared.turns.load(Ordering::Acquire) < PARTS as usize && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Crowd {
            shared,
            thread: Some(thread),
        }
    }

    /// How many connections the server has ended so far.
    pub fn reopened(&self) -> usize {
        self.shared.reopened.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is joined once");
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the crowd could not stand");
        }
    }
}

fn stand(address: SocketAddr, size: CrowdSize, shared: &Shared) {
    let mut idle: Vec<TcpStream> = (0..size.idle).map(|_| connect(address)).collect();
    let mut slow: Vec<TcpStream> = (0..size.slow_headers).map(|_| slow_head(address)).collect();
    for turn in (0..PARTS).cycle() {
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        let mut reopened = 0;
        for stream in part(&mut idle, turn).filter(|stream| has_ended(stream)) {
            *stream = connect(address);
            reopened += 1;
        }
        for stream in part(&mut slow, turn) {
            if has_ended(stream) || stream.write_all(b"a").is_err() {
                *stream = slow_head(address);
                reopened += 1;
            }
        }
        shared.reopened.fetch_add(reopened, Ordering::Relaxed);
        shared.turns.fetch_add(1, Ordering::Release);
        std::thread::sleep(DRIP / PARTS);
    }
}

fn part(streams: &mut [TcpStream], turn: u32) -> impl Iterator<Item = &mut TcpStream> {
    streams.iter_mut().skip(turn as usize).step_by(PARTS as usize)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server takes the connection");
    stream
        .set_nonblocking(true)
        .expect("a socket that may be asked without waiting");
    stream
}

fn slow_head(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    // A head that fails at once is found ended in the next round.
    let _ = stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: crowd\r\nx-slow: ");
    stream
}

/// A server that is done with a connection says so, or has said something.
fn has_ended(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0; 1]) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
