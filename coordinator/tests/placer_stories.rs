//! What the placer does, told as events and the changes that come of them.

mod placing;

use coordinator::Machine;
use coordinator::cluster_state::FOUNDER;
use coordinator::placer::layout::Layout;
use coordinator::placer::{LOST_AFTER, PlacerAction, PlacerEvent, View, rehearse, rehearse_copies};
use placing::{Doings, Town};
use proto::cluster::{ClusterCommand, Deployment, Undeploy};
use proto::{NodeId, ReplicaId, Span};
use std::collections::BTreeSet;

fn places(doings: &Doings) -> usize {
    let is_place = |command: &&ClusterCommand| matches!(command, ClusterCommand::Place(_));
    doings.commands.iter().filter(is_place).count()
}

fn is_proposal(actions: &[PlacerAction]) -> bool {
    matches!(actions, [PlacerAction::Propose(_)])
}

#[test]
fn a_deployed_model_is_placed_whole_on_the_node_with_the_most_room() {
    let mut town = Town::founded(60);
    let roomy = town.joined(90);
    town.joined(70);
    assert_eq!(town.settle().commands, []);
    town.deploy("a", 4, 1);
    let doings = town.settle();
    assert_eq!((doings.commands.len(), doings.explained.len()), (1, 0));
    assert_eq!(town.nodes("a"), [roomy]);
    assert_eq!(town.settle().commands, [], "all is as it should be");
}

#[test]
fn replicas_go_to_different_nodes_as_long_as_there_are_some() {
    let mut town = Town::founded(90);
    let (second, third) = (town.joined(300), town.joined(80));
    town.deploy("a", 4, 3);
    town.settle();
    let mut nodes: Vec<_> = town.state.replicas().map(|replica| replica.node).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [FOUNDER, second, third]);
    town.deploy("a", 4, 4);
    town.settle();
    assert_eq!(town.state.placements_of(second).count(), 2, "there is the room");
}

#[test]
fn what_no_node_can_hold_goes_over_several() {
    let mut town = Town::founded(60);
    let others = [town.joined(60), town.joined(60)];
    town.deploy("a", 8, 1);
    town.settle();
    assert_eq!(town.nodes("a").len(), 2);
    let replica = town.state.replicas().next().unwrap();
    assert_eq!(Some(&replica.node), town.nodes("a").last());
    assert!(others.contains(&replica.node) || replica.node == FOUNDER);
}

#[test]
fn a_replica_stays_where_it_is_when_a_better_place_comes_up() {
    let mut town = Town::founded(60);
    town.joined(60);
    town.deploy("a", 8, 1);
    town.settle();
    town.joined(900);
    assert_eq!(town.settle().commands, []);
}

#[test]
fn a_node_that_is_silent_for_ten_seconds_loses_its_replica_to_another() {
    let mut town = Town::founded(90);
    let other = town.joined(80);
    town.deploy("a", 4, 1);
    town.settle();
    let before = town.state.replicas().next().unwrap().clone();
    assert_eq!(before.node, FOUNDER);
    assert_eq!(town.silent(FOUNDER, 3000), []);
    assert_eq!(town.placer.deadline(), Some(town.now + Span::from_secs(7)));
    assert_eq!(town.tell(PlacerEvent::Heard { node: FOUNDER }), []);
    assert_eq!(town.placer.deadline(), None);
    town.silent(FOUNDER, 3000);
    town.now = town.now + Span::from_millis(6999);
    assert_eq!(town.see(), []);
    town.now = town.placer.deadline().unwrap();
    let mut out = Vec::new();
    town.placer.wake(town.now, &mut out);
    let doings = town.carry_out(out);
    assert_eq!(places(&doings), 1);
    let after = town.state.replicas().next().unwrap().clone();
    assert_eq!((after.replica, after.node), (before.replica, other));
    assert!(after.epoch > before.epoch);
    let back = town.tell(PlacerEvent::Heard { node: FOUNDER });
    assert_eq!((back, town.placer.deadline()), (vec![], None), "it stays moved");
}

#[test]
fn a_pipeline_that_lost_one_stage_is_laid_anew_over_what_is_left() {
    let mut town = Town::founded(60);
    town.joined(60);
    town.joined(60);
    town.deploy("a", 8, 1);
    town.settle();
    let lost = town.nodes("a")[0];
    let actions = town.silent(lost, LOST_AFTER.0 / 1_000_000);
    let doings = town.carry_out(actions);
    assert_eq!((places(&doings), doings.commands.len()), (1, 1));
    assert_eq!(town.nodes("a").len(), 2);
    assert!(!town.nodes("a").contains(&lost));
}

#[test]
fn what_has_no_place_is_explained_once_and_placed_when_there_is_room() {
    let mut town = Town::founded(60);
    town.deploy("a", 8, 1);
    let doings = town.settle();
    let reason = "0 of 1 replica(s) are placed: needs 91 MiB in all; node 1 has 60 MiB free: add a node, or give them \
                  more with --memory";
    assert_eq!(doings.explained, [("a".to_owned(), Some(reason.to_owned()))]);
    assert_eq!(town.settle().explained, [], "it was said");
    town.joined(60);
    let doings = town.settle();
    assert_eq!(
        (places(&doings), doings.explained),
        (1, vec![("a".to_owned(), None)])
    );
}

#[test]
fn a_drained_node_is_left_where_there_is_another_place() {
    let mut town = Town::founded(90);
    let other = town.joined(80);
    town.deploy("a", 4, 1);
    town.settle();
    town.drain(FOUNDER);
    assert_eq!(places(&town.settle()), 1);
    assert_eq!(town.nodes("a"), [other]);
    town.drain(other);
    let doings = town.settle();
    assert_eq!(doings.commands, [], "it runs on");
    let reason = doings.explained[0].1.clone().unwrap();
    assert!(
        reason.contains("which is drained, and goes on serving there: no node can take a part"),
        "{reason}"
    );
}

#[test]
fn a_lost_replica_goes_before_a_drained_one_and_that_before_a_new_one() {
    let mut town = Town::founded(60);
    let (second, third) = (town.joined(60), town.joined(60));
    for name in ["a", "b"] {
        town.deploy(name, 4, 1);
        town.settle();
    }
    let (of_a, of_b) = (town.nodes("a")[0], town.nodes("b")[0]);
    let free = [FOUNDER, second, third]
        .into_iter()
        .find(|node| ![of_a, of_b].contains(node));
    assert_eq!(town.silent(of_b, 9_000), []);
    town.drain(of_a);
    town.deploy("0", 4, 1);
    town.now = town.now + Span::from_secs(1);
    assert_eq!(town.settle().commands.len(), 1, "all is known at once");
    assert_eq!(town.nodes("b"), [free.unwrap()]);
    assert_eq!(town.nodes("a"), [of_a], "there is no room for it");
    assert!(town.placed("0").is_empty());
}

#[test]
fn a_removed_node_s_replica_is_placed_anew() {
    let mut town = Town::founded(90);
    let other = town.joined(100);
    town.deploy("a", 4, 1);
    town.settle();
    assert_eq!(town.nodes("a"), [other]);
    town.remove(other);
    assert_eq!(town.state.replicas().count(), 0);
    town.settle();
    assert_eq!(town.nodes("a"), [FOUNDER]);
}

#[test]
fn of_too_many_one_that_does_not_run_goes_first_then_the_youngest() {
    let mut town = Town::founded(60);
    town.joined(60);
    town.joined(60);
    town.deploy("a", 4, 3);
    town.settle();
    let oldest = town.state.replicas().next().unwrap().clone();
    let actions = town.silent(oldest.node, 10_000);
    assert_eq!(town.carry_out(actions).commands, [], "there is no other room");
    town.deploy("a", 4, 2);
    town.settle();
    let ids = |town: &Town| {
        let replicas = town.state.replicas().map(|replica| replica.replica);
        replicas.collect::<Vec<ReplicaId>>()
    };
    assert_eq!(ids(&town), [ReplicaId(2), ReplicaId(3)]);
    town.deploy("a", 4, 1);
    town.settle();
    assert_eq!(ids(&town), [ReplicaId(2)]);
    town.deploy("a", 4, 0);
    town.settle();
    assert_eq!(ids(&town), []);
}

#[test]
fn what_was_refused_is_tried_again_later_and_ever_more_rarely() {
    let mut town = Town::founded(90);
    town.deploy("a", 4, 1);
    assert!(is_proposal(&town.see()));
    assert_eq!(town.see(), [], "one at a time");
    for rest_secs in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(town.tell(PlacerEvent::Refused), []);
        assert_eq!(town.see(), [], "it rests");
        let deadline = town.placer.deadline().unwrap();
        assert_eq!(deadline, town.now + Span::from_secs(rest_secs));
        town.now = deadline;
        assert!(is_proposal(&town.see()));
    }
    town.tell(PlacerEvent::Committed);
    town.tell(PlacerEvent::Refused);
    assert_eq!(town.placer.deadline(), Some(town.now + Span::from_secs(1)));
}

#[test]
fn caches_become_smaller_so_that_another_model_fits_beside() {
    let mut town = Town::founded(150);
    town.deploy("a", 4, 1);
    town.settle();
    let before = town.placed("a")[0].clone();
    assert!(before.blocks > 64, "{before:?}");
    town.deploy("b", 8, 1);
    let doings = town.settle();
    assert_eq!((places(&doings), doings.commands.len()), (2, 2), "{doings:#?}");
    let after = town.placed("a")[0].clone();
    assert_eq!(after.replica, before.replica);
    assert!((64..before.blocks).contains(&after.blocks), "{after:?}");
    assert_eq!(
        town.placed("b")[0].blocks,
        64,
        "and itself no more than the least"
    );
    let free = 150 * placing::MIB - town.state.placed_bytes(FOUNDER);
    let block_bytes = 4 * 16 * 1024;
    assert!(free < block_bytes, "no more was taken than was needed: {free}");
    town.deploy("c", 4, 1);
    let doings = town.settle();
    assert_eq!(doings.commands, [], "nothing shrinks in vain");
    assert_eq!(doings.explained.len(), 1);
}

#[test]
fn the_cache_of_a_replica_in_trouble_is_left_alone() {
    let mut town = Town::founded(160);
    town.joined(160);
    town.deploy("a", 20, 1);
    town.settle();
    let before = town.placed("a")[0].clone();
    assert_eq!(before.stages.len(), 2);
    let node = before.stages[0].node;
    town.drain(node);
    town.deploy("b", 4, 1);
    let doings = town.settle();
    assert_eq!(doings.commands, [], "to place it where it is would be refused");
    assert_eq!(doings.explained.len(), 2);
}

#[test]
fn a_rehearsal_says_what_is_done_afterwards() {
    let mut town = Town::founded(150);
    town.joined(100);
    let rehearse = |town: &Town, deployment: &Deployment| {
        let view = View::of(&town.state);
        rehearse(&view, &BTreeSet::new(), deployment)
    };
    for (name, layers) in [("a", 4), ("b", 7), ("c", 8)] {
        let deployment = placing::deployment(name, layers, 1);
        let layout = rehearse(&town, &deployment).unwrap();
        let shrinks = layout
            .reasons()
            .iter()
            .any(|line| line.starts_with("caches of other"));
        town.deploy(name, layers, 1);
        let doings = town.settle();
        assert_eq!(shrinks, places(&doings) > 1, "{name}: {:?}", layout.reasons());
        let of_layout: Vec<NodeId> = layout.stages.iter().map(|stage| stage.node).collect();
        assert_eq!(town.nodes(name), of_layout);
    }
    assert!(rehearse(&town, &placing::deployment("d", 9, 1)).is_err());
}

#[test]
fn a_rehearsal_of_several_copies_gives_each_its_own_place_and_says_which_has_none() {
    let mut town = Town::founded(100);
    town.joined(100);
    town.joined(60);
    town.deploy("before", 2, 1);
    town.settle();
    let deployment = placing::deployment("a", 4, 5);
    let rehearsed = rehearse_copies(&View::of(&town.state), &BTreeSet::new(), &deployment, 5);
    let nodes = |layout: &Layout| -> Vec<NodeId> { layout.stages.iter().map(|stage| stage.node).collect() };
    let foreseen: Vec<Vec<NodeId>> = rehearsed.iter().flatten().map(nodes).collect();
    assert!((2..5).contains(&foreseen.len()), "{foreseen:?}");
    assert_eq!(
        rehearsed.len(),
        foreseen.len() + 1,
        "one says why it has no place"
    );
    town.deploy("a", 4, 5);
    town.settle();
    let placed = town.placed("a");
    let placed = placed
        .iter()
        .map(|placement| placement.stages.iter().map(|stage| stage.node).collect());
    assert_eq!(placed.collect::<Vec<Vec<NodeId>>>(), foreseen);
}

#[test]
fn what_is_undeployed_leaves_room_for_what_waited() {
    let mut town = Town::founded(60);
    town.deploy("a", 4, 1);
    town.deploy("b", 4, 1);
    let doings = town.settle();
    assert_eq!((places(&doings), doings.explained.len()), (1, 1));
    town.must(ClusterCommand::Undeploy(Box::new(Undeploy { model: "a".into() })));
    town.settle();
    assert_eq!(town.nodes("b"), [FOUNDER]);
}

#[test]
fn another_leader_s_placer_goes_on_without_moving_anything() {
    let mut town = Town::founded(60);
    town.joined(60);
    town.deploy("a", 8, 1);
    town.deploy("b", 1, 1);
    town.settle();
    town.placer = Default::default();
    assert_eq!(town.settle().commands, []);
}
