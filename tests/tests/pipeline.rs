//! Models over several nodes: split where no node holds them, the same tokens as from one, streams that go on when a stage dies
//! or hangs, and a node that is drained.

use serde_json::{Value, json};
use std::time::Duration;
use tests::{Fleet, Holds, MODEL, signal, until};

/// What SmolLM2-135M takes with the least cache is more than this and less than twice as much.
const HALF: &str = "220MiB";
/// The same with two ranks, which take more: the table of embeddings and a head of keys and values are there twice.
const HALF_FOR_RANKS: &str = "260MiB";

fn prompt() -> Value {
    json!({"prompt": "The capital of France is", "max_tokens": 40, "temperature": 0, "ignore_eos": true})
}

fn text_of(answer: &Value) -> String {
    answer["choices"][0]["text"].as_str().expect("a text").to_owned()
}

/// As one process says it.
fn whole() -> String {
    let fleet = Fleet::found();
    text_of(&fleet.client(0).complete(prompt()))
}

/// Tokens drawn with a seed, with their log-probabilities: every bit of the logits shows.
fn drawn(fleet: &Fleet) -> Value {
    let mut body = prompt();
    body["temperature"] = json!(0.9);
    body["seed"] = json!(11);
    body["logprobs"] = json!(3);
    fleet.client(0).complete(body)["choices"].clone()
}

fn placed(fleet: &Fleet) -> Value {
    fleet.json(fleet.any(), &["status"])["deployments"][0]["placed"].clone()
}

/// Numbers of the nodes that have a stage, in the order of the layers.
fn nodes_of(placed: &Value) -> Vec<u64> {
    let stages = placed[0]["stages"].as_array().cloned().unwrap_or_default();
    stages.iter().filter_map(|stage| stage["node"].as_u64()).collect()
}

#[test]
fn a_model_too_big_for_each_of_two_nodes_goes_over_both_and_says_the_same() {
    let (expected, expected_drawn) = {
        let fleet = Fleet::found();
        (text_of(&fleet.client(0).complete(prompt())), drawn(&fleet))
    };
    let settings = ["--memory", HALF_FOR_RANKS, "--threads", "2"];
    let mut fleet = Fleet::found_as(Holds::TheModel, &settings);
    let waits = || fleet.json(0, &["status"])["deployments"][0]["waits_for"].clone();
    until("it waits for room, and says so", Duration::from_secs(30), || {
        waits().as_str().is_some_and(|reason| reason.contains("MiB"))
    });
    fleet.join_as(Holds::Nothing, &settings);
    let served = || fleet.client(0).get("/v1/models").text.contains(MODEL);
    until("both serve it", Duration::from_secs(60), || {
        served() && fleet.client(1).get("/v1/models").text.contains(MODEL)
    });
    is_over_both(&fleet, 1);
    for place in 0..2 {
        assert_eq!(text_of(&fleet.client(place).complete(prompt())), expected);
    }
    assert_eq!(drawn(&fleet), expected_drawn);
    let used = |part: &str, label: &str| {
        let name = format!("cluster_pipeline_{part}");
        let told = (0..2).map(|place| fleet.client(place).labelled_metric(&name, label));
        told.fold(0.0, f64::max)
    };
    let bubble = |place: usize| {
        fleet
            .client(place)
            .labelled_metric("cluster_pipeline_bubble_ratio", "")
    };
    until(
        "each node tells how well it is used",
        Duration::from_secs(10),
        || (0..2).all(|place| bubble(place) > 0.0),
    );
    let stages = ["stage=\"0\"", "stage=\"1\""].map(|stage| used("computed_seconds_total", stage));
    assert!(stages.iter().all(|secs| *secs > 0.0), "{stages:?}");
    let least = used("least_seconds_total", "");
    assert!(least > 0.0 && least <= used("occupied_seconds_total", ""));
    let words = fleet.says(0, &["status"]);
    assert!(words.contains("layers 0 to"), "{words}");
    fleet.says(0, &["deploy", MODEL, "--tp", "2"]);
    is_over_both(&fleet, 2);
    assert_eq!(text_of(&fleet.client(0).complete(prompt())), expected);
    assert_eq!(drawn(&fleet), expected_drawn);
}

/// A stage on each of two nodes, of so many ranks, and no node has more than it may.
fn is_over_both(fleet: &Fleet, ranks: u64) {
    let placed = placed(fleet);
    assert_eq!(nodes_of(&placed).len(), 2, "{placed}");
    for stage in placed[0]["stages"].as_array().expect("stages") {
        assert!(stage["memory_bytes"].as_u64() <= Some(260 << 20), "{placed}");
        assert_eq!(stage["ranks"], ranks, "{placed}");
    }
}

#[test]
fn a_stream_goes_on_with_the_same_tokens_when_a_stage_dies() {
    let fleet = goes_on_after("KILL");
    let refused = fleet.command(1, &["deploy", MODEL, "--tp", "2"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("what is placed stays as it is"), "{error}");
    assert_eq!(nodes_of(&placed(&fleet)).len(), 2, "two ranks have no room");
    fleet.client(1).complete(prompt());
    fleet.says(1, &["undeploy", MODEL]);
    until("its processes have gone", Duration::from_secs(10), || {
        (0..2).all(|place| fleet.node(place).children().is_empty())
    });
    let unknown = fleet.command(1, &["deploy", "mine", "--dry-run"]);
    let error = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        error.contains("no model that is deployed has this name"),
        "{error}"
    );
    fleet.says(0, &["deploy", &format!("mine={MODEL}"), "--no-wait"]);
    until(
        "what is placed is not placed again",
        Duration::from_secs(20),
        || {
            let planned = fleet.says(1, &["deploy", "mine", "--dry-run"]);
            planned.ends_with("nothing changes: it is placed already")
        },
    );
    let planned = fleet.says(1, &["deploy", "mine", "--replicas", "2", "--dry-run"]);
    assert!(planned.contains("copy 2 of 2 has no place now"), "{planned}");
    let too_many = fleet.command(1, &["deploy", "mine", "--tp", "16", "--dry-run"]);
    let error = String::from_utf8_lossy(&too_many.stderr);
    assert!(
        error.contains("16 ranks cannot share 9 attention heads"),
        "{error}"
    );
}

#[test]
fn a_stream_goes_on_with_the_same_tokens_when_a_stage_hangs() {
    goes_on_after("STOP");
}

/// What each stage's process is sent in turn, while a stream runs.
fn goes_on_after(name: &str) -> Fleet {
    let expected = whole();
    let mut fleet = Fleet::found_as(Holds::Nothing, &["--memory", HALF]);
    fleet.join_as(Holds::Nothing, &["--memory", HALF]);
    let plan = fleet.json(0, &["deploy", MODEL, "--dry-run"]);
    assert_eq!(plan["step"], "planned");
    assert!(
        plan["reasons"]
            .as_array()
            .is_some_and(|reasons| reasons.len() > 1),
        "{plan}"
    );
    assert_eq!(placed(&fleet), Value::Null, "nothing was changed");
    fleet.says(0, &["deploy", MODEL]);
    let placed = placed(&fleet);
    let nodes = nodes_of(&placed);
    assert_eq!(nodes.len(), 2, "{placed}");
    for stage in nodes {
        let place = (0..2)
            .find(|place| fleet.node(*place).number() == stage)
            .expect("its node");
        let mut body = prompt();
        body["stream"] = json!(true);
        let mut stream = fleet.client(0).stream("/v1/completions", body);
        let mut text = text_of(&stream.next().expect("a first token"));
        let hosts = fleet.node(place).children();
        assert_eq!(hosts.len(), 1, "one stage on each node");
        signal(hosts[0], name);
        stream.by_ref().for_each(|event| text.push_str(&text_of(&event)));
        assert!(stream.ended_properly());
        assert_eq!(text, expected, "after {name} for the stage on node {stage}");
        assert!(
            !fleet.node(place).children().contains(&hosts[0]),
            "it was started anew"
        );
    }
    fleet
}

#[test]
fn a_drained_node_serves_what_was_placed_there_until_another_can() {
    let mut fleet = Fleet::found_as(Holds::Nothing, &["--memory", "400MiB"]);
    fleet.says(0, &["deploy", MODEL]);
    let expected = text_of(&fleet.client(0).complete(prompt()));
    let first = fleet.node(0).number();
    let drained = fleet.json(0, &["drain", &first.to_string()]);
    assert_eq!(drained["stays"][0]["model"], MODEL, "{drained}");
    assert_eq!(
        (&drained["moves"], &drained["unserved"]),
        (&json!([]), &json!([]))
    );
    let words = fleet.says(0, &["status"]);
    assert!(words.contains("goes on serving there"), "{words}");
    let planned = fleet.says(0, &["deploy", MODEL, "--dry-run"]);
    assert!(
        planned.contains("moves as soon as it has another place"),
        "{planned}"
    );
    assert_eq!(text_of(&fleet.client(0).complete(prompt())), expected);
    fleet.join_as(Holds::Nothing, &["--memory", "400MiB"]);
    let second = fleet.node(1).number();
    until("it has moved", Duration::from_secs(60), || {
        // Never is there nobody who serves it.
        assert_eq!(text_of(&fleet.client(0).complete(prompt())), expected);
        nodes_of(&placed(&fleet)) == [second]
    });
    assert_eq!(text_of(&fleet.client(1).complete(prompt())), expected);
}

#[test]
fn a_node_that_was_frozen_uses_what_has_moved_away_meanwhile() {
    let mut fleet = Fleet::found_as(Holds::Nothing, &["--memory", "64MiB"]);
    for _ in 0..2 {
        fleet.join_as(Holds::Nothing, &["--memory", "400MiB"]);
    }
    fleet.says(0, &["deploy", MODEL]);
    let expected = text_of(&fleet.client(0).complete(prompt()));
    let had = nodes_of(&placed(&fleet));
    let place = (1..3)
        .find(|place| had == [fleet.node(*place).number()])
        .expect("a node with room has it");
    let frozen = [vec![fleet.node(place).process_id()], fleet.node(place).children()].concat();
    frozen.iter().for_each(|process| signal(*process, "STOP"));
    let now = || nodes_of(&fleet.json(0, &["status"])["deployments"][0]["placed"]);
    let mut body = prompt();
    body["model"] = json!(MODEL);
    let serves = |place: usize| {
        let answer = fleet.client(place).post("/v1/completions", &body);
        answer.status == 200 && text_of(&answer.ok()) == expected
    };
    until("it is served elsewhere", Duration::from_secs(60), || {
        now() != had && serves(0)
    });
    frozen.iter().for_each(|process| signal(*process, "CONT"));
    until("its own replica has ended", Duration::from_secs(30), || {
        fleet.node(place).children().is_empty()
    });
    until("it asks the other node", Duration::from_secs(10), || {
        serves(place)
    });
}
