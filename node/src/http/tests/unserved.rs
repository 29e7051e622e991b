//! Fields that other servers honour and this one does not.

use super::fake::{FakeGateway, hello, post};
use super::refusals::{assert_refused, with};
use serde_json::json;

#[tokio::test]
async fn they_are_refused_by_name() {
    let gateway = FakeGateway::new(hello);
    for (param, value) in [
        ("num_beams", json!(4)),
        ("do_sample", json!(false)),
        ("custom_logit_processor", json!("{}")),
        ("lora_path", json!("a")),
        ("input_ids", json!([5])),
        ("input_embeds", json!([[0.5]])),
    ] {
        let completion = with(json!({"prompt": "fox"}), param, value.clone());
        assert_refused(&gateway, "/v1/completions", completion, param).await;
        let chat = json!({"messages": [{"role": "user", "content": "fox"}]});
        assert_refused(&gateway, "/v1/chat/completions", with(chat, param, value), param).await;
    }
}

#[tokio::test]
async fn values_that_ask_for_nothing_are_taken() {
    let gateway = FakeGateway::new(hello);
    let body = json!({
        "prompt": "fox", "tools": [], "tool_choice": "none", "top_logprobs": 0, "response_format": {"type": "text"}, "suffix": "",
        "best_of": 1, "logit_bias": {}, "stop": [], "top_k": -1, "prompt_logprobs": null, "guided_json": null,
        "length_penalty": 1.0, "typical_p": 1, "mirostat": 0, "dry_multiplier": 0.0, "xtc_probability": 0, "grammar": "",
        "json_schema": null, "prompt_embeds": null, "repetition_detection": null, "tfs": 1.0, "top_a": 0, "repeat_penalty": 1,
        "max_new_tokens": null, "min_new_tokens": 0, "truncation_side": "left", "cache_salt": "",
        "tfs_z": 1, "no_repeat_ngram_size": 0, "priority": 0, "kv_transfer_params": null, "stop_regex": [],
        "no_stop_trim": false, "n_predict": null, "dynatemp_range": 0, "spaces_between_special_tokens": true,
        "enable_thinking": null,
    });
    for (name, value) in [
        ("top_n_sigma", json!(-1.0)),
        ("top_n_sigma", json!(0)),
        ("verbosity", json!("medium")),
        ("verbosity", json!(null)),
        ("num_beams", json!(1)),
        ("do_sample", json!(true)),
        ("input_ids", json!([])),
        ("lora_path", json!(null)),
    ] {
        let body = with(body.clone(), name, value);
        assert_eq!(
            post(&gateway, "/v1/completions", body).await.status,
            200,
            "{name}"
        );
    }
    assert_eq!(post(&gateway, "/v1/completions", body).await.status, 200);
}
