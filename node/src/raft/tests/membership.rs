//! Who votes, and how that changes.

use super::cluster::Cluster;
use super::drive::some_loss;
use crate::raft::disk::tests::machine::Loss;
use coordinator::cluster_state::{Applied, FOUNDER, Rejected};
use proto::NodeId;
use proto::cluster::{ClusterCommand, MemberAt, Role, Undeploy};
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn one_votes_then_three_then_five() {
    let mut cluster = Cluster::founded(1).await;
    for (count, voters) in [(2, 1), (3, 3), (4, 3), (5, 5), (6, 5)] {
        let through = cluster.network.nodes()[count % (count - 1)];
        cluster.join(through, Role::Voter).await;
        cluster.settle(voters).await;
        assert_eq!(cluster.network.nodes().len(), count);
    }
    let memberships = cluster.assert_orderly_memberships(FOUNDER);
    assert!(
        memberships >= 9,
        "five learn, and two changes of two steps: {memberships}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_learns_and_never_votes() {
    let mut cluster = Cluster::founded(2).await;
    for _ in 0..3 {
        cluster.join(FOUNDER, Role::Worker).await;
    }
    sleep(Duration::from_secs(5)).await;
    cluster.settle(1).await;
    assert_eq!(cluster.member(FOUNDER).view().learners.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_removed_voter_is_replaced_and_its_id_never_comes_back() {
    let mut cluster = Cluster::of(4, 3).await;
    let leader = cluster.wait_for_leader().await;
    let voters = cluster.member(leader).view().voters;
    let removed = *voters.iter().find(|node| **node != leader).unwrap();
    assert_eq!(cluster.remove(leader, removed).await, Ok(Applied::Done));
    cluster.kill(removed, Loss::None);
    cluster.settle(3).await;
    assert!(!cluster.member(leader).view().voters.contains(&removed));
    let newest = *cluster.drives.keys().next_back().unwrap();
    let joined = cluster.join(leader, Role::Voter).await;
    assert!(joined > newest, "{joined} after {newest}");
    cluster.assert_orderly_memberships(leader);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_removed_hands_over() {
    let mut cluster = Cluster::of(3, 4).await;
    let leader = cluster.wait_for_leader().await;
    let other = *cluster
        .network
        .nodes()
        .iter()
        .find(|node| **node != leader)
        .unwrap();
    assert_eq!(cluster.remove(other, leader).await, Ok(Applied::Done));
    let removed = leader;
    cluster.kill(removed, Loss::None);
    cluster
        .until("the two that are left go on with one voter", || {
            let view = cluster.member(other).view();
            view.voters.len() == 1 && view.leader.is_some_and(|leader| leader != removed)
        })
        .await;
    cluster.settle(1).await;
    cluster.add_tenant(other, "a").await.unwrap().unwrap();
}

/// Whoever is removed ends, or is cut off, as soon as that is committed.
#[tokio::test(start_paused = true)]
async fn the_only_voter_passes_its_vote_on_before_it_is_removed() {
    for asked in 0..2 {
        let mut cluster = Cluster::of(2, 7).await;
        let nodes = cluster.network.nodes();
        assert_eq!(cluster.member(FOUNDER).view().voters, [FOUNDER]);
        assert_eq!(cluster.remove(nodes[asked], FOUNDER).await, Ok(Applied::Done));
        cluster.kill(FOUNDER, Loss::None);
        cluster.settle(1).await;
        cluster.add_tenant(nodes[1], "a").await.unwrap().unwrap();
    }
}

/// Two of three that vote agree; one alone would not, with the vote of who is gone.
#[tokio::test(start_paused = true)]
async fn a_voter_is_removed_while_another_one_is_silent() {
    for removed in 0..2 {
        let mut cluster = Cluster::of(3, 8).await;
        let leader = cluster.wait_for_leader().await;
        let mut others = cluster.network.nodes();
        others.retain(|node| *node != leader);
        cluster.kill(others[1], Loss::None);
        let alive = [leader, others[0]];
        let (removed, stays) = (alive[removed], alive[1 - removed]);
        assert_eq!(cluster.remove(stays, removed).await, Ok(Applied::Done));
        cluster.kill(removed, Loss::None);
        cluster
            .until("the one that is left votes alone", || {
                let view = cluster.member(stays).view();
                view.leader == Some(stays) && view.voters == [stays]
            })
            .await;
        cluster.add_tenant(stays, "a").await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_nobody_could_vote_for_stays() {
    let mut cluster = Cluster::of(2, 9).await;
    let other = cluster.network.nodes()[1];
    cluster.kill(other, Loss::None);
    sleep(Duration::from_secs(20)).await;
    let last = Err(Rejected::LastVoter { node: FOUNDER });
    assert_eq!(cluster.remove(FOUNDER, FOUNDER).await, last);
    cluster.start(other).await.unwrap();
    cluster.settle(1).await;
    assert_eq!(cluster.remove(FOUNDER, FOUNDER).await, Ok(Applied::Done));
}

/// A leader dies between the two steps of a change; whoever leads next finishes it.
#[tokio::test(start_paused = true)]
async fn a_change_that_its_leader_did_not_live_to_finish_is_finished() {
    for seed in 0..8 {
        let mut cluster = Cluster::founded(seed).await;
        cluster.join(FOUNDER, Role::Voter).await;
        cluster.join(FOUNDER, Role::Voter).await;
        cluster
            .until("a change is half way on two nodes", || {
                let nodes = cluster.network.nodes();
                nodes.iter().filter(|node| cluster.is_joint(**node)).count() >= 2
            })
            .await;
        let loss = some_loss(&mut cluster.dice);
        cluster.kill(FOUNDER, loss);
        sleep(Duration::from_millis(cluster.dice.below(3_000))).await;
        cluster.start(FOUNDER).await.unwrap();
        cluster.settle(3).await;
        cluster.assert_orderly_memberships(FOUNDER);
    }
}

#[tokio::test(start_paused = true)]
async fn the_feature_level_rises_when_all_understand() {
    let mut cluster = Cluster::of(3, 6).await;
    let nodes = cluster.network.nodes();
    for node in &nodes[..2] {
        cluster.commit(*node, at(*node, 2)).await.unwrap().unwrap();
    }
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        cluster.state(nodes[0]).feature_level(),
        1,
        "one does not understand it"
    );
    cluster.commit(nodes[0], at(nodes[2], 2)).await.unwrap().unwrap();
    for node in &nodes {
        let raised = || cluster.state(*node).feature_level() == 2;
        cluster.until("the level is raised", raised).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_member_does_not_understand_is_not_logged() {
    let mut cluster = Cluster::of(3, 7).await;
    let nodes = cluster.network.nodes();
    let undeploy = || {
        ClusterCommand::Undeploy(Box::new(Undeploy {
            model: "m".to_owned(),
        }))
    };
    let last = |cluster: &Cluster| cluster.member(nodes[0]).view().last_index;
    let before = last(&cluster);
    for node in &nodes {
        // On the leader, and on those who would tell it.
        let outcome = cluster.commit(*node, undeploy()).await.unwrap();
        assert_eq!(outcome, Err(Rejected::LevelTooLow { needed: 2, level: 1 }));
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(last(&cluster), before, "nothing was logged");
    for node in &nodes {
        cluster.commit(*node, at(*node, 2)).await.unwrap().unwrap();
    }
    let raised = || cluster.state(nodes[2]).feature_level() == 2;
    cluster.until("the level is raised", raised).await;
    let outcome = cluster.commit(nodes[2], undeploy()).await.unwrap();
    let unknown = Rejected::DeploymentUnknown { name: "m".to_owned() };
    assert_eq!(outcome, Err(unknown), "by those who understand it");
}

fn at(node: NodeId, level: u32) -> ClusterCommand {
    ClusterCommand::MoveMember(Box::new(MemberAt {
        node,
        quic: String::new(),
        http: String::new(),
        level,
    }))
}
