//! Who is left without a quorum.

use super::cluster::{Cluster, tenant};
use crate::raft::CommitError;
use crate::raft::disk::tests::machine::Loss;
use coordinator::cluster_state::{DEFAULT_TENANT, FOUNDER};
use proto::NodeId;
use proto::cluster::{ClusterCommand, KeyId, KeyRecord, Role};
use std::time::Duration;
use tokio::time::sleep;

/// As Raft itself has it.
fn leader_of_raft(cluster: &Cluster, node: NodeId) -> Option<NodeId> {
    let metrics = cluster.member(node).raft().unwrap().metrics();
    let leader = metrics.borrow().current_leader;
    leader.map(NodeId)
}

/// Who leads, and those who do not.
async fn sides(cluster: &Cluster) -> (NodeId, Vec<NodeId>) {
    let leader = cluster.wait_for_leader().await;
    let mut others = cluster.network.nodes();
    others.retain(|node| *node != leader);
    (leader, others)
}

/// Who only learns never stands for election, so that Raft goes on naming the leader that it had.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_heard_is_not_shown() {
    let mut cluster = Cluster::of(3, 1).await;
    let worker = cluster.join(FOUNDER, Role::Worker).await;
    let (leader, mut others) = sides(&cluster).await;
    others.retain(|node| *node != worker);
    let shown = |cluster: &Cluster| cluster.member(worker).view().leader;
    cluster
        .until("the worker hears who leads", || shown(&cluster) == Some(leader))
        .await;
    let voters = [&[leader], others.as_slice()].concat();
    for voter in &voters {
        cluster.kill(*voter, Loss::None);
    }
    cluster
        .until("nobody is shown to lead", || shown(&cluster).is_none())
        .await;
    assert_eq!(leader_of_raft(&cluster, worker), Some(leader));
    for voter in &voters {
        cluster.start(*voter).await.unwrap();
    }
    cluster
        .until("the worker hears a leader again", || shown(&cluster).is_some())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_no_quorum_hears_is_not_shown_by_itself_either() {
    let cluster = Cluster::of(3, 2).await;
    let (leader, others) = sides(&cluster).await;
    cluster.network.part(&[leader], &others);
    let shown = || cluster.member(leader).view().leader;
    cluster.until("it shows nobody", || shown().is_none()).await;
    assert_eq!(leader_of_raft(&cluster, leader), Some(leader));
    cluster.network.heal();
    cluster.settle(3).await;
    assert!(shown().is_some());
}

/// What is asked for again and again would fill its log.
#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_logs_nothing() {
    let mut cluster = Cluster::of(3, 3).await;
    let (leader, others) = sides(&cluster).await;
    for other in &others {
        cluster.kill(*other, Loss::None);
    }
    // Before it has noticed, it logs what nobody agrees to.
    sleep(Duration::from_secs(3)).await;
    refuses_all(&mut cluster, leader, "it goes on").await;
    cluster.kill(leader, Loss::None);
    cluster.start(leader).await.unwrap();
    cluster
        .until("it takes up where it was", || {
            leader_of_raft(&cluster, leader) == Some(leader)
        })
        .await;
    refuses_all(&mut cluster, leader, "it has started again").await;
    for other in &others {
        cluster.start(*other).await.unwrap();
    }
    cluster.settle(3).await;
    cluster.add_tenant(leader, "agreed").await.unwrap().unwrap();
    let state = cluster.state(leader);
    let names: Vec<&str> = state.tenants().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["default", "agreed"], "what was refused did not happen");
}

/// Changes, and reads that people act upon.
async fn refuses_all(cluster: &mut Cluster, node: NodeId, why: &str) {
    let last_index = |cluster: &Cluster| cluster.member(node).view().last_index;
    let before = last_index(cluster);
    for number in 0..4 {
        let proposal = cluster.proposal(tenant(&format!("{why} {number}"), 0));
        let refused = cluster.member(node).commit(proposal).await;
        assert_eq!(refused, Err(CommitError::NoLeader), "{why}");
    }
    assert_eq!(
        cluster.member(node).linearize().await,
        Err(CommitError::NoLeader),
        "{why}"
    );
    assert_eq!(last_index(cluster), before, "{why}: nothing was logged");
}

/// What a node knows to be agreed on is noted on its disk a moment later.
#[tokio::test(start_paused = true)]
async fn a_key_that_was_revoked_a_moment_before_the_end_stays_closed() {
    let mut cluster = Cluster::of(3, 4).await;
    let (leader, others) = sides(&cluster).await;
    for name in ["revoked", "kept"] {
        let add = ClusterCommand::AddKey(Box::new(KeyRecord {
            key_id: name.to_owned(),
            secret_hash: [0; 32],
            tenant: DEFAULT_TENANT,
            created_at_secs: 0,
            name: None,
        }));
        cluster.commit(leader, add).await.unwrap().unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    let revoke = ClusterCommand::RevokeKey(Box::new(KeyId {
        key_id: "revoked".to_owned(),
    }));
    cluster.commit(leader, revoke).await.unwrap().unwrap();
    for node in [&[leader], others.as_slice()].concat() {
        cluster.kill(node, Loss::All);
    }
    cluster.start(leader).await.unwrap();
    let applied = cluster.member(leader).applied;
    assert!(
        applied.read().key("revoked").is_some(),
        "its disk does not show more"
    );
    assert!(applied.may_be_revoked("revoked"));
    assert!(!applied.may_be_revoked("kept"));
    for other in others {
        cluster.start(other).await.unwrap();
    }
    cluster
        .until("it is agreed on again", || {
            applied.read().key("revoked").is_none()
        })
        .await;
    assert!(!applied.may_be_revoked("revoked"), "now it is known");
}
