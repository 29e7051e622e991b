//! A model over two processes of one thread each, against the same in one process of two threads.
//!
//! ```sh
//! cargo build --release
//! cargo run --release -p shard --example random_llama -- SMOLLM2.gguf /tmp/1b.gguf q4_0
//! CLUSTER_BINARY=target/release/cluster cargo run --release -p tests --example pipeline_bench -- /tmp/1b.gguf [even|uneven [GROUP]|memory|recut]
//! ```
//!
//! `even`: also without a word. `uneven`: the second process may use AVX2 at most, and is so much slower; with a `GROUP`, the
//! folder of a control group, it is as slow as that group is made to be. What two unequal nodes
//! could do at best is what each does alone, added up. Each case goes on for as long as its cut may be judged a bad one. `memory`: what two processes of six tenths of the model each take, against
//! what was planned.
//!
//! Of two processes: the `bubble`, the part of the stages' time in which they did nothing; what of it was lost `between` them; the
//! bubble as the simulator has it with stages `as planned`, and with stages that differ on average `as it was`; `of optimum`,
//! their pace over that of the same steps under the best cut, with its slowest stage never idle; the layers, and what each did of
//! the computing. What is in the bubble, but neither between stages nor simulated, is stages whose pace changed.

mod case;
mod memory;
mod pace;
mod pipelined;
mod placed;
mod recut;
mod settling;
mod simulated;

use case::{CASES, Case, FEWER_CASES, Measured};
use pace::Pace;
use pipelined::HEADER;
use placed::{Placed, Settings};
use settling::Settling;

fn main() {
    let mut words = std::env::args().skip(1);
    let model = words.next().expect("a model file");
    match words.next().as_deref() {
        None | Some("even") => even(&model),
        Some("uneven") => match words.next() {
            None => uneven(&model, &["--cpu-level", "avx2"], &Pace::Whole),
            Some(group) => uneven(&model, &[], &Pace::Within(group.into())),
        },
        Some("memory") => memory::compare(&model),
        Some("recut") => recut::compare(&model),
        Some(other) => panic!("`even`, `uneven`, `memory`, `recut` or nothing, not {other}"),
    }
}

fn even(model: &str) {
    let half = half_of(model);
    let one = measured(&CASES, model, &[["--threads", "2"][..].into()]);
    let node = ["--threads", "1", "--memory", &half];
    let two = measured(&CASES, model, &[node[..].into(); 2]);
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

/// What makes the second process slow is a setting of its own, or its pace.
fn uneven(model: &str, slow: &[&str], pace: &Pace) {
    // Too small for all of it, and no reason for a cut.
    let most = format!("{}MiB", memory::needed_mebibytes(model) * 95 / 100);
    let fast = ["--threads", "1"];
    let slow = [&fast, slow].concat();
    let alone = settings([&fast, &slow], pace).map(|node| measured(&FEWER_CASES, model, &[node]));
    let memory = ["--memory", &most];
    let (fast, slow) = ([&fast[..], &memory].concat(), [&slow[..], &memory].concat());
    let both = measured_when_settled(&FEWER_CASES, model, &settings([&fast, &slow], pace));
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

/// The second one of this pace.
fn settings<'a>([first, second]: [&'a [&'a str]; 2], pace: &'a Pace) -> [Settings<'a>; 2] {
    [first.into(), Settings { words: second, pace }]
}

/// On nodes of these settings, which are there as long as it takes.
fn measured(cases: &[Case], model: &str, nodes: &[Settings]) -> Vec<Measured> {
    let placed = Placed::new(model, nodes);
    let measured = cases.iter().map(|case| case.run(&placed)).collect();
    placed.tell();
    measured
}

/// Each case under the cut that it has brought about.
fn measured_when_settled(cases: &[Case], model: &str, nodes: &[Settings]) -> Vec<Measured> {
    let placed = Placed::new(model, nodes);
    let mut settling = Settling::new(&placed);
    let measure = |case: &Case| {
        settling.settle(case);
        case.run(&placed)
    };
    let measured = cases.iter().map(measure).collect();
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
