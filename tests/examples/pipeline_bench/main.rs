//! A model over two processes of one thread each, against the same in one process of two threads.
//!
//! ```sh
//! cargo build --release
//! cargo run --release -p shard --example random_llama -- SMOLLM2.gguf /tmp/1b.gguf q4_0
//! CLUSTER_BINARY=target/release/cluster cargo run --release -p tests --example pipeline_bench -- /tmp/1b.gguf [uneven|memory]
//! ```
//!
//! `uneven`: the second process may use AVX2 at most, and is so much slower. What two unequal nodes could do at best is what
//! each does alone, added up. `memory`: what two processes of six tenths of the model each take, against what was planned.

mod case;
mod memory;
mod placed;
mod simulated;

use case::{CASES, Measured};
use placed::Placed;

fn main() {
    let mut words = std::env::args().skip(1);
    let model = words.next().expect("a model file");
    match words.next().as_deref() {
        None => even(&model),
        Some("uneven") => uneven(&model),
        Some("memory") => memory::compare(&model),
        Some(other) => panic!("`uneven`, `memory` or nothing, not {other}"),
    }
}

fn even(model: &str) {
    let half = half_of(model);
    let one = measured(&Placed::new(model, &[&["--threads", "2"]]));
    let node = ["--threads", "1", "--memory", &half];
    let placed = Placed::new(model, &[&node, &node]);
    let two = measured(&placed);
    println!(
        "{:<12} {:>14} {:>14} {:>6} {:>8} {:>10}",
        "", "one process", "two processes", "ratio", "bubble", "simulated"
    );
    for (case, (one, two)) in CASES.iter().zip(one.iter().zip(&two)) {
        println!(
            "{:<12} {:>8.1} tok/s {:>8.1} tok/s {:>6.2} {:>7.1}% {:>9.1}%",
            case.name,
            one.tokens_per_sec,
            two.tokens_per_sec,
            two.tokens_per_sec / one.tokens_per_sec,
            two.bubble * 100.0,
            simulated::bubble(case, &placed) * 100.0
        );
    }
}

fn uneven(model: &str) {
    let half = half_of(model);
    let (fast, slow) = (["--threads", "1"], ["--threads", "1", "--cpu-level", "avx2"]);
    let alone = [&fast[..], &slow[..]].map(|node| measured(&Placed::new(model, &[node])));
    let with_memory = |node: &[&'static str]| [node, &["--memory"]].concat();
    let (mut fast, mut slow) = (with_memory(&fast), with_memory(&slow));
    fast.push(&half);
    slow.push(&half);
    let both = measured(&Placed::new(model, &[&fast, &slow]));
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>12} {:>8}",
        "", "fast", "slow", "both", "of the best", "bubble"
    );
    for (place, case) in CASES.iter().enumerate() {
        let [fast, slow] = [0, 1].map(|node| alone[node][place].tokens_per_sec);
        let both = &both[place];
        println!(
            "{:<12} {fast:>8.1} {slow:>8.1} {:>8.1} {:>12.2} {:>7.1}%",
            case.name,
            both.tokens_per_sec,
            both.tokens_per_sec / (fast + slow),
            both.bubble * 100.0
        );
    }
}

fn measured(placed: &Placed) -> Vec<Measured> {
    CASES.iter().map(|case| case.run(placed)).collect()
}

/// What a node may take so that neither has room for all: of weights and the least cache.
fn half_of(model: &str) -> String {
    let bytes = std::fs::metadata(model).expect("a model file").len();
    format!("{}MiB", (bytes >> 20) * 110 / 100)
}
