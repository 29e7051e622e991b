//! `cargo run --release -p node --example link_bench [-- --rounds N] [-- --threads N]`: how long a message and its echo
//! take between two processes: QUIC as nodes use it, QUIC with quinn's defaults, TCP with TLS, and shared memory.
//!
//! The program starts itself a second time as the echoing side. The ways take turns, in blocks of some rounds, so that
//! whatever else the machine does meets all of them.
//!
//! Between two hosts, or two network namespaces of one, which see one folder:
//!
//! ```sh
//! ip netns add a && ip netns add b
//! ip link add va netns a type veth peer name vb netns b
//! ip -n a addr add 10.9.0.1/24 dev va && ip -n a link set va up mtu 9000
//! ip -n b addr add 10.9.0.2/24 dev vb && ip -n b link set vb up mtu 9000
//! tc -n a qdisc add dev va root netem delay 100us loss 1%
//! tc -n b qdisc add dev vb root netem delay 100us loss 1%
//! ip netns exec b link_bench --listen 10.9.0.2:7700 --folder /dev/shm/bench &
//! ip netns exec a link_bench --connect 10.9.0.2:7700 --folder /dev/shm/bench
//! ```
//!
//! Where the kernel has no netem, `tests/machines/netem.sh` boots one that has; `tests/python/delayed_link.py` makes two
//! namespaces with such a link, at the speed of the host; and `nft` can lose packets on the way in (`numgen random mod 100 < 1 drop` in a chain of hook input, in both namespaces), where
//! `gso_max_segs 1` on both links lets it see single packets.
//!
//! The ports used are the one named and the two after it. `--folder` is where the listening side leaves the keys.

mod ends;
mod shm;
mod tcp;
mod tuned;
mod untuned;

use ends::{Echoing, End, Ends};
use shm::Back;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const SIZES: [usize; 6] = [64, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const BLOCK_ROUNDS: usize = 20;
const WAYS: usize = 5;

/// One way of sending bytes and getting them back.
trait Way {
    fn name(&self) -> &'static str;
    /// Sends as many bytes as `echo` is long, and fills it with what comes back.
    async fn round(&mut self, bytes: &bytes::Bytes, echo: &mut [u8]);
    /// What has been computed before the clock starts.
    fn prepare(&mut self, _bytes: &bytes::Bytes) {}
    /// Or does only a signal come back?
    fn echoes(&self) -> bool {
        true
    }
    /// Something about the connection that explains the figures.
    fn remark(&self) -> String {
        String::new()
    }
}

struct Options {
    rounds: usize,
    bytes_max: usize,
    threads: usize,
    mode: Mode,
    folder: PathBuf,
}

enum Mode {
    Both,
    Listen(SocketAddr),
    Connect(SocketAddr),
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(complaint) => {
            eprintln!(
                "{complaint}\n--rounds N, --bytes-max N, --threads N, --listen or --connect ADDRESS, --folder FOLDER"
            );
            return ExitCode::FAILURE;
        }
    };
    let runtime = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    }
    .expect("a runtime");
    match options.mode {
        Mode::Listen(address) => runtime.block_on(listen(address, &options)),
        Mode::Connect(address) => runtime.block_on(measure(address, &options)),
        Mode::Both => {
            let address = free_ports();
            let _ = std::fs::remove_dir_all(&options.folder);
            std::fs::create_dir_all(&options.folder).expect("a folder in shared memory");
            let mut other = start_other(address, &options);
            runtime.block_on(measure(address, &options));
            let _ = other.kill();
            let _ = other.wait();
            let _ = std::fs::remove_dir_all(&options.folder);
        }
    }
    ExitCode::SUCCESS
}

async fn listen(address: SocketAddr, options: &Options) {
    std::fs::create_dir_all(&options.folder).expect("the folder can be made");
    let ends = Ends::make(&options.folder);
    let _tuned = tuned::listen(ends.here(End::Listening), tuned_address(address));
    tokio::spawn(untuned::listen(
        ends.here(End::Listening),
        untuned_address(address),
    ));
    tokio::spawn(tcp::listen(ends.here(End::Listening), address));
    shm::listen(&options.folder);
    ends.publish(&options.folder);
    std::future::pending::<()>().await;
}

async fn measure(address: SocketAddr, options: &Options) {
    let ends = Ends::wait_for(&options.folder).await;
    let mut tuned = tuned::connect(ends.here(End::Connecting), tuned_address(address)).await;
    let mut untuned = untuned::connect(ends.here(End::Connecting), untuned_address(address)).await;
    let mut tcp = tcp::connect(ends.here(End::Connecting), address).await;
    let mut shared = match options.mode {
        Mode::Both => vec![
            shm::connect(&options.folder, Back::Echo),
            shm::connect(&options.folder, Back::Signal),
        ],
        Mode::Listen(_) | Mode::Connect(_) => Vec::new(),
    };
    println!("| bytes | way | p50 µs | p99 µs | p50 to TCP+TLS |");
    println!("|---:|---|---:|---:|---:|");
    for size in SIZES.into_iter().filter(|size| *size <= options.bytes_max) {
        let mut times = [const { Vec::new() }; WAYS];
        let rounds = options.rounds.div_ceil(BLOCK_ROUNDS);
        // The first blocks find the size of packets and warm up what there is to warm up.
        for block in 0..rounds + 3 {
            let warm = block >= 3;
            block_of(&mut tcp, size, warm, &mut times[0]).await;
            block_of(&mut tuned, size, warm, &mut times[1]).await;
            block_of(&mut untuned, size, warm, &mut times[2]).await;
            for (shared, times) in shared.iter_mut().zip(&mut times[3..]) {
                block_of(shared, size, warm, times).await;
            }
        }
        let mut names = vec![tcp.name(), tuned.name(), untuned.name()];
        names.extend(shared.iter().map(Way::name));
        report(size, &names, &mut times);
    }
    for remark in [tuned.remark(), untuned.remark()] {
        println!("\n{remark}");
    }
}

async fn block_of(way: &mut impl Way, size: usize, warm: bool, times: &mut Vec<Duration>) {
    let bytes = bytes::Bytes::from(vec![7; size]);
    let mut echo = vec![0; size];
    for _ in 0..BLOCK_ROUNDS {
        way.prepare(&bytes);
        let start = Instant::now();
        way.round(&bytes, &mut echo).await;
        let took = start.elapsed();
        let right = !way.echoes() || echo.iter().all(|byte| *byte == 7);
        assert!(right, "{}: another echo", way.name());
        echo.fill(0);
        if warm {
            times.push(took);
        }
    }
}

fn report(size: usize, names: &[&str], times: &mut [Vec<Duration>; WAYS]) {
    let micros =
        |times: &[Duration], part: usize| times[(times.len() - 1) * part / 100].as_nanos() as f64 / 1e3;
    times.iter_mut().for_each(|times| times.sort_unstable());
    let reference = micros(&times[0], 50);
    for (name, times) in names.iter().zip(times) {
        println!(
            "| {size} | {name} | {:.1} | {:.1} | {:.2} |",
            micros(times, 50),
            micros(times, 99),
            micros(times, 50) / reference
        );
    }
}

fn tuned_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 1)
}

fn untuned_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 2)
}

fn free_ports() -> SocketAddr {
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = probe.local_addr().expect("an address").port();
    SocketAddr::from((Ipv4Addr::LOCALHOST, port.min(65_000)))
}

fn start_other(address: SocketAddr, options: &Options) -> Child {
    let program = std::env::current_exe().expect("a path to this program");
    Command::new(program)
        .args(["--listen", &address.to_string()])
        .args(["--threads", &options.threads.to_string()])
        .arg("--folder")
        .arg(&options.folder)
        .stdin(Stdio::null())
        .spawn()
        .expect("this program again")
}

impl Options {
    fn parse() -> Result<Options, String> {
        let mut options = Options {
            rounds: 4000,
            bytes_max: usize::MAX,
            // As a stage has for its links.
            threads: 1,
            mode: Mode::Both,
            folder: PathBuf::from(format!("/dev/shm/link_bench-{}", std::process::id())),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} needs a value"))?;
            let bad = |_| format!("{word} {value} is not understood");
            match word.as_str() {
                "--rounds" => options.rounds = value.parse().map_err(bad)?,
                "--bytes-max" => options.bytes_max = value.parse().map_err(bad)?,
                "--threads" => options.threads = value.parse().map_err(bad)?,
                "--listen" => options.mode = Mode::Listen(address(&value)?),
                "--connect" => options.mode = Mode::Connect(address(&value)?),
                "--folder" => options.folder = PathBuf::from(value),
                _ => return Err(format!("{word} is not known")),
            }
        }
        Ok(options)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text} is no ip:port"))
}

pub fn echoing() -> std::sync::Arc<Echoing> {
    std::sync::Arc::new(Echoing)
}
