//! Every route, in the order of the document.

use crate::http::request::{ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest};
use schemars::{Schema, SchemaGenerator};

#[derive(Clone)]
pub struct Operation {
    pub path: &'static str,
    pub method: &'static str,
    pub id: &'static str,
    pub summary: &'static str,
    pub parameters: &'static [&'static str],
    pub request: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub answer: Answer,
    /// Statuses of refusals.
    pub errors: &'static [u16],
    pub access: Access,
}

/// The name of a schema, or text.
#[derive(Clone, Copy)]
pub enum Answer {
    Json(&'static str),
    /// As a stream: of chunks.
    JsonOrEvents {
        whole: &'static str,
        chunk: &'static str,
    },
    Text,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    WithKey,
    Open,
}

/// What any request may meet: a head that cannot be read, no room for a connection.
pub const ERRORS_OF_ALL: &[u16] = &[400, 429, 431, 503];
const GENERATION_ERRORS: &[u16] = &[401, 404, 408, 409, 413, 415, 422, 500];
const TEXT_ERRORS: &[u16] = &[401, 404, 408, 413, 415];
const NAMED: &[&str] = &["x-request-id"];
const REPEATABLE: &[&str] = &[
    "x-request-id",
    "Idempotency-Key",
    "Last-Event-ID",
    "x-cluster-timing",
];

pub fn all() -> Vec<Operation> {
    [generation(), models(), text(), probes(), about()].concat()
}

/// What most operations have in common.
const GET: Operation = Operation {
    path: "",
    method: "get",
    id: "",
    summary: "",
    parameters: NAMED,
    request: None,
    answer: Answer::Text,
    errors: &[401],
    access: Access::WithKey,
};

/// Those that run a model.
fn generation() -> Vec<Operation> {
    vec![
        Operation {
            path: "/v1/chat/completions",
            method: "post",
            id: "createChatCompletion",
            summary: "The assistant's next message of a chat.",
            parameters: REPEATABLE,
            request: Some(|generator| generator.subschema_for::<ChatRequest>()),
            answer: Answer::JsonOrEvents {
                whole: "ChatCompletion",
                chunk: "ChatCompletionChunk",
            },
            errors: GENERATION_ERRORS,
            ..GET
        },
        Operation {
            path: "/v1/completions",
            method: "post",
            id: "createCompletion",
            summary: "What follows a prompt; with `echo`, also its scores.",
            parameters: REPEATABLE,
            request: Some(|generator| generator.subschema_for::<CompletionRequest>()),
            answer: Answer::JsonOrEvents {
                whole: "Completion",
                chunk: "CompletionChunk",
            },
            errors: GENERATION_ERRORS,
            ..GET
        },
    ]
}

/// What is served.
fn models() -> Vec<Operation> {
    vec![
        Operation {
            path: "/v1/models",
            id: "listModels",
            summary: "The models that are served.",
            answer: Answer::Json("ModelList"),
            ..GET
        },
        Operation {
            path: "/v1/models/{name}",
            id: "getModel",
            summary: "One model.",
            parameters: &["name", "x-request-id"],
            answer: Answer::Json("Model"),
            errors: &[401, 404],
            ..GET
        },
    ]
}

/// From text to tokens and back.
fn text() -> Vec<Operation> {
    vec![
        Operation {
            path: "/tokenize",
            method: "post",
            id: "tokenize",
            summary: "The tokens of a text or of a chat.",
            request: Some(|generator| generator.subschema_for::<TokenizeRequest>()),
            answer: Answer::Json("Tokens"),
            errors: TEXT_ERRORS,
            ..GET
        },
        Operation {
            path: "/detokenize",
            method: "post",
            id: "detokenize",
            summary: "The text of tokens.",
            request: Some(|generator| generator.subschema_for::<DetokenizeRequest>()),
            answer: Answer::Json("Text"),
            errors: TEXT_ERRORS,
            ..GET
        },
        Operation {
            path: "/tokenizer_info",
            id: "getTokenizerInfo",
            summary: "Named tokens, sizes and the chat template of the first model.",
            answer: Answer::Json("TokenizerInfo"),
            errors: &[401, 404],
            ..GET
        },
    ]
}

/// For load balancers and monitoring.
fn probes() -> Vec<Operation> {
    vec![
        Operation {
            path: "/health",
            id: "getHealth",
            summary: "Whether this node can serve.",
            answer: Answer::Json("Health"),
            errors: &[503],
            access: Access::Open,
            ..GET
        },
        Operation {
            path: "/ready",
            id: "getReady",
            summary: "The same as `/health`.",
            answer: Answer::Json("Health"),
            errors: &[503],
            access: Access::Open,
            ..GET
        },
        Operation {
            path: "/metrics",
            id: "getMetrics",
            summary: "Counters, gauges and histograms for Prometheus; by configuration without a key.",
            ..GET
        },
    ]
}

/// About the server itself.
fn about() -> Vec<Operation> {
    vec![
        Operation {
            path: "/version",
            id: "getVersion",
            summary: "The version of the server.",
            answer: Answer::Json("Version"),
            ..GET
        },
        Operation {
            path: "/openapi.json",
            id: "getDescription",
            summary: "This document.",
            answer: Answer::Json("Description"),
            ..GET
        },
    ]
}
