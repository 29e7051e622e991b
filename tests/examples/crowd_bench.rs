//! What a crowd of idle and slow connections costs others: time to the first token with and without it, in turns.
//!
//! ```sh
//! cargo build --release && ulimit -n 20000
//! CLUSTER_BINARY=target/release/cluster cargo run --release -p tests --example crowd_bench
//! ```

use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tests::{Client, Crowd, CrowdSize, Node};

const ROUNDS: usize = 30;
const REQUESTS_A_ROUND: usize = 100;
/// What a crowd that leaves still costs is neither of the two.
const LEAVING: Duration = Duration::from_secs(2);
const CROWD: CrowdSize = CrowdSize {
    idle: 10_000,
    slow_headers: 1_000,
};

fn main() {
    let node = Node::start();
    let client = node.client();
    let address: SocketAddr = node.address().parse().expect("an address");
    measure(&client);
    let (mut alone, mut crowded, mut reopened) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        alone.extend(measure(&client));
        let crowd = Crowd::gather(address, CROWD);
        crowded.extend(measure(&client));
        reopened += crowd.reopened();
        drop(crowd);
        std::thread::sleep(LEAVING);
        eprintln!("round {} of {ROUNDS}", round + 1);
    }
    println!("{CROWD:?}, {reopened} of them ended by the node and opened again");
    println!("time to first token of {} requests each, ms", alone.len());
    println!("{:>4} {:>9} {:>9} {:>6}", "", "alone", "crowded", "ratio");
    for percent in [50, 95, 99] {
        let [alone, crowded] = [&mut alone, &mut crowded].map(|times| percentile(times, percent));
        let ratio = crowded.as_secs_f64() / alone.as_secs_f64();
        println!(
            "p{percent:<3} {:>9.2} {:>9.2} {ratio:>6.2}",
            millis(alone),
            millis(crowded)
        );
    }
}

fn measure(client: &Client) -> Vec<Duration> {
    (0..REQUESTS_A_ROUND)
        .map(|_| time_to_first_token(client))
        .collect()
}

fn time_to_first_token(client: &Client) -> Duration {
    let started = Instant::now();
    let mut stream = client.stream(
        "/v1/completions",
        json!({"prompt": "The capital of France is", "max_tokens": 2, "ignore_eos": true}),
    );
    stream.next().expect("a first token");
    let taken = started.elapsed();
    stream.for_each(drop);
    taken
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent).div_ceil(100) - 1]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
