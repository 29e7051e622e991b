//! Which requests with a key are running, and the answers of those that ended well. No IO, no clock.

use proto::{Span, TenantId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an entry takes beside its answer, roughly.
const ENTRY_BYTES: usize = 1 << 10;

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of everything together, running recordings included.
    pub bytes_max: usize,
    pub answer_bytes_max: usize,
    pub kept_for: Span,
}

/// A request's name among those of its tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    pub tenant: TenantId,
    pub key: String,
}

/// Of the path and the body.
pub type Digest = [u8; 32];

#[derive(PartialEq, Debug)]
pub enum Verdict<A> {
    /// It is the first with its key: run it, then `finish` or `abandon` it.
    Run,
    /// Another with this key is running.
    Running,
    /// The key came with another request before.
    OtherRequest,
    /// It ran before; this was the answer.
    Answered(Arc<A>),
    /// No room for one more.
    Full,
}

/// Whether a recording may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Given,
    Refused,
}

pub struct Ledger<A> {
    bounds: Bounds,
    entries: BTreeMap<Name, Entry<A>>,
    /// Finished entries, the oldest first.
    finished: BTreeMap<(Time, u64), Name>,
    /// What finished entries take, by tenant.
    tenant_bytes: BTreeMap<TenantId, usize>,
    bytes: usize,
    next_place: u64,
}

struct Entry<A> {
    digest: Digest,
    bytes: usize,
    answer: Option<Finished<A>>,
}

struct Finished<A> {
    answer: Arc<A>,
    place: (Time, u64),
}

impl<A> Ledger<A> {
    pub fn new(bounds: Bounds) -> Ledger<A> {
        Ledger {
            bounds,
            entries: BTreeMap::new(),
            finished: BTreeMap::new(),
            tenant_bytes: BTreeMap::new(),
            bytes: 0,
            next_place: 0,
        }
    }

    pub fn begin(&mut self, name: &Name, digest: Digest, now: Time) -> Verdict<A> {
        self.expire(now);
        if let Some(entry) = self.entries.get(name) {
            return match &entry.answer {
                _ if entry.digest != digest => Verdict::OtherRequest,
                Some(finished) => Verdict::Answered(finished.answer.clone()),
                None => Verdict::Running,
            };
        }
        let bytes = ENTRY_BYTES + name.key.len();
        if self.make_room(bytes) == Room::Refused {
            return Verdict::Full;
        }
        let entry = Entry {
            digest,
            bytes,
            answer: None,
        };
        self.entries.insert(name.clone(), entry);
        self.bytes += bytes;
        Verdict::Run
    }

    /// The recording of a running request grows by so much. After `Refused` it is to be thrown away; the request runs on.
    pub fn grow(&mut self, name: &Name, bytes: usize) -> Room {
        let recorded = self.entries.get(name).map_or(0, |entry| entry.bytes);
        let is_too_large = recorded + bytes > self.bounds.answer_bytes_max + ENTRY_BYTES + name.key.len();
        if is_too_large || self.make_room(bytes) == Room::Refused {
            return Room::Refused;
        }
        if let Some(entry) = self.entries.get_mut(name) {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
        Room::Given
    }

    pub fn finish(&mut self, name: &Name, answer: A, now: Time) {
        let place = (now, self.next_place);
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        assert!(entry.answer.is_none(), "a request with a key ended twice");
        entry.answer = Some(Finished {
            answer: Arc::new(answer),
            place,
        });
        *self.tenant_bytes.entry(name.tenant).or_default() += entry.bytes;
        self.finished.insert(place, name.clone());
        self.next_place += 1;
    }

    /// It ended badly, or its client went away: the next one with the key runs.
    pub fn abandon(&mut self, name: &Name) {
        self.remove(name);
    }

    fn expire(&mut self, now: Time) {
        while let Some((&(finished, _), name)) = self.finished.first_key_value()
            && now.since(finished) >= self.bounds.kept_for
        {
            let name = name.clone();
            self.remove(&name);
        }
    }

    /// Forgets answers until there is room, those of the tenant that has most of them first.
    fn make_room(&mut self, bytes: usize) -> Room {
        while self.bytes + bytes > self.bounds.bytes_max {
            let Some(name) = self.dearest() else {
                return Room::Refused;
            };
            self.remove(&name);
        }
        Room::Given
    }

    fn dearest(&self) -> Option<Name> {
        let (tenant, _) = self.tenant_bytes.iter().max_by_key(|(_, bytes)| **bytes)?;
        self.finished
            .values()
            .find(|name| name.tenant == *tenant)
            .cloned()
    }

    fn remove(&mut self, name: &Name) {
        let Some(entry) = self.entries.remove(name) else {
            return;
        };
        self.bytes -= entry.bytes;
        let Some(finished) = entry.answer else { return };
        self.finished.remove(&finished.place);
        if let Some(bytes) = self.tenant_bytes.get_mut(&name.tenant) {
            *bytes -= entry.bytes;
            if *bytes == 0 {
                self.tenant_bytes.remove(&name.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Digest = [1; 32];
    const TWO: Digest = [2; 32];

    fn ledger(bytes_max: usize) -> Ledger<&'static str> {
        Ledger::new(Bounds {
            bytes_max,
            answer_bytes_max: 1000,
            kept_for: Span::from_secs(10),
        })
    }

    fn name(tenant: u32, key: &str) -> Name {
        Name {
            tenant: TenantId(tenant),
            key: key.into(),
        }
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Span::from_secs(secs)
    }

    #[test]
    fn a_key_runs_once_and_is_answered_from_then_on() {
        let mut ledger = ledger(10_000);
        let first = name(1, "a");
        assert_eq!(ledger.begin(&first, ONE, at(0)), Verdict::Run);
        assert_eq!(ledger.begin(&first, ONE, at(0)), Verdict::Running);
        assert_eq!(ledger.begin(&first, TWO, at(0)), Verdict::OtherRequest);
        ledger.finish(&first, "answer", at(1));
        assert_eq!(
            ledger.begin(&first, ONE, at(2)),
            Verdict::Answered(Arc::new("answer"))
        );
        assert_eq!(ledger.begin(&first, TWO, at(2)), Verdict::OtherRequest);
        assert_eq!(
            ledger.begin(&name(2, "a"), TWO, at(2)),
            Verdict::Run,
            "of another tenant"
        );
    }

    #[test]
    fn what_was_abandoned_runs_again_and_leaves_nothing() {
        let mut ledger = ledger(10_000);
        let first = name(1, "a");
        ledger.begin(&first, ONE, at(0));
        ledger.grow(&first, 500);
        ledger.abandon(&first);
        assert_eq!((ledger.bytes, ledger.entries.len()), (0, 0));
        assert_eq!(ledger.begin(&first, TWO, at(0)), Verdict::Run);
    }

    #[test]
    fn answers_expire_and_running_requests_do_not() {
        let mut ledger = ledger(10_000);
        ledger.begin(&name(1, "a"), ONE, at(0));
        ledger.begin(&name(1, "b"), ONE, at(0));
        ledger.finish(&name(1, "a"), "answer", at(0));
        assert_eq!(ledger.begin(&name(1, "a"), ONE, at(10)), Verdict::Run);
        assert_eq!(ledger.begin(&name(1, "b"), ONE, at(100)), Verdict::Running);
    }

    #[test]
    fn memory_is_bounded_and_who_has_most_gives_way() {
        let mut ledger = ledger(4 * (ENTRY_BYTES + 1));
        for (tenant, key) in [(1, "a"), (2, "a"), (2, "b"), (2, "c")] {
            assert_eq!(ledger.begin(&name(tenant, key), ONE, at(0)), Verdict::Run);
            ledger.finish(&name(tenant, key), "answer", at(0));
        }
        assert_eq!(ledger.begin(&name(1, "b"), ONE, at(1)), Verdict::Run);
        assert_eq!(
            ledger.begin(&name(1, "a"), ONE, at(1)),
            Verdict::Answered(Arc::new("answer"))
        );
        assert_eq!(
            ledger.begin(&name(2, "b"), ONE, at(1)),
            Verdict::Answered(Arc::new("answer"))
        );
        assert_eq!(
            ledger.begin(&name(2, "a"), ONE, at(1)),
            Verdict::Run,
            "it was the oldest of tenant 2"
        );
        assert!(ledger.bytes <= ledger.bounds.bytes_max);
    }

    #[test]
    fn a_recording_stops_at_its_bound_and_running_requests_never_give_way() {
        let mut ledger = ledger(3 * ENTRY_BYTES - 100);
        ledger.begin(&name(1, "a"), ONE, at(0));
        assert_eq!(ledger.grow(&name(1, "a"), 1000), Room::Given);
        assert_eq!(
            ledger.grow(&name(1, "a"), 1),
            Room::Refused,
            "beyond one answer's bound"
        );
        assert_eq!(
            ledger.begin(&name(1, "b"), ONE, at(0)),
            Verdict::Full,
            "beyond everybody's"
        );
        ledger.finish(&name(1, "a"), "answer", at(0));
        assert_eq!(ledger.begin(&name(1, "b"), ONE, at(0)), Verdict::Run);
    }
}
