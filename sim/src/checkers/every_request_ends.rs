//! Every stream that was asked for ends, and once.

use proto::StreamId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct EveryRequestEnds {
    ends: BTreeMap<StreamId, u32>,
}

impl EveryRequestEnds {
    pub fn began(&mut self, stream: StreamId) {
        self.ends.insert(stream, 0);
    }

    pub fn ended(&mut self, stream: StreamId) -> Option<String> {
        let ends = self.ends.entry(stream).or_insert(0);
        *ends += 1;
        (*ends > 1).then(|| format!("every_request_ends: {stream} ended {ends} times"))
    }

    pub fn finish(&self) -> Vec<String> {
        let open = self.ends.iter().filter(|(_, ends)| **ends == 0);
        open.map(|(stream, _)| format!("every_request_ends: {stream} never ended"))
            .collect()
    }
}
