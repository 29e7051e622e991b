//! Reasoning at the start of an answer, between `<think>` and `</think>`.

use super::family::Ending;
use super::pieces::Pieces;

pub const OPENING: &str = "<think>";
pub const CLOSING: &str = "</think>";
/// Space before the opening mark that is waited through.
const SPACE_BYTES_MAX: usize = 64;

/// Tells reasoning from what follows. Line breaks next to the marks belong to them.
pub struct ReasoningSplitter {
    state: State,
    /// The beginning of a mark, with the space before it.
    held: String,
    /// Line breaks that may be the last of the reasoning.
    line_breaks: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// After the opening mark and perhaps line breaks.
    Opened,
    Inside,
    /// After the closing mark and perhaps line breaks.
    Closed,
    Content,
}

impl ReasoningSplitter {
    /// For a model that may reason before it answers.
    pub fn may_open() -> ReasoningSplitter {
        ReasoningSplitter::in_state(State::Start)
    }

    /// For a prompt that ends with the opening mark.
    pub fn opened() -> ReasoningSplitter {
        ReasoningSplitter::in_state(State::Opened)
    }

    fn in_state(state: State) -> ReasoningSplitter {
        ReasoningSplitter {
            state,
            held: String::new(),
            line_breaks: 0,
        }
    }

    pub fn is_reasoning(&self) -> bool {
        match self.state {
            State::Opened | State::Inside => true,
            State::Start | State::Closed | State::Content => false,
        }
    }

    /// Content comes out as content; whether calls are in it is another's question.
    pub fn push(&mut self, text: &str, pieces: &mut Pieces) {
        let mut rest = text.chars();
        while let Some(letter) = rest.next() {
            match self.state {
                State::Start => self.start(letter, pieces),
                State::Opened | State::Inside => self.inside(letter, pieces),
                State::Closed if letter == '\n' => {}
                State::Closed | State::Content => {
                    self.state = State::Content;
                    pieces.content(letter.encode_utf8(&mut [0; 4]));
                    pieces.content(rest.as_str());
                    return;
                }
            }
        }
    }

    /// Nothing more comes.
    pub fn finish(&mut self, ending: Ending, pieces: &mut Pieces) {
        let space_bytes = self.held.len() - self.held.trim_start().len();
        match (self.state, ending) {
            (State::Start, Ending::Whole) => pieces.content(&self.held),
            (State::Start, Ending::Cut) => pieces.content(&self.held[..space_bytes]),
            (State::Opened | State::Inside, Ending::Whole) if !self.held.is_empty() => {
                self.tell_line_breaks(pieces);
                pieces.reasoning(&self.held);
            }
            (State::Opened | State::Inside | State::Closed | State::Content, _) => {}
        }
        self.held.clear();
    }

    fn start(&mut self, letter: char, pieces: &mut Pieces) {
        self.held.push(letter);
        let mark = self.held.trim_start();
        if mark == OPENING {
            self.held.clear();
            self.state = State::Opened;
        } else if !OPENING.starts_with(mark) || self.held.len() > SPACE_BYTES_MAX {
            pieces.content(&self.held);
            self.held.clear();
            self.state = State::Content;
        }
    }

    fn inside(&mut self, letter: char, pieces: &mut Pieces) {
        self.held.push(letter);
        if self.held == CLOSING {
            self.held.clear();
            self.state = State::Closed;
            return;
        }
        while !CLOSING.starts_with(&self.held) {
            match self.held.remove(0) {
                '\n' => self.line_breaks += 1,
                first => {
                    self.tell_line_breaks(pieces);
                    pieces.reasoning(first.encode_utf8(&mut [0; 4]));
                    self.state = State::Inside;
                }
            }
        }
    }

    /// Those before the first letter belong to the opening mark.
    fn tell_line_breaks(&mut self, pieces: &mut Pieces) {
        if self.state == State::Inside {
            (0..self.line_breaks).for_each(|_| pieces.reasoning("\n"));
        }
        self.line_breaks = 0;
    }
}
