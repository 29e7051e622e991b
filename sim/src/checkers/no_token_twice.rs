//! No client is handed the same position twice, whatever attempts, epochs and replicas there were.

use proto::{Position, StreamId};
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub struct NoTokenTwice {
    released: BTreeSet<(StreamId, Position)>,
}

impl NoTokenTwice {
    pub fn released(&mut self, stream: StreamId, position: Position) -> Option<String> {
        let is_new = self.released.insert((stream, position));
        (!is_new).then(|| format!("no_token_twice: position {position} of {stream} came again"))
    }
}
