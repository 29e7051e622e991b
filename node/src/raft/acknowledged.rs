//! What other members have acknowledged to this one while it leads.
//!
//! openraft takes for granted that they still have it: where one has not, its leader panics or counts what is not there. Its
//! way to forgive that (`loosen-follower-log-revert`) is for tests: afterwards its list of who has how much is out of order,
//! and entries may count as agreed on that a minority holds. So what such a member says is kept from openraft. It is as a
//! lost voter then, until another leader begins to ask it from the start.

use super::types::{LogId, Vote};
use openraft::raft::AppendEntriesResponse;
use proto::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of one run of Raft. Cheap to copy; all copies are the same.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<BTreeMap<NodeId, Memory>>>);

struct Memory {
    /// As what it was acknowledged to: to another leader of another term it may be overruled.
    vote: Vote,
    last: LogId,
    has_forgotten: bool,
}

/// A message that was answered: the sender's vote, the entry before those in it, and the last of all.
pub struct Asked {
    pub vote: Vote,
    pub previous: Option<LogId>,
    pub last: Option<LogId>,
}

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "node {0} lacks what it had acknowledged: its data folder was set back to an earlier state. It is told nothing more by \
     this leader and cannot stand in for a lost voter: stop it, move its data folder away, let it join anew \
     (`cluster up --join TOKEN`) and remove it as node {0} (`cluster node rm {0}`)"
)]
pub struct Forgotten(pub NodeId);

/// Of all of them; `None`: nobody has.
pub fn words(forgotten: &[Forgotten]) -> Option<String> {
    let words: Vec<String> = forgotten.iter().map(Forgotten::to_string).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

impl Acknowledged {
    /// An error if `node` contradicts what it said before.
    pub fn hear(
        &self,
        node: NodeId,
        asked: &Asked,
        answer: &AppendEntriesResponse<u64>,
    ) -> Result<(), Forgotten> {
        match answer {
            AppendEntriesResponse::Success => self.note(node, asked.vote, asked.last),
            AppendEntriesResponse::PartialSuccess(last) => self.note(node, asked.vote, *last),
            AppendEntriesResponse::Conflict => return self.conflict(node, asked),
            AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(())
    }

    pub fn note(&self, node: NodeId, vote: Vote, last: Option<LogId>) {
        let Some(last) = last else { return };
        let mut memories = self.memories();
        let memory = memories.entry(node).or_insert(Memory {
            vote,
            last,
            has_forgotten: false,
        });
        if memory.vote == vote {
            memory.last = memory.last.max(last);
        } else {
            *memory = Memory {
                vote,
                last,
                has_forgotten: false,
            };
        }
    }

    fn conflict(&self, node: NodeId, asked: &Asked) -> Result<(), Forgotten> {
        let mut memories = self.memories();
        let memory = memories.get_mut(&node);
        let Some(memory) = memory.filter(|memory| memory.vote == asked.vote) else {
            return Ok(());
        };
        if asked.previous > Some(memory.last) {
            return Ok(());
        }
        let forgotten = Forgotten(node);
        if !std::mem::replace(&mut memory.has_forgotten, true) {
            tracing::error!("{forgotten}");
        }
        Err(forgotten)
    }

    /// Which of the members have, while this one leads by a vote. Of who is no member any more nothing is left to be done.
    pub fn forgotten(
        &self,
        leads: impl Fn(&Vote) -> bool,
        is_member: impl Fn(NodeId) -> bool,
    ) -> Vec<Forgotten> {
        let memories = self.memories();
        memories
            .iter()
            .filter(|(node, memory)| memory.has_forgotten && leads(&memory.vote) && is_member(**node))
            .map(|(node, _)| Forgotten(*node))
            .collect()
    }

    fn memories(&self) -> MutexGuard<'_, BTreeMap<NodeId, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    fn asked(term: u64, previous: u64, last: u64) -> Asked {
        let id = |index| Some(LogId::new(CommittedLeaderId::new(1, 1), index));
        Asked {
            vote: Vote::new_committed(term, 1),
            previous: id(previous),
            last: id(last),
        }
    }

    #[test]
    fn who_lacks_what_it_acknowledged_has_forgotten_it() {
        let (acknowledged, node) = (Acknowledged::default(), NodeId(3));
        let hear = |asked, answer| acknowledged.hear(node, &asked, &answer);
        // It is asked how far it goes, which proves nothing.
        assert_eq!(hear(asked(1, 9, 9), AppendEntriesResponse::Conflict), Ok(()));
        assert_eq!(hear(asked(1, 4, 6), AppendEntriesResponse::Success), Ok(()));
        assert_eq!(hear(asked(1, 7, 7), AppendEntriesResponse::Conflict), Ok(()));
        assert_eq!(acknowledged.forgotten(|_| true, |_| true), []);
        assert_eq!(
            hear(asked(1, 6, 8), AppendEntriesResponse::Conflict),
            Err(Forgotten(node))
        );
        assert_eq!(acknowledged.forgotten(|_| true, |_| true), [Forgotten(node)]);
        // In another term it may have been overruled since.
        assert_eq!(hear(asked(2, 6, 8), AppendEntriesResponse::Conflict), Ok(()));
        assert_eq!(hear(asked(2, 3, 8), AppendEntriesResponse::Success), Ok(()));
        assert_eq!(acknowledged.forgotten(|_| true, |_| true), []);
    }

    #[test]
    fn all_who_have_forgotten_are_named_until_they_are_removed() {
        let acknowledged = Acknowledged::default();
        for node in [3, 5, 7].map(NodeId) {
            let hear = |asked, answer| acknowledged.hear(node, &asked, &answer);
            assert_eq!(hear(asked(1, 4, 6), AppendEntriesResponse::Success), Ok(()));
            hear(asked(1, 6, 8), AppendEntriesResponse::Conflict).unwrap_err();
        }
        let named = acknowledged.forgotten(|_| true, |node| node != NodeId(3));
        assert_eq!(named, [Forgotten(NodeId(5)), Forgotten(NodeId(7))]);
    }
}
