//! Data folders that go back as a whole to an earlier state, as with a snapshot of a machine: the witness goes with them, so
//! that the disk itself tells nothing.

use super::cluster::Cluster;
use super::drive::Drive;
use super::network::Weather;
use crate::raft::OpenError;
use crate::raft::disk::tests::machine::Loss;
use proto::NodeId;
use std::time::Duration;
use tokio::time::sleep;

/// The others know better, and are there.
#[tokio::test(start_paused = true)]
async fn a_voter_that_was_set_back_alone_is_noticed_and_nothing_is_lost() {
    for seed in 0..3 {
        let mut cluster = Cluster::of(3, seed).await;
        let leader = cluster.wait_for_leader().await;
        let [victim, other] = others(&cluster, leader);
        let before = copy(&mut cluster, victim).await;
        let term = cluster.member(leader).view().term;
        acknowledge(&mut cluster, leader).await;
        cluster.settle(3).await;
        set_back(&mut cluster, victim, before);
        cluster.start(victim).await.unwrap();
        cluster.add_tenant(other, "after").await.unwrap().unwrap();
        let notices = || {
            let trouble = cluster.member(leader).view().trouble;
            trouble.is_some_and(|trouble| trouble.contains(&format!("node {victim} lacks")))
        };
        cluster.until("its leader notices", notices).await;
        // So late that a pause between two words to it would be longer than it waits for one.
        cluster.network.set_weather(Weather {
            delay_micros: 100..20_000,
            ..Weather::fair()
        });
        sleep(Duration::from_secs(60)).await;
        cluster.add_tenant(other, "later").await.unwrap().unwrap();
        let view = cluster.member(leader).view();
        assert_eq!(
            (view.leader, view.term),
            (Some(leader), term),
            "it had no reason to go"
        );
        // Whoever leads next asks it from the start.
        cluster.kill(leader, Loss::None);
        cluster.wait_for_leader().await;
        cluster.start(leader).await.unwrap();
        cluster.settle(3).await;
        assert_eq!(
            holds(&cluster, victim),
            ["acked 0", "acked 1", "acked 2", "after", "later"]
        );
    }
}

/// A double fault: nobody who is left knows what was acknowledged, until somebody comes back who does.
#[tokio::test(start_paused = true)]
async fn who_remembers_what_the_others_forgot_does_not_follow_them() {
    for seed in 0..3 {
        let (mut cluster, [witness, absent, victim]) = forgotten(seed, Duration::ZERO).await;
        cluster.add_tenant(absent, "other").await.unwrap().unwrap();
        cluster.start(witness).await.unwrap();
        refuses_to_follow(&cluster, witness).await;
        // The two others go on.
        cluster.add_tenant(victim, "more").await.unwrap().unwrap();
        sleep(Duration::from_secs(1)).await;
        for node in [absent, victim] {
            assert_eq!(holds(&cluster, node), ["other", "more"]);
        }
        // It is not forgotten with the process.
        cluster.kill(witness, Loss::None);
        let error = cluster.start(witness).await.err();
        assert!(error.as_ref().is_some_and(OpenError::is_damage), "{error:?}");
    }
}

/// As before, and who comes back is the one that Raft takes to know more: his term was the higher one.
#[tokio::test(start_paused = true)]
async fn who_remembers_more_does_not_overrule_what_was_agreed_on_since() {
    for seed in 0..3 {
        let (mut cluster, [witness, absent, victim]) = forgotten(seed, Duration::from_secs(10)).await;
        for number in 0..4 {
            let name = format!("other {number}");
            cluster.add_tenant(absent, &name).await.unwrap().unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        for node in [absent, victim] {
            // Nobody else stands for election.
            let raft = cluster.member(node).raft().unwrap();
            raft.runtime_config().elect(false);
        }
        cluster.start(witness).await.unwrap();
        refuses_to_follow(&cluster, absent).await;
        refuses_to_follow(&cluster, victim).await;
        let alone = cluster.add_tenant(witness, "alone").await;
        assert!(alone.is_err(), "{alone:?}");
        for node in [absent, victim] {
            assert_eq!(
                holds(&cluster, node),
                ["other 0", "other 1", "other 2", "other 3"]
            );
            cluster.kill(node, Loss::None);
            let error = cluster.start(node).await.err();
            assert!(error.as_ref().is_some_and(OpenError::is_damage), "{error:?}");
        }
    }
}

/// One of three was away while two agreed on something. Then one of the two is set back, and meets the one that was away.
/// Gives the one that still knows, and does not run, first.
async fn forgotten(seed: u64, apart: Duration) -> (Cluster, [NodeId; 3]) {
    let mut cluster = Cluster::of(3, seed).await;
    let witness = cluster.wait_for_leader().await;
    let [absent, victim] = others(&cluster, witness);
    let before = copy(&mut cluster, victim).await;
    cluster.kill(absent, Loss::None);
    // Who does not hear its leader begins one term after the other.
    cluster.network.part(&[witness], &[victim]);
    sleep(apart).await;
    cluster
        .member(victim)
        .raft()
        .unwrap()
        .runtime_config()
        .elect(false);
    cluster.network.heal();
    cluster
        .until("it leads again", || cluster.leader() == Some(witness))
        .await;
    acknowledge(&mut cluster, witness).await;
    sleep(Duration::from_secs(1)).await;
    cluster.kill(witness, Loss::None);
    set_back(&mut cluster, victim, before);
    cluster.start(absent).await.unwrap();
    cluster.start(victim).await.unwrap();
    cluster.wait_for_leader().await;
    (cluster, [witness, absent, victim])
}

async fn refuses_to_follow(cluster: &Cluster, node: NodeId) {
    let member = cluster.member(node);
    let refuses = || {
        let trouble = member.view().trouble;
        trouble.is_some_and(|trouble| trouble.contains("was set back") && trouble.contains("--join"))
    };
    cluster
        .until("it sees that something was set back", refuses)
        .await;
    sleep(Duration::from_secs(10)).await;
    assert!(refuses(), "{:?}", member.view());
    assert_eq!(
        (member.view().leader, member.view().term),
        (None, 0),
        "it takes no part"
    );
}

async fn acknowledge(cluster: &mut Cluster, through: NodeId) {
    for number in 0..3 {
        let name = format!("acked {number}");
        cluster.add_tenant(through, &name).await.unwrap().unwrap();
    }
}

/// Of what it holds between two runs.
async fn copy(cluster: &mut Cluster, node: NodeId) -> Drive {
    cluster.kill(node, Loss::None);
    let copy = cluster.drives[&node].copy();
    cluster.start(node).await.unwrap();
    cluster.settle(3).await;
    copy
}

fn set_back(cluster: &mut Cluster, node: NodeId, before: Drive) {
    cluster.kill(node, Loss::None);
    cluster.drives.insert(node, before);
}

fn others(cluster: &Cluster, node: NodeId) -> [NodeId; 2] {
    let mut nodes = cluster.network.nodes();
    nodes.retain(|other| *other != node);
    nodes.try_into().unwrap()
}

/// The tenants that were made here, in their order.
fn holds(cluster: &Cluster, node: NodeId) -> Vec<String> {
    let state = cluster.state(node);
    let made = state.tenants().filter(|tenant| tenant.name != "default");
    made.map(|tenant| tenant.name.clone()).collect()
}
