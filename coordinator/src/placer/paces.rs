//! What the stages of replicas have computed lately.

use proto::{ReplicaId, Span};
use std::collections::BTreeMap;

/// A cut is judged when all its stages together have computed for so long: a machine may be slow for seconds.
const EVIDENCE_LEAST: Span = Span::from_secs(60);
/// It takes twice as much after each new cut, up to this: where paces come and go, no cut is right for long.
const EVIDENCE_MAX: Span = Span::from_secs(3600);

#[derive(Clone, Debug, Default)]
pub struct Paces {
    windows: BTreeMap<ReplicaId, Window>,
}

#[derive(Clone, Debug)]
struct Window {
    /// What each stage had computed when it began.
    begun: Vec<Span>,
    now: Vec<Span>,
    needed: Span,
}

impl Paces {
    /// How long each stage has computed since its epoch began.
    pub fn hear(&mut self, replica: ReplicaId, computed: Vec<Span>) {
        let window = self.windows.entry(replica).or_insert_with(|| Window {
            begun: computed.clone(),
            now: computed.clone(),
            needed: EVIDENCE_LEAST,
        });
        let is_other = window.now.len() != computed.len();
        if is_other || window.now.iter().zip(&computed).any(|(now, new)| new < now) {
            // Another epoch.
            window.begun = computed.clone();
        }
        window.now = computed;
    }

    /// Those that have computed enough, with how long each stage did.
    pub fn full(&self) -> Vec<(ReplicaId, Vec<Span>)> {
        let full = |(replica, window): (&ReplicaId, &Window)| {
            let computed: Vec<Span> = window
                .now
                .iter()
                .zip(&window.begun)
                .map(|(now, begun)| Span(now.0 - begun.0))
                .collect();
            let all = computed
                .iter()
                .fold(0_u64, |sum, span| sum.saturating_add(span.0));
            (all >= window.needed.0).then_some((*replica, computed))
        };
        self.windows.iter().filter_map(full).collect()
    }

    /// What was computed until now was looked at.
    pub fn begin(&mut self, replica: ReplicaId) {
        if let Some(window) = self.windows.get_mut(&replica) {
            window.begun = window.now.clone();
        }
    }

    /// Twice as much is needed from now on.
    pub fn begin_longer(&mut self, replica: ReplicaId) {
        self.begin(replica);
        if let Some(window) = self.windows.get_mut(&replica) {
            window.needed = Span((window.needed.0 * 2).min(EVIDENCE_MAX.0));
        }
    }

    pub fn retain(&mut self, is_there: impl Fn(ReplicaId) -> bool) {
        self.windows.retain(|replica, _| is_there(*replica));
    }
}
