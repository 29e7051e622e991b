//! Models' files go from node to node.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::{Fleet, Holds, MODEL, NodeOptions, TempFolder, model_path, run_to_end, signal, until};

/// Too little for the model, enough for half of it.
const HALF: &str = "220MiB";

/// Of the blobs of a store.
fn blobs(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join("blobs")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn nodes_without_the_file_take_it_from_the_first_and_serve_it() {
    let mut fleet = Fleet::found_with(Holds::TheModelByName);
    let places = fleet.join_at_once(Holds::AsTheOthers, 2);
    for place in &places {
        let log = fleet.node(*place).log();
        assert!(log.contains("from other nodes in"), "{log}");
        assert_eq!(blobs(&fleet.own_store(*place)).len(), 1, "it is in its own store");
    }
    assert_eq!(
        blobs(&fleet.own_store(places[0])),
        blobs(&fleet.own_store(places[1]))
    );
    fleet.until_ready(0, 3);
    // Its own replica alone answers: the others are away.
    let body = json!({"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    let text = |fleet: &Fleet, place: usize| {
        let answer = fleet.client(place).complete(body.clone());
        answer["choices"][0]["text"].as_str().expect("a text").to_owned()
    };
    let first = text(&fleet, 0);
    fleet.kill(0);
    assert_eq!(text(&fleet, places[0]), first, "the same tokens");
    fleet.kill(places[0]);
    assert_eq!(text(&fleet, places[1]), first, "the same tokens");
}

fn body() -> Value {
    json!({"prompt": "The capital of", "max_tokens": 24, "temperature": 0, "ignore_eos": true})
}

/// What a node answers.
fn text(fleet: &Fleet, place: usize) -> String {
    let answer = fleet.client(place).complete(body());
    answer["choices"][0]["text"].as_str().expect("a text").to_owned()
}

/// Turns the bits of the byte that lies so far before the end of a file around, so that the time of its last change stays.
fn turn_byte(path: &Path, from_end: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file");
    let data = file.metadata().expect("its metadata");
    let (at, mut byte) = (data.len() - from_end, [0]);
    file.read_exact_at(&mut byte, at).expect("the byte");
    file.write_all_at(&[!byte[0]], at).expect("a turned byte");
    let modified = data.modified().expect("the time of its last change");
    file.set_modified(modified).expect("the same time");
}

fn turn_last_byte(path: &Path) {
    turn_byte(path, 1);
}

/// The one file below that folder of a store that is as large as the model, whole or in parts.
fn model_file(store: &Path) -> PathBuf {
    find_model_file(store).expect("the model's file")
}

fn find_model_file(store: &Path) -> Option<PathBuf> {
    let bytes = fs::metadata(model_path()).expect("the model").len();
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = entries(store.join("partial")).map(|entry| entry.path().join("data"));
    let blobs = entries(store.join("blobs")).map(|entry| entry.path());
    let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.len() == bytes);
    let mut found = blobs.chain(parts).filter(is_it);
    found.next()
}

/// A founder that holds a model of its own, has deployed it, and has no room for it; and where the model's file lies.
fn holder_without_room(folder: &TempFolder) -> (Fleet, PathBuf) {
    let (model, store) = (folder.path().join("model.gguf"), folder.path().join("store-0"));
    fs::copy(model_path(), &model).expect("a copy of the model");
    let store = store.to_str().expect("a readable path");
    let fleet = Fleet::found_as(Holds::Nothing, &["--memory", "64MiB", "--store", store]);
    let deployed = format!("{MODEL}={}", model.display());
    fleet.says(0, &["deploy", &deployed, "--no-wait"]);
    (fleet, model)
}

fn join_with_room(fleet: &mut Fleet, store: &Path) -> usize {
    let store = store.to_str().expect("a readable path");
    fleet.join_as(Holds::Nothing, &["--memory", "1GiB", "--store", store])
}

#[test]
fn a_node_loads_what_has_come_and_serves_nothing_before_all_has() {
    let expected = text(&Fleet::found(), 0);
    let folder = TempFolder::new();
    let (mut fleet, model) = holder_without_room(&folder);
    // From now on it gives a chunk that is damaged, so no other node gets all of the file.
    turn_last_byte(&model);
    let store = folder.path().join("store-1");
    let place = join_with_room(&mut fleet, &store);
    let says = |words: &str| fleet.node(place).log().contains(words);
    until(
        "it gives up what it has begun to load",
        Duration::from_secs(60),
        || says("loading weights as they come") && says("cannot start yet"),
    );
    assert!(says("wrong digest"), "{}", fleet.node(place).log());
    let told_elsewhere = || {
        let replicas = fleet.json(0, &["status"])["replicas"].to_string();
        replicas.contains("wrong digest")
    };
    until(
        "why is known on the other node",
        Duration::from_secs(20),
        told_elsewhere,
    );
    let is_served = || fleet.client(0).get("/v1/models").text.contains(MODEL);
    assert!(!is_served() && !says("replica ready"));
    assert!(
        !says("starting it again"),
        "that a file does not come is no fault of the process"
    );
    turn_last_byte(&model);
    until("it is served", Duration::from_secs(60), is_served);
    assert_eq!(text(&fleet, 0), expected);
    assert!(!says("starting it again"), "{}", fleet.node(place).log());
}

/// What is packed is as good as the file; without it the file is read again, years later perhaps.
fn forget_packed(store: &Path) {
    fs::remove_dir_all(store.join("packed")).expect("packed weights");
}

#[test]
fn what_a_disk_has_damaged_is_not_computed_with_but_taken_from_another_node() {
    let folder = TempFolder::new();
    let (mut fleet, model) = holder_without_room(&folder);
    let store = folder.path().join("store-1");
    let place = join_with_room(&mut fleet, &store);
    // That the model is offered may still be known from before its node was killed.
    let is_served = |fleet: &Fleet| fleet.client(0).post("/v1/completions", &body()).status == 200;
    let served_text = |fleet: &Fleet| {
        until("it is served", Duration::from_secs(60), || is_served(fleet));
        text(fleet, 0)
    };
    let expected = served_text(&fleet);
    // In weights; and in what the tokenizer is made of, right at the beginning.
    let bytes = fs::metadata(&model).expect("the model").len();
    for from_end in [1000, bytes - 300_000] {
        fleet.kill(place);
        turn_byte(&model_file(&store), from_end);
        forget_packed(&store);
        fleet.start(place);
        assert_eq!(served_text(&fleet), expected, "{from_end} bytes from its end");
        let log = fleet.node(place).log();
        assert!(log.contains("damaged on this node's disk"), "{log}");
        assert_eq!(
            fs::read(model_file(&store)).expect("what was mended"),
            fs::read(&model).expect("the model"),
        );
    }
}

#[test]
fn what_a_disk_has_damaged_of_a_shared_model_is_taken_from_another_node_too() {
    let mut fleet = Fleet::found_with(Holds::TheModelByName);
    let places = fleet.join_at_once(Holds::AsTheOthers, 1);
    let store = fleet.own_store(places[0]);
    let expected = text(&fleet, 0);
    let bytes = fs::metadata(model_path()).expect("the model").len();
    for from_end in [1000, bytes - 300_000] {
        fleet.kill(places[0]);
        turn_byte(&model_file(&store), from_end);
        forget_packed(&store);
        fleet.start(places[0]);
        fleet.until_ready(0, 2);
        let log = fleet.node(places[0]).log();
        assert!(log.contains("damaged on this node's disk"), "{log}");
        assert_eq!(
            fs::read(model_file(&store)).expect("what was mended"),
            fs::read(model_path()).expect("the model"),
        );
    }
    // And beneath a node that goes on.
    for harm in [
        |blob: &Path| turn_byte(blob, 1000),
        |blob: &Path| fs::remove_file(blob).expect("a blob"),
    ] {
        harm(&model_file(&store));
        forget_packed(&store);
        let hosts = fleet.node(places[0]).children();
        hosts.iter().for_each(|host| signal(*host, "KILL"));
        until("it is mended", Duration::from_secs(60), || {
            let file = find_model_file(&store).and_then(|path| fs::read(path).ok());
            file == fs::read(model_path()).ok()
        });
    }
    fleet.until_ready(0, 2);
    fleet.kill(0);
    assert_eq!(text(&fleet, places[0]), expected, "by what was mended");
}

#[test]
fn a_node_whose_own_disk_is_in_the_way_says_so_and_goes_on_when_it_is_not() {
    let mut fleet = Fleet::found_with(Holds::TheModelByName);
    let place = fleet.join_at_once(Holds::AsTheOthers, 1)[0];
    let (store, expected) = (fleet.own_store(place), text(&fleet, 0));
    let blob = model_file(&store);
    fleet.kill(place);
    // As from an empty store whose disk takes nothing.
    let in_the_way = store.join("partial").join(blob.file_name().expect("its name"));
    fs::remove_file(&blob).expect("a blob");
    forget_packed(&store);
    fs::write(&in_the_way, "").expect("a file in the way");
    fleet.start(place);
    for asked in [place, 0] {
        until("it says why it waits", Duration::from_secs(20), || {
            let replicas = fleet.json(asked, &["status"])["replicas"].to_string();
            replicas.contains("check that the place exists and is yours")
        });
    }
    assert_eq!(text(&fleet, place), expected, "by the other node");
    assert!(blobs(&store).is_empty(), "no other source was tried");
    fs::remove_file(&in_the_way).expect("the file in the way");
    fleet.until_ready(0, 2);
    fleet.kill(0);
    assert_eq!(text(&fleet, place), expected, "by itself");
}

#[test]
fn two_nodes_of_one_host_that_share_a_store_have_a_stage_each() {
    let expected = text(&Fleet::found(), 0);
    let folder = TempFolder::new();
    let (mut fleet, _) = holder_without_room(&folder);
    let store = folder.path().join("shared");
    let half = [
        "--memory",
        HALF,
        "--store",
        store.to_str().expect("a readable path"),
    ];
    let places = [(); 2].map(|()| fleet.join_as(Holds::Nothing, &half));
    let is_served = |fleet: &Fleet| fleet.client(0).post("/v1/completions", &body()).status == 200;
    until("it is served", Duration::from_secs(60), || is_served(&fleet));
    assert_eq!(text(&fleet, 0), expected);
    let hosts = places.map(|place| fleet.node(place).children().len());
    assert_eq!(hosts, [1, 1], "a stage on each");
    // Each finds one of the two folders free.
    places.iter().for_each(|place| fleet.kill(*place));
    places.iter().for_each(|place| fleet.start(*place));
    until("it is served again", Duration::from_secs(60), || {
        is_served(&fleet)
    });
    assert_eq!(text(&fleet, 0), expected);
}

#[test]
fn a_node_whose_file_the_disk_has_damaged_says_so_and_what_to_do() {
    let folder = TempFolder::new();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (model, store, data) = (at("model.gguf"), at("store"), at("data"));
    fs::copy(model_path(), &model).expect("a copy of the model");
    let serving = ["--model", &model, "--store", &store];
    let start = || drop(NodeOptions::new().with(&serving).data(Path::new(&data)).start());
    start();
    turn_byte(Path::new(&model), 1000);
    forget_packed(Path::new(&store));
    let up = ["up", "--http", "127.0.0.1:0", "--data-dir", &data];
    let output = run_to_end(&[&up[..], &serving].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("is damaged: bytes") && said.contains("cluster pull"),
        "{said}"
    );
    turn_byte(Path::new(&model), 1000);
    start();
}
