//! A plain HTTP client for the API.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// Talks to one node with one key. Cheap to clone; each clone may be used on a thread of its own.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    address: String,
    key: Option<String>,
}

/// What came back, whatever the status.
pub struct Answer {
    pub status: u16,
    /// `Null` when the body is no JSON.
    pub body: Value,
    pub text: String,
    headers: ureq::http::HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body of a success.
    ///
    /// # Panics
    /// On any other status.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.body
    }
}

impl Client {
    pub fn new(address: &str, key: Option<String>) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let config = config.timeout_global(Some(Duration::from_secs(300))).build();
        Client {
            agent: config.into(),
            address: address.to_owned(),
            key,
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        let mut request = self.agent.get(self.url(path));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Answer::of(request.call().expect("the node answers"))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[])
    }

    /// As [`Client::post`], over a connection of its own. `None`: nobody listens there.
    ///
    /// # Panics
    /// When a connection that was made breaks before the answer has come.
    pub fn post_if_there(&self, path: &str, body: &Value) -> Option<Answer> {
        let alone = Client::new(&self.address, self.key.clone());
        match alone.request(path, &[]).send_json(body) {
            Ok(response) => Some(Answer::of(response)),
            Err(error) if is_refusal(&error) => None,
            Err(error) => panic!("the answer was lost: {error}"),
        }
    }

    /// With more headers.
    pub fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        Answer::of(self.send(path, body, headers))
    }

    /// The body of a successful `POST /v1/completions` of the test model.
    pub fn complete(&self, body: Value) -> Value {
        self.post("/v1/completions", &with_model(body)).ok()
    }

    /// The body of a successful `POST /v1/chat/completions` of the test model.
    pub fn chat(&self, body: Value) -> Value {
        self.post("/v1/chat/completions", &with_model(body)).ok()
    }

    /// A streamed answer, read event by event; dropping it closes the connection.
    ///
    /// # Panics
    /// When the answer is no stream.
    pub fn stream(&self, path: &str, body: Value) -> Stream {
        let mut body = with_model(body);
        body["stream"] = json!(true);
        let response = self.send(path, &body, &[]);
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").cloned();
        let mut lines = BufReader::new(response.into_body().into_reader());
        if status != 200 {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut lines, &mut text);
            panic!("status {status}: {text}");
        }
        let kind = kind.expect("a content type");
        assert!(
            kind.to_str()
                .is_ok_and(|kind| kind.starts_with("text/event-stream")),
            "{kind:?}"
        );
        Stream {
            lines: Box::new(lines),
            ended: false,
        }
    }

    /// The names of all metrics with their labels, as often as they stand there.
    pub fn series(&self) -> Vec<String> {
        let page = self.get("/metrics").text;
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let named = samples.filter_map(|line| line.rsplit_once(' '));
        named.map(|(series, _)| series.to_owned()).collect()
    }

    /// The value of a metric, summed over its labels; 0 when there is none.
    pub fn metric(&self, name: &str) -> f64 {
        self.labelled_metric(name, "")
    }

    /// The same of those samples that have a label, as in `stage="0"`.
    pub fn labelled_metric(&self, name: &str, label: &str) -> f64 {
        let page = self.get("/metrics").text;
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        });
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    fn send(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> ureq::http::Response<ureq::Body> {
        let request = self.request(path, headers);
        request.send_json(body).expect("the node answers")
    }

    fn request(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn is_refusal(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

fn with_model(mut body: Value) -> Value {
    if body.get("model").is_none() {
        body["model"] = json!(crate::MODEL);
    }
    body
}

impl Answer {
    fn of(response: ureq::http::Response<ureq::Body>) -> Answer {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.into_body().read_to_string().expect("a readable body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer {
            status,
            body,
            text,
            headers,
        }
    }
}

/// The `data:` events of a stream, up to `[DONE]`.
pub struct Stream {
    lines: Box<dyn BufRead + Send>,
    ended: bool,
}

impl Stream {
    /// Did the stream end with `data: [DONE]`?
    pub fn ended_properly(&self) -> bool {
        self.ended
    }
}

impl Iterator for Stream {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        while !self.ended {
            line.clear();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data.trim_end() == "[DONE]" {
                self.ended = true;
            } else {
                return Some(serde_json::from_str(data).unwrap_or_else(|error| panic!("{data:?}: {error}")));
            }
        }
        None
    }
}
