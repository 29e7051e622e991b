//! What strangers ask for.

use super::cluster::Cluster;
use coordinator::cluster_state::{Applied, FOUNDER, Outcome, Rejected};
use proto::NodeId;
use proto::cluster::{ClusterCommand, NewMember, Role};
use proto::raft::Committed;
use std::time::Duration;
use tokio::time::sleep;

impl Cluster {
    /// As a node answers a stranger.
    async fn knock(&mut self, through: NodeId, newcomer: NewMember) -> Committed {
        let proposal = self.proposal(ClusterCommand::Join(Box::new(newcomer)));
        self.member(through).commit_if_accepted(proposal).await.unwrap()
    }

    fn last_indices(&self) -> Vec<u64> {
        let nodes = self.network.nodes().into_iter();
        nodes.map(|node| self.member(node).view().last_index).collect()
    }
}

const UNFIT: Outcome = Err(Rejected::TokenUnfit);

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_leaves_the_log_as_it_is() {
    let mut cluster = Cluster::of(3, 11).await;
    let used = cluster.add_token(FOUNDER, Role::Worker).await;
    cluster.join_by(FOUNDER, &used).await;
    let fit = cluster.add_token(FOUNDER, Role::Worker).await;
    cluster.settle(3).await;
    let before = cluster.last_indices();
    for node in cluster.network.nodes() {
        let unknown = cluster.newcomer("unknown");
        let used = cluster.newcomer(&used);
        let mut wrong = cluster.newcomer(&fit);
        wrong.secret_hash[0] ^= 1;
        let mut late = cluster.newcomer(&fit);
        late.at_secs = 1;
        for newcomer in [unknown, used, wrong, late] {
            assert_eq!(cluster.knock(node, newcomer).await.outcome, UNFIT);
        }
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.last_indices(), before);
    let newcomer = cluster.newcomer(&fit);
    let let_in = cluster.knock(cluster.network.nodes()[1], newcomer).await;
    assert!(matches!(let_in.outcome, Ok(Applied::Member(_))), "{let_in:?}");
}

/// Where it was made is not where it is used.
#[tokio::test(start_paused = true)]
async fn a_token_is_taken_by_nodes_that_have_not_heard_of_it() {
    let mut cluster = Cluster::of(5, 12).await;
    for maker in cluster.network.nodes() {
        for door in cluster.network.nodes() {
            let token = cluster.add_token(maker, Role::Worker).await;
            let newcomer = cluster.newcomer(&token);
            let let_in = cluster.knock(door, newcomer).await;
            assert!(matches!(let_in.outcome, Ok(Applied::Member(_))), "{let_in:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_who_use_one_token_at_once_the_log_takes_one() {
    let mut cluster = Cluster::of(3, 13).await;
    for (one, two) in [(0, 1), (1, 2), (2, 2)] {
        let token = cluster.add_token(FOUNDER, Role::Worker).await;
        cluster.settle(3).await;
        let before = cluster.last_indices()[0];
        let nodes = cluster.network.nodes();
        let [one, two] = [one, two].map(|place| {
            let newcomer = ClusterCommand::Join(Box::new(cluster.newcomer(&token)));
            let (member, proposal) = (cluster.member(nodes[place]), cluster.proposal(newcomer));
            async move { member.commit_if_accepted(proposal).await.unwrap() }
        });
        let (one, two) = tokio::join!(one, two);
        assert!(
            one.index > before && two.index > before && one.index != two.index,
            "both are logged"
        );
        let let_in = [&one, &two].map(|committed| committed.outcome.is_ok());
        assert_eq!(let_in.iter().filter(|let_in| **let_in).count(), 1);
        assert!([one.outcome, two.outcome].contains(&UNFIT));
    }
}
