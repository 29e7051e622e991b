//! How long a model takes from one node to one more, and to three more at once, when every uplink is slow.
//!
//! ```sh
//! cargo build --release && sudo CLUSTER_BINARY=target/release/cluster \
//!   cargo run --release -p tests --example weights_bench -- 100 3
//! ```
//!
//! Each node is a process in a network namespace of its own, behind a bridge; what it sends is held to so many Mbit/s (here
//! 100) by a token bucket (`tc tbf`), and each case is measured so many times (3). Needs root, `ip` and `tc`. Measured is the time
//! from the first node that says that it is fetching to the last one that says that it has the file.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tests::{MODEL, TempFolder, cluster_binary, model_path, store};

/// Begins the names of all that is made in the system.
const PREFIX: &str = "clwb";
const BRIDGE: &str = "clwb-bridge";
const NODES: usize = 4;
/// Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let mut words = std::env::args().skip(1);
    let mut number = |default: u64| {
        let word = words.next();
        word.map_or(default, |word| word.parse().expect("a number"))
    };
    let (rate_mbit, rounds) = (number(100), number(3));
    let model_bytes = std::fs::metadata(model_path()).expect("the model").len();
    let floor = model_bytes as f64 * 8.0 / (rate_mbit as f64 * 1e6);
    println!("{rate_mbit} Mbit/s up from each node; the file alone takes {floor:.1} s");
    let _network = Network::make(rate_mbit);
    let mut medians = Vec::new();
    for joiners in [1, NODES - 1] {
        let mut secs: Vec<f64> = (0..rounds).map(|_| measure(joiners).as_secs_f64()).collect();
        secs.sort_by(f64::total_cmp);
        println!("1 -> {}: {secs:.1?} s", joiners + 1);
        medians.push(secs[secs.len() / 2]);
    }
    println!("ratio of the medians: {:.2}", medians[1] / medians[0]);
}

/// Namespaces, a bridge and cables between them; gone on drop.
struct Network;

impl Network {
    fn make(rate_mbit: u64) -> Network {
        Network::remove();
        let network = Network;
        run("ip", &format!("link add {BRIDGE} type bridge"));
        run("ip", &format!("link set {BRIDGE} up"));
        for node in 0..NODES {
            let (space, cable) = (space(node), format!("{PREFIX}-{node}"));
            run("ip", &format!("netns add {space}"));
            run(
                "ip",
                &format!("link add {cable} type veth peer name eth0 netns {space}"),
            );
            run("ip", &format!("link set {cable} master {BRIDGE} up"));
            run("ip", &format!("-n {space} link set lo up"));
            run(
                "ip",
                &format!("-n {space} address add {}/24 dev eth0", host(node)),
            );
            run("ip", &format!("-n {space} link set eth0 up"));
            let shape = format!("rate {rate_mbit}mbit burst 256kb latency 50ms");
            run("tc", &format!("-n {space} qdisc add dev eth0 root tbf {shape}"));
        }
        network
    }

    fn remove() {
        for node in 0..NODES {
            try_run("ip", &format!("netns del {}", space(node)));
        }
        try_run("ip", &format!("link del {BRIDGE}"));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        Network::remove();
    }
}

fn space(node: usize) -> String {
    format!("{PREFIX}-space-{node}")
}

fn host(node: usize) -> String {
    format!("10.213.77.{}", node + 1)
}

fn try_run(program: &str, words: &str) -> bool {
    let mut command = Command::new(program);
    command.args(words.split(' ')).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(program: &str, words: &str) {
    assert!(try_run(program, words), "{program} {words}: are you root?");
}

/// A node in its namespace; killed on drop.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What nodes say on stderr, as it comes.
type Lines = (Sender<(Instant, String)>, Receiver<(Instant, String)>);

fn measure(joiners: usize) -> Duration {
    let folder = TempFolder::new();
    let data = |node: usize| folder.path().join(format!("node-{node}"));
    let (said, lines): Lines = channel();
    let mut founder = up(0, data(0), &["--model", MODEL], store());
    ready(&mut founder);
    let mut nodes = vec![founder];
    let tokens: Vec<String> = (0..joiners).map(|_| token(data(0))).collect();
    for (node, token) in (1..).zip(&tokens) {
        let own_store = data(node).with_extension("store");
        let mut joined = up(node, data(node), &["--join", token], own_store);
        let (stderr, said) = (joined.0.stderr.take().expect("a pipe"), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = said.send((Instant::now(), line));
            }
        });
        nodes.push(joined);
    }
    let (mut began, mut ended, mut done) = (None, None, 0);
    while done < joiners {
        let (at, line) = lines.recv_timeout(PATIENCE).expect("nodes that say something");
        if line.starts_with("fetching ") {
            began.get_or_insert(at);
        }
        if line.contains("from other nodes in") {
            ended = Some(at);
            done += 1;
        }
    }
    ended.expect("the last one") - began.expect("the first one")
}

fn up(node: usize, data: PathBuf, arguments: &[&str], store: PathBuf) -> Up {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &space(node)])
        .arg(cluster_binary());
    command.args(["up", "--json", "--http", &format!("{}:8000", host(node))]);
    command.args(["--quic", &format!("{}:8001", host(node))]);
    command.arg("--data-dir").arg(data).arg("--store").arg(store);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Up(command.spawn().expect("ip runs"))
}

fn ready(node: &mut Up) {
    let mut line = String::new();
    let stdout = node.0.stdout.as_mut().expect("a pipe");
    let read = BufReader::new(stdout).read_line(&mut line);
    let told: Option<Value> = serde_json::from_str(&line).ok();
    assert!(read.is_ok() && told.is_some(), "the first node did not come up");
    // What it says from here on is nobody's business, and must not fill a pipe.
    let stderr = node.0.stderr.take().expect("a pipe");
    std::thread::spawn(move || {
        BufReader::new(stderr)
            .lines()
            .map_while(Result::ok)
            .for_each(drop)
    });
}

fn token(data: PathBuf) -> String {
    let mut command = Command::new(cluster_binary());
    command.args(["token", "create", "--data-dir"]).arg(data);
    let output = command.output().expect("the cluster binary runs");
    assert!(output.status.success(), "no token");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
