//! What the leader does by the way: lets members learn and vote, and raises the feature level.

use super::link::Links;
use super::member::Member;
use super::proposal::propose;
use super::types::Raft;
use coordinator::voters::{self, Assembly, Progress, Standing, Step};
use openraft::{ChangeMembers, EmptyNode, RaftMetrics};
use proto::cluster::{ClusterCommand, FeatureLevel, Role};
use proto::{NodeId, Span};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Entries that somebody who is caught up may still lack: what is under way.
const LAG_MAX: u64 = 64;

/// For as long as this run of Raft lives. Looks only while this member leads.
pub async fn keep<L: Links>(member: Member<L>) {
    let mut changes = member.applied.changes();
    loop {
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        let Ok(raft) = member.raft() else { return };
        let metrics = raft.metrics().borrow().clone();
        // Without a quorum nothing can be agreed on, and what is asked for would only be logged.
        if !member.leads(&metrics) || metrics.replication.is_none() {
            continue;
        }
        let step = match metrics
            .membership_config
            .membership()
            .get_joint_config()
            .as_slice()
        {
            // The leader that began this change did not live to finish it, and nobody else will.
            [_, begun] => Some(Step::Vote(begun.iter().copied().map(NodeId).collect())),
            _ => voters::next_step(&assembly(&member, &metrics)),
        };
        if let Some(step) = step {
            take(&raft, step).await;
        }
        raise_level(&member).await;
    }
}

fn assembly<L: Links>(member: &Member<L>, metrics: &RaftMetrics<u64, EmptyNode>) -> Assembly {
    let membership = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let matching = |node: NodeId| {
        let replication = metrics.replication.as_ref()?;
        replication.get(&node.0).copied().flatten().map(|id| id.index)
    };
    let standing = |node: NodeId, role| Standing {
        role: match member.leaving.contains(node) {
            true => Role::Worker,
            false => role,
        },
        silent: match node == member.id {
            true => Span::ZERO,
            false => Span(u64::try_from(member.links.silent(node).as_nanos()).unwrap_or(u64::MAX)),
        },
        progress: match matching(node).is_some_and(|index| index + LAG_MAX >= last) {
            true => Progress::CaughtUp,
            false => Progress::Behind,
        },
    };
    let state = member.applied.read();
    Assembly {
        leader: member.id,
        members: state
            .members()
            .map(|record| (record.node, standing(record.node, record.role)))
            .collect(),
        voters: membership.voter_ids().map(NodeId).collect(),
        learners: membership.learner_ids().map(NodeId).collect(),
    }
}

/// What fails is looked at anew: another leader may have been faster.
async fn take(raft: &Raft, step: Step) {
    let ids = |nodes: BTreeSet<NodeId>| nodes.into_iter().map(|node| node.0).collect::<BTreeSet<u64>>();
    tracing::info!(?step, "membership");
    let taken = match step {
        Step::Learn(node) => raft.add_learner(node.0, EmptyNode {}, false).await,
        Step::Vote(nodes) => raft.change_membership(ids(nodes), true).await,
        Step::Forget(node) => {
            let nodes = ChangeMembers::RemoveNodes(ids(BTreeSet::from([node])));
            raft.change_membership(nodes, false).await
        }
    };
    if let Err(error) = taken {
        tracing::warn!(%error, "membership was not changed");
    }
}

async fn raise_level<L: Links>(member: &Member<L>) {
    let (committed, understood) = {
        let state = member.applied.read();
        let understood = state.members().map(|record| record.level).min();
        (state.feature_level(), understood)
    };
    if let Some(level) = understood.filter(|level| *level > committed) {
        let raise = propose(ClusterCommand::SetFeatureLevel(Box::new(FeatureLevel { level })));
        let answer = member.commit_here(raise).await;
        tracing::info!(level, ?answer, "feature level");
    }
}
