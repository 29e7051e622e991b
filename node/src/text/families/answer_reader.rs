//! The text of one answer, told apart.

use super::family::{CallReader, Ending, Family};
use super::pieces::{Piece, Pieces};
use super::reasoning::{self, ReasoningSplitter};
use std::sync::Arc;

/// What to look for in an answer.
#[derive(Clone, Default)]
pub struct AnswerRules {
    pub reasoning: Reasoning,
    /// `None`: no tool is offered, so nothing is a call.
    pub calls: Option<CallRules>,
}

impl AnswerRules {
    /// What is looked for: where one of these is a special token, it must reach the reader as text.
    pub fn marks(&self) -> Vec<&'static str> {
        let of_reasoning: &[&str] = match self.reasoning {
            Reasoning::Unmarked => &[],
            Reasoning::MayOpen | Reasoning::Opened => &[reasoning::OPENING, reasoning::CLOSING],
        };
        let of_calls = self.calls.as_ref().map(|calls| calls.family.markers());
        of_calls
            .into_iter()
            .flatten()
            .chain(of_reasoning.iter().copied())
            .collect()
    }
}

#[derive(Clone)]
pub struct CallRules {
    pub family: &'static dyn Family,
    /// The tools that may be called.
    pub names: Arc<[String]>,
    pub beside: BesideCalls,
}

/// What an answer may have beside calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BesideCalls {
    Content,
    /// Calls are demanded: what is none is the beginning of one that was cut off.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reasoning {
    /// The model does not mark its reasoning.
    #[default]
    Unmarked,
    /// The answer may begin with the opening mark.
    MayOpen,
    /// The prompt ends with the opening mark.
    Opened,
}

/// Reads the text of one answer.
pub struct AnswerReader {
    reasoning: Option<ReasoningSplitter>,
    calls: Option<Box<dyn CallReader>>,
    beside: BesideCalls,
}

impl AnswerReader {
    pub fn new(rules: &AnswerRules) -> AnswerReader {
        let names = |calls: &CallRules| calls.family.reader(calls.names.clone());
        AnswerReader {
            reasoning: match rules.reasoning {
                Reasoning::Unmarked => None,
                Reasoning::MayOpen => Some(ReasoningSplitter::may_open()),
                Reasoning::Opened => Some(ReasoningSplitter::opened()),
            },
            calls: rules.calls.as_ref().map(names),
            beside: rules
                .calls
                .as_ref()
                .map_or(BesideCalls::Content, |calls| calls.beside),
        }
    }

    /// What is certain now.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        match &mut self.reasoning {
            Some(reasoning) => reasoning.push(text, &mut pieces),
            None => pieces.content(text),
        }
        self.with_calls(pieces).into_vec()
    }

    /// What was held back, when nothing more comes.
    pub fn finish(&mut self, ending: Ending) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.finish(ending, &mut pieces);
        }
        let mut pieces = self.with_calls(pieces);
        if let Some(calls) = &mut self.calls {
            calls.finish(ending, &mut pieces);
        }
        let mut pieces = pieces.into_vec();
        match self.beside {
            BesideCalls::Content => {}
            BesideCalls::Nothing => pieces.retain(|piece| !matches!(piece, Piece::Content(_))),
        }
        pieces
    }

    /// Whether the next letter would be reasoning, as far as is known.
    pub fn is_reasoning(&self) -> bool {
        self.reasoning
            .as_ref()
            .is_some_and(ReasoningSplitter::is_reasoning)
    }

    /// How many calls are complete, or broke off and will not go on.
    pub fn calls_over(&self) -> u32 {
        self.calls.as_ref().map_or(0, |calls| calls.calls_over())
    }

    fn with_calls(&mut self, pieces: Pieces) -> Pieces {
        let Some(calls) = &mut self.calls else {
            return pieces;
        };
        let mut read = Pieces::default();
        for piece in pieces.into_vec() {
            match piece {
                Piece::Content(text) => calls.push(&text, &mut read),
                Piece::Reasoning(text) => read.reasoning(&text),
                Piece::Call { .. } | Piece::Arguments { .. } => unreachable!("calls are found here"),
            }
        }
        read
    }
}
