//! A model over two processes of one thread each, against the same in one process of two threads.
//!
//! ```sh
//! cargo build --release
//! cargo run --release -p shard --example random_llama -- SMOLLM2.gguf /tmp/1b.gguf q4_0
//! CLUSTER_BINARY=target/release/cluster cargo run --release -p tests --example pipeline_bench -- /tmp/1b.gguf [even|uneven|memory|recut]
//! ```
//!
//! `even`: also without a word. `uneven`: the second process may use AVX2 at most, and is so much slower. What two unequal nodes
//! could do at best is what each does alone, added up. `memory`: what two processes of six tenths of the model each take, against
//! what was planned.
//!
//! Of two processes: the `bubble`, the part of the stages' time in which they did nothing; what of it was lost `between` them; the
//! bubble as the simulator has it with stages `as planned`, and with stages that differ on average `as it was`; `of optimum`,
//! their pace over that of the same steps under the best cut, with its slowest stage never idle; the layers, and what each did of
//! the computing. What is in the bubble, but neither between stages nor simulated, is stages whose pace changed.

mod case;
mod memory;
mod pipelined;
mod placed;
mod recut;
mod simulated;

use case::{CASES, Case, FEWER_CASES, Measured};
use pipelined::HEADER;
use placed::Placed;

fn main() {
    let mut words = std::env::args().skip(1);
    let model = words.next().expect("a model file");
    match words.next().as_deref() {
        None | Some("even") => even(&model),
        Some("uneven") => uneven(&model),
        Some("memory") => memory::compare(&model),
        Some("recut") => recut::compare(&model),
        Some(other) => panic!("`even`, `uneven`, `memory`, `recut` or nothing, not {other}"),
    }
}

fn even(model: &str) {
    let half = half_of(model);
    let one = measured(&CASES, model, &[&["--threads", "2"]]);
    let node = ["--threads", "1", "--memory", &half];
    let two = measured(&CASES, model, &[&node, &node]);
    println!(
        "{:<12} {:>14} {:>14} {:>6}{HEADER}",
        "", "one process", "two processes", "ratio"
    );
    for (case, (one, two)) in CASES.iter().zip(one.iter().zip(&two)) {
        println!(
            "{:<12} {:>8.1} tok/s {:>8.1} tok/s {:>6.2} {}",
            case.name,
            one.tokens_per_sec,
            two.tokens_per_sec,
            two.tokens_per_sec / one.tokens_per_sec,
            pipelined(two)
        );
    }
}

fn uneven(model: &str) {
    let half = half_of(model);
    let (fast, slow) = (["--threads", "1"], ["--threads", "1", "--cpu-level", "avx2"]);
    let alone = [&fast[..], &slow[..]].map(|node| measured(&FEWER_CASES, model, &[node]));
    let with_memory = |node: &[&'static str]| [node, &["--memory"]].concat();
    let (mut fast, mut slow) = (with_memory(&fast), with_memory(&slow));
    fast.push(&half);
    slow.push(&half);
    let both = measured(&FEWER_CASES, model, &[&fast, &slow]);
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>12}{HEADER}",
        "", "fast", "slow", "both", "of their sum"
    );
    for (place, case) in FEWER_CASES.iter().enumerate() {
        let [fast, slow] = [0, 1].map(|node| alone[node][place].tokens_per_sec);
        let both = &both[place];
        println!(
            "{:<12} {fast:>8.1} {slow:>8.1} {:>8.1} {:>12.2} {}",
            case.name,
            both.tokens_per_sec,
            both.tokens_per_sec / (fast + slow),
            pipelined(both)
        );
    }
}

/// On nodes of these settings, which are there as long as it takes.
fn measured(cases: &[Case], model: &str, nodes: &[&[&str]]) -> Vec<Measured> {
    let placed = Placed::new(model, nodes);
    let measured = cases.iter().map(|case| case.run(&placed)).collect();
    placed.tell();
    measured
}

fn pipelined(measured: &Measured) -> String {
    let pipelined = measured.pipelined.as_ref().expect("there are two stages");
    pipelined.to_string()
}

/// What a node may take so that neither has room for all: of weights and the least cache.
fn half_of(model: &str) -> String {
    let bytes = std::fs::metadata(model).expect("a model file").len();
    format!("{}MiB", (bytes >> 20) * 110 / 100)
}
