//! Calls that are JSON objects behind a marker, in the three ways that families have of it.

use super::call_object::{CallObject, HELD_BYTES_MAX, Names, Progress};
use super::family::{CallReader, Ending};
use super::pieces::Pieces;
use std::mem;

/// What stands around the objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonSyntax {
    /// Calls follow after this.
    pub opening: &'static str,
    pub body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// One object, then this marker.
    Enclosed(&'static str),
    /// A list of objects.
    List,
    /// Objects with `;` between them; an answer that begins with a brace needs no marker.
    Bare,
}

pub struct JsonCalls {
    syntax: JsonSyntax,
    names: Names,
    state: State,
    /// What may turn out to be content: the beginning of a marker, or a marker whose call has not come.
    held: String,
    /// Calls that have begun.
    begun: u32,
    over: u32,
    around: Around,
}

enum State {
    /// Only space so far.
    Start,
    Content,
    /// After the opening marker.
    Opened,
    Object(CallObject),
    /// After an object.
    Between,
}

/// What has been opened around the objects and not closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    Marker,
    List,
}

/// Whether a letter was taken, or is to be looked at again in the new state.
enum Taken {
    Yes,
    Again,
}

impl JsonCalls {
    pub fn new(syntax: JsonSyntax, names: Names) -> JsonCalls {
        JsonCalls {
            syntax,
            names,
            state: State::Start,
            held: String::new(),
            begun: 0,
            over: 0,
            around: Around::Nothing,
        }
    }

    fn step(&mut self, letter: char, pieces: &mut Pieces) -> Taken {
        match &mut self.state {
            State::Start => self.start(letter, pieces),
            State::Content => self.content(letter, pieces),
            State::Opened => self.opened(letter, pieces),
            State::Object(object) => {
                let progress = object.push(letter, pieces);
                self.object(progress, pieces)
            }
            State::Between => self.between(letter, pieces),
        }
    }

    fn start(&mut self, letter: char, pieces: &mut Pieces) -> Taken {
        if letter.is_whitespace() {
            pieces.content(letter.encode_utf8(&mut [0; 4]));
            return Taken::Yes;
        }
        if letter == '{' && self.syntax.body == Body::Bare {
            return self.begin_object();
        }
        self.state = State::Content;
        Taken::Again
    }

    fn content(&mut self, letter: char, pieces: &mut Pieces) -> Taken {
        self.held.push(letter);
        if self.held == self.syntax.opening {
            self.state = State::Opened;
        } else if Some(self.held.as_str()) == self.awaited_closing() {
            self.held.clear();
            self.around = Around::Nothing;
            self.state = State::Between;
        } else {
            let certain = self.held.len() - self.possible_marker_bytes();
            pieces.content(&self.held[..certain]);
            self.held.drain(..certain);
        }
        Taken::Yes
    }

    fn opened(&mut self, letter: char, pieces: &mut Pieces) -> Taken {
        let fits = self.held.len() < HELD_BYTES_MAX;
        if letter.is_whitespace() && fits {
            self.held.push(letter);
            return Taken::Yes;
        }
        if letter == '[' && self.syntax.body == Body::List && self.around != Around::List {
            self.around = Around::List;
            self.held.push(letter);
            return Taken::Yes;
        }
        let is_in_place = match self.syntax.body {
            Body::List => self.around == Around::List,
            Body::Enclosed(_) | Body::Bare => true,
        };
        if letter == '{' && is_in_place {
            return self.begin_object();
        }
        self.around = Around::Nothing;
        self.give_up(pieces)
    }

    fn begin_object(&mut self) -> Taken {
        let before = mem::take(&mut self.held);
        self.state = State::Object(CallObject::new(self.begun, self.names.clone(), before));
        Taken::Again
    }

    fn object(&mut self, progress: Progress, pieces: &mut Pieces) -> Taken {
        match progress {
            Progress::More => Taken::Yes,
            Progress::End => {
                self.begun += 1;
                self.over += 1;
                self.open_around();
                self.state = State::Between;
                Taken::Yes
            }
            Progress::Broken => {
                let State::Object(object) = mem::replace(&mut self.state, State::Content) else {
                    unreachable!("only an object makes progress");
                };
                if object.has_begun() {
                    self.begun += 1;
                    self.over += 1;
                    self.open_around();
                }
                self.held = object.into_held();
                self.give_up(pieces)
            }
        }
    }

    /// A call has been seen, so its closing marker belongs to it.
    fn open_around(&mut self) {
        if let Body::Enclosed(_) = self.syntax.body {
            self.around = Around::Marker;
        }
    }

    /// Space here belongs to the format.
    fn between(&mut self, letter: char, pieces: &mut Pieces) -> Taken {
        let is_separated = !self.held.is_empty();
        match (self.syntax.body, letter) {
            (_, letter) if letter.is_whitespace() => Taken::Yes,
            (Body::List, ',') | (Body::Bare, ';') if !is_separated && self.may_go_on() => {
                self.held.push(letter);
                Taken::Yes
            }
            (Body::List, ']') if self.around == Around::List => {
                self.held.clear();
                self.around = Around::Nothing;
                Taken::Yes
            }
            (Body::List | Body::Bare, '{') if is_separated => self.begin_object(),
            _other => self.give_up(pieces),
        }
    }

    fn may_go_on(&self) -> bool {
        match self.syntax.body {
            Body::List => self.around == Around::List,
            Body::Bare => true,
            Body::Enclosed(_) => false,
        }
    }

    /// What was held is no part of a call.
    fn give_up(&mut self, pieces: &mut Pieces) -> Taken {
        if !self.held.trim().is_empty() {
            pieces.content(&self.held);
        }
        self.held.clear();
        self.state = State::Content;
        Taken::Again
    }

    fn is_marked(&self, held: &str) -> bool {
        held.starts_with(self.syntax.opening)
    }

    fn awaited_closing(&self) -> Option<&'static str> {
        match (self.around, self.syntax.body) {
            (Around::Marker, Body::Enclosed(closing)) => Some(closing),
            (Around::Marker | Around::Nothing | Around::List, _) => None,
        }
    }

    /// The length of the longest end of the held text that begins a marker.
    fn possible_marker_bytes(&self) -> usize {
        let markers = [Some(self.syntax.opening), self.awaited_closing()];
        let is_beginning = |start: usize| {
            let end = &self.held[start..];
            markers.iter().flatten().any(|marker| marker.starts_with(end))
        };
        let starts = self.held.char_indices().map(|(start, _)| start);
        let found = starts.into_iter().find(|start| is_beginning(*start));
        found.map_or(0, |start| self.held.len() - start)
    }
}

impl CallReader for JsonCalls {
    fn push(&mut self, text: &str, pieces: &mut Pieces) {
        for letter in text.chars() {
            while let Taken::Again = self.step(letter, pieces) {}
        }
    }

    fn finish(&mut self, ending: Ending, pieces: &mut Pieces) {
        let held = mem::take(&mut self.held);
        match mem::replace(&mut self.state, State::Content) {
            State::Object(object) if object.has_begun() => self.begun += 1,
            // After a call this is the next one, cut off before its name: nothing that a reader of the content would miss.
            State::Object(_) | State::Opened | State::Between if self.begun > 0 => {}
            State::Object(object) => match ending {
                Ending::Cut if object.is_named() || self.is_marked(object.held()) => {}
                // Without a mark it may have become any JSON.
                Ending::Cut | Ending::Whole => pieces.content(&object.into_held()),
            },
            State::Content if self.awaited_closing().is_some() => {}
            State::Start | State::Content | State::Opened | State::Between => match ending {
                Ending::Cut => {}
                Ending::Whole => pieces.content(&held),
            },
        }
    }

    fn calls_over(&self) -> u32 {
        self.over
    }
}
