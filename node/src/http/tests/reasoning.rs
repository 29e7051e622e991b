//! What the model thinks before its answer.

use super::tools::{ask, gateway, stream, thinks_and_calls};
use serde_json::{Value, json};

#[tokio::test]
async fn reasoning_goes_by_both_its_names_and_its_tokens_are_counted() {
    let gateway = gateway(thinks_and_calls);
    let opened = json!({"chat_template_kwargs": {"thinking": true}});
    let answer = ask(&gateway, opened.clone()).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning"], &message["reasoning_content"]),
        (&json!("Hm."), &json!("Hm."))
    );
    assert_eq!(message["tool_calls"][0]["function"]["name"], "time");
    let usage = &answer["usage"];
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
        .as_u64()
        .unwrap();
    assert!(
        reasoning > 1 && reasoning < usage["completion_tokens"].as_u64().unwrap(),
        "{usage}"
    );

    let chunks = stream(&gateway, opened).await;
    for name in ["reasoning", "reasoning_content"] {
        let told: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str())
            .collect();
        assert_eq!(told, "Hm.");
    }
}

#[tokio::test]
async fn reasoning_that_is_not_wanted_is_left_out_and_counted() {
    let gateway = gateway(thinks_and_calls);
    let body =
        |wanted: Value| json!({"chat_template_kwargs": {"thinking": true}, "include_reasoning": wanted});
    let (with, without) = (
        ask(&gateway, body(json!(true))).await,
        ask(&gateway, body(json!(false))).await,
    );
    let mut expected = with["choices"][0]["message"].clone();
    for name in ["reasoning", "reasoning_content"] {
        expected
            .as_object_mut()
            .unwrap()
            .remove(name)
            .expect("it is there where it is wanted");
    }
    expected["tool_calls"][0]["id"] = without["choices"][0]["message"]["tool_calls"][0]["id"].clone();
    assert_eq!(without["choices"][0]["message"], expected);
    assert_eq!(without["usage"], with["usage"]);

    let chunks = stream(&gateway, body(json!(false))).await;
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    for name in ["reasoning", "reasoning_content"] {
        assert!(deltas.iter().all(|delta| delta.get(name).is_none()), "{deltas:?}");
    }
    assert!(
        deltas.iter().any(|delta| delta.get("tool_calls").is_some()),
        "{deltas:?}"
    );
}
