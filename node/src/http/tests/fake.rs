//! A gateway that says what a test tells it to.

use crate::constraint::checker::Checker;
use crate::constraint::tests::{END, vocabulary};
use crate::gateway::{
    Event, Gateway, Generate, Generation, GenerationControl, ServedModel, StreamEvent, StreamFailure,
};
use crate::http::{Limits, router};
use crate::text::tests::small_model;
use crate::text::{AddSpecial, TextModel};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use proto::engine::{Timing, TokenScore};
use proto::request::{Finish, Refusal};
use proto::{Position, Span, TenantId};
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tower::ServiceExt;

pub const KEY: &str = "secret";
pub const CONTEXT_TOKENS_MAX: u32 = 100;
const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% if message.role == 'system' and not loop.first %}{{ raise_exception('system must come first') }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// What the gateway answers to one request.
pub type Script = fn(&Generate, &TextModel) -> Result<Vec<StreamEvent>, Refusal>;

pub struct FakeGateway {
    script: Script,
    model: Arc<ServedModel>,
    seen: Mutex<Vec<Generate>>,
    signals: Arc<Mutex<Signals>>,
    /// Keeps the events' senders, so that streams stay open after the script.
    open_ends: Mutex<Vec<mpsc::Sender<StreamEvent>>>,
}

/// What reached the gateway beside requests.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Signals {
    pub ended: Vec<u32>,
    pub dropped: u32,
}

struct Control(Arc<Mutex<Signals>>);

impl GenerationControl for Control {
    fn end(&self, choice: u32) {
        self.0.lock().unwrap().ended.push(choice);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.0.lock().unwrap().dropped += 1;
    }
}

impl FakeGateway {
    pub fn new(script: Script) -> Arc<FakeGateway> {
        FakeGateway::with_model(script, small_model(TEMPLATE), CONTEXT_TOKENS_MAX)
    }

    pub fn with_model(script: Script, text: TextModel, context_tokens_max: u32) -> Arc<FakeGateway> {
        let model = ServedModel {
            name: "small".into(),
            added_at_secs: 7,
            context_tokens_max,
            // The small model cannot spell braces.
            grammars: Checker::start(Arc::new(vocabulary()), &[END]).unwrap(),
            text,
        };
        Arc::new(FakeGateway {
            script,
            model: Arc::new(model),
            seen: Mutex::default(),
            signals: Arc::default(),
            open_ends: Mutex::default(),
        })
    }

    pub fn text(&self) -> &TextModel {
        &self.model.text
    }

    pub fn signals(&self) -> Signals {
        self.signals.lock().unwrap().clone()
    }

    /// More of the stream that was opened last.
    pub fn say(&self, event: StreamEvent) {
        let open_ends = self.open_ends.lock().unwrap();
        open_ends
            .last()
            .expect("a stream is open")
            .try_send(event)
            .unwrap();
    }

    /// How many requests have come that no test has looked at.
    pub fn seen_count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The only request so far.
    pub fn seen(&self) -> Generate {
        self.seen
            .lock()
            .unwrap()
            .pop()
            .expect("no request reached the gateway")
    }
}

impl Gateway for FakeGateway {
    fn open(
        &self,
        request: Generate,
    ) -> Pin<Box<dyn Future<Output = Result<Generation, Refusal>> + Send + '_>> {
        let events = (self.script)(&request, &self.model.text);
        self.seen.lock().unwrap().push(request);
        let control = Box::new(Control(self.signals.clone()));
        Box::pin(async move {
            let events = events?;
            let (sender, receiver) = mpsc::channel(events.len() + 1);
            for event in events {
                sender.send(event).await.unwrap();
            }
            self.open_ends.lock().unwrap().push(sender);
            Ok(Generation {
                events: receiver,
                control,
            })
        })
    }

    fn models(&self) -> Vec<Arc<ServedModel>> {
        vec![self.model.clone()]
    }

    fn awaits(&self, model: &str) -> bool {
        model == "awaited"
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    fn authenticate(&self, key: Option<&str>) -> Option<TenantId> {
        (key == Some(KEY)).then_some(TenantId(1))
    }

    fn metrics(&self) -> String {
        "up 1\n".into()
    }
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The JSON of each event of a stream; the last line must be `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let mut data: Vec<&str> = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.text);
        data.into_iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub fn error_param(&self) -> String {
        self.json()["error"]["param"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    }
}

pub async fn ask(gateway: &Arc<FakeGateway>, method: &str, path: &str, body: String) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {KEY}"));
    send(gateway, request.body(Body::from(body)).unwrap()).await
}

pub async fn send(gateway: &Arc<FakeGateway>, request: Request<Body>) -> Answer {
    let limits = Limits {
        keep_alive: std::time::Duration::from_secs(3600),
        ..Limits::default()
    };
    let response = router(gateway.clone(), limits).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 24).await.unwrap();
    Answer {
        status: head.status,
        headers: head.headers,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

pub async fn post(gateway: &Arc<FakeGateway>, path: &str, body: Value) -> Answer {
    ask(gateway, "POST", path, body.to_string()).await
}

pub fn started(choice: u32, cached_tokens: u32) -> StreamEvent {
    StreamEvent {
        choice,
        event: Event::Started { cached_tokens },
    }
}

/// What an engine says of the time: 1, 2 and 4 ms.
pub fn timed(choice: u32) -> StreamEvent {
    StreamEvent {
        choice,
        event: Event::Timing(Timing {
            queue: Span::from_millis(1),
            prefill: Span::from_millis(2),
            decode: Span::from_millis(4),
        }),
    }
}

pub fn finished(choice: u32, finish: Finish) -> StreamEvent {
    StreamEvent {
        choice,
        event: Event::Finished(finish),
    }
}

pub fn failed(choice: u32, failure: StreamFailure) -> StreamEvent {
    StreamEvent {
        choice,
        event: Event::Failed(failure),
    }
}

/// The tokens of `text`, from `position` on, with scores where the request wants them.
pub fn said(
    request: &Generate,
    model: &TextModel,
    choice: u32,
    position: u32,
    text: &str,
) -> Vec<StreamEvent> {
    let ids = model.tokenizer().encode(text, AddSpecial::Never).unwrap();
    let count = request.streams[choice as usize].sampling.logprobs;
    let event = |(id, position): (u32, u32)| Event::Token {
        position: Position(position),
        id,
        score: count.map(|count| score(id, count)),
    };
    ids.into_iter()
        .zip(position..)
        .map(event)
        .map(|event| StreamEvent { choice, event })
        .collect()
}

/// `id` itself is the likeliest, then the ids after it.
pub fn score(id: u32, count: u8) -> TokenScore {
    let logprob = -0.1;
    let top = (0..u32::from(count))
        .map(|rank| (id + rank, logprob - rank as f32))
        .collect();
    TokenScore {
        token: id,
        logprob,
        rank: 0,
        top,
    }
}

/// Every choice says `Hello fox` and stops with the model's end token.
pub fn hello(request: &Generate, model: &TextModel) -> Result<Vec<StreamEvent>, Refusal> {
    let one = |choice| {
        let mut events = vec![started(choice, 2)];
        events.extend(said(request, model, choice, 0, "The fox<|im_end|>"));
        events.push(finished(choice, Finish::Stop));
        events
    };
    Ok((0..request.streams.len() as u32).flat_map(one).collect())
}
