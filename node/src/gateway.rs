//! The seam between HTTP and the router: a request goes in as tokens, streams of tokens come out.
//!
//! `http/` and `text/` stand on one side and know JSON and text; `actors/router.rs` stands on the other and knows
//! replicas. Tests of the HTTP side put a scripted gateway in the middle.

use proto::engine::{Timing, TokenScore};
use proto::request::{Finish, Refusal, Sampling, ServiceClass};
use proto::{Position, RequestId, TenantId};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What HTTP needs from the rest of the node.
pub trait Gateway: Send + Sync + 'static {
    /// Admits all streams of the request or none.
    fn open(
        &self,
        request: Generate,
    ) -> Pin<Box<dyn Future<Output = Result<Generation, Refusal>> + Send + '_>>;
    /// In a stable order.
    fn models(&self) -> Vec<Arc<ServedModel>>;
    /// Whether the cluster is to serve a model of this name, or did before its replicas went down.
    fn awaits(&self, model: &str) -> bool;
    /// `Err` says, for a person, why this node cannot serve at the moment.
    fn health(&self) -> Result<(), String>;
    /// The tenant of an API key as it stands after `Bearer `; `None`: unknown or revoked. Without authentication every
    /// key, also none, belongs to the default tenant.
    fn authenticate(&self, key: Option<&str>) -> Option<TenantId>;
    /// The page for `GET /metrics`, Prometheus text format.
    fn metrics(&self) -> String;
}

/// A model as clients see it.
pub struct ServedModel {
    pub name: String,
    pub added_at_secs: u64,
    pub context_tokens_max: u32,
    pub text: crate::text::TextModel,
    /// Says whether a grammar will be taken.
    pub grammars: crate::constraint::checker::Checker,
}

/// One admitted unit: all choices of all prompts of one HTTP request.
pub struct Generate {
    pub request: RequestId,
    pub tenant: TenantId,
    pub model: String,
    pub class: ServiceClass,
    pub streams: Vec<StreamSpec>,
}

/// Choice `index of this in the list` of the request.
pub struct StreamSpec {
    /// Shared between the choices of one prompt. Never empty.
    pub prompt: Arc<[u32]>,
    pub max_new_tokens: u32,
    /// Shared between all choices: a grammar may be long. The dice are thrown with (seed, choice, position, draw), so all choices carry the same seed.
    pub sampling: Arc<Sampling>,
}

/// An admitted request. Dropping it cancels whatever still runs.
pub struct Generation {
    /// Delivers for each choice its events in order. Bounded: a reader that falls too far behind gets
    /// `Event::Failed(StreamFailure::SlowReader)` as its last event.
    pub events: mpsc::Receiver<StreamEvent>,
    /// Tells the router when text, not tokens, ended a stream; on drop, that the client has gone.
    pub control: Box<dyn GenerationControl>,
}

pub trait GenerationControl: Send {
    /// The gateway saw a stop string: nothing more is wanted of this choice.
    fn end(&self, choice: u32);
}

pub struct StreamEvent {
    pub choice: u32,
    pub event: Event,
}

pub enum Event {
    /// Comes once, before anything else of that choice.
    Started { cached_tokens: u32 },
    /// The next scores of the prompt, in order.
    PromptScores(Vec<TokenScore>),
    Token {
        position: Position,
        id: u32,
        score: Option<TokenScore>,
    },
    /// Where the choice's time has gone so far; just before its first token and before its end.
    Timing(Timing),
    /// The last event of a choice.
    Finished(Finish),
    /// The last event of a choice that was admitted and could not be served to its end.
    Failed(StreamFailure),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamFailure {
    /// The client reads slower than the bound allows.
    SlowReader,
    /// No replica could take over.
    Refused(Refusal),
}
