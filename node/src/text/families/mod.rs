//! How model families write what is not plain content: reasoning, and calls of tools.
//!
//! An `AnswerReader` takes an answer's text as it comes and gives pieces: content, reasoning, calls and fragments of
//! their arguments. It goes letter by letter, so the pieces, put together, do not depend on how the text was cut. What
//! only looked like a call comes out as content.

mod answer_reader;
mod call_object;
mod described;
mod detect;
mod family;
mod grammar;
#[cfg(test)]
mod grammar_tests;
mod json_calls;
mod pieces;
mod reasoning;
#[cfg(test)]
mod tests;
mod tool;
mod value_scan;

pub use answer_reader::{AnswerReader, AnswerRules, BesideCalls, CallRules, Reasoning};
pub use described::tools_described;
pub use detect::ToolSupport;
pub use family::{CallReader, Ending, Family, HERMES, LLAMA, MISTRAL, marks};
pub use grammar::{CallCount, CallsForm, Presence, ReasoningFirst, behind_reasoning};
pub use pieces::{Piece, Pieces};
pub use tool::Tool;
