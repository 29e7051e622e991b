//! Which replica: the one that probably has the prefix, unless it is too busy.
//!
//! Rendezvous hashing (Thaler, Ravishankar 1998) of the first block's name gives every prefix an order of replicas that
//! changes only where replicas come and go. Bounded load (Mirrokni, Thorup, Zadimoghaddam 2018) passes over a replica
//! that has more than its share.

use proto::ReplicaId;

/// A replica may have this much more than the mean before its prefixes go elsewhere ...
const OVERLOAD_PERCENT: u64 = 125;
/// ... and these few streams more, so that an idle cluster does not scatter.
const OVERLOAD_STREAMS: u64 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub replica: ReplicaId,
    /// Streams it has.
    pub pressure: u32,
}

/// `None` where there is no candidate.
pub(super) fn choose(candidates: &[Candidate], affinity: Option<u128>) -> Option<ReplicaId> {
    let least = candidates
        .iter()
        .min_by_key(|candidate| (candidate.pressure, candidate.replica))?;
    let Some(prefix) = affinity else {
        return Some(least.replica);
    };
    let total: u64 = candidates
        .iter()
        .map(|candidate| u64::from(candidate.pressure))
        .sum();
    let bound = total * OVERLOAD_PERCENT / 100 / candidates.len() as u64 + OVERLOAD_STREAMS;
    candidates
        .iter()
        .filter(|candidate| u64::from(candidate.pressure) <= bound)
        .max_by_key(|candidate| (weight(prefix, candidate.replica), candidate.replica))
        .or(Some(least))
        .map(|candidate| candidate.replica)
}

/// The prefix is a hash already; mixing in the replica is all that is left (finaliser of SplitMix64).
fn weight(prefix: u128, replica: ReplicaId) -> u64 {
    let mut mixed = (prefix as u64) ^ u64::from(replica.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(pressures: &[u32]) -> Vec<Candidate> {
        let candidate = |(index, pressure): (usize, &u32)| Candidate {
            replica: ReplicaId(index as u32),
            pressure: *pressure,
        };
        pressures.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn without_a_prefix_the_least_loaded_is_chosen() {
        assert_eq!(choose(&candidates(&[3, 1, 2]), None), Some(ReplicaId(1)));
        assert_eq!(choose(&[], None), None);
    }

    #[test]
    fn a_prefix_stays_where_it_is_until_that_replica_is_overloaded() {
        let home = choose(&candidates(&[0, 0, 0]), Some(77)).unwrap();
        let mut busy = candidates(&[2, 2, 2]);
        assert_eq!(choose(&busy, Some(77)), Some(home));
        busy[home.0 as usize].pressure = 40;
        assert_ne!(choose(&busy, Some(77)), Some(home));
    }

    #[test]
    fn a_lost_replica_moves_only_its_own_prefixes() {
        let all = candidates(&[0, 0, 0, 0]);
        for prefix in 0..200 {
            let home = choose(&all, Some(prefix)).unwrap();
            if home != ReplicaId(3) {
                assert_eq!(choose(&all[..3], Some(prefix)), Some(home));
            }
        }
    }

    #[test]
    fn prefixes_spread_over_the_replicas() {
        let all = candidates(&[0, 0, 0, 0]);
        let mut counts = [0; 4];
        for prefix in 0..400_u128 {
            counts[choose(&all, Some(prefix * 0x1234_5678_9abc)).unwrap().0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
