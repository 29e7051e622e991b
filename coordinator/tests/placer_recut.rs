//! When layers are cut anew between the nodes of a replica.

mod placing;

use coordinator::Machine;
use coordinator::cluster_state::FOUNDER;
use coordinator::placer::PlacerEvent;
use placing::{ComesUp, Doings, Town};
use proto::cluster::StagePlace;
use proto::{ReplicaId, Span};
use std::collections::BTreeSet;

/// A model of 12 layers over two nodes that have room for a good many more than their half of it.
struct Pipeline {
    town: Town,
    /// Of each stage, in its epoch.
    computed: Vec<Span>,
}

impl Pipeline {
    fn placed() -> Pipeline {
        let mut town = Town::founded(125);
        town.joined(125);
        town.deploy("a", 12, 1);
        town.settle();
        let computed = vec![Span::ZERO; 2];
        let mut pipeline = Pipeline { town, computed };
        assert_eq!(pipeline.layers(), [6, 6], "the nodes are equally fast");
        assert_eq!(pipeline.computes([0, 0]).commands, []);
        pipeline
    }

    fn replica(&self) -> ReplicaId {
        self.town.placed("a")[0].replica
    }

    fn layers(&self) -> Vec<u32> {
        let of_stage = |stage: &StagePlace| stage.layer_end - stage.layer_first;
        self.town.placed("a")[0].stages.iter().map(of_stage).collect()
    }

    /// Each stage goes on for so many seconds.
    fn computes(&mut self, secs: [u64; 2]) -> Doings {
        for (computed, more) in self.computed.iter_mut().zip(secs) {
            *computed += Span::from_secs(more);
        }
        let (replica, computed) = (self.replica(), self.computed.clone());
        let actions = self.town.tell(PlacerEvent::Computed { replica, computed });
        let doings = self.town.carry_out(actions);
        if !doings.commands.is_empty() {
            // Where it is placed now it begins anew.
            self.computed = vec![Span::ZERO; 2];
            assert_eq!(self.computes([0, 0]).commands, []);
        }
        doings
    }
}

#[test]
fn layers_go_to_the_stage_that_turns_out_to_be_faster_and_then_stay() {
    let mut pipeline = Pipeline::placed();
    let nodes = pipeline.town.nodes("a");
    assert_eq!(
        pipeline.computes([39, 20]).commands,
        [],
        "less than a minute says nothing"
    );
    assert_eq!(pipeline.computes([1, 0]).commands.len(), 1);
    assert_eq!(pipeline.layers(), [4, 8]);
    assert_eq!(
        pipeline.town.nodes("a"),
        nodes,
        "the same nodes in the same order"
    );
    for _ in 0..10 {
        assert_eq!(pipeline.computes([60, 60]).commands, [], "now they are even");
    }
}

#[test]
fn what_stages_compute_about_as_foreseen_changes_nothing() {
    let mut pipeline = Pipeline::placed();
    for secs in [[60, 60], [33, 27], [27, 33]] {
        assert_eq!(pipeline.computes(secs).commands, [], "{secs:?}");
    }
}

#[test]
fn a_tenth_is_worth_a_new_cut() {
    let mut pipeline = Pipeline::placed();
    // 5 : 7 layers would take 472 : 506 of what they take now.
    assert_eq!(pipeline.computes([567, 433]).commands.len(), 1);
    assert_eq!(pipeline.layers(), [5, 7]);
}

#[test]
fn each_new_cut_takes_twice_the_evidence_of_the_one_before() {
    let mut pipeline = Pipeline::placed();
    assert_eq!(pipeline.computes([40, 20]).commands.len(), 1);
    assert_eq!(pipeline.computes([20, 80]).commands, []);
    assert_eq!(pipeline.computes([4, 16]).commands.len(), 1, "two minutes");
    assert_eq!(pipeline.computes([180, 59]).commands, []);
    assert_eq!(pipeline.computes([0, 1]).commands.len(), 1, "four");
}

#[test]
fn an_earlier_minute_does_not_count_with_a_later_one() {
    let mut pipeline = Pipeline::placed();
    for _ in 0..20 {
        assert_eq!(pipeline.computes([30, 30]).commands, []);
    }
    assert_eq!(
        pipeline.computes([40, 20]).commands.len(),
        1,
        "it became slow now"
    );
}

#[test]
fn a_stage_gets_no_more_layers_than_its_node_has_room_for() {
    let mut pipeline = Pipeline::placed();
    let blocks = pipeline.town.placed("a")[0].blocks;
    assert_eq!(pipeline.computes([59, 1]).commands.len(), 1);
    let layers = pipeline.layers();
    assert!(
        (8..11).contains(&layers[1]),
        "{layers:?}: of 11 no more than 10 fit"
    );
    let blocks_after = pipeline.town.placed("a")[0].blocks;
    assert_eq!(blocks_after, blocks, "the cache stays as it is");
    pipeline.town.check_budgets();
}

#[test]
fn nothing_is_cut_while_it_does_not_serve() {
    let mut pipeline = Pipeline::placed();
    pipeline.town.comes_up = ComesUp::Never;
    let nothing = PlacerEvent::Serving(BTreeSet::new());
    assert_eq!(pipeline.town.tell(nothing), []);
    assert_eq!(pipeline.computes([80, 40]).commands, []);
    pipeline.town.comes_up = ComesUp::Soon;
    let actions = pipeline.town.all_serve();
    assert_eq!(pipeline.town.carry_out(actions).commands.len(), 1, "then it is");
}

#[test]
fn what_is_said_of_replicas_that_are_not_there_is_not_heard() {
    let mut town = Town::founded(200);
    town.deploy("a", 4, 1);
    town.settle();
    let there = town.placed("a")[0].replica;
    for (replica, stages) in [(ReplicaId(99), 2), (there, 2), (there, 1)] {
        let computed = vec![Span::from_secs(100); stages];
        for event in [
            PlacerEvent::Computed {
                replica,
                computed: vec![Span::ZERO; stages],
            },
            PlacerEvent::Computed { replica, computed },
        ] {
            assert_eq!(town.tell(event), []);
        }
    }
    assert_eq!(town.nodes("a"), [FOUNDER]);
    assert_eq!(town.placer.deadline(), None);
}
