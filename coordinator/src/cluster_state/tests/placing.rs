use super::*;
use proto::cluster::{ClusterImage, KvCacheFormat, ModelShape, OverBudget, StagePlace, Undeploy, Unplace};

const LAYERS: u32 = 4;

/// A cluster at level 2, whose nodes can carry 100 bytes each.
fn grown(nodes: u8) -> (Log, Vec<NodeId>) {
    let mut log = Log::founded();
    let mut members = vec![FOUNDER];
    members.extend((2..=nodes).map(|key| log.joined(key, Role::Voter)));
    for node in &members {
        let at = MemberAt {
            node: *node,
            quic: "a:1".into(),
            http: "http://a:2".into(),
            level: 2,
        };
        log.apply(ClusterCommand::MoveMember(Box::new(at))).unwrap();
    }
    let level = Box::new(FeatureLevel { level: 2 });
    log.apply(ClusterCommand::SetFeatureLevel(level)).unwrap();
    for node in &members {
        log.apply(profile(*node, 100)).unwrap();
    }
    (log, members)
}

fn profile(node: NodeId, memory_bytes: u64) -> ClusterCommand {
    ClusterCommand::Profile(Box::new(NodeProfile {
        node,
        memory_bytes,
        threads: 2,
        ..NodeProfile::default()
    }))
}

fn deployment(name: &str, digest: u8) -> Deployment {
    Deployment {
        model: ModelRecord {
            name: name.into(),
            spec: "path".into(),
            digest: [digest; 32],
            bytes: 1,
            added_at_secs: 0,
        },
        manifest: [0; 32],
        shape: ModelShape {
            layers: LAYERS,
            heads: 4,
            context_tokens_max: 64,
            layer_weight_bytes: vec![5; LAYERS as usize],
            layer_products: vec![vec![]; LAYERS as usize],
            block_tokens: 16,
            ..ModelShape::default()
        },
        replicas: 1,
        ranks: 1,
        kv_cache: KvCacheFormat::Bf16,
    }
}

fn deploy(name: &str, digest: u8) -> ClusterCommand {
    ClusterCommand::Deploy(Box::new(deployment(name, digest)))
}

/// Equal shares of the layers for these nodes, each taking so many bytes.
fn placement(model: &str, nodes: &[NodeId], memory_bytes: u64) -> Placement {
    let share = LAYERS / nodes.len() as u32;
    let stage = |(index, node): (usize, &NodeId)| StagePlace {
        node: *node,
        layer_first: index as u32 * share,
        layer_end: (index as u32 + 1) * share,
        ranks: 1,
        threads: 1,
        memory_bytes,
    };
    Placement {
        model: model.into(),
        stages: nodes.iter().enumerate().map(stage).collect(),
        blocks: 4,
        step_tokens_max: 16,
        ..Placement::default()
    }
}

fn place(placement: Placement) -> ClusterCommand {
    ClusterCommand::Place(Box::new(placement))
}

impl Log {
    fn placed(&mut self, placement: Placement) -> ReplicaRecord {
        match self.apply(place(placement)) {
            Ok(Applied::Replicas(records)) => records[0].clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What is rejected changes nothing, is known before it is applied, and says why.
    fn rejects(&mut self, command: ClusterCommand) -> Rejected {
        let before = self.state.clone();
        let rejected = self.state.accepts(&command).expect_err("it must not count");
        assert_eq!(self.apply(command), Err(rejected.clone()));
        self.state.version -= 1;
        self.state.recent.pop_back();
        assert_eq!(self.state, before);
        rejected
    }
}

#[test]
fn what_is_deployed_is_known_until_it_is_undeployed() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    assert_eq!(log.state.model("a").map(|model| model.digest), Some([1; 32]));
    log.apply(serve(nodes[1], &[("b", 1)])).unwrap();
    log.apply(serve(nodes[1], &[])).unwrap();
    assert!(
        log.state.model("a").is_some(),
        "nobody serves it, and it is deployed"
    );
    assert_eq!(log.state.model("b"), None);
    let record = log.placed(placement("a", &nodes, 10));
    let undeploy = || ClusterCommand::Undeploy(Box::new(Undeploy { model: "a".into() }));
    log.apply(undeploy()).unwrap();
    assert_eq!((log.state.model("a"), log.state.deployment("a")), (None, None));
    assert_eq!(log.state.placement(record.replica), None);
    assert_eq!(log.state.replica(record.replica), None);
    let unknown = Rejected::DeploymentUnknown { name: "a".into() };
    assert_eq!(log.rejects(undeploy()), unknown);
}

#[test]
fn a_placed_replica_lives_on_the_node_of_its_last_stage_and_keeps_its_id() {
    let (mut log, nodes) = grown(3);
    log.apply(deploy("a", 1)).unwrap();
    let first = log.placed(placement("a", &nodes[..2], 10));
    assert_eq!((first.node, &*first.model), (nodes[1], "a"));
    assert_eq!(log.state.replica(first.replica), Some(&first));
    assert_eq!(log.state.placements_of(nodes[0]).count(), 1);
    let again = Placement {
        replica: first.replica,
        ..placement("a", &[nodes[2]], 20)
    };
    let second = log.placed(again);
    assert_eq!((second.replica, second.node), (first.replica, nodes[2]));
    assert_eq!(second.epoch.0, first.epoch.0 + EPOCHS_OF_A_RUN);
    assert_eq!(
        (log.state.replicas().count(), log.state.placements().count()),
        (1, 1)
    );
    assert_eq!(log.state.placements_of(nodes[0]).count(), 0);
    let third = log.placed(placement("a", &[nodes[0]], 20));
    assert!(third.replica > first.replica);
    let unplace = Box::new(Unplace {
        replica: first.replica,
    });
    log.apply(ClusterCommand::Unplace(unplace)).unwrap();
    assert_eq!(log.state.replicas().collect::<Vec<_>>(), [&third]);
    assert!(log.state.model("a").is_some(), "deployed, whatever runs of it");
}

#[test]
fn no_node_is_given_more_than_it_can_carry() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    log.apply(deploy("b", 2)).unwrap();
    let first = log.placed(placement("a", &nodes, 60));
    let over = |needed_bytes| {
        Rejected::OverBudget(Box::new(OverBudget {
            node: nodes[1],
            needed_bytes,
            budget_bytes: 100,
        }))
    };
    assert_eq!(log.rejects(place(placement("b", &[nodes[1]], 41))), over(101));
    let more = |memory_bytes| Placement {
        replica: first.replica,
        ..placement("a", &[nodes[1]], memory_bytes)
    };
    assert_eq!(log.rejects(place(more(101))), over(101));
    log.placed(more(100));
    assert_eq!(
        log.state.placed_bytes(nodes[1]),
        100,
        "its old place is not counted"
    );
    assert_eq!(
        log.rejects(place(placement("b", &[nodes[1]], u64::MAX))),
        over(u64::MAX)
    );
    assert_eq!(log.state.placed_bytes(nodes[0]), 0);
}

#[test]
fn stages_cover_every_layer_once_in_order_and_apart() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    let unfit = Rejected::StagesUnfit { name: "a".into() };
    let broken: [fn(&mut Placement); 10] = [
        |placement| placement.stages.clear(),
        |placement| placement.stages[0].layer_first = 1,
        |placement| placement.stages[0].layer_end = 1,
        |placement| placement.stages[0].layer_end = 3,
        |placement| placement.stages[1].layer_end = 3,
        |placement| placement.stages[1].layer_end = 5,
        |placement| placement.stages.swap(0, 1),
        |placement| placement.stages[1].node = placement.stages[0].node,
        |placement| placement.blocks = 0,
        |placement| placement.step_tokens_max = 0,
    ];
    for (index, break_it) in broken.into_iter().enumerate() {
        let mut placement = placement("a", &nodes, 10);
        break_it(&mut placement);
        assert_eq!(log.rejects(place(placement)), unfit, "{index}");
    }
    let idle: [fn(&mut StagePlace); 3] = [
        |stage| stage.ranks = 0,
        |stage| stage.threads = 0,
        |stage| stage.layer_end = stage.layer_first,
    ];
    for break_it in idle {
        let mut placement = placement("a", &nodes, 10);
        break_it(&mut placement.stages[1]);
        assert_eq!(log.rejects(place(placement)), unfit);
    }
    log.placed(placement("a", &nodes, 10));
}

#[test]
fn only_members_that_take_part_and_have_said_what_they_can_carry_are_placed_on() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    let stranger = NodeId(999);
    let unknown = Rejected::MemberUnknown { node: stranger };
    assert_eq!(log.rejects(place(placement("a", &[stranger], 1))), unknown);
    assert_eq!(log.rejects(profile(stranger, 1)), unknown);
    let newcomer = {
        log.token("t", Role::Voter);
        let ClusterCommand::Join(mut new) = join("t", 9, 50) else {
            unreachable!("made above")
        };
        new.level = 2;
        let Ok(Applied::Member(node)) = log.apply(ClusterCommand::Join(new)) else {
            panic!("accepted")
        };
        node
    };
    let silent = Rejected::ProfileUnknown { node: newcomer };
    assert_eq!(log.rejects(place(placement("a", &[newcomer], 1))), silent);
    let drain = Drain { node: nodes[1] };
    log.apply(ClusterCommand::Drain(Box::new(drain))).unwrap();
    let drained = Rejected::NodeDrained { node: nodes[1] };
    assert_eq!(log.rejects(place(placement("a", &nodes, 1))), drained);
    assert!(
        !log.state.is_offered(ReplicaId(9), nodes[1]),
        "it serves that by its own choice"
    );
    assert!(log.state.is_offered(ReplicaId(9), nodes[0]));
    let undeployed = Rejected::DeploymentUnknown { name: "b".into() };
    assert_eq!(log.rejects(place(placement("b", &[FOUNDER], 1))), undeployed);
}

#[test]
fn only_a_replica_that_was_placed_can_be_placed_anew_or_taken_away() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    log.apply(deploy("b", 2)).unwrap();
    let Ok(Applied::Replicas(served)) = log.apply(serve(FOUNDER, &[("a", 1)])) else {
        panic!("accepted")
    };
    let replica = served[0].replica;
    let unknown = Rejected::PlacementUnknown { replica };
    let again = |model, replica| Placement {
        replica,
        ..placement(model, &[nodes[1]], 1)
    };
    assert_eq!(log.rejects(place(again("a", replica))), unknown);
    let unplace = ClusterCommand::Unplace(Box::new(Unplace { replica }));
    assert_eq!(log.rejects(unplace), unknown);
    let placed = log.placed(placement("a", &[nodes[1]], 1)).replica;
    let other = Rejected::PlacementUnknown { replica: placed };
    assert_eq!(
        log.rejects(place(again("b", placed))),
        other,
        "it is of another model"
    );
}

#[test]
fn a_deployed_name_means_one_file() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    let differs = || Rejected::ModelDiffers { name: "a".into() };
    assert_eq!(log.rejects(deploy("a", 2)), differs());
    assert_eq!(log.rejects(serve(nodes[1], &[("a", 2)])), differs());
    log.apply(serve(nodes[1], &[("a", 1), ("b", 1)])).unwrap();
    let b_differs = Rejected::ModelDiffers { name: "b".into() };
    assert_eq!(log.rejects(deploy("b", 2)), b_differs);
    for break_it in [
        |shape: &mut ModelShape| shape.layers = 0,
        |shape: &mut ModelShape| shape.layers = 5,
        |shape: &mut ModelShape| shape.layer_products.clear(),
        |shape: &mut ModelShape| shape.block_tokens = 0,
        |shape: &mut ModelShape| shape.context_tokens_max = 0,
    ] {
        let mut unfit = deployment("c", 1);
        break_it(&mut unfit.shape);
        let rejected = log.rejects(ClusterCommand::Deploy(Box::new(unfit)));
        assert_eq!(rejected, Rejected::ShapeUnfit { name: "c".into() });
    }
}

#[test]
fn another_number_of_replicas_moves_nothing_and_other_sizes_mean_to_place_anew() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    let record = log.placed(placement("a", &nodes, 10));
    let mut changed = deployment("a", 1);
    changed.replicas = 3;
    log.apply(ClusterCommand::Deploy(Box::new(changed.clone())))
        .unwrap();
    assert_eq!(log.state.replica(record.replica), Some(&record));
    changed.shape.common_bytes = 1;
    log.apply(ClusterCommand::Deploy(Box::new(changed.clone())))
        .unwrap();
    assert_eq!(log.state.replicas().count() + log.state.placements().count(), 0);
    assert_eq!(log.state.deployment("a"), Some(&changed));
}

#[test]
fn a_removed_node_takes_along_every_replica_that_had_a_stage_there() {
    let (mut log, nodes) = grown(3);
    log.apply(deploy("a", 1)).unwrap();
    log.placed(placement("a", &nodes[..2], 10));
    let kept = log.placed(placement("a", &[nodes[1]], 10));
    log.apply(remove(nodes[0])).unwrap();
    assert_eq!(log.state.profile(nodes[0]), None);
    assert_eq!(log.state.replicas().collect::<Vec<_>>(), [&kept]);
    assert_eq!(log.state.placements().count(), 1);
    assert!(log.state.model("a").is_some());
}

#[test]
fn a_node_that_restarts_begins_anew_with_what_was_placed_on_it() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    let here = log.placed(placement("a", &nodes, 10));
    let elsewhere = log.placed(placement("a", &[nodes[0]], 10));
    let Ok(Applied::Replicas(served)) = log.apply(serve(nodes[1], &[("a", 1)])) else {
        panic!("accepted")
    };
    assert_eq!(served.len(), 1);
    assert_ne!(served[0].replica, here.replica, "a copy of its own");
    let epoch = |replica| log.state.replica(replica).map(|record| record.epoch);
    assert_eq!(epoch(here.replica), Some(Epoch(here.epoch.0 + EPOCHS_OF_A_RUN)));
    assert_eq!(epoch(elsewhere.replica), Some(elsewhere.epoch));
    log.apply(serve(nodes[1], &[])).unwrap();
    assert_eq!(log.state.replicas().count(), 2);
    assert_eq!(log.state.placements_of(nodes[1]).count(), 1);
}

#[test]
fn a_node_that_can_carry_less_loses_the_youngest_first() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    let oldest = log.placed(placement("a", &nodes, 40));
    let elsewhere = log.placed(placement("a", &[nodes[0]], 40));
    log.placed(placement("a", &[nodes[1]], 40));
    log.apply(profile(nodes[1], 79)).unwrap();
    let left: Vec<_> = log.state.replicas().collect();
    assert_eq!(left, [&oldest, &elsewhere]);
    assert_eq!(log.state.placements().count(), 2);
}

#[test]
fn a_cluster_at_level_1_takes_none_of_it_and_writes_the_first_version_of_the_image() {
    let mut log = Log::founded();
    let low = Rejected::LevelTooLow { needed: 2, level: 1 };
    assert_eq!(log.rejects(deploy("a", 1)), low);
    assert_eq!(log.rejects(profile(FOUNDER, 1)), low);
    assert_eq!(log.rejects(place(placement("a", &[FOUNDER], 1))), low);
    log.apply(serve(FOUNDER, &[("a", 1)])).unwrap();
    let image = log.state.image();
    assert!(matches!(image, ClusterImage::V1(_)));
    assert_eq!(ClusterState::of_image(image), log.state);
}

#[test]
fn an_image_of_the_first_version_is_read_and_goes_on_as_the_second() {
    let mut old = Log::founded();
    old.apply(serve(FOUNDER, &[("z", 1)])).unwrap();
    let mut log = Log {
        state: ClusterState::of_image(old.state.image()),
        index: old.index,
    };
    let at = MemberAt {
        node: FOUNDER,
        quic: "a:1".into(),
        http: "http://a:2".into(),
        level: 2,
    };
    log.apply(ClusterCommand::MoveMember(Box::new(at))).unwrap();
    let level = Box::new(FeatureLevel { level: 2 });
    log.apply(ClusterCommand::SetFeatureLevel(level)).unwrap();
    log.apply(profile(FOUNDER, 100)).unwrap();
    log.apply(deploy("a", 1)).unwrap();
    log.placed(placement("a", &[FOUNDER], 10));
    log.rejects(place(placement("a", &[FOUNDER], 100)));
    let image = log.state.image();
    assert!(matches!(image, ClusterImage::V2(_)));
    let restored = ClusterState::of_image(image);
    assert_eq!(restored, log.state);
    assert_eq!(
        (restored.replicas().count(), restored.placements().count()),
        (2, 1)
    );
}

#[test]
fn a_state_reborn_keeps_what_is_deployed_and_places_it_anew() {
    let (mut log, nodes) = grown(2);
    log.apply(deploy("a", 1)).unwrap();
    log.placed(placement("a", &nodes, 10));
    let node = log.state.id_above(log.index);
    let state = log.state.clone().reborn(&Sole {
        node,
        spki: [2; 32],
        authority: vec![9],
        level: 2,
        at_secs: 0,
    });
    assert_eq!(state.deployment("a"), log.state.deployment("a"));
    assert!(state.model("a").is_some());
    assert_eq!(
        state.profiles().count() + state.placements().count() + state.replicas().count(),
        0
    );
}
