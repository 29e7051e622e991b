//! What comes of a node that was measured in a bad moment.

use crate::case::RECUT_CASE;
use crate::placed::Placed;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::until;

/// Of computing it takes a minute in both stages together to judge a cut.
const PATIENCE: Duration = Duration::from_secs(300);
const MEASURED_MAX: Duration = Duration::from_secs(120);

/// The second node is taken to be a third as fast as it is; then streams run until the layers are cut anew, and again.
pub fn compare(model: &str) {
    let half = crate::half_of(model);
    let node = ["--threads", "1", "--memory", &half];
    let mut fleet = Placed::nodes(&[node[..].into(); 2]);
    let machine = fleet.data_folder(1).join("machine.json");
    // A node that is not alone measures itself.
    until("the second node has measured itself", MEASURED_MAX, || {
        machine.exists()
    });
    fleet.kill(1);
    slow_down(&machine);
    fleet.start(1);
    let placed = Placed::on(fleet, model, 2);
    let planned = placed.layers();
    RECUT_CASE.warm_up(&placed);
    let since = Instant::now();
    while placed.layers() == planned && since.elapsed() < PATIENCE {
        let run = RECUT_CASE.ask(&placed, 0);
        println!(
            "{} as planned: {:.1} tok/s",
            words(&planned),
            tokens_per_sec(&run)
        );
    }
    let cut = placed.layers();
    assert_ne!(cut, planned, "nothing was cut anew");
    println!("{} after {:.0} s", words(&cut), since.elapsed().as_secs_f64());
    for _ in 0..3 {
        let run = RECUT_CASE.ask(&placed, 0);
        println!(
            "{} as cut anew: {:.1} tok/s",
            words(&placed.layers()),
            tokens_per_sec(&run)
        );
    }
}

fn tokens_per_sec(summary: &Value) -> f64 {
    summary["output_tokens_per_sec"].as_f64().expect("a number")
}

fn words(layers: &[u64]) -> String {
    let words: Vec<String> = layers.iter().map(u64::to_string).collect();
    words.join(":")
}

/// Every rate of it.
fn slow_down(machine: &Path) {
    let text = std::fs::read(machine).expect("what the node measured");
    let mut kept: Value = serde_json::from_slice(&text).expect("JSON");
    divide(&mut kept["rates"]);
    std::fs::write(machine, kept.to_string()).expect("a file that can be written");
}

fn divide(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // A rate is billions a second; what is small counts threads and rows.
            if let Some(rate) = number.as_u64().filter(|rate| *rate > 1_000_000) {
                *value = Value::from(rate / 3);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(divide),
        Value::Object(fields) => fields.values_mut().for_each(divide),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
