//! What the processes of a placement take, against what was planned for them.

use crate::case::CASES;
use crate::placed::Placed;
use serde_json::{Value, json};
use tests::{Fleet, Holds};

/// Of what the model needs in one process, for each of two nodes.
const PART_PERCENT: u64 = 60;
/// As many streams as run at once, so that both stages have as many logits to make as there is room for; together they fill the cache of
/// one context.
const STREAMS: u64 = 128;
const PROMPT_TOKENS: u64 = 48;
const OUTPUT_TOKENS: u64 = 16;

pub fn compare(model: &str) {
    let whole = needed_mebibytes(model);
    let part = format!("{}MiB", whole * PART_PERCENT / 100);
    println!("needs {whole} MiB in one process; {part} for each of two");
    let node = ["--threads", "1", "--memory", &part];
    let placed = Placed::new(model, &[node[..].into(); 2]);
    fill(&placed);
    // With nobody who writes beside them prompts have the longest steps.
    let [_, _, prompts] = &CASES;
    prompts.ask(&placed, 0);
    placed.tell();
    println!(
        "{:<6} {:>10} {:>10} {:>10} {:>8}",
        "node", "may take", "planned", "takes", "off"
    );
    for stage in placed.stages() {
        let planned = mebibytes(stage["memory_bytes"].as_f64().expect("a number"));
        let takes = mebibytes(taken_bytes(&placed, &stage) as f64);
        println!(
            "{:<6} {part:>10} {planned:>6.0} MiB {takes:>6.0} MiB {:>7.1}%",
            stage["node"],
            (takes / planned - 1.0) * 100.0
        );
    }
}

/// With the cache of one context, by the words with which a node refuses that has no room.
pub fn needed_mebibytes(model: &str) -> u64 {
    let fleet = Fleet::found_as(Holds::Nothing, &["--threads", "1", "--memory", "64MiB"]);
    let refused = fleet.command(0, &["deploy", &format!("measured={model}"), "--dry-run"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    let needs = words.split_once("needs ").map(|(_, rest)| rest);
    needs
        .and_then(|rest| rest.split_once(" MiB")?.0.parse().ok())
        .unwrap_or_else(|| panic!("a refusal that says what it needs, not {words}"))
}

/// Pages of the cache are taken as they are used, and so is what steps compute in: as many streams as run at once, with prompts
/// of which none has a block of another, until all pages were used.
fn fill(placed: &Placed) {
    let blocks = placed.placement()["blocks"].as_u64().expect("a number");
    let rounds = (blocks * 16).div_ceil(STREAMS * (PROMPT_TOKENS + OUTPUT_TOKENS)) + 1;
    let streams = (0..STREAMS).map(|stream| {
        let client = placed.fleet.client(0);
        std::thread::spawn(move || {
            for round in 0..rounds {
                let prompt = round * STREAMS + stream;
                let ids: Vec<u64> = (0..PROMPT_TOKENS)
                    .map(|place| 1000 + (prompt * 997 + place * 31) % 20_000)
                    .collect();
                let body = json!({
                    "model": "measured",
                    "prompt": ids,
                    "max_tokens": OUTPUT_TOKENS,
                    "temperature": 0,
                    "ignore_eos": true,
                });
                client.post("/v1/completions", &body).ok();
            }
        })
    });
    let streams: Vec<_> = streams.collect();
    for stream in streams {
        stream.join().expect("its answers came");
    }
}

/// Of the process of a stage, as on a host of its own: its part of the pages that it shares, and all of the program's, which on this host
/// several processes share.
fn taken_bytes(placed: &Placed, stage: &Value) -> u64 {
    let node = (0..2)
        .map(|place| placed.fleet.node(place))
        .find(|node| node.number() == stage["node"])
        .expect("its node");
    let processes = node.children();
    assert_eq!(processes.len(), 1, "one stage on each node");
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", processes[0])).expect("its memory");
    let mut is_program = false;
    let mut kibibytes = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Rss:"), Some(count)) if is_program => kibibytes += count.parse::<u64>().expect("a number"),
            (Some("Pss:"), Some(count)) if !is_program => {
                kibibytes += count.parse::<u64>().expect("a number")
            }
            (Some(range), Some(_)) if range.contains('-') => {
                is_program = line.ends_with("/cluster") || line.ends_with(".so") || line.contains(".so.");
            }
            _ => {}
        }
    }
    kibibytes << 10
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
