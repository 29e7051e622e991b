//! What the cluster's placer sees, on whichever node it is asked for. The placer runs where the leader is.

use crate::state::NodeState;
use proto::NodeId;
use proto::cluster::PLACING_LEVEL;
use proto::peer::{Obstacle, Outlook, PeerAnswer, PeerRequest, ReadRequest};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// Of the placer on this node, while there is one. Cheap to copy.
#[derive(Clone, Default)]
pub struct OutlookBoard(Arc<Mutex<Option<Outlook>>>);

impl OutlookBoard {
    /// This node leads from now on.
    pub fn begin(&self) {
        *self.lock() = Some(Outlook::default());
    }

    /// Another node is the leader now.
    pub fn end(&self) {
        *self.lock() = None;
    }

    /// Why not all of a model is where it should be; `None`: nothing stands in the way any more.
    pub fn explain(&self, model: &str, reason: Option<String>) {
        if let Some(outlook) = &mut *self.lock() {
            outlook.obstacles.retain(|obstacle| obstacle.model != model);
            outlook.obstacles.extend(reason.map(|reason| Obstacle {
                model: model.to_owned(),
                reason,
            }));
        }
    }

    /// Nothing is placed on these.
    pub fn lose(&self, lost: &BTreeSet<NodeId>) {
        if let Some(outlook) = &mut *self.lock() {
            outlook.lost = lost.iter().copied().collect();
        }
    }

    /// `None`: this node does not lead.
    pub fn read(&self) -> Option<Outlook> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outlook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the leader's placer sees things now. An error is for people.
pub async fn ask(state: &NodeState, own: &OutlookBoard) -> Result<Outlook, String> {
    if let Some(outlook) = own.read() {
        return Ok(outlook);
    }
    if state.applied().feature_level() < PLACING_LEVEL {
        return Ok(Outlook::default());
    }
    let leader = state.member.view().leader.ok_or(
        "no node leads, so nobody knows which nodes are there to place models on: see `cluster status`, and try again",
    )?;
    let request = PeerRequest::Outlook(Box::new(ReadRequest {}));
    let peers = &state.member.links.peers;
    let in_words = |reason: String| {
        format!("node {leader}, which leads, does not say what it can place: {reason}; try again")
    };
    let answer = peers.call_within(leader, request, ANSWER_WAIT_MAX).await;
    match answer.map_err(|error| in_words(error.to_string()))? {
        PeerAnswer::Outlook(outlook) => Ok(*outlook),
        answer => Err(in_words(answer.amiss())),
    }
}

/// Of one model.
pub fn obstacle<'a>(outlook: &'a Outlook, model: &str) -> Option<&'a str> {
    let mut obstacles = outlook.obstacles.iter();
    let found = obstacles.find(|obstacle| obstacle.model == model)?;
    Some(&found.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_leads_has_an_outlook() {
        let board = OutlookBoard::default();
        board.explain("a", Some("no room".to_owned()));
        board.lose(&BTreeSet::from([NodeId(4)]));
        assert_eq!(board.read(), None);
        board.begin();
        for reason in ["no room", "none at all"] {
            board.explain("a", Some(reason.to_owned()));
        }
        board.explain("b", Some("no room".to_owned()));
        board.explain("b", None);
        board.lose(&BTreeSet::from([NodeId(4)]));
        let outlook = board.read().unwrap();
        assert_eq!(obstacle(&outlook, "a"), Some("none at all"));
        assert_eq!(obstacle(&outlook, "b"), None);
        assert_eq!(outlook.lost, [NodeId(4)]);
        board.end();
        assert_eq!(board.read(), None);
    }
}
