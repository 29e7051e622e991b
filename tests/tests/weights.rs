//! Models' files go from node to node.

use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tests::{Fleet, Holds, MODEL, TempFolder, model_path, until};

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

/// Turns the bits of the last byte of a file around, so that the time of its last change stays.
fn turn_last_byte(path: &Path) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("the file");
    let data = file.metadata().expect("its metadata");
    let mut last = [0];
    file.read_exact_at(&mut last, data.len() - 1)
        .expect("its last byte");
    file.write_all_at(&[!last[0]], data.len() - 1)
        .expect("a turned byte");
    let modified = data.modified().expect("the time of its last change");
    file.set_modified(modified).expect("the same time");
}

#[test]
fn a_node_loads_what_has_come_and_serves_nothing_before_all_has() {
    let body = json!({"prompt": "The capital of", "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    let text = |fleet: &Fleet| {
        let answer = fleet.client(0).complete(body.clone());
        answer["choices"][0]["text"].as_str().expect("a text").to_owned()
    };
    let expected = text(&Fleet::found());
    let folder = TempFolder::new();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (model, stores) = (at("model.gguf"), [at("store-0"), at("store-1")]);
    fs::copy(model_path(), &model).expect("a copy of the model");
    // The founder holds the model and has no room for it.
    let mut fleet = Fleet::found_as(Holds::Nothing, &["--memory", "64MiB", "--store", &stores[0]]);
    fleet.says(0, &["deploy", &format!("{MODEL}={model}"), "--no-wait"]);
    // From now on it gives a chunk that is damaged, so no other node gets all of the file.
    turn_last_byte(Path::new(&model));
    let place = fleet.join_as(Holds::Nothing, &["--memory", "1GiB", "--store", &stores[1]]);
    let says = |words: &str| fleet.node(place).log().contains(words);
    until(
        "it gives up what it has begun to load",
        Duration::from_secs(60),
        || says("loading weights as they come") && says("cannot start yet"),
    );
    assert!(says("wrong digest"), "{}", fleet.node(place).log());
    let is_served = || fleet.client(0).get("/v1/models").text.contains(MODEL);
    assert!(!is_served() && !says("replica ready"));
    assert!(
        !says("starting it again"),
        "that a file does not come is no fault of the process"
    );
    turn_last_byte(Path::new(&model));
    until("it is served", Duration::from_secs(60), is_served);
    assert_eq!(text(&fleet), expected);
    assert!(!says("starting it again"), "{}", fleet.node(place).log());
}
