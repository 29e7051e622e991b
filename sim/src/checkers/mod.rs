//! What must never happen: one property per file. A violation is a sentence in the report.

pub mod blocks_conserved;
mod every_request_ends;
mod no_gap;
mod no_token_twice;

use every_request_ends::EveryRequestEnds;
use no_gap::NoGap;
use no_token_twice::NoTokenTwice;
use proto::{Position, StreamId};

#[derive(Debug, Default)]
pub struct Checkers {
    no_token_twice: NoTokenTwice,
    no_gap: NoGap,
    every_request_ends: EveryRequestEnds,
    violations: Vec<String>,
}

impl Checkers {
    /// A stream was asked for.
    pub fn began(&mut self, stream: StreamId) {
        self.every_request_ends.began(stream);
    }

    /// A client was handed a token.
    pub fn released(&mut self, stream: StreamId, position: Position) {
        let found = [
            self.no_token_twice.released(stream, position),
            self.no_gap.released(stream, position),
        ];
        self.violations.extend(found.into_iter().flatten());
    }

    /// A client was told the end, or went away itself.
    pub fn ended(&mut self, stream: StreamId) {
        self.violations.extend(self.every_request_ends.ended(stream));
    }

    pub fn finish(mut self) -> Vec<String> {
        self.violations.extend(self.every_request_ends.finish());
        self.violations
    }
}
