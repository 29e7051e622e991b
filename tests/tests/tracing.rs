//! Spans, as a collector of OpenTelemetry receives them.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tests::{MODEL, NodeOptions};

/// Takes OTLP over HTTP on a free port.
struct Collector {
    address: String,
    spans: Receiver<Value>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, spans) = channel();
        // Ends with the test process; a connection that breaks is the node's matter.
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                for span in spans_in(&take(socket)) {
                    let _ = sender.send(span);
                }
            }
        });
        Collector { address, spans }
    }

    /// The next span with this name.
    fn span(&self, name: &str) -> Value {
        loop {
            let next = self.spans.recv_timeout(Duration::from_secs(60));
            let span = next.unwrap_or_else(|_| panic!("no span {name}"));
            if span["name"] == name {
                return span;
            }
        }
    }
}

/// Reads one message and says that it is welcome.
fn take(mut socket: TcpStream) -> Value {
    let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
        let header = line.to_lowercase();
        assert!(
            !header.starts_with("post") || header.starts_with("post /v1/traces "),
            "{header}"
        );
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole body");
    let _ =
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    serde_json::from_slice(&body).expect("JSON")
}

fn spans_in(message: &Value) -> Vec<Value> {
    let scope = &message["resourceSpans"][0]["scopeSpans"][0];
    scope["spans"].as_array().expect("spans").clone()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().expect("attributes");
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    &found.unwrap_or_else(|| panic!("no {key} in {span}"))["value"]
}

fn nanos(span: &Value, end: &str) -> u64 {
    span[end]
        .as_str()
        .expect("a number as text")
        .parse()
        .expect("a number")
}

#[test]
fn a_request_and_its_parts_are_told_within_the_callers_trace() {
    let collector = Collector::start();
    let url = format!("http://{}/v1/traces", collector.address);
    let mut node = NodeOptions::new().with(&["--otlp-endpoint", &url]).start();
    let body = json!({"model": MODEL, "prompt": "One, two,", "max_tokens": 5, "ignore_eos": true});
    let (trace_id, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let unsampled = format!("00-{trace_id}-{caller}-00");
    node.client()
        .post_with("/v1/completions", &body, &[("traceparent", &unsampled)])
        .ok();
    let sampled = format!("00-{trace_id}-{caller}-01");
    let answer = node
        .client()
        .post_with("/v1/completions", &body, &[("traceparent", &sampled)]);
    assert_eq!(answer.status, 200, "{}", answer.text);

    let [queue, prefill, decode] = ["queue", "prefill", "decode"].map(|name| collector.span(name));
    let root = collector.span("POST /v1/completions");
    assert_eq!(
        (&root["traceId"], &root["parentSpanId"]),
        (&json!(trace_id), &json!(caller))
    );
    assert_eq!(
        attribute(&root, "http.response.status_code"),
        &json!({"intValue": "200"})
    );
    assert_eq!(
        (&decode["traceId"], &decode["parentSpanId"]),
        (&root["traceId"], &root["spanId"])
    );
    assert_eq!(
        attribute(&decode, "gen_ai.usage.output_tokens"),
        &json!({"intValue": "5"})
    );
    let parts = [&queue, &prefill, &decode];
    for pair in parts.windows(2) {
        let (end, start) = (
            nanos(pair[0], "endTimeUnixNano"),
            nanos(pair[1], "startTimeUnixNano"),
        );
        assert_eq!(end, start, "one part begins where the other ends");
    }
    assert!(nanos(&root, "startTimeUnixNano") < nanos(&queue, "startTimeUnixNano"));
    assert!(nanos(&prefill, "startTimeUnixNano") < nanos(&prefill, "endTimeUnixNano"));
    assert!(nanos(&decode, "startTimeUnixNano") < nanos(&decode, "endTimeUnixNano"));

    // Without a context a request begins a trace of its own, and what is left is told when the node ends.
    let refused = node.client().post("/v1/completions", &json!({}));
    assert_eq!(refused.status, 400);
    node.signal("INT");
    assert!(node.wait(Duration::from_secs(7)).expect("it ends").success());
    let refused = collector.span("POST /v1/completions");
    assert_ne!(
        refused["traceId"], root["traceId"],
        "the unsampled request is not told"
    );
    assert_eq!(refused.get("parentSpanId"), None);
    assert_eq!(
        attribute(&refused, "http.response.status_code"),
        &json!({"intValue": "400"})
    );
}
