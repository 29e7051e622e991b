//! Answers in a form that does not depend on how they were cut.

use node::text::families::Piece;

/// All of an answer, as clients put it together.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Whole {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

impl Whole {
    pub fn add(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Content(text) => self.content.push_str(&text),
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Call { index, name } => {
                    assert_eq!(index as usize, self.calls.len(), "calls are counted without gaps");
                    self.calls.push((name, String::new()));
                }
                Piece::Arguments { index, text } => {
                    assert_eq!(
                        index as usize + 1,
                        self.calls.len(),
                        "arguments of a call that is over"
                    );
                    self.calls[index as usize].1.push_str(&text);
                }
            }
        }
    }

    pub fn calls(&self) -> usize {
        self.calls.len()
    }
}
