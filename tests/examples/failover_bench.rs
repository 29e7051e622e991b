//! How long the cluster agrees on nothing when its leader is killed.
//!
//! ```sh
//! cargo build --release && CLUSTER_BINARY=target/release/cluster \
//!   cargo run --release -p tests --example failover_bench -- 100 idle
//! CLUSTER_BINARY=target/release/cluster cargo run --release -p tests --example failover_bench -- 100 busy
//! ```
//!
//! Three nodes as three processes on this host. Each round kills the leader with SIGKILL, asks another node at once for a
//! change (`cluster tenant add`, a process of its own, which counts) and starts the killed node again. The clock runs from
//! SIGKILL on; that the killed process is waited for before the change is asked for counts too. `busy`: one node serves
//! the model to 32 streams throughout, so that all cores compute.

use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::{Fleet, Holds, until};

fn main() {
    let mut words = std::env::args().skip(1);
    let rounds: usize = words
        .next()
        .map_or(20, |word| word.parse().expect("a number of rounds"));
    let load = match words.next().as_deref() {
        Some("busy") => Load::Busy,
        Some("idle") | None => Load::Idle,
        Some(other) => panic!("`idle` or `busy`, not {other}"),
    };
    let mut fleet = Fleet::found_with(Holds::Nothing);
    fleet.join(Holds::Nothing);
    fleet.join(Holds::Nothing);
    fleet.until_voters(3);
    let mut waits = match load {
        Load::Idle => measure(&mut fleet, rounds),
        Load::Busy => {
            let worker = fleet.join(Holds::TheModel);
            let client = fleet.client(worker);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..32 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            client.complete(
                                json!({"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": true}),
                            );
                        }
                    });
                }
                let waits = measure(&mut fleet, rounds);
                stop.store(true, Ordering::Relaxed);
                waits
            })
        }
    };
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize].as_millis();
    println!(
        "{load:?}, {} kills: min {} ms, p50 {} ms, p90 {} ms, p99 {} ms, max {} ms",
        waits.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

#[derive(Clone, Copy, Debug)]
enum Load {
    Idle,
    Busy,
}

fn measure(fleet: &mut Fleet, rounds: usize) -> Vec<Duration> {
    (0..rounds)
        .map(|round| {
            let leader = fleet.leader();
            let killed = Instant::now();
            fleet.kill(leader);
            fleet.says((leader + 1) % 3, &["tenant", "add", &format!("round-{round}")]);
            let wait = killed.elapsed();
            fleet.start(leader);
            until("it has caught up", Duration::from_secs(30), || {
                fleet
                    .says(leader, &["tenant", "list"])
                    .contains(&format!("round-{round}"))
            });
            wait
        })
        .collect()
}
