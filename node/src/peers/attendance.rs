//! Says when a member is lost, and when it is back: once each, whatever is asked of it meanwhile.
//!
//! openraft tells of every message that does not arrive, several a second; those lines are left out of the log
//! (`telemetry::logs`), and these stand for them. Two members of which neither leads may have had nothing to say to each other
//! since their connection went, so that one is tried before a loss is told, and while it lasts.

use super::PeerLinks;
use crate::raft::Member;
use crate::transport::{Class, Peers};
use proto::NodeId;
use proto::peer::{Nonce, PeerRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks without a connection: a moment more than it takes to make a new one.
const MISSED_MAX: u32 = 3;

/// More than it takes to find that nobody answers a new connection.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// For as long as the node lives.
pub async fn keep(member: Member<PeerLinks>) {
    let (mut attendance, mut calls) = (Attendance::default(), Calls::default());
    loop {
        for change in attendance.look(&presence(&member, calls.under_way())) {
            match change {
                Change::Lost(node) => {
                    tracing::warn!(%node, "a member is lost: there is no connection with it, and none can be made");
                }
                Change::Back(node) => tracing::info!(%node, "a member is back"),
            }
        }
        for node in attendance.missed() {
            calls.begin(&member.links.peers, node);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Attempts to reach members: a connection that can be made is there afterwards.
#[derive(Default)]
struct Calls {
    tasks: JoinSet<NodeId>,
    called: BTreeSet<NodeId>,
}

impl Calls {
    fn begin(&mut self, peers: &Peers, node: NodeId) {
        if self.called.insert(node) {
            let peers = peers.clone();
            self.tasks.spawn(async move {
                let ping = PeerRequest::Ping(Box::new(Nonce { nonce: 0 }));
                let _ = peers.call_within(node, ping, ANSWER_MAX).await;
                node
            });
        }
    }

    fn under_way(&mut self) -> BTreeSet<NodeId> {
        while let Some(ended) = self.tasks.try_join_next() {
            let node = ended.expect("a call is neither cancelled nor panics");
            self.called.remove(&node);
        }
        self.called.clone()
    }
}

fn presence(member: &Member<PeerLinks>, called: BTreeSet<NodeId>) -> Presence {
    let links = member.links.peers.links().into_iter();
    let control = links.filter(|link| link.class == Class::Control);
    let leader = member.view().leader;
    let applied = member.applied.read();
    let others = applied.members().filter(|record| record.node != member.id);
    Presence {
        linked: control.map(|link| link.node).collect(),
        called,
        members: others.map(|record| record.node).collect(),
        part: match leader == Some(member.id) {
            true => Part::Leads,
            false => Part::Follows,
        },
    }
}

/// At one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Presence {
    /// Those with whom there is a connection.
    linked: BTreeSet<NodeId>,
    /// Those whom this node tries to reach.
    called: BTreeSet<NodeId>,
    /// But for this node.
    members: BTreeSet<NodeId>,
    part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// It speaks with every member all the time.
    Leads,
    /// It has a connection with whom it has had reason to speak.
    Follows,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Lost(NodeId),
    Back(NodeId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Here,
    /// In so many looks in a row it was not.
    Missed(u32),
    /// It was missed for too long, and is called.
    Called,
    Lost,
}

/// Of those who were met, or should be.
#[derive(Default)]
struct Attendance {
    seen: BTreeMap<NodeId, Seen>,
}

impl Attendance {
    /// Those who are to be called: before they are told to be lost, and while they are.
    fn missed(&self) -> impl Iterator<Item = NodeId> {
        let missed = self
            .seen
            .iter()
            .filter(|(_, seen)| matches!(seen, Seen::Called | Seen::Lost));
        missed.map(|(node, _)| *node)
    }

    fn look(&mut self, now: &Presence) -> Vec<Change> {
        self.seen.retain(|node, _| now.members.contains(node));
        let mut changes = Vec::new();
        for node in &now.members {
            let before = self.seen.get(node).copied();
            let seen = match (now.linked.contains(node), before) {
                (true, Some(Seen::Lost)) => {
                    changes.push(Change::Back(*node));
                    Seen::Here
                }
                (true, Some(Seen::Here | Seen::Missed(_) | Seen::Called) | None) => Seen::Here,
                (false, Some(Seen::Lost)) => Seen::Lost,
                (false, Some(Seen::Called)) if now.called.contains(node) => Seen::Called,
                (false, Some(Seen::Called)) => {
                    changes.push(Change::Lost(*node));
                    Seen::Lost
                }
                (false, Some(Seen::Missed(missed))) if missed >= MISSED_MAX => Seen::Called,
                (false, Some(Seen::Missed(missed))) => Seen::Missed(missed + 1),
                (false, Some(Seen::Here)) => Seen::Missed(1),
                (false, None) => match now.part {
                    Part::Leads => Seen::Missed(1),
                    Part::Follows => continue,
                },
            };
            self.seen.insert(*node, seen);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: NodeId = NodeId(2);

    fn presence(linked: &[NodeId], part: Part) -> Presence {
        Presence {
            linked: linked.iter().copied().collect(),
            called: BTreeSet::new(),
            members: [OTHER].into(),
            part,
        }
    }

    fn looks(attendance: &mut Attendance, linked: &[NodeId], part: Part) -> Vec<Change> {
        let now = presence(linked, part);
        (0..20).flat_map(|_| attendance.look(&now)).collect()
    }

    #[test]
    fn a_loss_and_a_return_are_told_once_each() {
        let mut attendance = Attendance::default();
        for _ in 0..2 {
            assert!(
                looks(&mut attendance, &[OTHER], Part::Follows)
                    .iter()
                    .all(|change| *change == Change::Back(OTHER))
            );
            assert_eq!(looks(&mut attendance, &[], Part::Follows), [Change::Lost(OTHER)]);
        }
        assert_eq!(
            looks(&mut attendance, &[OTHER], Part::Follows),
            [Change::Back(OTHER)]
        );
    }

    #[test]
    fn a_connection_that_is_made_anew_is_no_loss() {
        let mut attendance = Attendance::default();
        for linked in [vec![OTHER], vec![], vec![OTHER], vec![], vec![], vec![OTHER]] {
            assert_eq!(attendance.look(&presence(&linked, Part::Leads)), []);
        }
    }

    #[test]
    fn whoever_was_never_met_is_missed_by_the_leader_alone() {
        assert_eq!(looks(&mut Attendance::default(), &[], Part::Follows), []);
        assert_eq!(
            looks(&mut Attendance::default(), &[], Part::Leads),
            [Change::Lost(OTHER)]
        );
    }

    #[test]
    fn whoever_is_missed_is_called_before_the_loss_is_told() {
        let mut attendance = Attendance::default();
        let mut look = |linked: &[NodeId], called: &[NodeId]| {
            let now = Presence {
                called: called.iter().copied().collect(),
                ..presence(linked, Part::Follows)
            };
            let changes = attendance.look(&now);
            (changes, attendance.missed().collect::<Vec<_>>())
        };
        for reached in [true, false] {
            assert_eq!(look(&[OTHER], &[]), (vec![], vec![]));
            for _ in 0..MISSED_MAX {
                assert_eq!(look(&[], &[]), (vec![], vec![]));
            }
            assert_eq!(look(&[], &[]), (vec![], vec![OTHER]));
            assert_eq!(look(&[], &[OTHER]), (vec![], vec![OTHER]), "no answer yet");
            if !reached {
                let lost = (vec![Change::Lost(OTHER)], vec![OTHER]);
                assert_eq!(look(&[], &[]), lost, "nobody else would find it back");
                assert_eq!(look(&[OTHER], &[]), (vec![Change::Back(OTHER)], vec![]));
            }
        }
    }

    #[test]
    fn whoever_is_removed_is_neither_lost_nor_back() {
        let mut attendance = Attendance::default();
        attendance.look(&presence(&[OTHER], Part::Leads));
        let without = Presence {
            members: BTreeSet::new(),
            ..presence(&[], Part::Leads)
        };
        for _ in 0..20 {
            assert_eq!(attendance.look(&without), []);
        }
        assert_eq!(attendance.look(&presence(&[OTHER], Part::Leads)), []);
    }
}
