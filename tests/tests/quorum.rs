//! Without a quorum: what runs goes on, new requests are served, also by a node that starts again; only changes wait.
//!
//! ```sh
//! QUORUM_LOST_SECS=300 cargo test -p tests --test quorum streams -- --nocapture     # 10 where nothing is said
//! ```

use serde_json::{Value, json};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use tests::{Client, Fleet, Holds, MODEL, model_path, until};

const CLIENTS: usize = 8;
const TOKENS: usize = 100;

fn body(client: usize) -> Value {
    let prompt = format!("The story of the {client} sailors begins");
    json!({"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true})
}

fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("a text")
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_agreed(fleet: &Fleet, tenant: &str) -> bool {
    fleet.command(0, &["tenant", "add", tenant]).status.success()
}

fn last_index(fleet: &Fleet, place: usize) -> u64 {
    let status = fleet.json(place, &["status"]);
    status["raft"]["last_index"].as_u64().expect("a number")
}

fn own_epoch(fleet: &Fleet, place: usize) -> u64 {
    let replicas = fleet.json(place, &["status"])["replicas"].clone();
    let number = fleet.node(place).number();
    let mut all = replicas.as_array().expect("a list").iter();
    let own = all.find(|replica| replica["node"] == number);
    own.expect("it has a replica")["epoch"]
        .as_u64()
        .expect("a number")
}

#[test]
fn a_node_that_starts_again_without_a_quorum_serves_what_it_knows() {
    let mut fleet = Fleet::found();
    fleet.join(Holds::TheModel);
    fleet.join(Holds::Nothing);
    fleet.until_voters(3);
    fleet.until_ready(2, 2);
    let key = fleet.says(2, &["key", "create"]);
    let text = text_of(&fleet.client(0).complete(body(0))).to_owned();
    // The second time nobody has heard of the first.
    for (left, starts) in [(0, 2), (1, 1)] {
        let revoked = fleet.says(2, &["key", "create"]);
        fleet.says(left, &["key", "revoke", &revoked]);
        let mut epochs = vec![own_epoch(&fleet, left)];
        (0..3).for_each(|place| fleet.kill(place));
        for start in 0..starts {
            if start > 0 {
                fleet.kill(left);
            }
            fleet.start(left);
            serves_alone(&fleet, left, &key, &revoked, &text);
            epochs.push(own_epoch(&fleet, left));
        }
        assert!(epochs.is_sorted_by(|before, after| before < after), "{epochs:?}");
        fleet.start_all();
        let agreed = format!("agreed-{left}");
        until("changes are agreed on again", Duration::from_secs(20), || {
            is_agreed(&fleet, &agreed)
        });
        for place in 0..3 {
            fleet.until_ready(place, 2);
            assert_eq!(text_of(&fleet.client(place).complete(body(0))), text);
        }
    }
}

fn serves_alone(fleet: &Fleet, place: usize, key: &str, revoked: &str, text: &str) {
    let client = |key: &str| fleet.node(place).client_with_key(Some(key));
    assert_eq!(text_of(&client(key).complete(body(0))), text);
    assert_eq!(client(revoked).get("/v1/models").status, 401);
    let before = last_index(fleet, place);
    let own = fleet.node(place).number().to_string();
    for words in [
        ["tenant", "add", "lost"].as_slice(),
        &["key", "list"],
        &["node", "rm", &own],
    ] {
        let refused = errors(&fleet.command(place, words));
        assert!(
            refused.contains("no leader at the moment"),
            "{words:?}: {refused}"
        );
    }
    assert_eq!(
        last_index(fleet, place),
        before,
        "what nobody can agree to is not logged"
    );
}

#[test]
fn a_model_that_is_new_on_a_node_without_a_quorum_is_served_when_there_is_one() {
    let mut fleet = Fleet::of_three();
    (0..3).for_each(|place| fleet.kill(place));
    let path = model_path().display().to_string();
    let (known, new) = (format!("{MODEL}={path}"), format!("second={path}"));
    fleet.start_with(0, &["--model", &known, "--model", &new]);
    let names = |fleet: &Fleet| {
        let models = fleet.client(0).get("/v1/models").ok()["data"].clone();
        let models = models.as_array().expect("a list").clone();
        models
            .iter()
            .map(|model| model["id"].clone())
            .collect::<Vec<Value>>()
    };
    assert_eq!(names(&fleet), [MODEL], "the cluster has to name the other one");
    fleet.start_all();
    until("the new one is served", Duration::from_secs(60), || {
        names(&fleet) == ["second", MODEL]
    });
    let mut second = body(0);
    second["model"] = json!("second");
    let client = fleet.client(0);
    assert_eq!(
        text_of(&client.complete(second)),
        text_of(&client.complete(body(0))),
        "it is the same file"
    );
}

#[test]
fn what_is_placed_on_a_node_is_served_by_it_without_a_quorum() {
    let mut fleet = Fleet::found_with(Holds::Nothing);
    fleet.join(Holds::Nothing);
    fleet.join(Holds::Nothing);
    fleet.until_voters(3);
    fleet.says(0, &["deploy", &format!("{MODEL}={}", model_path().display())]);
    let placed = fleet.json(0, &["status"])["deployments"][0]["placed"].clone();
    let number = placed[0]["stages"][0]["node"].as_u64();
    let place = (0..3).find(|place| Some(fleet.node(*place).number()) == number);
    let place = place.expect("it is placed on one of them");
    let text = text_of(&fleet.client(place).complete(body(0))).to_owned();
    let epoch = own_epoch(&fleet, place);
    (0..3).for_each(|place| fleet.kill(place));
    fleet.start(place);
    let serves = || fleet.client(place).get("/v1/models").text.contains(MODEL);
    until("it has come up", Duration::from_secs(60), serves);
    assert_eq!(text_of(&fleet.client(place).complete(body(0))), text);
    assert!(own_epoch(&fleet, place) > epoch, "no epoch comes twice");
    fleet.start_all();
    until("changes are agreed on again", Duration::from_secs(20), || {
        is_agreed(&fleet, "agreed")
    });
    assert_eq!(text_of(&fleet.client(place).complete(body(0))), text);
}

/// What a client has seen of its streams, one after the other.
#[derive(Default)]
struct Seen {
    whole: usize,
    broken: Vec<String>,
    /// Of the whole ones, those that were begun when the quorum was lost already.
    begun_after: usize,
}

#[test]
fn streams_are_served_for_as_long_as_the_quorum_is_lost() {
    let lost_secs = std::env::var("QUORUM_LOST_SECS").map_or(10, |secs| secs.parse().expect("seconds"));
    let mut fleet = Fleet::of_three();
    let client = fleet.client(0);
    let texts: Vec<String> = (0..CLIENTS)
        .map(|number| text_of(&client.complete(body(number))).to_owned())
        .collect();
    let (is_lost, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let clients: Vec<ScopedJoinHandle<Seen>> = (0..CLIENTS)
            .map(|number| {
                let (client, text) = (client.clone(), &texts[number]);
                let (is_lost, is_over) = (&is_lost, &is_over);
                scope.spawn(move || read_streams(&client, number, text, is_lost, is_over))
            })
            .collect();
        until("all clients have a stream", Duration::from_secs(60), || {
            let running = fleet.json(0, &["status"])["replicas"][0]["running"].clone();
            running.as_u64() == Some(CLIENTS as u64)
        });
        // One ends, and one is silent without an end.
        fleet.kill(1);
        fleet.node(2).signal("STOP");
        is_lost.store(true, Ordering::SeqCst);
        let lost = Instant::now();
        while lost.elapsed() < Duration::from_secs(lost_secs) {
            let refused = errors(&fleet.command(0, &["tenant", "add", "lost"]));
            let is_clear = refused.contains("no leader at the moment") || refused.contains("not known");
            assert!(is_clear, "{refused}");
        }
        is_over.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .map(|client| client.join().expect("a client reads"))
            .collect::<Vec<Seen>>()
    });
    fleet.node(2).signal("CONT");
    fleet.start(1);
    until("changes are agreed on again", Duration::from_secs(20), || {
        is_agreed(&fleet, "agreed")
    });
    tell(lost_secs, &seen);
}

fn read_streams(
    client: &Client,
    number: usize,
    text: &str,
    is_lost: &AtomicBool,
    is_over: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(Ordering::SeqCst) {
        let was_lost = is_lost.load(Ordering::SeqCst);
        let mut stream = client.stream("/v1/completions", body(number));
        let mut read = String::new();
        for event in stream.by_ref() {
            // The last event may hold what was used alone, and one that fails its error.
            read.push_str(event["choices"][0]["text"].as_str().unwrap_or_default());
        }
        match stream.ended_properly() && read == text {
            true => seen.whole += 1,
            false => seen.broken.push(read),
        }
        seen.begun_after += usize::from(was_lost);
    }
    seen
}

fn tell(lost_secs: u64, seen: &[Seen]) {
    let whole: usize = seen.iter().map(|seen| seen.whole).sum();
    let begun_after: usize = seen.iter().map(|seen| seen.begun_after).sum();
    let broken: Vec<&String> = seen.iter().flat_map(|seen| &seen.broken).collect();
    println!(
        "no quorum for {lost_secs} s: {whole} streams of {TOKENS} tokens as in an undisturbed run, {begun_after} of them \
         begun meanwhile; {} broken",
        broken.len()
    );
    assert!(broken.is_empty(), "{broken:?}");
    assert!(
        seen.iter().all(|seen| seen.begun_after > 0),
        "new ones were served to every client"
    );
    assert!(whole > begun_after, "some were running when the quorum was lost");
}
