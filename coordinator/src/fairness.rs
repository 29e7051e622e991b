//! Fairness between tenants: start-time fair queueing (Goyal, Vin, Cheng 1996) over tokens.
//!
//! Every tenant has a virtual clock that advances by the tokens computed for it; who is furthest behind goes first. A
//! tenant that was away starts at the present, so it can neither save up nor be punished for what it used alone.

use proto::TenantId;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct TenantClocks {
    clocks: BTreeMap<TenantId, Clock>,
    /// Where a newcomer starts: the least clock of the tenants present, never going back.
    present: u64,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    tokens: u64,
    /// How many streams of the tenant are in the system.
    streams: u32,
}

impl TenantClocks {
    /// A stream of the tenant has arrived.
    pub fn join(&mut self, tenant: TenantId) {
        let present = self.present;
        let clock = self.clocks.entry(tenant).or_insert(Clock {
            tokens: present,
            streams: 0,
        });
        if clock.streams == 0 {
            clock.tokens = clock.tokens.max(present);
        }
        clock.streams += 1;
    }

    /// A stream of the tenant has ended.
    pub fn leave(&mut self, tenant: TenantId) {
        if let Some(clock) = self.clocks.get_mut(&tenant) {
            clock.streams = clock.streams.saturating_sub(1);
        }
        self.advance();
    }

    pub fn charge(&mut self, tenant: TenantId, tokens: u64) {
        if let Some(clock) = self.clocks.get_mut(&tenant) {
            clock.tokens += tokens;
        }
        self.advance();
    }

    /// Less goes first.
    pub fn time(&self, tenant: TenantId) -> u64 {
        self.clocks
            .get(&tenant)
            .map_or(self.present, |clock| clock.tokens)
    }

    /// Moves the present on and forgets the tenants that would restart there anyway.
    fn advance(&mut self) {
        let least = self
            .clocks
            .values()
            .filter(|clock| clock.streams > 0)
            .map(|clock| clock.tokens)
            .min();
        let latest = self.clocks.values().map(|clock| clock.tokens).max();
        self.present = self.present.max(least.or(latest).unwrap_or(0));
        let present = self.present;
        self.clocks
            .retain(|_, clock| clock.streams > 0 || clock.tokens > present);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    #[test]
    fn a_newcomer_starts_at_the_present_and_not_at_zero() {
        let mut clocks = TenantClocks::default();
        clocks.join(A);
        clocks.charge(A, 1000);
        clocks.join(B);
        assert_eq!(clocks.time(B), 1000);
    }

    #[test]
    fn what_a_tenant_used_alone_is_not_held_against_it() {
        let mut clocks = TenantClocks::default();
        clocks.join(A);
        clocks.charge(A, 1000);
        clocks.leave(A);
        clocks.join(B);
        clocks.join(A);
        assert_eq!(clocks.time(A), clocks.time(B));
    }

    #[test]
    fn leaving_and_returning_does_not_wipe_out_a_debt() {
        let mut clocks = TenantClocks::default();
        clocks.join(A);
        clocks.join(B);
        clocks.charge(A, 1000);
        clocks.leave(A);
        clocks.join(A);
        assert!(clocks.time(A) > clocks.time(B));
    }
}
