//! Which replica: where the stream costs least time, by what has to be computed for it there and what is ahead of it.
//!
//! Reports of load are late, and every gateway reads the same ones: if all took the replica that looks best, all would
//! take the same one. So of replicas where equally much is to be computed two are drawn, and the less busy of them is
//! likelier to be taken (power of two choices: Azar, Broder, Karlin, Upfal 1999; with loads of doubtful age: Mitzenmacher
//! 2000). The pair is drawn by rendezvous hashing (Thaler, Ravishankar 1998) of a block's name, so that gateways that have
//! never heard of a prefix look for it in the same place, and lose little of that where replicas come and go.

use proto::ReplicaId;
use std::collections::BTreeMap;

/// What is computed for one stream delays those that come after it, too, so that it weighs more than what is waited for
/// once. On the recorded prompts of `sim/tests/routing` 4 gave shorter waits than 1 and 2, and 8 hardly shorter ones.
const OWN_WEIGHT: f64 = 4.0;
/// How decidedly the less busy one of a pair is preferred: twice as busy is taken one time in 17.
const DECISIVENESS: i32 = 4;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Candidate {
    pub replica: ReplicaId,
    /// What its cache probably spares.
    pub cached_tokens: u32,
    /// What is to be computed for the stream itself.
    pub own_secs: f64,
    /// What is ahead of it, and beside it.
    pub busy_secs: f64,
}

/// `None` where there is no candidate. `key`: what gateways should agree about.
pub(super) fn choose(candidates: &[Candidate], key: u128) -> Option<ReplicaId> {
    let mut classes: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        classes
            .entry(candidate.cached_tokens)
            .or_default()
            .push(*candidate);
    }
    classes
        .into_values()
        .filter_map(|class| of_equals(class, key))
        .min_by(|one, other| one.price_secs().total_cmp(&other.price_secs()))
        .map(|candidate| candidate.replica)
}

impl Candidate {
    fn price_secs(&self) -> f64 {
        OWN_WEIGHT * self.own_secs + self.busy_secs
    }
}

/// Of replicas that differ only in how busy they seem. One that has nothing to do is always better.
fn of_equals(mut class: Vec<Candidate>, key: u128) -> Option<Candidate> {
    if class.iter().any(|candidate| candidate.busy_secs == 0.0) {
        class.retain(|candidate| candidate.busy_secs == 0.0);
    }
    class.sort_by_key(|candidate| {
        std::cmp::Reverse((weight(key, u64::from(candidate.replica.0)), candidate.replica))
    });
    match class.as_slice() {
        [] => None,
        [only] => Some(*only),
        [first, second, ..] => Some(of_two(*first, *second, key)),
    }
}

fn of_two(first: Candidate, second: Candidate, key: u128) -> Candidate {
    let (one, two) = (
        first.busy_secs.powi(DECISIVENESS),
        second.busy_secs.powi(DECISIVENESS),
    );
    let draw = weight(key, COIN) as f64 / u64::MAX as f64;
    if draw * (one + two) < one { second } else { first }
}

/// No replica's number.
const COIN: u64 = u64::MAX;

/// The key is random already; mixing in what it is drawn for is all that is left (finaliser of SplitMix64).
fn weight(key: u128, draw: u64) -> u64 {
    let mut mixed = (key as u64) ^ ((key >> 64) as u64) ^ draw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(replica: u32, cached_tokens: u32, own_secs: f64, busy_secs: f64) -> Candidate {
        Candidate {
            replica: ReplicaId(replica),
            cached_tokens,
            own_secs,
            busy_secs,
        }
    }

    fn equals(busy_secs: &[f64]) -> Vec<Candidate> {
        (0..)
            .zip(busy_secs)
            .map(|(replica, secs)| candidate(replica, 0, 1.0, *secs))
            .collect()
    }

    /// How often each was chosen, over many keys.
    fn counts(candidates: &[Candidate]) -> Vec<u32> {
        let mut counts = vec![0; candidates.len()];
        for key in 0..1000_u128 {
            let key = key * 0x1234_5678_9abc_def1;
            counts[choose(candidates, key).unwrap().0 as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_holder_of_a_prefix_is_chosen_until_computing_it_elsewhere_costs_less_time() {
        let with_holder = |busy_secs| [candidate(0, 160, 1.0, busy_secs), candidate(1, 0, 3.0, 0.5)];
        assert_eq!(choose(&with_holder(8.4), 7), Some(ReplicaId(0)));
        assert_eq!(choose(&with_holder(8.6), 7), Some(ReplicaId(1)));
        assert_eq!(choose(&[], 7), None);
    }

    #[test]
    fn among_equals_an_idle_one_is_chosen_and_otherwise_rather_the_less_busy() {
        assert_eq!(counts(&equals(&[0.1, 0.0, 0.2]))[1], 1000);
        let pair = counts(&equals(&[2.0, 1.0]));
        assert!((30..90).contains(&pair[0]), "one in 17: {pair:?}");
    }

    #[test]
    fn the_least_busy_of_many_does_not_take_everything() {
        let busy = counts(&equals(&[1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]));
        assert!(busy.iter().all(|count| (60..260).contains(count)), "{busy:?}");
    }

    #[test]
    fn a_lost_replica_moves_only_its_own_prefixes() {
        let all = equals(&[0.0; 4]);
        for key in 0..200 {
            let home = choose(&all, key).unwrap();
            if home != ReplicaId(3) {
                assert_eq!(choose(&all[..3], key), Some(home));
            }
        }
    }

    #[test]
    fn prefixes_spread_over_the_replicas() {
        let idle = counts(&equals(&[0.0; 4]));
        assert!(idle.iter().all(|count| (200..300).contains(count)), "{idle:?}");
    }
}
