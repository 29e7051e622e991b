//! The truth of every stream that this gateway serves: prompt and delivered tokens. Everybody else may lose theirs.

use crate::gateway::{Event, StreamEvent, StreamFailure, StreamSpec};
use proto::engine::{Delivery, TokenScore};
use proto::request::{Finish, Refusal};
use proto::{Attempt, RequestId, StreamId, TenantId};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, oneshot};

/// How many events of one choice may wait for its reader. A reader that is further behind than this, some pages of
/// text, has stopped reading.
const EVENTS_WAITING_MAX: usize = 1024;

/// The reader's side of a new request: its events, and whether it was admitted.
pub type Reader = (
    mpsc::Receiver<StreamEvent>,
    oneshot::Receiver<Result<(), Refusal>>,
);

/// All requests that have not ended.
#[derive(Default)]
pub struct Streams {
    requests: BTreeMap<RequestId, OpenRequest>,
}

/// A request whose streams have not all ended.
pub struct OpenRequest {
    pub tenant: TenantId,
    pub model: String,
    streams: BTreeMap<u32, OpenStream>,
    events: mpsc::Sender<StreamEvent>,
    /// Until the router has taken or refused the request.
    verdict: Option<oneshot::Sender<Result<(), Refusal>>>,
}

pub struct OpenStream {
    pub spec: StreamSpec,
    /// Tokens released to the reader, in order: position i holds the token at output position i.
    pub delivered: Vec<u32>,
    is_started: bool,
    scores: ScoreCursor,
}

/// Prompt scores come again with every attempt; the reader gets each once.
#[derive(Default)]
struct ScoreCursor {
    attempt: Attempt,
    /// Of this attempt.
    seen: usize,
    /// Handed to the reader.
    released: usize,
}

/// What became of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handed {
    Over,
    /// The reader is too far behind, or gone: the stream has ended here, and the engine has to be told.
    Ended,
}

impl Streams {
    pub fn insert(&mut self, request: RequestId, open: OpenRequest) {
        self.requests.insert(request, open);
    }

    pub fn request(&self, request: RequestId) -> Option<&OpenRequest> {
        self.requests.get(&request)
    }

    pub fn stream(&self, stream: StreamId) -> Option<&OpenStream> {
        self.requests.get(&stream.request)?.streams.get(&stream.choice)
    }

    /// Choices still open, over all requests.
    pub fn open_count(&self) -> usize {
        self.requests.values().map(|request| request.streams.len()).sum()
    }

    /// The router took the request, if it has said nothing else by now.
    pub fn admit(&mut self, request: RequestId) {
        if let Some(verdict) = self
            .requests
            .get_mut(&request)
            .and_then(|request| request.verdict.take())
        {
            let _ = verdict.send(Ok(()));
        }
    }

    /// Not taken; or taken, and then given up for all its choices.
    pub fn refuse(&mut self, request: RequestId, refusal: Refusal) {
        let Some(mut open) = self.requests.remove(&request) else {
            return;
        };
        match open.verdict.take() {
            Some(verdict) => {
                let _ = verdict.send(Err(refusal));
            }
            None => {
                for choice in open.streams.keys() {
                    let _ = open
                        .events
                        .try_send(failed(*choice, StreamFailure::Refused(refusal.clone())));
                }
            }
        }
    }

    /// The last word to every reader: this node is ending.
    pub fn give_up(&mut self) {
        let open: Vec<RequestId> = self.requests.keys().copied().collect();
        for request in open {
            self.refuse(request, Refusal::Draining);
        }
    }

    pub fn fail(&mut self, stream: StreamId, failure: StreamFailure) {
        self.last_event(stream, failed(stream.choice, failure));
    }

    /// Nothing more is wanted of it.
    pub fn close(&mut self, stream: StreamId) {
        if let Some(open) = self.requests.get_mut(&stream.request) {
            open.streams.remove(&stream.choice);
            if open.streams.is_empty() {
                self.requests.remove(&stream.request);
            }
        }
    }

    pub fn close_request(&mut self, request: RequestId) {
        self.requests.remove(&request);
    }

    /// Gives a delivery's contents to the reader. `finish` is the router's word, not the delivery's.
    pub fn release(&mut self, delivery: Delivery, finish: Option<Finish>) -> Handed {
        let stream = delivery.stream;
        let Some(open) = self.requests.get_mut(&stream.request) else {
            return Handed::Over;
        };
        let Some(state) = open.streams.get_mut(&stream.choice) else {
            return Handed::Over;
        };
        let events = state.events_of(delivery);
        // Places beyond those kept for the last events.
        let free = open.events.capacity().saturating_sub(open.streams.len());
        if open.events.is_closed() || events.len() > free {
            self.fail(stream, StreamFailure::SlowReader);
            return Handed::Ended;
        }
        for event in events {
            let _ = open.events.try_send(StreamEvent {
                choice: stream.choice,
                event,
            });
        }
        if let Some(finish) = finish {
            self.finish(stream, finish);
        }
        Handed::Over
    }

    /// The end of a stream without news, as after an expiry in a queue.
    pub fn finish(&mut self, stream: StreamId, finish: Finish) {
        self.last_event(
            stream,
            StreamEvent {
                choice: stream.choice,
                event: Event::Finished(finish),
            },
        );
    }

    fn last_event(&mut self, stream: StreamId, event: StreamEvent) {
        if let Some(open) = self.requests.get(&stream.request)
            && open.streams.contains_key(&stream.choice)
        {
            let _ = open.events.try_send(event);
        }
        self.close(stream);
    }
}

fn failed(choice: u32, failure: StreamFailure) -> StreamEvent {
    StreamEvent {
        choice,
        event: Event::Failed(failure),
    }
}

impl OpenRequest {
    /// The reader gets its events through a bounded channel with one place kept free for each choice's last event, so
    /// that also a slow reader learns why it ended.
    pub fn new(tenant: TenantId, model: String, specs: Vec<StreamSpec>) -> (OpenRequest, Reader) {
        let (events, receiver) = mpsc::channel(specs.len().max(1) * (EVENTS_WAITING_MAX + 1));
        let (verdict, admitted) = oneshot::channel();
        let streams = (0..).zip(specs.into_iter().map(OpenStream::new)).collect();
        (
            OpenRequest {
                tenant,
                model,
                streams,
                events,
                verdict: Some(verdict),
            },
            (receiver, admitted),
        )
    }

    /// By choice.
    pub fn streams(&self) -> impl Iterator<Item = (u32, &OpenStream)> {
        self.streams.iter().map(|(choice, stream)| (*choice, stream))
    }
}

impl OpenStream {
    fn new(spec: StreamSpec) -> OpenStream {
        OpenStream {
            spec,
            delivered: Vec::new(),
            is_started: false,
            scores: ScoreCursor::default(),
        }
    }

    /// What an engine has to compute first: the client's prompt and what the client has of the output.
    pub fn known_tokens(&self) -> Vec<u32> {
        [&self.spec.prompt[..], &self.delivered[..]].concat()
    }

    fn events_of(&mut self, delivery: Delivery) -> Vec<Event> {
        let mut events = Vec::with_capacity(2);
        if let Some(cached_tokens) = delivery.cached_tokens.filter(|_| !self.is_started) {
            self.is_started = true;
            events.push(Event::Started { cached_tokens });
        }
        // The first token of a prompt has no score.
        let scores_max = self.spec.prompt.len().saturating_sub(1);
        let scores = self
            .scores
            .fresh(delivery.attempt, delivery.prompt_scores, scores_max);
        if !scores.is_empty() {
            events.push(Event::PromptScores(scores));
        }
        // Before the token: its text may end the choice, and nothing is read after that.
        events.extend(delivery.timing.map(Event::Timing));
        if let Some(token) = delivery.token {
            self.delivered.push(token.id);
            events.push(Event::Token {
                position: token.position,
                id: token.id,
                score: token.score,
            });
        }
        events
    }
}

impl ScoreCursor {
    fn fresh(&mut self, attempt: Attempt, scores: Vec<TokenScore>, scores_max: usize) -> Vec<TokenScore> {
        if attempt != self.attempt {
            (self.attempt, self.seen) = (attempt, 0);
        }
        let known = self.released.saturating_sub(self.seen).min(scores.len());
        self.seen += scores.len();
        let fresh: Vec<_> = scores
            .into_iter()
            .skip(known)
            .take(scores_max - self.released)
            .collect();
        self.released += fresh.len();
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::engine::{Timing, Token};
    use proto::{Position, Span};

    const REQUEST: RequestId = RequestId(5);
    const STREAM: StreamId = StreamId {
        request: REQUEST,
        choice: 0,
    };

    fn opened(streams: &mut Streams, choices: usize) -> Reader {
        let spec = || StreamSpec {
            prompt: vec![1, 2, 3].into(),
            max_new_tokens: 9,
            sampling: Default::default(),
        };
        let specs = (0..choices).map(|_| spec()).collect();
        let (open, reader) = OpenRequest::new(TenantId(1), "m".to_owned(), specs);
        streams.insert(REQUEST, open);
        reader
    }

    fn score(token: u32) -> TokenScore {
        TokenScore {
            token,
            logprob: -1.0,
            rank: 0,
            top: Vec::new(),
        }
    }

    fn delivery(attempt: u32, position: u32) -> Delivery {
        Delivery {
            stream: STREAM,
            attempt: Attempt(attempt),
            cached_tokens: Some(2),
            prompt_scores: Vec::new(),
            token: Some(Token {
                position: Position(position),
                id: 100 + position,
                score: None,
            }),
            finish: None,
            timing: None,
        }
    }

    fn names(receiver: &mut mpsc::Receiver<StreamEvent>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|event| match event.event {
                Event::Started { cached_tokens } => format!("started {cached_tokens}"),
                Event::PromptScores(scores) => format!("scores {}", scores.len()),
                Event::Token { id, .. } => format!("token {id}"),
                Event::Timing(timing) => format!("timing {}", timing.queue.0),
                Event::Finished(finish) => format!("{finish:?}"),
                Event::Failed(failure) => format!("{failure:?}"),
            })
            .collect()
    }

    #[test]
    fn a_stream_starts_once_also_over_two_attempts_and_keeps_what_it_delivered() {
        let mut streams = Streams::default();
        let (mut events, _verdict) = opened(&mut streams, 1);
        streams.release(delivery(1, 0), None);
        streams.release(delivery(2, 1), None);
        assert_eq!(
            streams.stream(STREAM).unwrap().known_tokens(),
            [1, 2, 3, 100, 101]
        );
        let timing = Some(Timing {
            queue: Span(7),
            ..Timing::default()
        });
        let last = Delivery {
            timing,
            ..delivery(2, 2)
        };
        streams.release(last, Some(Finish::Length));
        assert_eq!(
            names(&mut events),
            [
                "started 2",
                "token 100",
                "token 101",
                "timing 7",
                "token 102",
                "Length"
            ]
        );
        assert!(streams.request(REQUEST).is_none());
    }

    #[test]
    fn prompt_scores_reach_the_reader_once_and_never_beyond_the_prompt() {
        let mut streams = Streams::default();
        let (mut events, _verdict) = opened(&mut streams, 1);
        let scored = |attempt, count| Delivery {
            prompt_scores: vec![score(7); count],
            token: None,
            ..delivery(attempt, 0)
        };
        streams.release(scored(1, 1), None);
        streams.release(scored(2, 1), None);
        streams.release(scored(2, 3), None);
        assert_eq!(names(&mut events), ["started 2", "scores 1", "scores 1"]);
    }

    #[test]
    fn a_reader_that_never_reads_gets_its_reason_last() {
        let mut streams = Streams::default();
        let (mut events, _verdict) = opened(&mut streams, 1);
        let handed = (0..).map(|position| streams.release(delivery(1, position), None));
        let taken = handed.take_while(|handed| *handed == Handed::Over).count();
        assert_eq!(taken, EVENTS_WAITING_MAX - 1, "one place went to the start");
        assert_eq!(names(&mut events).last().unwrap(), "SlowReader");
    }

    #[test]
    fn when_the_node_ends_every_choice_hears_of_it_after_what_it_has_got() {
        let mut streams = Streams::default();
        let (mut events, _verdict) = opened(&mut streams, 2);
        streams.admit(REQUEST);
        streams.release(delivery(1, 0), None);
        streams.give_up();
        let names = names(&mut events);
        assert_eq!(
            names[names.len() - 2..],
            ["Refused(Draining)", "Refused(Draining)"]
        );
        assert_eq!(streams.open_count(), 0);
    }

    #[test]
    fn refused_before_or_after_admission_the_client_hears_it_once() {
        let mut streams = Streams::default();
        let (_events, mut verdict) = opened(&mut streams, 1);
        streams.refuse(REQUEST, Refusal::Draining);
        assert_eq!(verdict.try_recv().unwrap(), Err(Refusal::Draining));

        let (mut events, mut verdict) = opened(&mut streams, 2);
        streams.admit(REQUEST);
        streams.refuse(REQUEST, Refusal::Draining);
        assert_eq!(verdict.try_recv().unwrap(), Ok(()));
        assert_eq!(names(&mut events), ["Refused(Draining)", "Refused(Draining)"]);
    }
}
