//! Units of one operation, dealt out to the members of a team.
//!
//! Each member has a share of its own, one run of units, and takes it from the front: what it reads follows what it has read, so that
//! memory is asked ahead of time. Cores are rarely equally fast, since other programs and the other half of a physical core take from
//! them; whoever is done takes from the back of whoever has most left.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Shares {
    shares: Vec<Share>,
}

/// What is left of one: where it begins in the lower half, where it ends in the upper one. Each has its lines of the cache to itself
/// (processors fetch them in pairs).
#[repr(align(128))]
#[derive(Default)]
struct Share(AtomicU64);

impl Shares {
    pub fn new(members: usize) -> Shares {
        Shares {
            shares: (0..members).map(|_| Share::default()).collect(),
        }
    }

    /// `0 .. total`, in equal parts. To be called while no member takes any, and seen by all who are told to begin afterwards.
    ///
    /// # Panics
    /// When there are more units than 2³².
    pub fn deal(&self, total: usize) {
        let total = u32::try_from(total).expect("no operation has so many units");
        let members = self.shares.len() as u64;
        let bound = |member: usize| (u64::from(total) * member as u64 / members) as u32;
        for (member, share) in self.shares.iter().enumerate() {
            let left = bound(member)..bound(member + 1);
            share.0.store(packed(left), Ordering::Relaxed);
        }
    }

    /// What `member` does next; `None`: nothing is left, though others may be at work. Runs have a length of at least `least`, if so much
    /// is left.
    pub fn take(&self, member: usize, least: usize) -> Option<Range<usize>> {
        let least = u32::try_from(least).unwrap_or(u32::MAX).max(1);
        self.shares[member]
            .take(|left| {
                let middle = left.start + run_length(&left, least);
                (left.start..middle, middle..left.end)
            })
            .or_else(|| self.take_from_others(least))
    }

    fn take_from_others(&self, least: u32) -> Option<Range<usize>> {
        loop {
            let longest = self.shares.iter().max_by_key(|share| share.left().len())?;
            if longest.left().is_empty() {
                return None;
            }
            // It may be empty by now; then another one is the longest.
            let taken = longest.take(|left| {
                let middle = left.end - run_length(&left, least);
                (middle..left.end, left.start..middle)
            });
            if taken.is_some() {
                return taken;
            }
        }
    }
}

/// Half of what is left: long runs first, then ever shorter ones, so that all finish together (after guided self-scheduling:
/// Polychronopoulos and Kuck, IEEE Transactions on Computers 36(12), 1987).
fn run_length(left: &Range<u32>, least: u32) -> u32 {
    let length = left.end - left.start;
    (length / 2).max(least).min(length)
}

impl Share {
    fn left(&self) -> Range<u32> {
        unpacked(self.0.load(Ordering::Relaxed))
    }

    /// `split` says what is taken and what stays. `None`: nothing was left.
    fn take(&self, split: impl Fn(Range<u32>) -> (Range<u32>, Range<u32>)) -> Option<Range<usize>> {
        let stays = |left: u64| {
            let left = unpacked(left);
            (!left.is_empty()).then(|| packed(split(left).1))
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, stays);
        let taken = split(unpacked(before.ok()?)).0;
        Some(taken.start as usize..taken.end as usize)
    }
}

fn packed(left: Range<u32>) -> u64 {
    u64::from(left.end) << 32 | u64::from(left.start)
}

fn unpacked(left: u64) -> Range<u32> {
    left as u32..(left >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_has_a_run_of_its_own_and_then_helps_whoever_has_most_left() {
        let shares = Shares::new(3);
        shares.deal(24);
        let mut own = Vec::new();
        for _ in 0..4 {
            own.push(shares.take(0, 1).unwrap());
        }
        assert_eq!(own, [0..4, 4..6, 6..7, 7..8], "from the front");
        assert_eq!(shares.take(1, 1), Some(8..12));
        assert_eq!(shares.take(0, 1), Some(20..24), "of the longest, from the back");
        assert_eq!(shares.take(0, 3), Some(17..20), "three at least");
        let rest = std::iter::from_fn(|| shares.take(0, 1)).flatten();
        assert_eq!(rest.collect::<BTreeSet<_>>(), (12..17).collect());
        assert_eq!((0..3).find_map(|member| shares.take(member, 1)), None);
    }

    #[test]
    fn a_share_may_be_empty() {
        let shares = Shares::new(4);
        shares.deal(1);
        assert_eq!(shares.take(0, 1), Some(0..1));
        assert_eq!(shares.take(1, 1), None);
        shares.deal(0);
        assert_eq!(shares.take(0, 1), None);
    }
}
