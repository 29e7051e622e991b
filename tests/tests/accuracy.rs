//! The served model against the goldens that transformers made in float32 (`goldens/make.py`).

use serde_json::{Value, json};
use tests::{Client, Node, NodeOptions, golden, ids_of, numbers_of};

fn prompts() -> Vec<Value> {
    golden("smollm2-135m.json")["prompts"]
        .as_array()
        .expect("a list")
        .clone()
}

#[test]
fn text_becomes_the_same_token_ids_and_comes_back() {
    let node = Node::start();
    let client = node.client();
    let tokenizer = golden("tokenizer-smollm.json");
    let texts = tokenizer["strings"]
        .as_array()
        .expect("a list")
        .iter()
        .chain(prompts().iter())
        .cloned()
        .collect::<Vec<_>>();
    for case in texts.iter().filter(|case| case["text"] != "") {
        let answer = client.post(
            "/tokenize",
            &json!({"model": tests::MODEL, "prompt": case["text"], "add_special_tokens": false}),
        );
        let answer = answer.ok();
        assert_eq!(
            ids_of(&answer["tokens"]),
            ids_of(&case["ids"]),
            "{}",
            case["text"]
        );
        let back = client
            .post(
                "/detokenize",
                &json!({"model": tests::MODEL, "tokens": case["ids"]}),
            )
            .ok();
        assert_eq!(back["prompt"], case["text"]);
    }
}

#[test]
fn conversations_become_the_same_token_ids() {
    let node = Node::start();
    let client = node.client();
    for case in golden("tokenizer-smollm.json")["chats"]
        .as_array()
        .expect("a list")
    {
        let answer = client
            .post(
                "/tokenize",
                &json!({"model": tests::MODEL, "messages": case["messages"]}),
            )
            .ok();
        assert_eq!(
            ids_of(&answer["tokens"]),
            ids_of(&case["ids"]),
            "{}",
            case["messages"]
        );
    }
}

#[test]
fn log_probabilities_are_at_most_twice_as_far_off_as_bfloat16() {
    compare_log_probabilities(&Node::start());
}

#[test]
fn so_are_those_with_keys_and_values_in_int8() {
    let options = NodeOptions::new().with(&["--kv-cache", "int8"]);
    compare_log_probabilities(&options.start());
}

fn compare_log_probabilities(node: &Node) {
    let client = node.client();
    let bf16_error = golden("smollm2-135m.json")["bf16_error"]
        .as_f64()
        .expect("a number");
    let (mut sum, mut count) = (0.0, 0_u32);
    for case in prompts() {
        let expected = numbers_of(&case["logprobs"]);
        let found = prompt_logprobs(&client, &case);
        assert_eq!(found.len(), expected.len() + 1, "{}", case["name"]);
        assert_eq!(found[0], None, "the first token has no log-probability");
        for (found, expected) in found[1..].iter().zip(&expected) {
            sum += (found.expect("a number") - expected.expect("a number")).abs();
            count += 1;
        }
    }
    let error = sum / f64::from(count);
    println!(
        "mean error {error:.5} over {count} tokens, bfloat16 {bf16_error:.5}, ratio {:.2}",
        error / bf16_error
    );
    assert!(error <= 2.0 * bf16_error, "mean error {error} > 2 × {bf16_error}");
}

/// The two likeliest first tokens are 0.10 apart for transformers in float32, and 0.25 in bfloat16. With one int8 term for the input of down
/// (decision 0025) the second one came first, and with it another language.
#[test]
fn the_capital_of_france_is_paris_as_for_transformers() {
    let node = Node::start();
    let question = json!({"role": "user", "content": "What is the capital of France?"});
    let answer = node
        .client()
        .chat(json!({"messages": [question], "max_tokens": 24, "temperature": 0}));
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "The capital of France is Paris."
    );
}

fn prompt_logprobs(client: &Client, case: &Value) -> Vec<Option<f64>> {
    let body = json!({"prompt": case["ids"], "echo": true, "logprobs": 1, "max_tokens": 0, "temperature": 0});
    let answer = client.complete(body);
    numbers_of(&answer["choices"][0]["logprobs"]["token_logprobs"])
}

#[test]
fn greedy_tokens_are_the_same_wherever_the_choice_is_clear() {
    let node = Node::start();
    let client = node.client();
    let (mut compared, mut unclear) = (0, 0);
    for case in prompts() {
        let expected = ids_of(&case["greedy_ids"]);
        let found = greedy_ids(&client, &case["ids"], expected.len());
        // After the first difference the two continue different texts.
        let same = found
            .iter()
            .zip(&expected)
            .take_while(|(found, expected)| found == expected)
            .count();
        compared += same;
        if same < expected.len() {
            unclear += 1;
            let (gap, error) = (gap(&case, same), gap_error_allowed(&case));
            let name = &case["name"];
            assert!(
                gap <= error,
                "{name}: token {same} is {}; gap {gap} > {error}",
                found[same]
            );
        }
    }
    println!("{compared} greedy tokens agree; {unclear} continuations differ where the choice was not clear");
    assert!(compared >= 500, "only {compared} tokens agree");
}

#[test]
fn the_likeliest_token_is_the_same_at_every_step_whose_choice_is_clear() {
    let node = Node::start();
    let client = node.client();
    let (mut same, mut unclear) = (0, 0);
    for case in prompts() {
        let expected = ids_of(&case["greedy_ids"]);
        let found = likeliest_ids(&client, &case, expected.len());
        for step in 0..expected.len() {
            if found[step] == expected[step] {
                same += 1;
                continue;
            }
            unclear += 1;
            let (gap, error) = (gap(&case, step), gap_error_allowed(&case));
            let name = &case["name"];
            assert!(
                gap <= error,
                "{name}: token {step} is {}; gap {gap} > {error}",
                found[step]
            );
        }
    }
    println!("{same} of {} steps agree", same + unclear);
    assert!(unclear * 20 <= same, "{unclear} steps differ, {same} agree");
}

/// With the reference's own tokens before it, the likeliest token of each step.
fn likeliest_ids(client: &Client, case: &Value, steps: usize) -> Vec<u32> {
    let ids = [ids_of(&case["ids"]), ids_of(&case["greedy_ids"])].concat();
    let body = json!({
        "prompt": ids, "echo": true, "logprobs": 1, "max_tokens": 0, "return_tokens_as_token_ids": true,
    });
    let answer = client.complete(body);
    let top = answer["choices"][0]["logprobs"]["top_logprobs"]
        .as_array()
        .expect("a list");
    top[top.len() - steps..].iter().map(likeliest).collect()
}

/// The token also stands there when it is not the likeliest.
fn likeliest(top: &Value) -> u32 {
    let entries = top.as_object().expect("tokens with log-probabilities").iter();
    let values = entries.map(|(name, value)| (value.as_f64().expect("a number"), name));
    let (_, name) = values
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .expect("a token");
    token_id(name)
}

/// Between the reference's first two logits at a greedy step.
fn gap(case: &Value, step: usize) -> f64 {
    case["greedy_gaps"][step].as_f64().expect("a number")
}

/// Twice bfloat16's largest error in that gap over the continuation: as for log-probabilities, twice is allowed.
fn gap_error_allowed(case: &Value) -> f64 {
    let errors = numbers_of(&case["bf16_gap_errors"]);
    2.0 * errors
        .iter()
        .flatten()
        .fold(0.0, |most, error| f64::max(most, *error))
}

fn greedy_ids(client: &Client, prompt: &Value, tokens: usize) -> Vec<u32> {
    let body = json!({
        "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true,
        "logprobs": 1, "return_tokens_as_token_ids": true,
    });
    let answer = client.complete(body);
    let names = answer["choices"][0]["logprobs"]["tokens"]
        .as_array()
        .expect("a list")
        .clone();
    names
        .iter()
        .map(|name| token_id(name.as_str().expect("a name")))
        .collect()
}

fn token_id(name: &str) -> u32 {
    let number = name
        .strip_prefix("token_id:")
        .unwrap_or_else(|| panic!("{name:?} is no token id"));
    number.parse().expect("a number")
}
