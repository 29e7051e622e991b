//! A cluster of an earlier build of the program becomes one of the present build, node by node, while requests run.
//!
//!     .ci/upgrade [COMMIT]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::{Client, Fleet, Holds, MODEL, cluster_binary, until};

/// From this level on a cluster places models.
const DEPLOYS_FROM: u64 = 2;
const AGAIN: &str = "again";

fn earlier_binary() -> PathBuf {
    let path = std::env::var_os("CLUSTER_BINARY_EARLIER");
    PathBuf::from(path.expect("CLUSTER_BINARY_EARLIER names an earlier build; .ci/upgrade makes one"))
}

fn prompt() -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "ignore_eos": true})
}

fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("a text")
}

fn level(fleet: &Fleet, place: usize) -> u64 {
    let status = fleet.json(place, &["status"]);
    let level = status["raft"]["feature_level"].as_u64();
    level.unwrap_or_else(|| panic!("no feature level in {status}"))
}

/// Of a cluster that the present program founds.
fn present_level() -> u64 {
    level(&Fleet::found_with(Holds::Nothing), 0)
}

fn deploy(fleet: &Fleet, place: usize) -> std::process::Output {
    fleet.command(place, &["deploy", &format!("{AGAIN}={MODEL}")])
}

/// By the gateway on this node, which serves as soon as it can serve any model.
fn until_offered(fleet: &Fleet, place: usize, model: &str) {
    let quoted = format!("\"{model}\"");
    let offered = || fleet.client(place).get("/v1/models").text.contains(&quoted);
    until("the model is offered", Duration::from_secs(30), offered);
}

fn errors(output: &std::process::Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_earlier_cluster_is_upgraded_node_by_node_and_no_request_fails() {
    let present = present_level();
    let mut fleet = Fleet::found_by(&earlier_binary(), Holds::TheModel, &[]);
    fleet.join(Holds::Nothing);
    fleet.join(Holds::Nothing);
    fleet.until_voters(3);
    let before = level(&fleet, 0);
    fleet.says(1, &["tenant", "add", "research"]);
    let key = fleet.says(2, &["key", "create", "--tenant", "research"]);
    upgrade(&mut fleet, &key, before);
    for place in 0..3 {
        until("the level has risen by itself", Duration::from_secs(20), || {
            level(&fleet, place) == present
        });
        let tenants = fleet.says(place, &["tenant", "list"]);
        assert!(tenants.contains("research"), "{tenants}");
        let client = fleet.node(place).client_with_key(Some(&key));
        assert_eq!(client.get("/v1/models").status, 200);
    }
    let deployed = deploy(&fleet, 1);
    assert!(deployed.status.success(), "{deployed:?}");
    let offered = || fleet.client(2).get("/v1/models").text.contains(AGAIN);
    until(
        "another gateway has heard of it",
        Duration::from_secs(20),
        offered,
    );
    let mut body = prompt();
    body["model"] = json!(AGAIN);
    assert_eq!(
        text_of(&fleet.client(2).complete(body)),
        text_of(&fleet.client(2).complete(prompt()))
    );
    if before < present {
        an_earlier_program_is_refused(&mut fleet);
    }
}

/// While every node streams, each is stopped and started with the present program.
fn upgrade(fleet: &mut Fleet, key: &str, before: u64) {
    let earlier = text_of(&fleet.client(0).complete(prompt())).to_owned();
    let doors: Vec<Mutex<Client>> = (0..3)
        .map(|place| Mutex::new(fleet.node(place).client_with_key(Some(key))))
        .collect();
    let stop = AtomicBool::new(false);
    let served: Vec<Vec<String>> = std::thread::scope(|scope| {
        let asking: Vec<_> = doors
            .iter()
            .map(|door| scope.spawn(|| ask(door, &stop)))
            .collect();
        // The founder, which leads and holds the model, in the middle: both kinds of leader meet both kinds of nodes.
        for place in [1, 0, 2] {
            restart(fleet, place, &doors[place]);
            if place != 2 && before < DEPLOYS_FROM {
                let refused = errors(&deploy(fleet, place));
                assert!(refused.contains("upgrade every node first"), "{refused}");
            }
        }
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        let joined = asking.into_iter().map(|thread| thread.join());
        joined
            .map(|served| served.expect("no request has failed"))
            .collect()
    });
    let counts: Vec<usize> = served.iter().map(Vec::len).collect();
    println!("streams served meanwhile: {counts:?}");
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
    let present = text_of(&fleet.client(0).complete(prompt())).to_owned();
    for text in served.iter().flatten() {
        assert_goes_on(text, &earlier, &present);
    }
}

/// Programs that compute alike give one text, also when one goes on with what the other began. Of programs that do not, a text
/// begins as both do, wherever it changed hands.
fn assert_goes_on(text: &str, earlier: &str, present: &str) {
    let same = earlier.bytes().zip(present.bytes()).take_while(|(a, b)| a == b);
    let same = same.count();
    assert!(same > 0, "{earlier:?} and {present:?} are of different models");
    let begun = &earlier.as_bytes()[..same];
    assert_eq!(text.as_bytes().get(..same), Some(begun), "{text:?}");
    if earlier == present {
        assert_eq!(text, earlier);
    }
}

/// One stream after another, none of which begins while the door is held.
fn ask(door: &Mutex<Client>, stop: &AtomicBool) -> Vec<String> {
    let mut served = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut stream = {
            let client = door.lock().expect("nobody panics with a door in hand");
            client.stream("/v1/completions", prompt())
        };
        let mut text = String::new();
        for event in stream.by_ref() {
            assert!(event["error"].is_null(), "after {text:?}: {event}");
            text.push_str(text_of(&event));
        }
        assert!(stream.ended_properly(), "broken off after {text:?}");
        served.push(text);
    }
    served
}

/// What streams through the node itself ends by itself; what streams through others from its replica goes on.
fn restart(fleet: &mut Fleet, place: usize, door: &Mutex<Client>) {
    let closed = door.lock().expect("nobody panics with a door in hand");
    let mut node = fleet.take(place);
    node.signal("TERM");
    let status = node
        .wait(Duration::from_secs(60))
        .expect("it ends when it is told to");
    assert!(status.success(), "{}", node.log());
    drop(node);
    fleet.install(place, cluster_binary());
    fleet.start(place);
    drop(closed);
}

/// It can neither come back nor join, is told why, and does the others no harm.
fn an_earlier_program_is_refused(fleet: &mut Fleet) {
    let knows = |fleet: &Fleet| fleet.json(2, &["status"])["deployments"][0]["placed"][0].is_object();
    until("the node has heard of it", Duration::from_secs(10), || {
        knows(fleet)
    });
    fleet.kill(2);
    fleet.install(2, &earlier_binary());
    let back = errors(&fleet.up_of(2, &[]));
    assert!(back.contains("written by a newer one"), "{back}");
    leave_all(fleet.data_folder(2));
    let token = fleet.token();
    let joining = errors(&fleet.up_of(2, &["--join", &token]));
    assert!(
        joining.contains("install the version that the other nodes run"),
        "{joining}"
    );
    assert!(!text_of(&fleet.client(1).complete(prompt())).is_empty());
    // Neither has used the token up.
    fleet.install(2, cluster_binary());
    fleet.start_with(2, &["--join", &token]);
    until_offered(fleet, 2, MODEL);
    assert!(!text_of(&fleet.client(2).complete(prompt())).is_empty());
}

fn leave_all(folder: &Path) {
    fs::remove_dir_all(folder).expect("the folder of a node that does not run");
}
