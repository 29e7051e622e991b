//! One call that is written as a JSON object with a name and arguments.

use super::pieces::Pieces;
use super::value_scan::{Scanned, ValueScan};
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Text that may be held back because it is not known yet to be a call. More comes out as content.
pub const HELD_BYTES_MAX: usize = 1 << 20;

/// Which names make a call.
#[derive(Clone)]
pub enum Names {
    /// The family marks calls, so whatever is called is a call; one that does not exist is for the client to refuse.
    Any,
    /// Calls look like other JSON: only these functions are called.
    Only(Arc<[String]>),
}

/// Reads `{"name": …, "arguments": {…}}` letter by letter. As soon as name and the first letter of the arguments are
/// known, arguments pass through as the model writes them.
pub struct CallObject {
    index: u32,
    names: Names,
    place: Place,
    /// What was read and is in no piece yet, with what stood before the object.
    held: String,
    /// The key or the value at hand.
    token: String,
    name: Option<String>,
    arguments: Arguments,
}

#[derive(PartialEq, Eq, Debug)]
pub enum Progress {
    More,
    /// The letter closed the object.
    End,
    /// This is no call, or not any more: the letter was not taken, and `held` has what no piece tells.
    Broken,
}

enum Place {
    Opening,
    /// Before a key or the closing brace.
    Key,
    KeyText(ValueScan),
    Colon,
    Value,
    Inside(Member, ValueScan),
    /// After a value.
    Comma,
}

#[derive(Clone, Copy)]
enum Member {
    Name,
    /// Arguments that go out as they come.
    Streamed,
    /// Arguments that came before the name, or that are no plain object.
    Kept,
    Other,
}

enum Arguments {
    Missing,
    Kept(String),
    /// In pieces: the call has begun.
    Told,
}

impl CallObject {
    /// `before`: what the object's marker was, in case this is no call.
    pub fn new(index: u32, names: Names, before: String) -> CallObject {
        CallObject {
            index,
            names,
            place: Place::Opening,
            held: before,
            token: String::new(),
            name: None,
            arguments: Arguments::Missing,
        }
    }

    /// Whether pieces have told of this call.
    pub fn has_begun(&self) -> bool {
        matches!(self.arguments, Arguments::Told)
    }

    /// Whether what has come so far names one that may be called.
    pub fn is_named(&self) -> bool {
        self.name.is_some()
    }

    pub fn held(&self) -> &str {
        &self.held
    }

    pub fn into_held(self) -> String {
        self.held
    }

    pub fn push(&mut self, letter: char, pieces: &mut Pieces) -> Progress {
        if self.held.len() >= HELD_BYTES_MAX {
            return Progress::Broken;
        }
        if matches!(self.place, Place::Inside(Member::Streamed, _)) {
            return self.step(letter, pieces);
        }
        self.held.push(letter);
        let progress = self.step(letter, pieces);
        if progress == Progress::Broken {
            self.held.pop();
        }
        progress
    }

    fn step(&mut self, letter: char, pieces: &mut Pieces) -> Progress {
        match &mut self.place {
            Place::Inside(member, scan) => {
                let (member, scanned) = (*member, scan.push(letter));
                self.inside(member, scanned, letter, pieces)
            }
            Place::KeyText(scan) => match scan.push(letter) {
                Scanned::Inside => self.take(letter),
                Scanned::Last => self.go(Place::Colon),
                Scanned::Before | Scanned::Broken => Progress::Broken,
            },
            Place::Opening | Place::Key | Place::Colon | Place::Value | Place::Comma
                if letter.is_ascii_whitespace() =>
            {
                Progress::More
            }
            Place::Opening if letter == '{' => self.go(Place::Key),
            Place::Colon if letter == ':' => self.go(Place::Value),
            Place::Comma if letter == ',' => self.go(Place::Key),
            Place::Key | Place::Comma if letter == '}' => self.end(pieces),
            Place::Key => match ValueScan::begin(letter) {
                Some(scan @ ValueScan::Text(_)) => {
                    self.token.clear();
                    self.go(Place::KeyText(scan))
                }
                Some(_) | None => Progress::Broken,
            },
            Place::Value => self.begin_value(letter, pieces),
            Place::Opening | Place::Colon | Place::Comma => Progress::Broken,
        }
    }

    fn go(&mut self, place: Place) -> Progress {
        self.place = place;
        Progress::More
    }

    fn take(&mut self, letter: char) -> Progress {
        self.token.push(letter);
        Progress::More
    }

    fn begin_value(&mut self, letter: char, pieces: &mut Pieces) -> Progress {
        let Some(scan) = ValueScan::begin(letter) else {
            return Progress::Broken;
        };
        let member = self.member(letter);
        self.token.clear();
        self.token.push(letter);
        if let (Member::Streamed, Some(name)) = (member, &self.name) {
            pieces.call(self.index, name);
            pieces.arguments(self.index, "{");
            self.arguments = Arguments::Told;
            self.held.clear();
        }
        self.go(Place::Inside(member, scan))
    }

    /// Which member the value after `token` is; `first` is the value's first letter.
    fn member(&self, first: char) -> Member {
        match (self.token.as_str(), &self.arguments, &self.name) {
            ("name", _, None) => Member::Name,
            ("arguments" | "parameters", Arguments::Missing, Some(_)) if first == '{' => Member::Streamed,
            ("arguments" | "parameters", Arguments::Missing, _) => Member::Kept,
            _other => Member::Other,
        }
    }

    fn inside(&mut self, member: Member, scanned: Scanned, letter: char, pieces: &mut Pieces) -> Progress {
        match (scanned, member) {
            (Scanned::Broken, _) => Progress::Broken,
            (Scanned::Inside, Member::Streamed) => {
                pieces.arguments(self.index, letter.encode_utf8(&mut [0; 4]));
                Progress::More
            }
            (Scanned::Inside, Member::Name | Member::Kept) => self.take(letter),
            (Scanned::Inside, Member::Other) => Progress::More,
            (Scanned::Last, Member::Streamed) => {
                pieces.arguments(self.index, letter.encode_utf8(&mut [0; 4]));
                self.go(Place::Comma)
            }
            (Scanned::Last, _) => {
                self.token.push(letter);
                self.end_value(member, pieces)
            }
            (Scanned::Before, _) => match self.end_value(member, pieces) {
                Progress::More => self.step(letter, pieces),
                end => end,
            },
        }
    }

    fn end_value(&mut self, member: Member, pieces: &mut Pieces) -> Progress {
        self.place = Place::Comma;
        match member {
            Member::Name => match serde_json::from_str::<String>(&self.token) {
                Ok(name) if self.names.contain(&name) => self.name = Some(name),
                Ok(_) | Err(_) => return Progress::Broken,
            },
            Member::Kept => match object_text(&self.token) {
                Some(text) => self.arguments = Arguments::Kept(text),
                None => return Progress::Broken,
            },
            Member::Streamed | Member::Other => {}
        }
        if let (Some(name), Arguments::Kept(text)) = (&self.name, &self.arguments) {
            pieces.call(self.index, name);
            pieces.arguments(self.index, text);
            self.arguments = Arguments::Told;
            self.held.clear();
        }
        Progress::More
    }

    fn end(&mut self, pieces: &mut Pieces) -> Progress {
        match (&self.name, &self.arguments) {
            (Some(_), Arguments::Told) => Progress::End,
            (Some(name), Arguments::Missing | Arguments::Kept(_)) => {
                pieces.call(self.index, name);
                pieces.arguments(self.index, "{}");
                self.arguments = Arguments::Told;
                Progress::End
            }
            (None, _) => Progress::Broken,
        }
    }
}

impl Names {
    fn contain(&self, name: &str) -> bool {
        match self {
            Names::Any => !name.is_empty(),
            Names::Only(names) => names.iter().any(|one| one == name),
        }
    }
}

/// The text of the object that `value` is, or that a string holds as text; `null` is an empty object.
fn object_text(value: &str) -> Option<String> {
    let text = match serde_json::from_str::<Option<String>>(value) {
        Ok(Some(text)) => text,
        Ok(None) => return Some("{}".to_string()),
        Err(_) => value.to_string(),
    };
    let is_object = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(&text).is_ok();
    is_object.then_some(text)
}
