//! Networks that come apart.

use super::cluster::Cluster;
use super::network::Weather;
use crate::raft::CommitError;
use proto::NodeId;
use proto::raft::CommandAnswer;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_leader_in_a_minority_acknowledges_nothing_and_answers_no_reads() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(5, seed).await;
        let leader = cluster.wait_for_leader().await;
        let (companion, majority) = split(&cluster, leader);
        cluster.network.part(&[leader, companion], &majority);
        let began = Instant::now();
        cluster.add_tenant(majority[0], "agreed").await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for node in [leader, companion] {
            let added = cluster.add_tenant(node, "lost").await;
            assert!(
                matches!(added, Err(CommitError::NoLeader | CommitError::Unknown(_))),
                "{added:?}"
            );
            assert!(cluster.member(node).linearize().await.is_err());
        }
        cluster.network.heal();
        cluster.settle(5).await;
        let state = cluster.state(leader);
        assert!(state.tenants().any(|tenant| tenant.name == "agreed"));
        assert!(
            !state.tenants().any(|tenant| tenant.name == "lost"),
            "its log was overruled"
        );
    }
}

/// It may stand in the log of somebody who has not been heard since, and come back from there.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_logged_and_overruled_here_is_not_called_never_logged() {
    let mut cluster = Cluster::of(3, 8).await;
    let leader = cluster.wait_for_leader().await;
    let others: Vec<NodeId> = cluster
        .network
        .nodes()
        .into_iter()
        .filter(|node| *node != leader)
        .collect();
    cluster.network.part(&[leader], &others);
    let (member, proposal) = (
        cluster.member(leader),
        cluster.proposal(super::cluster::tenant("a", 0)),
    );
    let asked = tokio::spawn(async move { member.commit_here(proposal).await });
    cluster.add_tenant(others[0], "b").await.unwrap().unwrap();
    cluster.network.heal();
    let answer = asked.await.unwrap();
    assert!(matches!(answer, CommandAnswer::Unknown(_)), "{answer:?}");
    assert_ne!(
        cluster.wait_for_leader().await,
        leader,
        "it was overruled, not timed out"
    );
}

fn split(cluster: &Cluster, leader: NodeId) -> (NodeId, Vec<NodeId>) {
    let mut others = cluster.network.nodes();
    others.retain(|node| *node != leader);
    let companion = others.remove(0);
    (companion, others)
}

/// Two nodes that both reach the third, and not each other.
#[tokio::test(start_paused = true)]
async fn over_a_bridge_the_middle_goes_on() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(3, seed).await;
        let nodes = cluster.network.nodes();
        let middle = nodes[seed as usize % 3];
        let ends: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != middle).collect();
        cluster.network.part(&ends[..1], &ends[1..]);
        let mut failed = 0;
        for number in 0..30 {
            let added = cluster.add_tenant(middle, &number.to_string()).await;
            failed += u32::from(added.is_err());
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(failed, 0, "seed {seed}");
        cluster.network.heal();
        cluster.settle(3).await;
    }
}

/// One message in twenty is lost, some come again after seconds, all are slow.
#[tokio::test(start_paused = true)]
async fn in_foul_weather_changes_are_slow_and_count_once() {
    let mut cluster = Cluster::of(3, 7).await;
    cluster.network.set_weather(Weather::foul());
    let mut unknown = 0;
    for number in 0..100 {
        let nodes = cluster.network.nodes();
        let node = nodes[number % 3];
        match cluster.add_tenant(node, &number.to_string()).await {
            Ok(Ok(_)) => {}
            Ok(Err(rejected)) => panic!("{rejected}: it counted twice"),
            Err(CommitError::Unknown(_)) => unknown += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(unknown <= 5, "{unknown} of 100 are unknown");
    cluster.network.set_weather(Weather::fair());
    cluster.settle(3).await;
}
