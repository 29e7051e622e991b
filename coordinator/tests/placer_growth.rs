//! When caches become larger again.

mod placing;

use coordinator::Machine;
use coordinator::cluster_state::FOUNDER;
use coordinator::placer::{GROW_AFTER, PlacerEvent};
use placing::{ComesUp, Town};
use proto::cluster::{ClusterCommand, Undeploy};
use proto::{ReplicaId, Span};
use std::collections::BTreeSet;

fn blocks(town: &Town, model: &str) -> Vec<u32> {
    let placed = town.placed(model);
    placed.iter().map(|placement| placement.blocks).collect()
}

fn undeploy(town: &mut Town, model: &str) {
    let model = model.to_owned();
    town.must(ClusterCommand::Undeploy(Box::new(Undeploy { model })));
}

/// The cache of "a" was made smaller for "b", and "b" is about to leave.
fn shrunk() -> (Town, u32) {
    let mut town = Town::founded(140);
    town.deploy("a", 4, 1);
    town.settle();
    let full = blocks(&town, "a")[0];
    town.deploy("b", 8, 1);
    town.settle();
    assert!(blocks(&town, "a")[0] * 2 <= full, "it is a good deal smaller");
    (town, full)
}

#[test]
fn a_cache_grows_back_when_the_model_that_it_shrank_for_has_left() {
    let (mut town, full) = shrunk();
    let shrunk = blocks(&town, "a")[0];
    undeploy(&mut town, "b");
    assert_eq!(town.settle().commands, [], "another model may follow");
    assert_eq!(town.placer.deadline(), Some(town.now + GROW_AFTER));
    town.now = town.now + Span(GROW_AFTER.0 - 1);
    assert_eq!(town.see(), []);
    town.now = town.now + Span(1);
    let mut out = Vec::new();
    town.placer.wake(town.now, &mut out);
    assert_eq!(town.carry_out(out).commands.len(), 1);
    assert!(shrunk < full && blocks(&town, "a") == [full]);
    let expected = memory_bytes(&town);
    assert_eq!(town.state.placed_bytes(FOUNDER), expected);
    assert_eq!(town.rest_long().commands, []);
    assert_eq!(town.placer.deadline(), None);
}

/// Of "a" with its cache: 4 layers of 10 MiB, 3 MiB in other ways, and blocks of 16 tokens of 1 KiB in each layer.
fn memory_bytes(town: &Town) -> u64 {
    43 * placing::MIB + u64::from(blocks(town, "a")[0]) * 4 * 16 * 1024
}

#[test]
fn what_changes_meanwhile_begins_the_wait_anew() {
    let (mut town, _) = shrunk();
    undeploy(&mut town, "b");
    town.settle();
    town.now = town.now + Span::from_secs(50);
    town.deploy("c", 4, 1);
    town.settle();
    undeploy(&mut town, "c");
    town.settle();
    assert_eq!(town.placer.deadline(), Some(town.now + GROW_AFTER));
}

#[test]
fn a_cache_that_would_be_less_than_twice_as_large_stays() {
    let mut town = Town::founded(150);
    town.deploy("a", 4, 1);
    town.settle();
    let before = blocks(&town, "a")[0];
    town.profile(FOUNDER, 240);
    town.settle();
    assert_eq!(town.rest_long().commands, []);
    town.profile(FOUNDER, 280);
    town.settle();
    assert_eq!(town.rest_long().commands.len(), 1);
    assert!(blocks(&town, "a")[0] >= 2 * before);
}

#[test]
fn one_replica_grows_at_a_time_and_none_while_another_of_its_model_is_down() {
    let mut town = Town::founded(60);
    let other = town.joined(60);
    town.deploy("a", 4, 2);
    town.settle();
    let before = blocks(&town, "a");
    town.comes_up = ComesUp::Never;
    town.profile(FOUNDER, 400);
    town.profile(other, 400);
    town.settle();
    let serving = |town: &mut Town, replicas: &[u32]| {
        let replicas: BTreeSet<ReplicaId> = replicas.iter().map(|replica| ReplicaId(*replica)).collect();
        let actions = town.tell(PlacerEvent::Serving(replicas));
        town.carry_out(actions)
    };
    serving(&mut town, &[1]);
    assert_eq!(town.rest_long().commands, [], "the other does not serve");
    serving(&mut town, &[1, 2]);
    assert_eq!(town.rest_long().commands.len(), 1);
    let grown = blocks(&town, "a");
    assert!(grown[0] >= 2 * before[0] && grown[1] == before[1], "{grown:?}");
    assert_eq!(town.rest_long().commands, [], "the first one begins anew");
    serving(&mut town, &[1, 2]);
    assert_eq!(town.rest_long().commands.len(), 1);
    assert_eq!(blocks(&town, "a"), [grown[0]; 2]);
}

#[test]
fn nothing_grows_while_something_beside_it_does_not_serve_or_is_on_a_drained_node() {
    let (mut town, _) = shrunk();
    town.deploy("c", 1, 1);
    undeploy(&mut town, "b");
    town.comes_up = ComesUp::Never;
    town.settle();
    let a = town.placed("a")[0].replica;
    town.tell(PlacerEvent::Serving(BTreeSet::from([a])));
    assert_eq!(town.rest_long().commands, [], "the new model is loading");
    town.comes_up = ComesUp::Soon;
    town.drain(FOUNDER);
    town.settle();
    assert_eq!(town.rest_long().commands, [], "a drained node takes nothing");
}
