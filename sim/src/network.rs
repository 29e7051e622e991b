//! How long a message is on its way. Messages of one direction between two ends never overtake each other, as on one
//! QUIC stream.

use crate::random::Random;
use crate::scenario::Cluster;
use proto::Time;
use std::collections::BTreeMap;

pub struct Network {
    delay_ns: u64,
    jitter_ns: u64,
    random: Random,
    /// When the last message of a direction arrives.
    last: BTreeMap<Path, Time>,
}

/// One direction between a gateway and a replica, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Path {
    ToReplica { gateway: usize, replica: usize },
    ToGateway { gateway: usize, replica: usize },
}

impl Network {
    pub fn new(cluster: &Cluster, random: Random) -> Network {
        Network {
            delay_ns: (cluster.network_us * 1e3) as u64,
            jitter_ns: (cluster.network_jitter_us * 1e3) as u64,
            random,
            last: BTreeMap::new(),
        }
    }

    /// When a message that leaves now arrives.
    pub fn arrival(&mut self, now: Time, path: Path) -> Time {
        let delay = self.delay_ns + self.random.between(0, self.jitter_ns);
        let last = self.last.entry(path).or_insert(Time::ZERO);
        *last = (*last).max(Time(now.0 + delay));
        *last
    }
}
