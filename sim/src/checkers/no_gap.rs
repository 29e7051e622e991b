//! Positions reach a client in order and without a gap.

use proto::{Position, StreamId};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct NoGap {
    next: BTreeMap<StreamId, u32>,
}

impl NoGap {
    pub fn released(&mut self, stream: StreamId, position: Position) -> Option<String> {
        let next = self.next.entry(stream).or_insert(0);
        let due = std::mem::replace(next, position.0 + 1);
        (position.0 > due)
            .then(|| format!("no_gap: position {position} of {stream} came where {due} was due"))
    }
}
