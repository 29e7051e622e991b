//! Nodes that come back.

use super::client::tenant_value;
use super::cluster::{Cluster, tenant};
use super::drive::some_loss;
use crate::raft::CommitError;
use crate::raft::disk::tests::machine::Loss;
use coordinator::cluster_state::FOUNDER;
use proto::NodeId;
use proto::raft::ReadAnswer;
use std::time::Duration;
use tokio::time::sleep;

/// So soon that nobody has missed it; and what it had acknowledged, its disk does not show as committed yet.
#[tokio::test(start_paused = true)]
async fn a_leader_that_comes_back_at_once_lets_no_read_miss_what_it_had_acknowledged() {
    let mut cluster = Cluster::of(3, 1).await;
    for number in 0..8 {
        let leader = cluster.wait_for_leader().await;
        let proposal = cluster.proposal(tenant(&number.to_string(), number));
        let committed = cluster.member(leader).commit(proposal).await.unwrap();
        cluster.kill(leader, Loss::All);
        cluster.start(leader).await.unwrap();
        let member = cluster.member(leader);
        match member.read_index_here().await {
            ReadAnswer::Index(read) => assert!(read.index >= committed.index, "{read:?}, {committed:?}"),
            ReadAnswer::NotLeader(_) => {}
            ReadAnswer::Unknown(unknown) => panic!("{unknown:?}"),
        }
        member.linearize().await.unwrap();
        assert_eq!(
            tenant_value(&member.applied.read(), &number.to_string()),
            Some(number)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_a_power_cut_of_all() {
    for seed in 0..6 {
        let mut cluster = Cluster::of(3, seed).await;
        let mut acknowledged = Vec::new();
        for number in 0..20 {
            let nodes = cluster.network.nodes();
            let node = nodes[cluster.dice.below(3) as usize];
            let name = number.to_string();
            cluster.add_tenant(node, &name).await.unwrap().unwrap();
            acknowledged.push(name);
            if cluster.dice.below(4) == 0 {
                cycle(&mut cluster, &nodes).await;
            }
        }
        let nodes = cluster.network.nodes();
        cycle(&mut cluster, &nodes).await;
        cluster.wait_for_leader().await;
        for node in nodes {
            cluster.member(node).linearize().await.unwrap();
            let state = cluster.state(node);
            for name in &acknowledged {
                assert!(
                    state.tenants().any(|tenant| tenant.name == *name),
                    "{name} on {node}"
                );
            }
        }
    }
}

async fn cycle(cluster: &mut Cluster, nodes: &[NodeId]) {
    for node in nodes {
        let loss = some_loss(&mut cluster.dice);
        cluster.kill(*node, loss);
    }
    for node in nodes {
        let pause = cluster.dice.below(1_000);
        sleep(Duration::from_millis(pause)).await;
        cluster.start(*node).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_minority_that_dies_takes_nothing_along() {
    let mut cluster = Cluster::of(5, 2).await;
    for number in 0..4 {
        let leader = cluster.wait_for_leader().await;
        let name = number.to_string();
        cluster.add_tenant(leader, &name).await.unwrap().unwrap();
        let mut victims = cluster.network.nodes();
        victims.retain(|node| *node != leader);
        victims.truncate(1);
        victims.push(leader);
        for victim in &victims {
            cluster.kill(*victim, Loss::All);
        }
        let survivor = cluster.network.nodes()[0];
        cluster.wait_for_leader().await;
        cluster.member(survivor).linearize().await.unwrap();
        assert!(
            cluster
                .state(survivor)
                .tenants()
                .any(|tenant| tenant.name == name)
        );
        for victim in victims {
            cluster.start(victim).await.unwrap();
        }
        cluster.settle(5).await;
    }
}

/// Its disk failed under the change: it may be there when the disk is read anew.
#[tokio::test(start_paused = true)]
async fn a_change_that_met_a_failing_disk_is_not_called_undone() {
    let mut cluster = Cluster::founded(3).await;
    cluster.drives[&FOUNDER].fail_next_sync();
    let added = cluster.add_tenant(FOUNDER, "a").await;
    assert!(matches!(added, Err(CommitError::Unknown(_))), "{added:?}");
    // The node comes back by itself.
    cluster.wait_for_leader().await;
    cluster.add_tenant(FOUNDER, "b").await.unwrap().unwrap();
}

/// The same proposal, made again and again, through everybody.
#[tokio::test(start_paused = true)]
async fn a_proposal_counts_once_however_often_it_is_made() {
    let mut cluster = Cluster::of(3, 4).await;
    let proposal = cluster.proposal(tenant("a", 1));
    let mut outcomes = Vec::new();
    for node in cluster.network.nodes() {
        let committed = cluster.member(node).commit(proposal.clone()).await.unwrap();
        outcomes.push(committed.outcome);
    }
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert!(
        outcomes.iter().all(|outcome| *outcome == outcomes[0]),
        "{outcomes:?}"
    );
    let state = cluster.state(FOUNDER);
    assert_eq!(state.tenants().filter(|tenant| tenant.name == "a").count(), 1);
}

/// What panicked once may do so again at the next message.
#[tokio::test(start_paused = true)]
async fn a_raft_that_panics_is_begun_again_and_not_for_ever() {
    let mut cluster = Cluster::of(3, 6).await;
    let leader = cluster.wait_for_leader().await;
    let mut others = cluster.network.nodes();
    others.retain(|node| *node != leader);
    let victim = others[0];
    let says = |cluster: &Cluster, words: &str| {
        let trouble = cluster.member(victim).view().trouble;
        trouble.is_some_and(|trouble| trouble.contains(words))
    };
    for _ in 0..2 {
        panic_inside(&cluster, victim);
        let told = || says(&cluster, "by a fault of its own");
        cluster.until("it says what happened", told).await;
        cluster.settle(3).await;
    }
    panic_inside(&cluster, victim);
    let told = || says(&cluster, "until it is started again");
    cluster.until("it is left alone", told).await;
    sleep(Duration::from_secs(10)).await;
    assert!(says(&cluster, "until it is started again"));
    cluster.add_tenant(leader, "goes on").await.unwrap().unwrap();
}

fn panic_inside(cluster: &Cluster, node: NodeId) {
    let raft = cluster.member(node).raft().unwrap();
    raft.external_request(|_| panic!("a fault of a test"));
}
