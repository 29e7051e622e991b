//! The rest of a stream, behind what a client has seen of it.
//!
//! Each token becomes events of its own, and the last of them has the token's place. So what comes behind a place does not
//! depend on when it came, and a stream that is made again is cut where the first one broke off.

use super::event_id;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use proto::Position;

/// `body`, a stream of events of one choice, without those up to and including this position.
pub fn behind(body: Body, position: Position) -> Body {
    let frames = (body.into_data_stream(), Some(Rest::behind(position)));
    let frames = stream::unfold(frames, |(mut frames, rest)| async move {
        let mut rest = rest?;
        loop {
            match frames.next().await {
                Some(Ok(bytes)) => {
                    let told = rest.push(bytes);
                    if !told.is_empty() {
                        return Some((Ok(told), (frames, Some(rest))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), (frames, None))),
                None => {
                    let told = rest.finish();
                    return (!told.is_empty()).then_some((Ok(told), (frames, None)));
                }
            }
        }
    });
    Body::from_stream(frames)
}

struct Rest {
    position: Position,
    state: State,
}

enum State {
    Seen(Seen),
    /// The client has seen nothing of what comes now.
    Behind,
}

/// Events that may have been seen: of those without a place it is known when one with a place comes.
#[derive(Default)]
struct Seen {
    held: Vec<u8>,
    /// How much of `held` is whole events, all without a place.
    whole_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Keeps the connection open.
    Comment,
    At(Position),
    NoPlace,
}

const EVENT_END: &[u8] = b"\n\n";

impl Rest {
    fn behind(position: Position) -> Rest {
        Rest {
            position,
            state: State::Seen(Seen::default()),
        }
    }

    /// What of it the client has not seen, as far as that is known.
    fn push(&mut self, bytes: Bytes) -> Bytes {
        let State::Seen(seen) = &mut self.state else {
            return bytes;
        };
        let mut told = Vec::new();
        if let Some(rest) = seen.push(&bytes, self.position, &mut told) {
            self.state = State::Behind;
            told.extend_from_slice(&rest);
        }
        told.into()
    }

    /// Nothing more comes: what has no place behind the last one is an end that the client has not seen.
    fn finish(self) -> Bytes {
        match self.state {
            State::Seen(seen) => seen.held.into(),
            State::Behind => Bytes::new(),
        }
    }
}

impl Seen {
    /// `Some`: the place was found, and behind it stands this. Comments are told at once.
    fn push(&mut self, bytes: &[u8], position: Position, comments: &mut Vec<u8>) -> Option<Vec<u8>> {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let (mut dropped, mut at) = (0, std::mem::take(&mut self.whole_bytes));
        let mut kept = Vec::new();
        while let Some(length) = find(&text[at..], EVENT_END) {
            let event = at..at + length + EVENT_END.len();
            at = event.end;
            match read(&text[event.clone()]) {
                Event::NoPlace => {}
                Event::Comment => {
                    comments.extend_from_slice(&text[event.clone()]);
                    kept.extend_from_slice(&text[dropped..event.start]);
                    dropped = event.end;
                }
                Event::At(place) if place > position => {
                    kept.extend_from_slice(&text[dropped..]);
                    return Some(kept);
                }
                Event::At(place) => {
                    kept.clear();
                    dropped = event.end;
                    if place == position {
                        return Some(text.split_off(event.end));
                    }
                }
            }
        }
        self.whole_bytes = kept.len() + at - dropped;
        kept.extend_from_slice(&text[dropped..]);
        self.held = kept;
        None
    }
}

fn read(event: &[u8]) -> Event {
    if event.starts_with(b":") {
        return Event::Comment;
    }
    let id = event.strip_prefix(b"id: ").and_then(|event| {
        let line = event.split(|byte| *byte == b'\n').next()?;
        event_id::read(std::str::from_utf8(line).ok()?)
    });
    match id {
        Some((event, _)) => Event::At(event.position),
        None => Event::NoPlace,
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: Option<u32>, data: &str) -> String {
        match position {
            Some(position) => format!("id: {:032x}:0:{position}\ndata: {data}\n\n", 5),
            None => format!("data: {data}\n\n"),
        }
    }

    /// An opening, three places, one of them in two events, and an end.
    fn events() -> Vec<String> {
        vec![
            event(None, "role"),
            event(Some(0), "a"),
            event(None, "b, first"),
            event(Some(2), "b"),
            event(Some(3), "c"),
            event(None, "finish"),
            event(None, "[DONE]"),
        ]
    }

    fn rest(parts: &[&str], position: u32) -> String {
        let mut rest = Rest::behind(Position(position));
        let mut told: Vec<u8> = Vec::new();
        for part in parts {
            told.extend(rest.push(Bytes::copy_from_slice(part.as_bytes())));
        }
        told.extend(rest.finish());
        String::from_utf8(told).unwrap()
    }

    #[test]
    fn what_comes_behind_a_place_is_told_however_the_stream_was_cut() {
        let stream = events().concat();
        // The last two are of no event: behind 1 nothing of what belongs to 2 was seen, and behind 9 all was but the end.
        for (position, unseen) in [(0, 2), (2, 4), (3, 5), (1, 2), (9, 5)] {
            let expected = events()[unseen..].concat();
            assert_eq!(rest(&[&stream], position), expected, "behind {position}");
            for cut in 0..=stream.len() {
                let (first, second) = stream.split_at(cut);
                assert_eq!(rest(&[first, second], position), expected, "cut at {cut}");
            }
            let letters: Vec<&str> = stream.split_inclusive(|_: char| true).collect();
            assert_eq!(rest(&letters, position), expected);
        }
    }

    #[test]
    fn comments_pass_at_once_and_errors_at_the_end() {
        let mut rest = Rest::behind(Position(5));
        let silence = ": keep-alive\n\n";
        let before = format!("{}{silence}{}", events()[0], events()[1]);
        assert_eq!(rest.push(before.into()), silence);
        assert_eq!(rest.push(silence.into()), silence);
        assert!(rest.push(event(None, "{\"error\": 1}").into()).is_empty());
        assert_eq!(rest.finish(), event(None, "{\"error\": 1}"));
    }
}
