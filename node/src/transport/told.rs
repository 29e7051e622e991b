//! What was logged a moment ago, so that who comes again and again does not fill the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same of the same host is worth a line so often.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// More hosts and reasons are forgotten at once.
const REMEMBERED_MAX: usize = 256;

#[derive(Default)]
pub(super) struct ToldLately(Mutex<BTreeMap<(IpAddr, String), Instant>>);

impl ToldLately {
    /// Is it news? From now on it is not, for a while.
    pub fn is_news(&self, from: IpAddr, what: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (from, what.to_owned());
        if told
            .get(&key)
            .is_some_and(|at| now.duration_since(*at) < AGAIN_AFTER)
        {
            return false;
        }
        if told.len() >= REMEMBERED_MAX {
            told.clear();
        }
        told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_news_once_a_minute() {
        let (told, now) = (ToldLately::default(), Instant::now());
        let [one, other] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let after = |secs| now + Duration::from_secs(secs);
        assert!(told.is_news(one, "NotAMember", now));
        assert!(!told.is_news(one, "NotAMember", after(59)));
        assert!(told.is_news(one, "Busy", after(59)), "another reason");
        assert!(told.is_news(other, "NotAMember", after(59)), "another host");
        assert!(told.is_news(one, "NotAMember", after(60)));
        let crowd = (0..10_000).map(|host: u32| IpAddr::from(host.to_be_bytes()));
        crowd.for_each(|host| _ = told.is_news(host, "Busy", now));
        assert!(told.0.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
