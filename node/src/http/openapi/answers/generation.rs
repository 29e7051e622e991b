//! The shapes of what a model says: whole, and in the parts of a stream.

use super::{any_of, list, map_of, object, object_with, reference};
use serde_json::{Value, json};

pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("ChatCompletion", chat_completion()),
        ("ChatCompletionChunk", chat_completion_chunk()),
        ("AssistantMessage", assistant_message()),
        ("AssistantDelta", assistant_delta()),
        ("ChatLogprobs", chat_logprobs()),
        ("Completion", completion()),
        ("CompletionChunk", completion_chunk()),
        ("CompletionLogprobs", completion_logprobs()),
        ("PromptLogprobs", prompt_logprobs()),
        ("Usage", usage()),
        ("Timing", timing()),
    ]
}

fn chat_completion() -> Value {
    let choice = object_with(
        json!({
            "index": {"type": "integer"},
            "message": reference("AssistantMessage"),
            "logprobs": or_null("ChatLogprobs"),
            "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
        }),
        json!({"token_ids": token_ids("return_token_ids")}),
    );
    let mut answer = page("chat.completion", choice, Some(reference("Usage")));
    answer["properties"]["prompt_token_ids"] = token_ids("return_token_ids");
    answer["properties"]["prompt_logprobs"] = reference("PromptLogprobs");
    answer
}

fn chat_completion_chunk() -> Value {
    let choice = object_with(
        json!({
            "index": {"type": "integer"},
            "delta": reference("AssistantDelta"),
            "logprobs": or_null("ChatLogprobs"),
            "finish_reason": {"enum": ["stop", "length", "tool_calls", null]},
        }),
        json!({"token_ids": token_ids("return_token_ids")}),
    );
    let mut chunk = page("chat.completion.chunk", choice, None);
    chunk["properties"]["prompt_token_ids"] = token_ids("return_token_ids");
    chunk
}

fn assistant_message() -> Value {
    let function = object(json!({"name": {"type": "string"}, "arguments": {"type": "string"}}));
    let call = object(json!({"id": {"type": "string"}, "type": {"const": "function"}, "function": function}));
    object_with(
        json!({
            "role": {"const": "assistant"},
            "content": {"type": ["string", "null"]},
            "refusal": {"type": "null"},
        }),
        json!({
            "reasoning": {"type": "string"},
            "reasoning_content": {"type": "string", "description": "The same as `reasoning`."},
            "tool_calls": list(call),
        }),
    )
}

fn assistant_delta() -> Value {
    let function = object_with(
        json!({"arguments": {"type": "string", "description": "The next part of them."}}),
        json!({"name": {"type": "string"}}),
    );
    let call = object_with(
        json!({"index": {"type": "integer"}, "function": function}),
        json!({"id": {"type": "string"}, "type": {"const": "function"}}),
    );
    object_with(
        json!({}),
        json!({
            "role": {"const": "assistant"},
            "content": {"type": "string"},
            "reasoning": {"type": "string"},
            "reasoning_content": {"type": "string", "description": "The same as `reasoning`."},
            "tool_calls": list(call),
        }),
    )
}

fn chat_logprobs() -> Value {
    let token = json!({
        "token": {"type": "string"},
        "logprob": {"type": "number"},
        "bytes": list(json!({"type": "integer"})),
    });
    let mut entry = token.clone();
    entry["top_logprobs"] = list(object(token));
    object(json!({"content": list(object(entry)), "refusal": {"type": "null"}}))
}

fn completion() -> Value {
    let choice = object_with(
        completion_choice(json!({"enum": ["stop", "length"]})),
        json!({
            "token_ids": token_ids("return_token_ids"),
            "prompt_token_ids": token_ids("return_token_ids"),
            "prompt_logprobs": reference("PromptLogprobs"),
        }),
    );
    page("text_completion", choice, Some(reference("Usage")))
}

fn completion_chunk() -> Value {
    let choice = object_with(
        completion_choice(json!({"enum": ["stop", "length", null]})),
        json!({
            "token_ids": token_ids("return_token_ids"),
            "prompt_token_ids": token_ids("return_token_ids"),
        }),
    );
    page("text_completion", choice, None)
}

fn completion_choice(finish_reason: Value) -> Value {
    json!({
        "index": {"type": "integer", "description": "prompt · n + k"},
        "text": {"type": "string"},
        "logprobs": or_null("CompletionLogprobs"),
        "finish_reason": finish_reason,
    })
}

fn completion_logprobs() -> Value {
    let number_or_null = json!({"type": ["number", "null"]});
    let top = any_of([map_of(json!({"type": "number"})), json!({"type": "null"})]);
    object(json!({
        "tokens": list(json!({"type": "string"})),
        "token_logprobs": list(number_or_null),
        "top_logprobs": list(top),
        "text_offset": list(json!({"type": "integer"})),
    }))
}

fn prompt_logprobs() -> Value {
    let score = object(json!({
        "logprob": {"type": "number"},
        "rank": {"type": "integer"},
        "decoded_token": {"type": "string"},
    }));
    let mut scores = list(any_of([map_of(score), json!({"type": "null"})]));
    scores["description"] = json!(
        "With `prompt_logprobs`: for each token of the prompt, scores by token id; null for the first."
    );
    scores
}

/// What all answers have around their choices. `usage`: `None` for a part of a stream, which has it when asked.
fn page(kind: &str, choice: Value, usage: Option<Value>) -> Value {
    let mut always = json!({
        "id": {"type": "string"},
        "object": {"const": kind},
        "created": {"type": "integer", "description": "Seconds since 1970."},
        "model": {"type": "string"},
        "choices": list(choice),
    });
    let mut at_times = json!({
        "service_tier": {"type": "string", "description": "As it was asked for."},
        "timing": reference("Timing"),
    });
    match usage {
        Some(usage) => always["usage"] = usage,
        None => at_times["usage"] = or_null("Usage"),
    }
    object_with(always, at_times)
}

fn token_ids(field: &str) -> Value {
    let mut ids = list(json!({"type": "integer"}));
    ids["description"] = json!(format!("With `{field}`."));
    ids
}

fn usage() -> Value {
    object(json!({
        "prompt_tokens": {"type": "integer"},
        "completion_tokens": {"type": "integer"},
        "total_tokens": {"type": "integer"},
        "prompt_tokens_details": object(json!({"cached_tokens": {"type": "integer"}})),
        "completion_tokens_details": object(json!({"reasoning_tokens": {"type": "integer"}})),
    }))
}

fn timing() -> Value {
    object(json!({
        "queue_ms": {"type": "number"},
        "prefill_ms": {"type": "number"},
        "decode_ms": {"type": "number"},
        "network_ms": {"type": "number"},
        "total_ms": {"type": "number"},
    }))
}

fn or_null(name: &str) -> Value {
    any_of([reference(name), json!({"type": "null"})])
}
