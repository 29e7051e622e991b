//! Models' files go from node to node.

use serde_json::json;
use std::fs;
use std::path::Path;
use tests::{Fleet, Holds};

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
