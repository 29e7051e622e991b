//! How often strangers may knock: at most so many at once, per network and in all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// One network (/24 of IPv4, /64 of IPv6) may ask this often at once, and again after each `NETWORK_EVERY`.
const NETWORK_BURST: u32 = 8;
const NETWORK_EVERY: Duration = Duration::from_secs(2);
/// All together. A cluster of hundreds of nodes that is set up by a script joins within a minute.
const TOTAL_BURST: u32 = 64;
const TOTAL_EVERY: Duration = Duration::from_millis(100);
/// Networks that are remembered. Those that have not asked for long are forgotten first, which costs nothing.
const NETWORKS_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    Admitted,
    TooOften,
}

pub(super) struct Gate {
    total: Bucket,
    networks: HashMap<IpAddr, Bucket>,
}

impl Gate {
    pub fn new(now: Instant) -> Gate {
        Gate {
            total: Bucket::full(TOTAL_BURST, now),
            networks: HashMap::new(),
        }
    }

    pub fn admit(&mut self, from: IpAddr, now: Instant) -> Admission {
        let network = network_of(from);
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks.retain(|_, bucket| {
                bucket.refilled(NETWORK_BURST, NETWORK_EVERY, now).tokens < NETWORK_BURST
            });
            if self.networks.len() >= NETWORKS_MAX {
                return Admission::TooOften;
            }
        }
        let bucket = self
            .networks
            .entry(network)
            .or_insert_with(|| Bucket::full(NETWORK_BURST, now));
        *bucket = bucket.refilled(NETWORK_BURST, NETWORK_EVERY, now);
        self.total = self.total.refilled(TOTAL_BURST, TOTAL_EVERY, now);
        match (bucket.tokens.checked_sub(1), self.total.tokens.checked_sub(1)) {
            (Some(network), Some(total)) => {
                bucket.tokens = network;
                self.total.tokens = total;
                Admission::Admitted
            }
            (None, _) | (_, None) => Admission::TooOften,
        }
    }
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: u32,
    /// When the last token came in.
    filled: Instant,
}

impl Bucket {
    fn full(tokens: u32, now: Instant) -> Bucket {
        Bucket { tokens, filled: now }
    }

    fn refilled(self, tokens_max: u32, every: Duration, now: Instant) -> Bucket {
        let passed = now.saturating_duration_since(self.filled);
        let new = u32::try_from(passed.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
        match self.tokens.saturating_add(new) {
            tokens if tokens >= tokens_max => Bucket::full(tokens_max, now),
            // Not `now`: the part of a token that has come in already is kept.
            tokens => Bucket {
                tokens,
                filled: self.filled + every * new,
            },
        }
    }
}

fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(gate: &mut Gate, from: &str, now: Instant) -> bool {
        gate.admit(from.parse().unwrap(), now) == Admission::Admitted
    }

    #[test]
    fn a_network_is_slowed_down_and_another_is_not() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let burst = (0..20).filter(|n| admitted(&mut gate, &format!("10.0.0.{n}"), start));
        assert_eq!(burst.count(), NETWORK_BURST as usize);
        assert!(admitted(&mut gate, "10.0.1.1", start));
        assert!(
            !admitted(&mut gate, "::ffff:10.0.0.9", start),
            "the same, as IPv6 writes it"
        );
        let later = start + NETWORK_EVERY;
        assert!(admitted(&mut gate, "10.0.0.1", later));
        assert!(!admitted(&mut gate, "10.0.0.1", later));
    }

    #[test]
    fn a_whole_prefix_of_ipv6_is_one_network() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let burst = (0..20).filter(|n| admitted(&mut gate, &format!("2001:db8::{n:x}:1"), start));
        assert_eq!(burst.count(), NETWORK_BURST as usize);
        assert!(admitted(&mut gate, "2001:db8:0:1::1", start));
    }

    #[test]
    fn all_networks_together_are_bounded_and_memory_is() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        let asked = (0..5000_u32).filter(|n| {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, *n as u16, 0, 0, 0, 1);
            gate.admit(address.into(), start) == Admission::Admitted
        });
        assert_eq!(asked.count(), TOTAL_BURST as usize);
        assert!(gate.networks.len() <= NETWORKS_MAX);
        let later = start + Duration::from_secs(3600);
        assert!(
            admitted(&mut gate, "10.9.9.9", later),
            "those who have been quiet are forgotten"
        );
    }
}
