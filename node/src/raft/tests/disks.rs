//! Disks that are full, fail, or change what they hold.

use super::cluster::Cluster;
use crate::raft::CommitError;
use crate::raft::OpenError;
use crate::raft::disk::tests::machine::Loss;
use coordinator::cluster_state::FOUNDER;
use proto::NodeId;
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_full_disk_on_the_leader_stops_nobody_else() {
    let mut cluster = Cluster::of(3, 1).await;
    let leader = cluster.wait_for_leader().await;
    cluster.drives[&leader].fill();
    let full_since = Instant::now();
    let other = other_than(&cluster, leader);
    // The first may have been on its way to the old leader.
    let first = cluster.add_tenant(other, "first").await;
    assert!(matches!(first, Ok(Ok(_))), "{first:?}");
    assert!(full_since.elapsed() < Duration::from_secs(5));
    cluster.add_tenant(other, "second").await.unwrap().unwrap();
    let view = cluster.member(leader).view();
    assert!(view.trouble.is_some_and(|trouble| trouble.contains("no space")));
    assert_ne!(view.leader, Some(leader), "it leads nobody");
    cluster.drives[&leader].free();
    let free_since = Instant::now();
    cluster.settle(3).await;
    assert!(free_since.elapsed() < Duration::from_secs(30));
    assert_eq!(cluster.member(leader).view().trouble, None);
    assert!(
        cluster
            .state(leader)
            .tenants()
            .any(|tenant| tenant.name == "second")
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_on_a_follower_stops_nobody() {
    let mut cluster = Cluster::of(3, 2).await;
    let leader = cluster.wait_for_leader().await;
    let follower = other_than(&cluster, leader);
    cluster.drives[&follower].fill();
    for number in 0..20 {
        let began = Instant::now();
        cluster
            .add_tenant(leader, &number.to_string())
            .await
            .unwrap()
            .unwrap();
        assert!(
            began.elapsed() < Duration::from_millis(100),
            "{:?}",
            began.elapsed()
        );
        sleep(Duration::from_millis(200)).await;
    }
    assert!(cluster.member(follower).view().trouble.is_some());
    // Who asks there hears what to mend, and not that there is no leader.
    let unheard = cluster.member(follower).linearize().await;
    assert!(
        matches!(&unheard, Err(CommitError::Away(reason)) if reason.contains("no space") && reason.contains("free some")),
        "{unheard:?}"
    );
    cluster.drives[&follower].free();
    cluster.settle(3).await;
    assert_eq!(cluster.wait_for_leader().await, leader, "it had no reason to go");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_on_the_only_node_makes_changes_wait() {
    let mut cluster = Cluster::founded(3).await;
    cluster.add_tenant(FOUNDER, "before").await.unwrap().unwrap();
    cluster.drives[&FOUNDER].fill();
    let proposal = cluster.proposal(super::cluster::tenant("waits", 0));
    let member = cluster.member(FOUNDER);
    let waits = tokio::spawn(async move { member.commit(proposal).await });
    sleep(Duration::from_secs(2)).await;
    cluster.drives[&FOUNDER].free();
    let waited = waits.await.unwrap().unwrap();
    assert!(waited.outcome.is_ok());
    cluster.drives[&FOUNDER].fill();
    let unknown = cluster.add_tenant(FOUNDER, "is not known").await;
    assert!(
        matches!(&unknown, Err(CommitError::Unknown(reason)) if reason.contains("no space")),
        "{unknown:?}"
    );
    cluster.drives[&FOUNDER].free();
    sleep(Duration::from_secs(1)).await;
    cluster.add_tenant(FOUNDER, "after").await.unwrap().unwrap();
    cluster.kill(FOUNDER, Loss::All);
    cluster.start(FOUNDER).await.unwrap();
    cluster.member(FOUNDER).linearize().await.unwrap();
    for name in ["before", "waits", "after"] {
        assert!(
            cluster.state(FOUNDER).tenants().any(|tenant| tenant.name == name),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_disk_does_not_start() {
    for seed in 0..4 {
        let mut cluster = Cluster::of(3, seed).await;
        let leader = cluster.wait_for_leader().await;
        cluster.kill(leader, Loss::None);
        cluster.drives[&leader].flip_a_bit();
        let error = cluster.start(leader).await.err();
        assert!(error.as_ref().is_some_and(OpenError::is_damage), "{error:?}");
        let other = cluster.network.nodes()[0];
        cluster.add_tenant(other, "goes on").await.unwrap().unwrap();
    }
}

/// The node lives on, reads its disk anew after a failure, and finds damage.
#[tokio::test(start_paused = true)]
async fn a_disk_that_turns_out_to_be_damaged_neither_votes_nor_leads() {
    let mut cluster = Cluster::of(3, 5).await;
    let leader = cluster.wait_for_leader().await;
    let term = cluster.member(leader).view().term;
    cluster.drives[&leader].fail_next_sync();
    let unknown = cluster.add_tenant(leader, "a").await;
    assert!(matches!(unknown, Err(CommitError::Unknown(_))), "{unknown:?}");
    cluster.drives[&leader].flip_a_bit();
    let other = other_than(&cluster, leader);
    cluster.add_tenant(other, "b").await.unwrap().unwrap();
    sleep(Duration::from_secs(10)).await;
    let view = cluster.member(leader).view();
    assert_eq!((view.leader, view.term), (None, 0), "it takes no part");
    let trouble = view.trouble.unwrap();
    assert!(trouble.contains("damaged"), "{trouble}");
    let refused = cluster.add_tenant(leader, "c").await;
    assert!(matches!(refused, Err(CommitError::Away(_))), "{refused:?}");
    // The two others are a majority, and it is not in it.
    let view = cluster.member(other).view();
    assert!(view.term > term && view.leader != Some(leader));
    let third = other_than_both(&cluster, leader, other);
    cluster.kill(third, Loss::None);
    let alone = cluster.add_tenant(other, "d").await;
    assert!(
        matches!(alone, Err(CommitError::NoLeader | CommitError::Unknown(_))),
        "{alone:?}"
    );
}

fn other_than(cluster: &Cluster, node: NodeId) -> NodeId {
    other_than_both(cluster, node, node)
}

fn other_than_both(cluster: &Cluster, one: NodeId, two: NodeId) -> NodeId {
    let nodes = cluster.network.nodes();
    *nodes.iter().find(|node| **node != one && **node != two).unwrap()
}
