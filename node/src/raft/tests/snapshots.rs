//! Logs that are cut, and nodes that were away for longer than the log goes back.

use super::cluster::{Cluster, tenant};
use super::drive::some_loss;
use crate::raft::disk::tests::machine::Loss;
use coordinator::cluster_state::FOUNDER;
use proto::NodeId;
use proto::cluster::{ClusterCommand, Role, TenantIs};

/// More than a snapshot's distance and what is kept beyond it.
const MANY: u64 = 1_700;

impl Cluster {
    /// So many entries, of which few stay in the state.
    async fn write(&mut self, through: NodeId, entries: u64) {
        for _ in 0..entries / 20 {
            let mut writes = Vec::new();
            for _ in 0..20 {
                let gone = ClusterCommand::RemoveTenant(Box::new(TenantIs {
                    tenant: proto::TenantId(u32::MAX),
                }));
                let (member, proposal) = (self.member(through), self.proposal(gone));
                writes.push(tokio::spawn(async move { member.commit(proposal).await }));
            }
            for write in writes {
                write.await.unwrap().unwrap().outcome.unwrap_err();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_long_is_given_a_snapshot() {
    let mut cluster = Cluster::of(3, 1).await;
    let leader = cluster.wait_for_leader().await;
    let away = *cluster
        .network
        .nodes()
        .iter()
        .find(|node| **node != leader)
        .unwrap();
    cluster.kill(away, Loss::All);
    cluster.add_tenant(leader, "a").await.unwrap().unwrap();
    cluster.write(leader, MANY).await;
    let cut = || cluster.log(leader)[0].log_id.index > 1;
    cluster
        .until("the log is cut, though one still lacks it", cut)
        .await;
    cluster.start(away).await.unwrap();
    cluster.settle(3).await;
    assert!(
        cluster.log(away)[0].log_id.index > 1,
        "it was not sent what was cut"
    );
    assert!(cluster.state(away).tenants().any(|tenant| tenant.name == "a"));
}

#[tokio::test(start_paused = true)]
async fn nodes_start_from_a_snapshot_and_the_log_behind_it() {
    let mut cluster = Cluster::of(3, 2).await;
    let leader = cluster.wait_for_leader().await;
    cluster.write(leader, MANY).await;
    cluster.add_tenant(leader, "behind").await.unwrap().unwrap();
    let before = cluster.state(leader);
    for node in cluster.network.nodes() {
        let loss = some_loss(&mut cluster.dice);
        cluster.kill(node, loss);
    }
    for node in cluster.drives.keys() {
        cluster.start(*node).await.unwrap();
    }
    cluster.settle(3).await;
    assert_eq!(cluster.state(leader), before);
    cluster.add_tenant(leader, "after").await.unwrap().unwrap();
}

/// What it had begun is lost with its log, and no answer to it comes any more.
#[tokio::test(start_paused = true)]
async fn a_leader_that_was_overtaken_by_a_snapshot_can_still_let_nodes_vote() {
    let mut cluster = Cluster::of(3, 3).await;
    let leader = cluster.wait_for_leader().await;
    let voters = cluster.network.nodes();
    let mut others = voters.clone();
    others.retain(|node| *node != leader);
    cluster.join(leader, Role::Voter).await;
    let last = cluster.join(leader, Role::Voter).await;
    cluster
        .until("a change begins", || cluster.is_joint(leader))
        .await;
    let mut rest = cluster.network.nodes();
    rest.retain(|node| *node != leader);
    cluster.network.part(&[leader], &rest);
    let through = others[0];
    cluster
        .until("another one leads", || {
            let view = cluster.member(through).view();
            view.leader.is_some_and(|now| now != leader)
        })
        .await;
    cluster.write(through, MANY).await;
    cluster.network.heal();
    cluster.settle(5).await;
    // Only those that may not lead without it are left to choose: it leads again.
    cluster.remove(through, last).await.unwrap();
    cluster.kill(last, Loss::None);
    cluster.settle(3).await;
    make_lead(&mut cluster, leader).await;
    cluster.join(leader, Role::Voter).await;
    cluster.settle(5).await;
}

/// Nobody else stands for election.
async fn make_lead(cluster: &mut Cluster, node: NodeId) {
    let leader = cluster.wait_for_leader().await;
    if leader == node {
        return;
    }
    for other in cluster.network.nodes().into_iter().filter(|other| *other != node) {
        cluster
            .member(other)
            .raft()
            .unwrap()
            .runtime_config()
            .elect(false);
    }
    cluster.kill(leader, Loss::None);
    cluster.until("it leads", || cluster.leader() == Some(node)).await;
    cluster.start(leader).await.unwrap();
    cluster.settle(3).await;
    assert_eq!(cluster.wait_for_leader().await, node);
}

/// The log of the only node is cut while it is written.
#[tokio::test(start_paused = true)]
async fn one_node_cuts_its_log_and_starts_again() {
    let mut cluster = Cluster::founded(4).await;
    for round in 0..3 {
        cluster.write(FOUNDER, MANY).await;
        let name = round.to_string();
        cluster
            .commit(FOUNDER, tenant(&name, round))
            .await
            .unwrap()
            .unwrap();
        cluster.kill(FOUNDER, Loss::All);
        cluster.start(FOUNDER).await.unwrap();
        cluster.member(FOUNDER).linearize().await.unwrap();
        assert!(cluster.state(FOUNDER).tenants().any(|tenant| tenant.name == name));
    }
    assert!(cluster.log(FOUNDER).len() < 2_000);
}
