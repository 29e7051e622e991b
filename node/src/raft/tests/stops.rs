//! Nodes that stand still, clocks that jump, and messages that come when nobody waits for them.

use super::client::tenant_value;
use super::cluster::{Cluster, tenant};
use super::watch::Watch;
use crate::raft::CommitError;
use proto::NodeId;
use std::time::Duration;
use tokio::time::sleep;

fn others_than(cluster: &Cluster, node: NodeId) -> Vec<NodeId> {
    let mut others = cluster.network.nodes();
    others.retain(|other| *other != node);
    others
}

/// It goes on with everything that it believed, and was asked to read before it could hear of its end.
#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_serves_no_read_from_before() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(3, seed).await;
        let leader = cluster.wait_for_leader().await;
        let other = others_than(&cluster, leader)[0];
        let process = cluster.network.process(leader).unwrap();
        process.stop();
        let member = cluster.member(leader);
        let reads = tokio::spawn(process.does(async move {
            let linear = member.linearize().await;
            linear.map(|()| tenant_value(&member.applied.read(), "meanwhile"))
        }));
        sleep(Duration::from_secs(2)).await;
        let before = cluster.member(leader).view();
        assert_eq!(before.leader, Some(leader), "it has not noticed");
        cluster.add_tenant(other, "meanwhile").await.unwrap().unwrap();
        process.go_on();
        let seen = reads.await.unwrap().unwrap();
        assert_eq!(seen, Some(0), "seed {seed}");
        cluster.settle(3).await;
    }
}

/// What it was about to say is said late, and heard by those who have gone on without it.
#[tokio::test(start_paused = true)]
async fn what_a_stopped_leader_had_begun_counts_once_or_never() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(3, seed).await;
        let leader = cluster.wait_for_leader().await;
        let other = others_than(&cluster, leader)[0];
        let process = cluster.network.process(leader).unwrap();
        let proposal = cluster.proposal(tenant("begun", 7));
        let (member, same) = (cluster.member(leader), proposal.clone());
        let begun = tokio::spawn(process.does(async move { member.commit(same).await }));
        sleep(Duration::from_micros(100 + seed * 300)).await;
        process.stop();
        sleep(Duration::from_secs(2)).await;
        let again = cluster.member(other).commit(proposal).await.unwrap();
        assert!(again.outcome.is_ok(), "{again:?}");
        process.go_on();
        match begun.await.unwrap() {
            Ok(committed) => assert_eq!(committed.outcome, again.outcome, "it counted once"),
            Err(error) => assert!(matches!(error, CommitError::Unknown(_)), "{error}"),
        }
        cluster.settle(3).await;
        let state = cluster.state(leader);
        assert_eq!(state.tenants().filter(|tenant| tenant.name == "begun").count(), 1);
    }
}

/// A lease that seems to be over, and an election that seems to be due, are no danger.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_elects_nobody_twice_and_loses_nothing() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(3, seed).await;
        let watch = tokio::spawn(Watch::of(&cluster.network).run());
        for number in 0..20 {
            let nodes = cluster.network.nodes();
            let node = nodes[cluster.dice.below(3) as usize];
            let millis = cluster.dice.below(10_000);
            cluster
                .network
                .process(node)
                .unwrap()
                .jump(Duration::from_millis(millis));
            let asked = nodes[cluster.dice.below(3) as usize];
            let name = number.to_string();
            cluster.add_tenant(asked, &name).await.unwrap().unwrap();
            let reader = nodes[cluster.dice.below(3) as usize];
            cluster.member(reader).linearize().await.unwrap();
            assert!(cluster.state(reader).tenants().any(|tenant| tenant.name == name));
        }
        cluster.settle(3).await;
        assert!(!watch.is_finished(), "nobody went back, nobody voted twice");
        watch.abort();
    }
}

/// All that a leader sent in three seconds arrives at once, in any order, when another one has been elected.
#[tokio::test(start_paused = true)]
async fn messages_of_an_overruled_leader_that_come_late_change_nothing() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(3, seed).await;
        let leader = cluster.wait_for_leader().await;
        let others = others_than(&cluster, leader);
        others
            .iter()
            .for_each(|other| cluster.network.hold(leader, *other));
        let member = cluster.member(leader);
        let late = tokio::spawn({
            let proposal = cluster.proposal(tenant("late", 1));
            async move { member.commit_here(proposal).await }
        });
        sleep(Duration::from_secs(3)).await;
        cluster.add_tenant(others[0], "agreed").await.unwrap().unwrap();
        let elected = cluster.member(others[0]).view().leader;
        assert!(elected.is_some_and(|elected| elected != leader), "{elected:?}");
        cluster.network.let_through();
        cluster.settle(3).await;
        late.abort();
        let state = cluster.state(others[1]);
        assert!(state.tenants().any(|tenant| tenant.name == "agreed"));
        assert!(
            !state.tenants().any(|tenant| tenant.name == "late"),
            "seed {seed}: no quorum ever held it"
        );
    }
}
