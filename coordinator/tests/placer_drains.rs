//! What becomes of replicas on drained nodes.

mod placing;

use coordinator::cluster_state::FOUNDER;
use coordinator::placer::{PlacerEvent, View, rehearse_drain};
use placing::{ComesUp, Town};
use proto::cluster::{ClusterCommand, Resume};
use proto::{NodeId, ReplicaId};
use std::collections::BTreeSet;

/// Every replica of a model, by the node that it speaks from.
fn heads(town: &Town, model: &str) -> Vec<(ReplicaId, NodeId)> {
    let replicas = town.state.replicas().filter(|replica| replica.model == model);
    replicas.map(|replica| (replica.replica, replica.node)).collect()
}

/// Two nodes, the replica of "a" on the first, which is drained; nothing comes up until it is said.
fn drained() -> (Town, NodeId) {
    let mut town = Town::founded(90);
    let other = town.joined(80);
    town.deploy("a", 4, 1);
    town.settle();
    assert_eq!(heads(&town, "a"), [(ReplicaId(1), FOUNDER)]);
    town.comes_up = ComesUp::Never;
    town.drain(FOUNDER);
    (town, other)
}

fn serving(replicas: &[u32]) -> PlacerEvent {
    PlacerEvent::Serving(replicas.iter().map(|replica| ReplicaId(*replica)).collect())
}

#[test]
fn a_replica_on_a_drained_node_stays_until_another_has_come_up() {
    let (mut town, other) = drained();
    let doings = town.settle();
    let (old, new) = ((ReplicaId(1), FOUNDER), (ReplicaId(2), other));
    assert_eq!(heads(&town, "a"), [old, new]);
    let reason = "replica 1 serves on node 1, which is drained, until another one has come up in its place";
    assert_eq!(doings.explained, [("a".to_owned(), Some(reason.to_owned()))]);
    assert_eq!(town.tell(serving(&[1])), [], "it loads");
    let actions = town.tell(serving(&[1, 2]));
    let doings = town.carry_out(actions);
    assert_eq!(heads(&town, "a"), [new]);
    assert_eq!(doings.explained, [("a".to_owned(), None)]);
}

#[test]
fn a_node_that_is_resumed_meanwhile_keeps_its_replica() {
    let (mut town, _) = drained();
    town.settle();
    town.must(ClusterCommand::Resume(Box::new(Resume { node: FOUNDER })));
    town.settle();
    assert_eq!(heads(&town, "a"), [(ReplicaId(1), FOUNDER)]);
}

#[test]
fn a_substitute_that_is_lost_before_it_came_up_takes_nothing_with_it() {
    let (mut town, other) = drained();
    town.settle();
    let actions = town.silent(other, 10_000);
    let doings = town.carry_out(actions);
    assert_eq!(heads(&town, "a"), [(ReplicaId(1), FOUNDER)]);
    let reason = doings.explained.last().unwrap().1.clone().unwrap();
    assert!(
        reason.contains("goes on serving there: no node can take a part"),
        "{reason}"
    );
    let actions = town.tell(PlacerEvent::Heard { node: other });
    town.carry_out(actions);
    assert_eq!(
        heads(&town, "a"),
        [(ReplicaId(1), FOUNDER), (ReplicaId(3), other)]
    );
}

#[test]
fn of_fewer_replicas_than_before_none_waits_for_a_substitute_that_nobody_needs() {
    let mut town = Town::founded(90);
    let other = town.joined(80);
    town.deploy("a", 4, 2);
    town.settle();
    town.drain(FOUNDER);
    town.drain(other);
    town.settle();
    assert_eq!(heads(&town, "a").len(), 2, "there is no other place for either");
    town.deploy("a", 4, 1);
    town.settle();
    assert_eq!(heads(&town, "a").len(), 1);
}

#[test]
fn a_replica_in_two_stages_moves_at_once_where_there_is_no_room_for_two_of_it() {
    let mut town = Town::founded(60);
    let nodes = [FOUNDER, town.joined(60), town.joined(60)];
    town.deploy("a", 8, 1);
    town.settle();
    let before = town.nodes("a");
    town.comes_up = ComesUp::Never;
    town.drain(before[0]);
    town.settle();
    let after = town.nodes("a");
    assert!(!after.contains(&before[0]), "{before:?}, {after:?}");
    assert!(after.iter().all(|node| nodes.contains(node)));
    assert_eq!(heads(&town, "a")[0].0, ReplicaId(1));
}

#[test]
fn who_drains_a_node_is_told_what_has_no_other_place() {
    let mut town = Town::founded(160);
    let other = town.joined(70);
    town.deploy("a", 4, 1);
    town.deploy("b", 4, 1);
    town.settle();
    assert_eq!((town.nodes("a"), town.nodes("b")), (vec![FOUNDER], vec![FOUNDER]));
    let told = |town: &Town, lost: &BTreeSet<NodeId>| {
        let staying = rehearse_drain(&View::of(&town.state), lost, FOUNDER);
        staying
            .into_iter()
            .map(|staying| staying.model)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&town, &BTreeSet::new()),
        ["b"],
        "there is room for one of them"
    );
    assert_eq!(
        told(&town, &BTreeSet::from([other])),
        ["a", "b"],
        "it does not answer"
    );
    town.drain(FOUNDER);
    assert_eq!(told(&town, &BTreeSet::new()), ["b"]);
    town.settle();
    assert_eq!(town.nodes("a"), [other], "as was said");
    assert_eq!(town.nodes("b"), [FOUNDER]);
    town.joined(70);
    assert_eq!(told(&town, &BTreeSet::new()), [] as [&str; 0]);
}
