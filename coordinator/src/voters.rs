//! Who votes: one node until three may, then three, then five.
//!
//! The leader asks after every change and now and then; one step at a time, and none while another is under way. An even
//! number of voters is never sought, since it stands fewer losses than it costs. A voter that went silent is replaced when
//! another node stands ready, and otherwise kept: to take it out would only lower how many must agree.
//!
//! And whether a node that they do not let in any more has been removed.

use proto::cluster::Role;
use proto::{NodeId, Span};
use std::collections::{BTreeMap, BTreeSet};

pub const VOTERS_MAX: usize = 5;
/// Longer than a restart takes.
pub const SILENCE_MAX: Span = Span::from_millis(15_000);
/// Many heartbeats.
const HEARD_MAX: Span = Span::from_millis(1_000);

/// What the leader knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Assembly {
    /// Who asks. It stays a voter where it may be one: its leaving would cost an election.
    pub leader: NodeId,
    /// The committed members.
    pub members: BTreeMap<NodeId, Standing>,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub role: Role,
    /// Since it was heard last.
    pub silent: Span,
    pub progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Has all but the last few entries.
    CaughtUp,
    Behind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Let it learn.
    Learn(NodeId),
    /// From now on exactly these vote; who voted before and is still a member learns on.
    Vote(BTreeSet<NodeId>),
    /// It is no member any more.
    Forget(NodeId),
}

/// `None`: all is as it should be, or has to wait.
pub fn next_step(assembly: &Assembly) -> Option<Step> {
    let known = |node: &NodeId| assembly.voters.contains(node) || assembly.learners.contains(node);
    let gone = assembly
        .learners
        .iter()
        .find(|node| !assembly.members.contains_key(node));
    if let Some(node) = gone {
        return Some(Step::Forget(*node));
    }
    let voters = best_voters(assembly);
    if voters != assembly.voters && would_agree(assembly, &voters) {
        return Some(Step::Vote(voters));
    }
    let newcomer = assembly.members.keys().find(|node| !known(node));
    newcomer.map(|node| Step::Learn(*node))
}

/// Do those who say that this node is no member decide so? `sets` are the voters as the node last knew them: two sets while one
/// takes the place of the other. Of either set the others may have gone on without the node, if they are most of them. Fewer
/// prove nothing: one may lag behind, or have been made a cluster of its own in error, while the rest still count on the node.
pub fn is_removed(node: NodeId, sets: &[BTreeSet<NodeId>], refused_by: &BTreeSet<NodeId>) -> bool {
    sets.iter().any(|voters| {
        let others = voters.iter().filter(|voter| **voter != node);
        let refusing = others.clone().filter(|voter| refused_by.contains(voter));
        refusing.count() * 2 > others.count()
    })
}

/// Most of them have been heard just now. A change to others could neither be committed nor taken back.
fn would_agree(assembly: &Assembly, voters: &BTreeSet<NodeId>) -> bool {
    let is_heard = |node: &&NodeId| {
        let standing = assembly.members.get(node);
        standing.is_some_and(|standing| standing.silent <= HEARD_MAX)
    };
    voters.iter().filter(is_heard).count() * 2 > voters.len()
}

/// The leader first, then voters where they can stay, those first that were heard last; the rest are the ready ones that
/// joined first.
fn best_voters(assembly: &Assembly) -> BTreeSet<NodeId> {
    let stay = || {
        assembly.voters.iter().filter(|node| {
            assembly
                .members
                .get(node)
                .is_some_and(|standing| standing.role == Role::Voter)
        })
    };
    let is_ready = |node: &NodeId| {
        assembly.members.get(node).is_some_and(|standing| {
            standing.role == Role::Voter
                && standing.silent <= SILENCE_MAX
                && (assembly.voters.contains(node) || standing.progress == Progress::CaughtUp)
        })
    };
    let (mut alive, silent): (Vec<NodeId>, Vec<NodeId>) = stay().copied().partition(is_ready);
    alive.sort_by_key(|node| (*node != assembly.leader, assembly.members[node].silent));
    let spare = assembly.learners.iter().copied().filter(is_ready);
    let ranked: Vec<NodeId> = alive.into_iter().chain(spare).chain(silent).collect();
    let count = odd_at_most(ranked.len()).min(VOTERS_MAX);
    ranked.into_iter().take(count).collect()
}

fn odd_at_most(count: usize) -> usize {
    if count.is_multiple_of(2) {
        count.saturating_sub(1)
    } else {
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Standing = Standing {
        role: Role::Voter,
        silent: Span::ZERO,
        progress: Progress::CaughtUp,
    };

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().map(|node| NodeId(*node)).collect()
    }

    fn assembly(members: &[u64], voters: &[u64], learners: &[u64]) -> Assembly {
        Assembly {
            leader: NodeId(voters[0]),
            members: members.iter().map(|node| (NodeId(*node), HERE)).collect(),
            voters: set(voters),
            learners: set(learners),
        }
    }

    fn alter(assembly: &mut Assembly, node: u64, change: impl FnOnce(&mut Standing)) {
        change(assembly.members.get_mut(&NodeId(node)).unwrap());
    }

    /// Takes steps until none is left.
    fn settled(mut assembly: Assembly) -> (Assembly, usize) {
        for steps in 0.. {
            assert!(steps < 100, "goes round in circles: {assembly:?}");
            match next_step(&assembly) {
                None => return (assembly, steps),
                Some(Step::Learn(node)) => assert!(assembly.learners.insert(node)),
                Some(Step::Forget(node)) => assert!(assembly.learners.remove(&node)),
                Some(Step::Vote(voters)) => {
                    let before = std::mem::replace(&mut assembly.voters, voters.clone());
                    assembly.learners.extend(before.difference(&voters));
                    assembly.learners.retain(|node| !voters.contains(node));
                }
            }
        }
        unreachable!("the loop ends by itself")
    }

    #[test]
    fn one_votes_until_three_may_then_three_then_five() {
        for (members, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)] {
            let members: Vec<u64> = (1..=members).collect();
            let (settled, _) = settled(assembly(&members, &[1], &[]));
            assert_eq!(settled.voters.len(), voters, "{members:?}");
            assert_eq!(settled.voters.len() + settled.learners.len(), members.len());
        }
    }

    #[test]
    fn from_one_to_three_in_one_step() {
        let ready = assembly(&[1, 2, 3], &[1], &[2, 3]);
        assert_eq!(next_step(&ready), Some(Step::Vote(set(&[1, 2, 3]))));
    }

    #[test]
    fn who_is_behind_or_a_worker_does_not_vote() {
        let mut three = assembly(&[1, 2, 3], &[1], &[2, 3]);
        alter(&mut three, 3, |standing| standing.progress = Progress::Behind);
        assert_eq!(next_step(&three), None);
        alter(&mut three, 3, |standing| {
            standing.progress = Progress::CaughtUp;
            standing.role = Role::Worker;
        });
        assert_eq!(next_step(&three), None);
    }

    #[test]
    fn a_silent_voter_is_replaced_when_another_node_stands_ready() {
        let mut four = assembly(&[1, 2, 3, 4], &[1, 2, 3], &[4]);
        alter(&mut four, 2, |standing| standing.silent = SILENCE_MAX);
        assert_eq!(next_step(&four), None, "it may be restarting");
        alter(&mut four, 2, |standing| standing.silent = Span(SILENCE_MAX.0 + 1));
        assert_eq!(next_step(&four), Some(Step::Vote(set(&[1, 3, 4]))));
        let mut three = assembly(&[1, 2, 3], &[1, 2, 3], &[]);
        alter(&mut three, 2, |standing| {
            standing.silent = Span(SILENCE_MAX.0 + 1)
        });
        assert_eq!(next_step(&three), None, "nobody could take its place");
    }

    #[test]
    fn who_is_left_of_two_voters_is_the_one_that_is_heard() {
        for (leader, silent, left) in [(1, 3, 2), (1, 2, 3)] {
            let mut three = assembly(&[1, 2, 3], &[1, 2, 3], &[]);
            three.leader = NodeId(leader);
            alter(&mut three, leader, |standing| standing.role = Role::Worker);
            alter(&mut three, silent, |standing| {
                standing.silent = Span::from_millis(500)
            });
            assert_eq!(next_step(&three), Some(Step::Vote(set(&[left]))));
            alter(&mut three, left, |standing| {
                standing.silent = Span::from_millis(1_001)
            });
            alter(&mut three, silent, |standing| {
                standing.silent = Span::from_millis(2_000)
            });
            assert_eq!(next_step(&three), None, "neither would agree");
        }
    }

    #[test]
    fn a_removed_voter_stops_to_vote_and_is_forgotten() {
        let (settled, steps) = settled(assembly(&[1, 3, 4], &[1, 2, 3], &[4]));
        assert_eq!((settled.voters, settled.learners), (set(&[1, 3, 4]), set(&[])));
        assert_eq!(steps, 2);
        let mut two = assembly(&[1, 3], &[1, 2, 3], &[]);
        assert_eq!(next_step(&two), Some(Step::Vote(set(&[1]))));
        two.leader = NodeId(3);
        assert_eq!(next_step(&two), Some(Step::Vote(set(&[3]))), "the leader stays");
    }

    /// Does node 1 believe it, when these say that it is no member?
    fn believes(sets: &[&[u64]], refused_by: &[u64]) -> bool {
        let sets: Vec<BTreeSet<NodeId>> = sets.iter().map(|voters| set(voters)).collect();
        is_removed(NodeId(1), &sets, &set(refused_by))
    }

    #[test]
    fn who_votes_is_removed_when_most_of_the_others_say_so() {
        let cases: [(&[u64], usize); 3] = [(&[1, 2], 1), (&[1, 2, 3], 2), (&[1, 2, 3, 4, 5], 3)];
        for (voters, enough) in cases {
            for refusing in 0..voters.len() {
                // The rest is silent, or says nothing of the kind.
                let is_enough = refusing >= enough;
                let first = &voters[1..=refusing];
                let last = &voters[voters.len() - refusing..];
                assert_eq!(believes(&[voters], first), is_enough, "{first:?} of {voters:?}");
                assert_eq!(believes(&[voters], last), is_enough, "{last:?} of {voters:?}");
            }
        }
    }

    #[test]
    fn who_does_not_vote_is_removed_when_most_voters_say_so() {
        let cases: [(&[u64], usize); 3] = [(&[2], 1), (&[2, 3, 4], 2), (&[2, 3, 4, 5, 6], 3)];
        for (voters, enough) in cases {
            for refusing in 0..=voters.len() {
                let is_enough = refusing >= enough;
                assert_eq!(
                    believes(&[voters], &voters[..refusing]),
                    is_enough,
                    "{refusing} of {voters:?}"
                );
            }
        }
        // Others than those who vote do not count.
        assert!(!believes(&[&[2, 3, 4]], &[2, 7, 8, 9]));
    }

    #[test]
    fn with_one_voter_of_three_silent_the_other_alone_proves_nothing() {
        // It may have been made a cluster of its own, and the silent one come back.
        assert!(!believes(&[&[1, 2, 3]], &[2]));
        assert!(believes(&[&[1, 2, 3]], &[2, 3]));
        assert!(believes(&[&[1, 2, 3, 4, 5]], &[2, 3, 4]));
    }

    #[test]
    fn who_last_heard_of_a_change_of_voters_believes_either_set() {
        // Of three, one is silent, and this one passed its vote on to the other before it was removed.
        assert!(believes(&[&[1, 2, 3], &[2]], &[2]));
        assert!(!believes(&[&[1, 2, 3], &[2]], &[3]));
        assert!(believes(&[&[1, 2, 3], &[2, 3, 4]], &[3, 4]));
        assert!(!believes(&[&[1, 2, 3], &[2, 3, 4]], &[4]));
    }

    #[test]
    fn who_knows_no_other_voter_is_not_removed() {
        let cases: [&[&[u64]]; 3] = [&[], &[&[]], &[&[1]]];
        for sets in cases {
            assert!(!believes(sets, &[2, 3]), "{sets:?}");
        }
    }

    #[test]
    fn never_is_nobody_to_vote() {
        let strangers = assembly(&[], &[1], &[]);
        assert_eq!(next_step(&strangers), None);
    }
}
