//! A model over two processes of one thread each, against the same in one process of two threads.
//!
//! ```sh
//! cargo build --release
//! cargo run --release -p shard --example random_llama -- SMOLLM2.gguf /tmp/1b.gguf q4_0
//! CLUSTER_BINARY=target/release/cluster cargo run --release -p tests --example pipeline_bench -- /tmp/1b.gguf [uneven]
//! ```
//!
//! `uneven`: the second process may use AVX2 at most, and is so much slower. What two unequal nodes could do at best is what
//! each does alone, added up.

use serde_json::Value;
use tests::{Fleet, Holds, run_to_end};

/// What a case is measured by.
#[derive(Clone, Copy)]
enum Figure {
    Output,
    /// Prompt tokens over the time of the whole run, of which the one output token takes next to nothing.
    Prompts,
}

struct Case {
    name: &'static str,
    streams: u32,
    requests: u32,
    prompt_tokens: u32,
    output_tokens: u32,
    figure: Figure,
}

const CASES: [Case; 3] = [
    Case {
        name: "16 streams",
        streams: 16,
        requests: 32,
        prompt_tokens: 32,
        output_tokens: 64,
        figure: Figure::Output,
    },
    Case {
        name: "128 streams",
        streams: 128,
        requests: 128,
        prompt_tokens: 16,
        output_tokens: 48,
        figure: Figure::Output,
    },
    Case {
        name: "prefill",
        streams: 2,
        requests: 4,
        prompt_tokens: 1024,
        output_tokens: 1,
        figure: Figure::Prompts,
    },
];

fn main() {
    let mut words = std::env::args().skip(1);
    let model = words.next().expect("a model file");
    match words.next().as_deref() {
        None => even(&model),
        Some("uneven") => uneven(&model),
        Some(other) => panic!("`uneven` or nothing, not {other}"),
    }
}

fn even(model: &str) {
    let half = half_of(model);
    let one = measured(model, &[&["--threads", "2"]]);
    let node = ["--threads", "1", "--memory", &half];
    let two = measured(model, &[&node, &node]);
    println!(
        "{:<14} {:>14} {:>14} {:>8} {:>8}",
        "", "one process", "two processes", "ratio", "idle"
    );
    for (case, (one, two)) in CASES.iter().zip(one.iter().zip(&two)) {
        println!(
            "{:<14} {:>8.1} tok/s {:>8.1} tok/s {:>8.2} {:>7.1}%",
            case.name,
            one.tokens_per_sec,
            two.tokens_per_sec,
            two.tokens_per_sec / one.tokens_per_sec,
            two.bubble * 100.0
        );
    }
}

fn uneven(model: &str) {
    let half = half_of(model);
    let (fast, slow) = (["--threads", "1"], ["--threads", "1", "--cpu-level", "avx2"]);
    let alone = [measured(model, &[&fast]), measured(model, &[&slow])];
    let with_memory = |node: &[&'static str]| [node, &["--memory"]].concat();
    let (mut fast, mut slow) = (with_memory(&fast), with_memory(&slow));
    fast.push(&half);
    slow.push(&half);
    let both = measured(model, &[&fast, &slow]);
    println!(
        "{:<14} {:>10} {:>10} {:>10} {:>14}",
        "", "fast", "slow", "both", "of the best"
    );
    for (place, case) in CASES.iter().enumerate() {
        let [fast, slow] = [0, 1].map(|node| alone[node][place].tokens_per_sec);
        let both = both[place].tokens_per_sec;
        println!(
            "{:<14} {fast:>10.1} {slow:>10.1} {both:>10.1} {:>14.2}",
            case.name,
            both / (fast + slow)
        );
    }
}

/// What a node may take so that neither has room for all: of weights and the least cache.
fn half_of(model: &str) -> String {
    let bytes = std::fs::metadata(model).expect("a model file").len();
    format!("{}MiB", (bytes >> 20) * 110 / 100)
}

struct Measured {
    tokens_per_sec: f64,
    /// The part of the stages' time without work, so far.
    bubble: f64,
}

fn measured(model: &str, nodes: &[&[&str]]) -> Vec<Measured> {
    let mut fleet = Fleet::found_as(Holds::Nothing, nodes[0]);
    for node in &nodes[1..] {
        fleet.join_as(Holds::Nothing, node);
    }
    fleet.says(0, &["deploy", &format!("measured={model}")]);
    println!("{}", fleet.says(0, &["status"]));
    let place = fleet.json(0, &["status"])["deployments"][0]["placed"][0].clone();
    let stages = place["stages"].as_array().map_or(0, Vec::len);
    assert_eq!(stages, nodes.len(), "{place}");
    CASES.iter().map(|case| run(&fleet, nodes.len(), case)).collect()
}

fn run(fleet: &Fleet, nodes: usize, case: &Case) -> Measured {
    let number = |value: u32| value.to_string();
    let url = format!("http://{}", fleet.node(0).address());
    let output = run_to_end(&[
        "bench",
        "serve",
        "--json",
        "--url",
        &url,
        "--key",
        fleet.key(),
        "--model",
        "measured",
        "--concurrency",
        &number(case.streams),
        "--requests",
        &number(case.requests),
        "--prompt-tokens",
        &number(case.prompt_tokens),
        "--output-tokens",
        &number(case.output_tokens),
    ]);
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    assert_eq!(summary["failed"], 0, "{summary}");
    let figure = |name: &str| summary[name].as_f64().expect("a number");
    let bubble = (0..nodes).find_map(|place| {
        let page = fleet.client(place).get("/metrics").text;
        let line = page
            .lines()
            .find(|line| line.starts_with("cluster_pipeline_bubble_ratio{"))?;
        line.rsplit(' ').next()?.parse().ok()
    });
    Measured {
        tokens_per_sec: match case.figure {
            Figure::Output => figure("output_tokens_per_sec"),
            Figure::Prompts => figure("prompt_tokens") / figure("wall_secs"),
        },
        bubble: bubble.unwrap_or(0.0),
    }
}
