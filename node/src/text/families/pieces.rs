//! The pieces of an answer.

/// A part of an answer, in the order in which the model said it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    Content(String),
    Reasoning(String),
    /// Call `index` begins; its arguments follow.
    Call {
        index: u32,
        name: String,
    },
    /// More of the arguments of call `index`. Together they are the JSON text of one object as the model wrote it; no
    /// JSON if the model wrote none, or was cut off.
    Arguments {
        index: u32,
        text: String,
    },
}

/// Collects pieces; neighbours of one kind become one.
#[derive(Default)]
pub struct Pieces(Vec<Piece>);

impl Pieces {
    pub fn content(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Content(last)) => last.push_str(text),
            _other if text.is_empty() => {}
            _other => self.0.push(Piece::Content(text.to_string())),
        }
    }

    pub fn reasoning(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Reasoning(last)) => last.push_str(text),
            _other if text.is_empty() => {}
            _other => self.0.push(Piece::Reasoning(text.to_string())),
        }
    }

    pub fn call(&mut self, index: u32, name: &str) {
        let name = name.to_string();
        self.0.push(Piece::Call { index, name });
    }

    pub fn arguments(&mut self, index: u32, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Arguments {
                index: last,
                text: so_far,
            }) if *last == index => so_far.push_str(text),
            _other => self.0.push(Piece::Arguments {
                index,
                text: text.to_string(),
            }),
        }
    }

    pub fn into_vec(self) -> Vec<Piece> {
        self.0
    }
}
