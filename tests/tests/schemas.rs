//! Structured output against schemas that others wrote, judged by a validator that others wrote: tests/python/schemas.py.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use tests::{MODEL, Node, TempFolder};

fn script(arguments: &[&str]) -> Output {
    let mut command = Command::new(tests::python_programs("schemas").join("python"));
    command
        .arg(tests::suites("python").join("schemas.py"))
        .args(arguments);
    command.output().expect("python runs")
}

/// Packages with schemas, fetched once.
fn data() -> String {
    let list = tests::suites("python").join("schemas_data.txt");
    let wanted = fs::read(&list).unwrap_or_else(|error| panic!("{}: {error}", list.display()));
    let data = tests::made_once("schemas", &wanted, |folder| {
        fs::create_dir_all(folder).expect("room for a folder");
        succeed(&script(&["fetch", text(folder)]));
    });
    text(&data).to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

fn succeed(output: &Output) {
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}{errors}");
}

/// Schemas drawn at random, always the same: from the packages, or from the folder `CLUSTER_SCHEMAS`.
fn draw(count: &str, to: &Path) {
    let other = std::env::var("CLUSTER_SCHEMAS");
    let drawn = match &other {
        Ok(folder) => script(&["draw", "--folder", folder, "--count", count]),
        Err(_) => script(&["draw", &data(), "--count", count]),
    };
    fs::write(to, &drawn.stdout).expect("room for the schemas");
    let errors = String::from_utf8_lossy(&drawn.stderr);
    assert!(drawn.status.success(), "{errors}");
}

/// Random walks through the grammars of `cases`, judged.
fn walk(cases: &Path, valid_min: &str) {
    let reports = cases.with_extension("reports");
    let mut command = Command::new(tests::cluster_binary());
    let model = text(tests::model_path());
    command.args(["bench", "schemas", text(cases), "--model", model, "--json"]);
    let to = File::create(&reports).expect("room for the reports");
    let status = command.stdout(to).status().expect("the cluster binary runs");
    assert!(status.success(), "{status}");
    succeed(&script(&[
        "check",
        text(cases),
        text(&reports),
        "--valid-min",
        valid_min,
    ]));
}

#[test]
fn whatever_way_is_taken_through_a_thousand_schemas_the_output_is_valid() {
    let folder = TempFolder::new();
    let cases = folder.path().join("drawn.jsonl");
    draw("1000", &cases);
    walk(&cases, "2000");
}

#[test]
fn nothing_that_the_official_suite_calls_invalid_can_be_written() {
    let folder = TempFolder::new();
    let cases = folder.path().join("official.jsonl");
    let official = script(&["official", &data()]);
    fs::write(&cases, &official.stdout).expect("room for the schemas");
    assert!(
        official.status.success(),
        "{}",
        String::from_utf8_lossy(&official.stderr)
    );
    walk(&cases, "3000");
}

/// `CLUSTER_SCHEMAS_SERVED=1000` asks for all of them.
#[test]
fn what_a_model_answers_in_the_form_of_a_schema_is_valid_under_it() {
    let folder = TempFolder::new();
    let cases = folder.path().join("served.jsonl");
    let count = std::env::var("CLUSTER_SCHEMAS_SERVED").unwrap_or_else(|_| "120".to_owned());
    draw(&count, &cases);
    let node = Node::start();
    let url = format!("http://{}", node.address());
    let key = node.key().expect("a key");
    succeed(&script(&[
        "serve",
        text(&cases),
        "--url",
        &url,
        "--key",
        key,
        "--model",
        MODEL,
        "--valid-min",
        "20",
    ]));
}

fn pet() -> Value {
    json!({
        "type": "object",
        "properties": {
            "kind": {"enum": ["cat", "dog"]},
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 30},
        },
        "required": ["kind", "name", "age"],
        "additionalProperties": false,
    })
}

fn is_pet(text: &str) -> bool {
    let Ok(pet) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    let names: Vec<&String> = pet
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    names == ["kind", "name", "age"]
        && ["cat", "dog"].map(Value::from).contains(&pet["kind"])
        && pet["name"]
            .as_str()
            .is_some_and(|name| name.chars().count() <= 12)
        && pet["age"].as_u64().is_some_and(|age| age <= 30)
}

fn question(more: Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "Tell me of a pet, in JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "pet", "schema": pet()}},
        "max_tokens": 200,
        "temperature": 0.9,
        "seed": 3,
    });
    let more = more.as_object().expect("fields").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

#[test]
fn every_choice_has_the_form_streamed_or_not_and_a_stop_string_still_ends_it() {
    let node = Node::start();
    let client = node.client();
    let whole = client.chat(question(json!({"n": 3})));
    let mut texts: Vec<String> = Vec::new();
    for choice in whole["choices"].as_array().expect("choices") {
        assert_eq!(choice["finish_reason"], "stop", "{choice}");
        texts.push(choice["message"]["content"].as_str().expect("a text").to_owned());
    }
    assert!(
        texts.len() == 3 && texts.iter().all(|text| is_pet(text)),
        "{texts:?}"
    );
    let mut streamed = vec![String::new(); 3];
    for event in client.stream("/v1/chat/completions", question(json!({"n": 3}))) {
        for choice in event["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index") as usize;
            streamed[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        }
    }
    assert_eq!(streamed, texts);
    let stopped = client.chat(question(json!({"stop": ["\"name\""]})));
    let choice = &stopped["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    let start = choice["message"]["content"].as_str().expect("a text");
    assert!(
        texts[0].starts_with(start) && !start.contains("name") && start.contains("kind"),
        "{start}"
    );
}

#[test]
fn a_schema_that_is_not_honoured_is_refused_with_the_keyword_and_hurts_nobody() {
    let node = Node::start();
    let client = node.client();
    for (keyword, schema) in [
        ("uniqueItems", json!({"type": "array", "uniqueItems": true})),
        ("looking ahead", json!({"type": "string", "pattern": "^(?!a)"})),
        ("$ref", json!({"$ref": "http://x.y/z"})),
    ] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let mut body = question(json!({"response_format": format}));
        body["model"] = json!(MODEL);
        let answer = client.post("/v1/chat/completions", &body);
        assert_eq!(
            (answer.status, &answer.body["error"]["param"]),
            (400, &json!("response_format"))
        );
        let message = answer.body["error"]["message"].as_str().expect("a message");
        assert!(message.contains(keyword), "{message}");
    }
    let text = client.chat(question(json!({})))["choices"][0]["message"]["content"].clone();
    assert!(is_pet(text.as_str().expect("a text")));
}
