//! Several nodes: how they become one cluster, what they survive, and what they refuse.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::{Client, Fleet, Holds, MODEL, TempFolder, run_to_end, until};

fn prompt() -> Value {
    json!({"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0})
}

fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("a text")
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn three_nodes_are_one_cluster() {
    let began = Instant::now();
    let fleet = Fleet::of_three();
    println!(
        "three nodes of empty folders serve and vote after {:?}",
        began.elapsed()
    );
    let texts: Vec<String> = (0..3)
        .map(|place| text_of(&fleet.client(place).complete(prompt())).to_owned())
        .collect();
    assert!(texts[0].contains("Paris"), "{texts:?}");
    assert!(
        texts.iter().all(|text| *text == texts[0]),
        "the same whoever is asked: {texts:?}"
    );
    for place in 0..3 {
        assert_eq!(fleet.client(place).get("/health").status, 200);
        assert_eq!(fleet.client(place).get("/v1/models").ok()["data"][0]["id"], MODEL);
        let page = fleet.client(place).get("/metrics").text;
        assert!(page.contains("cluster_raft_voters 3"), "{page}");
        assert!(page.contains("cluster_link_round_trip_seconds{node="), "{page}");
    }
    // Said on one node, it counts on all others at once.
    let key = fleet.says(1, &["key", "create"]);
    fleet.says(2, &["tenant", "add", "research"]);
    let tenants = fleet.json(0, &["tenant", "list"]);
    assert_eq!(tenants["tenants"].as_array().map(Vec::len), Some(2), "{tenants}");
    let client = fleet.node(2).client_with_key(Some(&key));
    assert_eq!(client.get("/v1/models").status, 200);
    fleet.says(0, &["key", "revoke", &key]);
    until("the key is refused everywhere", Duration::from_secs(5), || {
        client.get("/v1/models").status == 401
    });
    let nodes = fleet.json(1, &["node", "list"])["nodes"].clone();
    assert_eq!(nodes.as_array().map(Vec::len), Some(3), "{nodes}");
    let words = fleet.says(1, &["status"]);
    assert!(words.contains("3 voter(s)") && words.contains("LINK"), "{words}");
}

#[test]
fn a_token_lets_one_node_in_and_wrong_ones_none() {
    let mut fleet = Fleet::found();
    let token = fleet.token();
    let folder = fleet.data_folder(0).parent().expect("a parent").join("stranger");
    let folder = folder.to_str().expect("a readable path").to_owned();
    let up = |token: &str| {
        let common = [
            "up",
            "--http",
            "127.0.0.1:0",
            "--model",
            "none",
            "--data-dir",
            &folder,
        ];
        run_to_end(&[&common, ["--join", token].as_slice()].concat())
    };
    let (head, addresses) = token.split_once('@').expect("a token names addresses");
    let mut parts: Vec<String> = head.split('.').map(str::to_owned).collect();
    // Another secret.
    parts[4] = parts[4].chars().rev().collect();
    let wrong = format!("{}@{addresses}", parts.join("."));
    assert!(errors(&up(&wrong)).contains("token"), "refused by the cluster");
    // Another authority: the secret must not be told.
    let mut pinned: Vec<&str> = head.split('.').collect();
    let other = "ab".repeat(32);
    pinned[2] = &other;
    let elsewhere = format!("{}@{addresses}", pinned.join("."));
    assert!(errors(&up(&elsewhere)).contains("does not belong to the cluster"));
    assert_eq!(up("v1.nonsense").status.code(), Some(1));
    // The right one, once.
    let place = fleet.join_by(&token);
    assert_eq!(
        fleet.node(place).key(),
        None,
        "the founder's key is the cluster's"
    );
    assert!(errors(&up(&token)).contains("used already"));
    // It may stay in a service's settings; one of another cluster may not.
    fleet.kill(place);
    let strange = errors(&fleet.up_of(place, &["--join", &elsewhere]));
    assert!(strange.contains("another cluster"), "{strange}");
    fleet.start_with(place, &["--join", &token]);
    assert!(text_of(&fleet.client(place).complete(prompt())).contains("Paris"));
}

#[test]
fn the_loss_of_the_leader_stops_nothing_for_long() {
    let mut fleet = Fleet::found_with(Holds::Nothing);
    fleet.join(Holds::TheModel);
    fleet.join(Holds::Nothing);
    fleet.until_voters(3);
    assert_eq!(fleet.leader(), 0, "nobody else has had a reason to lead");
    let number = fleet.node(0).number();
    let mut stream = fleet.client(2).stream(
        "/v1/completions",
        json!({"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "ignore_eos": true}),
    );
    assert!(stream.next().is_some());
    let killed = Instant::now();
    fleet.kill(0);
    fleet.says(1, &["tenant", "add", "after"]);
    println!("leader killed, next write after {:?}", killed.elapsed());
    let mut events = 0;
    while stream.next().is_some() {
        events += 1;
    }
    assert!(events >= 59, "the stream went on: {events}");
    assert!(text_of(&fleet.client(2).complete(prompt())).contains("Paris"));
    // It comes back as the one that it was, and is told what it missed.
    fleet.start(0);
    assert_eq!(fleet.node(0).number(), number);
    let tenants = fleet.says(0, &["tenant", "list"]);
    assert!(tenants.contains("after"), "{tenants}");
}

#[test]
fn without_a_quorum_streams_go_on_and_changes_wait() {
    let mut fleet = Fleet::of_three();
    let mut stream = fleet.client(0).stream(
        "/v1/completions",
        json!({"prompt": "Once upon a time", "max_tokens": 80, "temperature": 0, "ignore_eos": true}),
    );
    assert!(stream.next().is_some());
    fleet.kill(1);
    fleet.kill(2);
    let refused = errors(&fleet.command(0, &["tenant", "add", "lost"]));
    assert!(
        refused.contains("no leader") || refused.contains("not known"),
        "{refused}"
    );
    let mut events = 0;
    while stream.next().is_some() {
        events += 1;
    }
    assert!(events >= 79, "the stream was not touched: {events}");
    assert!(
        text_of(&fleet.client(0).complete(prompt())).contains("Paris"),
        "new ones are served"
    );
    until("it knows that nobody leads", Duration::from_secs(5), || {
        fleet.json(0, &["status"])["raft"]["leader"] == Value::Null
    });
    fleet.start_all();
    until("changes are agreed on again", Duration::from_secs(20), || {
        fleet.command(0, &["tenant", "add", "found"]).status.success()
    });
}

#[test]
fn a_power_cycle_of_all_nodes_needs_nobody() {
    let mut fleet = Fleet::of_three();
    let key = fleet.says(1, &["key", "create"]);
    (0..3).for_each(|place| fleet.kill(place));
    let began = Instant::now();
    fleet.start_all();
    println!("all nodes serve again after {:?}", began.elapsed());
    for place in 0..3 {
        let client = fleet.node(place).client_with_key(Some(&key));
        let answer = client.post("/v1/completions", &with_model(prompt())).ok();
        assert!(text_of(&answer).contains("Paris"));
    }
    assert_eq!(fleet.voters().len(), 3);
}

fn with_model(mut body: Value) -> Value {
    body["model"] = json!(MODEL);
    body
}

#[test]
fn a_removed_node_is_cut_off_and_ends() {
    let mut fleet = Fleet::of_three();
    let number = fleet.node(2).number();
    let endless = json!({"prompt": "Once", "max_tokens": 8000, "ignore_eos": true});
    let mut stream = fleet.client(2).stream("/v1/completions", endless);
    stream.next().expect("a first token");
    let removed_at = Instant::now();
    fleet.says(0, &["node", "rm", &number.to_string()]);
    until("it is cut off", Duration::from_secs(2), || {
        let nodes = fleet.json(0, &["node", "list"])["nodes"].clone();
        nodes
            .as_array()
            .is_some_and(|nodes| nodes.iter().all(|node| node["node"] != number))
    });
    let mut node = fleet.take(2);
    let status = node.wait(Duration::from_secs(15)).expect("it ends by itself");
    println!("removed node ended after {:?}", removed_at.elapsed());
    assert_eq!(status.code(), Some(1));
    assert!(node.log().contains("removed from its cluster"), "{}", node.log());
    drop(node);
    let last = stream.last().expect("more than one event");
    let said = last["error"]["message"].as_str().unwrap_or_default();
    assert!(
        said.contains("this node is ending"),
        "its clients hear why: {last}"
    );
    assert_eq!(fleet.voters().len(), 1, "two would stand fewer losses than one");
    assert!(text_of(&fleet.client(1).complete(prompt())).contains("Paris"));
    let last = fleet.command(0, &["node", "rm", "99999"]);
    assert!(
        errors(&last).contains("there is no node"),
        "an id that nobody has"
    );
    let mark = fleet.data_folder(2).join("removed");
    assert!(mark.exists(), "the unit does not start it again");
    std::fs::remove_file(&mark).expect("the mark");
    let again = fleet.up_of(2, &[]);
    assert!(errors(&again).contains("removed from its cluster"), "also later");
    assert!(mark.exists(), "also later");
}

#[test]
fn a_model_whose_nodes_are_down_is_worth_another_try_and_an_unknown_one_is_not() {
    let mut fleet = Fleet::found();
    let other = format!("other={}", tests::model_path().display());
    let place = fleet.join_as(Holds::AsTheOthers, &["--model", &other]);
    let ask = |fleet: &Fleet, model: &str| {
        let body = json!({"model": model, "prompt": "Hi", "max_tokens": 1});
        fleet.client(0).post("/v1/completions", &body)
    };
    until("both models are served", Duration::from_secs(20), || {
        ask(&fleet, "other").status == 200
    });
    fleet.kill(place);
    fleet.kill(0);
    // Who comes up alone has never heard that replica.
    fleet.start(0);
    let answer = ask(&fleet, "other");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(ask(&fleet, "unheard-of").status, 404);
}

#[test]
fn the_only_voter_can_be_removed_and_the_other_node_goes_on() {
    for asked in 0..2 {
        let mut fleet = Fleet::found();
        let other = fleet.join(Holds::TheModel);
        let first = fleet.node(0).number();
        assert_eq!(fleet.voters(), BTreeSet::from([first]));
        fleet.says(asked, &["node", "rm", &first.to_string()]);
        let mut node = fleet.take(0);
        assert_eq!(
            node.wait(Duration::from_secs(15))
                .and_then(|status| status.code()),
            Some(1)
        );
        fleet.says(other, &["tenant", "add", "later"]);
        assert!(text_of(&fleet.client(other).complete(prompt())).contains("Paris"));
    }
}

#[test]
fn a_backup_brings_tenants_and_keys_back() {
    let fleet = Fleet::found();
    fleet.says(0, &["tenant", "add", "kept"]);
    let folder = TempFolder::new();
    let (file, data) = (
        folder.path().join("cluster.backup"),
        folder.path().join("restored"),
    );
    let (file, data) = (file.to_str().expect("a path"), data.to_str().expect("a path"));
    fleet.says(0, &["backup", file]);
    assert!(
        errors(&fleet.command(0, &["backup", file])).contains("exists already: name another file"),
        "nothing is overwritten"
    );
    let key = fleet.key().to_owned();
    let founder = fleet.node(0).number();
    drop(fleet);
    let restored = run_to_end(&["restore", file, "--data-dir", data, "--json"]);
    let told: Value = serde_json::from_slice(&restored.stdout).expect("JSON");
    assert_eq!(told["tenants"], 2, "{told}");
    assert!(
        told["node"].as_u64() > Some(founder),
        "ids are never given twice: {told}"
    );
    let again = run_to_end(&["restore", file, "--data-dir", data]);
    assert!(errors(&again).contains("holds a node already"));
    let node = tests::NodeOptions::new().data(data.as_ref()).start();
    let client = node.client_with_key(Some(&key));
    let answer = client.post("/v1/completions", &with_model(prompt())).ok();
    assert!(text_of(&answer).contains("Paris"));
    assert_eq!(node.key(), None, "the keys are there already");
}

#[test]
fn what_is_left_of_a_lost_majority_can_be_recovered() {
    let mut fleet = Fleet::of_three();
    let key = fleet.says(0, &["key", "create"]);
    (0..3).for_each(|place| fleet.kill(place));
    let unsaid = fleet.command(0, &["recover"]);
    assert!(errors(&unsaid).contains("--the-other-voters-are-lost"));
    let told = fleet.json(0, &["recover", "--the-other-voters-are-lost"]);
    assert!(told["aside"].is_string(), "{told}");
    fleet.start(0);
    let client = fleet.node(0).client_with_key(Some(&key));
    let answer = client.post("/v1/completions", &with_model(prompt())).ok();
    assert!(text_of(&answer).contains("Paris"));
    fleet.says(0, &["tenant", "add", "alone"]);
    assert_eq!(fleet.voters().len(), 1);
    let place = fleet.join(Holds::Nothing);
    assert!(text_of(&fleet.client(place).complete(prompt())).contains("Paris"));
}

#[test]
fn a_damaged_log_is_told_and_repaired_from_the_others() {
    let mut fleet = Fleet::of_three();
    fleet.says(0, &["tenant", "add", "kept"]);
    let number = fleet.node(2).number();
    fleet.kill(2);
    damage(&fleet.data_folder(2).join("raft/log.redb"));
    let data = fleet.data_folder(2).to_str().expect("a path").to_owned();
    let arguments = [
        "up",
        "--http",
        "127.0.0.1:0",
        "--model",
        "none",
        "--data-dir",
        &data,
    ];
    let told = errors(&run_to_end(&arguments));
    assert!(told.contains("damaged") && told.contains("--join"), "{told}");
    let token = fleet.token();
    fleet.start_with(2, &["--join", &token]);
    assert!(
        fleet.node(2).number() > number,
        "a new one, not the one without a memory"
    );
    fleet.until_voters(3);
    assert!(!fleet.voters().contains(&number));
    let tenants = fleet.says(2, &["tenant", "list"]);
    assert!(tenants.contains("kept"), "{tenants}");
}

/// Flips a bit in every page but the first: in some the changed byte is in use.
fn damage(path: &std::path::Path) {
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("the log");
    let length = file.metadata().expect("a length").len();
    for place in (4096..length).step_by(4096) {
        let mut byte = [0];
        file.seek(SeekFrom::Start(place + 100)).expect("a place in it");
        file.read_exact(&mut byte).expect("a byte");
        file.seek(SeekFrom::Start(place + 100)).expect("a place in it");
        file.write_all(&[byte[0] ^ 1]).expect("a byte");
    }
}

#[test]
fn a_worker_learns_and_a_new_authority_takes_over() {
    let mut fleet = Fleet::of_three();
    let token = fleet.says(1, &["token", "create", "--role", "worker"]);
    let worker = fleet.join_by(&token);
    let number = fleet.node(worker).number();
    assert!(!fleet.voters().contains(&number), "workers never vote");
    let authority = |place: usize| fleet.data_folder(place).join("authority/key.pem").exists();
    until(
        "all that may vote hold the authority",
        Duration::from_secs(10),
        || (0..3).all(authority),
    );
    assert!(!authority(worker), "a worker never does");
    // Nor does it let in who may do more than itself, whoever asks for it there.
    let refused = errors(&fleet.command(worker, &["token", "create"]));
    assert!(refused.contains("for nodes that may vote"), "{refused}");
    fleet.says(worker, &["token", "create", "--role", "worker"]);
    assert!(errors(&fleet.command(0, &["authority", "rotate", "--finish"])).contains("no rotation"));
    fleet.says(0, &["authority", "rotate"]);
    assert!(errors(&fleet.command(1, &["authority", "rotate"])).contains("under way"));
    until("all nodes have renewed", Duration::from_secs(30), || {
        fleet
            .command(1, &["authority", "rotate", "--finish"])
            .status
            .success()
    });
    // The old one is believed no more, and nobody has missed it.
    let late = fleet.says(2, &["token", "create"]);
    assert_ne!(
        late.split('.').nth(2),
        token.split('.').nth(2),
        "tokens pin the new one"
    );
    fleet.kill(worker);
    // A token may stay in a service's settings.
    fleet.start_with(worker, &["--join", &token]);
    assert!(text_of(&fleet.client(worker).complete(prompt())).contains("Paris"));
    let place = fleet.join_by(&late);
    assert!(text_of(&fleet.client(place).complete(prompt())).contains("Paris"));
    // Cut off at once, and the command hears that it was.
    let told = fleet.says(worker, &["node", "rm", &number.to_string()]);
    assert_eq!(told, format!("removed node {number}"));
}

#[test]
fn a_dead_member_is_told_of_once_and_so_is_its_return() {
    let mut fleet = Fleet::of_three();
    assert_eq!(fleet.leader(), 0, "nobody else has had a reason to lead");
    let before = fleet.node(0).log().lines().count();
    let told = |fleet: &Fleet, words: &str| {
        let log = fleet.node(0).log();
        log.lines()
            .skip(before)
            .filter(|line| line.contains(words))
            .count()
    };
    fleet.kill(2);
    until("it is told of", Duration::from_secs(20), || {
        told(&fleet, "a member is lost") > 0
    });
    // All of this is said to the dead one, too.
    (0..10).for_each(|number| drop(fleet.says(1, &["tenant", "add", &format!("tenant-{number}")])));
    fleet.start(2);
    until("its return is", Duration::from_secs(20), || {
        told(&fleet, "a member is back") > 0
    });
    let log = fleet.node(0).log();
    assert_eq!(told(&fleet, "a member is"), 2, "{log}");
    assert_eq!(told(&fleet, "openraft"), 0, "{log}");
}

#[test]
fn what_runs_on_a_drained_node_goes_on_elsewhere() {
    let mut fleet = Fleet::found();
    let other = fleet.join(Holds::TheModel);
    let gateway = fleet.join(Holds::Nothing);
    fleet.until_ready(gateway, 2);
    let body = json!({"prompt": "Once upon a time", "max_tokens": 120, "temperature": 0, "ignore_eos": true});
    let whole = text_of(&fleet.client(0).complete(body.clone())).to_owned();
    let streams: Vec<_> = (0..2)
        .map(|_| fleet.client(gateway).stream("/v1/completions", body.clone()))
        .collect();
    let numbers = [
        fleet.node(0).number().to_string(),
        fleet.node(other).number().to_string(),
    ];
    // Whichever of the two has them: both leave one node, then the other.
    fleet.says(0, &["drain", &numbers[0]]);
    fleet.until_ready(gateway, 1);
    fleet.says(0, &["drain", &numbers[0], "--resume"]);
    fleet.until_ready(gateway, 2);
    fleet.says(0, &["drain", &numbers[1]]);
    for mut stream in streams {
        let mut text = String::new();
        for event in stream.by_ref() {
            let part = event["choices"][0]["text"].as_str();
            text.push_str(part.unwrap_or_else(|| panic!("no text in {event}")));
        }
        assert_eq!(text, whole, "the same tokens, wherever they came from");
    }
    assert!(
        text_of(&fleet.client(other).complete(prompt())).contains("Paris"),
        "it is still a gateway"
    );
}

/// As programs do that know several nodes: one that does not listen, or says that it is ending and to try another, is passed
/// over for the next. Anything else that is no success is a failure.
fn ask_one_of(clients: &[Client], first: usize) -> Value {
    let body = with_model(prompt());
    let mut answers = (0..clients.len()).filter_map(|step| {
        let client = &clients[(first + step) % clients.len()];
        let answer = client.post_if_there("/v1/completions", &body)?;
        let is_ending = answer.status == 503 && answer.text.contains("this node is ending; try another");
        (!is_ending).then_some(answer)
    });
    answers.next().expect("some node listens").ok()
}

#[test]
fn all_nodes_restart_one_by_one_and_no_request_fails() {
    let mut fleet = Fleet::found();
    fleet.join(Holds::TheModel);
    fleet.join(Holds::Nothing);
    fleet.until_voters(3);
    let until_ready = |fleet: &Fleet| (0..3).for_each(|place| fleet.until_ready(place, 2));
    until_ready(&fleet);
    let clients: Vec<Client> = (0..3).map(|place| fleet.client_of(place)).collect();
    let stop = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        // Each begins with a node of its own, so all of them are asked all the time.
        let asking: Vec<_> = (0..3)
            .map(|first| {
                let (clients, stop) = (&clients, &stop);
                scope.spawn(move || {
                    let mut served = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert!(text_of(&ask_one_of(clients, first)).contains("Paris"));
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for place in 0..3 {
            let mut node = fleet.take(place);
            node.signal("TERM");
            let status = node
                .wait(Duration::from_secs(20))
                .expect("it ends when it is told to");
            assert!(status.success(), "{}", node.log());
            drop(node);
            fleet.start(place);
            until_ready(&fleet);
        }
        stop.store(true, Ordering::Relaxed);
        let served = asking
            .into_iter()
            .map(|asking| asking.join().expect("no request has failed"));
        served.collect::<Vec<u32>>()
    });
    for client in &clients {
        // A page on which one stands twice is refused as a whole.
        let series = client.series();
        let known: BTreeSet<&String> = series.iter().collect();
        assert_eq!(series.len(), known.len(), "{series:#?}");
    }
    println!("{served:?} requests were served meanwhile, none failed");
    assert!(
        served.iter().all(|served| *served > 0),
        "all have asked meanwhile: {served:?}"
    );
}

/// A test that fails leaves nobody asking.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
