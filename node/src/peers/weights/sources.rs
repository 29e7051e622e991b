//! Whom to ask for which chunk.
//!
//! 1. The nearest node before this one, by number, that fetches the same chunk or has it from the fetch that it is in: it passes
//!    on what it gets. As everybody looks only before himself, nobody waits for himself. Nobody is waited for whose fetch has less
//!    than half of what is wanted here: a stage of other layers comes to what both need in a turn of its own, maybe as its last.
//! 2. A node that has parts, this chunk among them.
//! 3. A node that holds the whole file. Of several, here and above, the one that has the least to do for us.

use crate::store::chunk_set::ChunkSet;
use proto::NodeId;
use proto::weights::Holding;
use std::collections::{BTreeMap, BTreeSet};

/// So often a node may break off before it is asked no more.
const FAILURES_MAX: u32 = 3;

/// What a node has, as it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum View {
    Nothing,
    Whole,
    Parts { here: ChunkSet, coming: ChunkSet },
}

/// How much is held against a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blame {
    /// It may be better the next time.
    Failed,
    /// What it sends is wrong.
    Lied,
}

pub(super) struct Sources {
    own: NodeId,
    views: BTreeMap<NodeId, View>,
    failures: BTreeMap<NodeId, (u32, String)>,
    /// It has said so since it was looked at last.
    not_there: BTreeSet<(NodeId, u32)>,
}

impl View {
    /// Of a file of so many bytes, for one who wants these chunks of it.
    pub fn of(holding: Holding, file_bytes: u64, wanted: &ChunkSet) -> View {
        let chunks = wanted.chunks();
        match holding {
            Holding::Whole(whole) if whole.file_bytes == file_bytes => View::Whole,
            Holding::Parts(parts) if parts.file_bytes == file_bytes => {
                let sets = ChunkSet::from_bytes(&parts.here, chunks)
                    .zip(ChunkSet::from_bytes(&parts.coming, chunks));
                sets.map_or(View::Nothing, |(here, coming)| View::parts(here, coming, wanted))
            }
            Holding::Nothing | Holding::Whole(_) | Holding::Parts(_) => View::Nothing,
        }
    }

    fn parts(here: ChunkSet, coming: ChunkSet, wanted: &ChunkSet) -> View {
        let not_there = wanted.minus(&here.and(&coming)).len();
        let is_along = not_there * 2 <= wanted.len();
        View::Parts {
            coming: match is_along {
                true => coming,
                false => ChunkSet::none(wanted.chunks()),
            },
            here,
        }
    }

    /// Before it is known how the file is cut: who has nothing of it is left out.
    pub fn at_first(holding: &Holding) -> View {
        match holding {
            Holding::Nothing => View::Nothing,
            Holding::Whole(_) => View::Whole,
            Holding::Parts(_) => View::Parts {
                here: ChunkSet::none(0),
                coming: ChunkSet::none(0),
            },
        }
    }
}

impl Sources {
    pub fn new(own: NodeId) -> Sources {
        Sources {
            own,
            views: BTreeMap::new(),
            failures: BTreeMap::new(),
            not_there: BTreeSet::new(),
        }
    }

    pub fn see(&mut self, node: NodeId, view: View) {
        self.not_there.retain(|(known, _)| *known != node);
        self.views.insert(node, view);
    }

    /// It could not be asked.
    pub fn miss(&mut self, node: NodeId, reason: String) {
        self.see(node, View::Nothing);
        self.failures.entry(node).or_default().1 = reason;
    }

    /// It does not have this chunk after all.
    pub fn lacks(&mut self, node: NodeId, index: u32) {
        self.not_there.insert((node, index));
        if self.views.get(&node) == Some(&View::Whole) {
            self.blame(
                node,
                Blame::Failed,
                format!("it does not give chunk {index}, though it holds the file"),
            );
        }
    }

    pub fn blame(&mut self, node: NodeId, blame: Blame, reason: String) {
        let (count, last) = self.failures.entry(node).or_default();
        *count = match blame {
            Blame::Failed => *count + 1,
            Blame::Lied => FAILURES_MAX,
        };
        *last = reason;
    }

    /// It has given something that is right: what it has failed at is forgotten.
    pub fn praise(&mut self, node: NodeId) {
        if let Some((count, _)) = self.failures.get_mut(&node)
            && *count < FAILURES_MAX
        {
            *count = 0;
        }
    }

    pub fn is_trusted(&self, node: NodeId) -> bool {
        self.failures
            .get(&node)
            .is_none_or(|(count, _)| *count < FAILURES_MAX)
    }

    /// What was found wrong with each.
    pub fn tried(&self) -> Vec<(NodeId, String)> {
        let failures = self.failures.iter();
        failures
            .map(|(node, (_, reason))| (*node, reason.clone()))
            .collect()
    }

    /// Those that have anything, whole files first.
    pub fn holders(&self) -> Vec<NodeId> {
        let of = |wanted: fn(&View) -> bool| {
            let views = self.views.iter().filter(move |(_, view)| wanted(view));
            views.map(|(node, _)| *node)
        };
        let parts = of(|view| matches!(view, View::Parts { .. }));
        let all = of(|view| *view == View::Whole).chain(parts);
        all.filter(|node| self.is_trusted(*node)).collect()
    }

    /// `load`: how much is asked of a node already. `None`: nobody can be asked.
    pub fn of_chunk(&self, index: u32, load: impl Fn(NodeId) -> usize) -> Option<NodeId> {
        let usable = || {
            let views = self.views.iter();
            views.filter(|(node, _)| self.is_trusted(**node) && !self.not_there.contains(&(**node, index)))
        };
        let before = usable().rev().find(|(node, view)| match view {
            View::Parts { here, coming } => {
                **node < self.own && !coming.is_empty() && (here.contains(index) || coming.contains(index))
            }
            View::Nothing | View::Whole => false,
        });
        if let Some((node, _)) = before {
            return Some(*node);
        }
        let least = |wanted: &dyn Fn(&View) -> bool| {
            let those = usable().filter(|(_, view)| wanted(view));
            those.map(|(node, _)| *node).min_by_key(|node| load(*node))
        };
        let has_part = |view: &View| match view {
            View::Parts { here, .. } => here.contains(index),
            View::Nothing | View::Whole => false,
        };
        least(&has_part).or_else(|| least(&|view| *view == View::Whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::weights::HeldParts;

    fn set(indices: &[u32]) -> ChunkSet {
        let mut set = ChunkSet::none(8);
        indices.iter().for_each(|index| set.insert(*index));
        set
    }

    fn parts(here: &[u32], coming: &[u32]) -> View {
        View::Parts {
            here: set(here),
            coming: set(coming),
        }
    }

    fn sources(own: u64, views: &[(u64, View)]) -> Sources {
        let mut sources = Sources::new(NodeId(own));
        for (node, view) in views {
            sources.see(NodeId(*node), view.clone());
        }
        sources
    }

    fn pick(sources: &Sources, index: u32) -> Option<u64> {
        sources.of_chunk(index, |_| 0).map(|node| node.0)
    }

    #[test]
    fn those_who_fetch_form_a_chain_whose_first_asks_the_holder() {
        let fetching = |own: u64| {
            let others = [2, 3, 4].into_iter().filter(|node| *node != own);
            let mut views: Vec<(u64, View)> = others.map(|node| (node, parts(&[], &[0, 1, 2]))).collect();
            views.push((9, View::Whole));
            pick(&sources(own, &views), 1)
        };
        assert_eq!([2, 3, 4].map(fetching), [Some(9), Some(2), Some(3)]);
    }

    #[test]
    fn a_chunk_that_is_there_already_is_taken_from_whoever_has_it() {
        // A late one with a low number: the others are further than it, and it does not fetch that again from the holder.
        let late = sources(
            2,
            &[
                (3, parts(&[0, 1], &[2])),
                (4, parts(&[0], &[1, 2])),
                (9, View::Whole),
            ],
        );
        assert_eq!(
            [0, 1, 2].map(|index| pick(&late, index)),
            [Some(3), Some(3), Some(9)]
        );
        assert_eq!(late.of_chunk(0, |node| usize::from(node.0 == 3)), Some(NodeId(4)));
        // Who has fetched all that it wants is before nobody, and gives what it has.
        let done = sources(5, &[(3, parts(&[0, 1], &[])), (4, parts(&[7], &[2]))]);
        assert_eq!(
            [0, 2, 3].map(|index| pick(&done, index)),
            [Some(3), Some(4), None]
        );
    }

    #[test]
    fn who_fetches_other_layers_is_not_waited_for() {
        let wanted = set(&[3, 4, 5, 6]);
        let view = |here: &[u32], coming: &[u32]| {
            let parts = HeldParts {
                file_bytes: 80,
                here: set(here).to_bytes(),
                coming: set(coming).to_bytes(),
            };
            View::of(Holding::Parts(Box::new(parts)), 80, &wanted)
        };
        // The third is of both stages, and what is there is taken.
        assert_eq!(view(&[0, 1], &[2, 3]), parts(&[0, 1], &[]));
        assert_eq!(view(&[0, 1, 3], &[2]), parts(&[0, 1, 3], &[]));
        assert_eq!(view(&[3], &[1, 2, 4]), parts(&[3], &[1, 2, 4]));
        assert_eq!(view(&[], &[3, 4, 5, 6, 7]), parts(&[], &[3, 4, 5, 6, 7]));
    }

    #[test]
    fn who_has_failed_too_often_or_lied_is_not_asked() {
        let mut sources = sources(5, &[(1, View::Whole), (2, View::Whole)]);
        sources.blame(NodeId(1), Blame::Lied, "wrong bytes".to_owned());
        assert_eq!(pick(&sources, 0), Some(2));
        for _ in 0..2 {
            sources.blame(NodeId(2), Blame::Failed, "gone".to_owned());
        }
        assert_eq!(pick(&sources, 0), Some(2), "it may be back");
        sources.praise(NodeId(2));
        sources.praise(NodeId(1));
        for _ in 0..3 {
            sources.blame(NodeId(2), Blame::Failed, "gone".to_owned());
        }
        assert_eq!(pick(&sources, 0), None);
        assert_eq!(sources.tried().len(), 2);
        assert!(sources.holders().is_empty());
    }

    #[test]
    fn who_lacks_a_chunk_is_passed_over_until_it_is_looked_at_again() {
        let mut sources = sources(5, &[(1, View::Whole), (4, parts(&[], &[0, 1]))]);
        assert_eq!(pick(&sources, 0), Some(4));
        sources.lacks(NodeId(4), 0);
        assert_eq!([0, 1].map(|index| pick(&sources, index)), [Some(1), Some(4)]);
        sources.see(NodeId(4), parts(&[0], &[1]));
        assert_eq!(pick(&sources, 0), Some(4));
    }
}
