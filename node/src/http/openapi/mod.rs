//! `GET /openapi.json`: the interface described for machines, made from the very types that parse the requests.
//!
//! A copy is kept as `docs/openapi.json`, so that a change of the interface shows in review; a test compares the two.

mod answers;
mod operations;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use operations::{Access, Answer, ERRORS_OF_ALL, Operation};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::LazyLock;

pub async fn document() -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(page);
    ([(header::CONTENT_TYPE, "application/json")], PAGE.as_str()).into_response()
}

/// The document as text.
pub fn page() -> String {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let paths = paths(&mut generator);
    let mut schemas = generator.take_definitions(true);
    schemas.extend(answers::schemas());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cluster",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Inference in the forms that OpenAI's clients speak. Fields that are not listed are ignored; \
                listed ones are honoured, or refused with status 400 and the field's name in `error.param`. A method \
                that is not listed for a path is answered with 405, a path that is not listed with 404.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": error_response()},
            "parameters": parameters(),
            "securitySchemes": {"key": {
                "type": "http", "scheme": "bearer", "description": "An API key; not needed on a node without authentication.",
            }},
        },
    });
    format!("{document:#}\n")
}

fn paths(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut paths = Map::new();
    for operation in operations::all() {
        let described = described(&operation, generator);
        paths.insert(operation.path.to_string(), json!({operation.method: described}));
    }
    paths
}

fn described(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": operation.parameters.iter().map(|name| reference("parameters", name)).collect::<Vec<_>>(),
        "responses": responses(operation),
    });
    if let Some(request) = operation.request {
        described["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": request(generator)}},
        });
    }
    if operation.access == Access::Open {
        described["security"] = json!([]);
    }
    described
}

fn responses(operation: &Operation) -> Value {
    let mut responses = json!({"200": {"description": "Done.", "content": content(operation.answer)}});
    let statuses: BTreeSet<&u16> = operation.errors.iter().chain(ERRORS_OF_ALL).collect();
    for status in statuses {
        responses[status.to_string()] = reference("responses", "Error");
    }
    responses
}

fn content(answer: Answer) -> Value {
    let schema = |name: &str| json!({"schema": reference("schemas", name)});
    match answer {
        Answer::Json(name) => json!({"application/json": schema(name)}),
        Answer::JsonOrEvents { whole, chunk } => json!({
            "application/json": schema(whole),
            "text/event-stream": {"schema": {
                "description": "With `stream: true`: one of these after each `data:`, and `[DONE]` after the last; an \
                    error ends the stream without it.",
                "anyOf": [reference("schemas", chunk), reference("schemas", "Error")],
            }},
        }),
        Answer::Text => json!({"text/plain": {"schema": {"type": "string"}}}),
    }
}

fn error_response() -> Value {
    json!({
        "description": "What went wrong and what to do about it.",
        "headers": {"Retry-After": {
            "description": "With 409, 429 and 503: seconds after which another try makes sense.",
            "schema": {"type": "integer"},
        }},
        "content": {"application/json": {"schema": reference("schemas", "Error")}},
    })
}

fn parameters() -> Value {
    json!({
        "x-request-id": {
            "name": "x-request-id", "in": "header", "schema": {"type": "string", "maxLength": 128},
            "description": "The client's own name for the request; it comes back on the answer.",
        },
        "Idempotency-Key": {
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "A name for this request: a retry with the same key and body gets the answer of the first \
                try, or 409 while that is running. The key with another body is refused with 422.",
        },
        "Last-Event-ID": {
            "name": "Last-Event-ID", "in": "header", "schema": {"type": "string", "pattern": "^[0-9a-fA-F]{32}:0:[0-9]+$"},
            "description": "The `id` of the last event that was seen of a stream that broke off. With the `Idempotency-Key` and the \
                body that began it, the answer is the rest of the stream, from any node.",
        },
        "x-cluster-timing": {
            "name": "x-cluster-timing", "in": "header", "schema": {"enum": ["0", "1"]},
            "description": "With 1 the answer, or the last chunk of a stream that has a choice, has `timing`: where the time went, in \
                milliseconds.",
        },
        "name": {
            "name": "name", "in": "path", "required": true, "schema": {"type": "string"},
            "description": "The served name of a model.",
        },
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}
