//! Commands that talk to a running node through its socket.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use tests::{Node, TempFolder, cluster_binary, model_path, run_to_end, store};

/// A command for this node.
fn ask(node: &Node, arguments: &[&str]) -> Output {
    let data = node.data_folder().to_str().expect("a readable path");
    run_to_end(&[arguments, &["--data-dir", data]].concat())
}

/// What a successful command prints on stdout.
fn told(node: &Node, arguments: &[&str]) -> String {
    let output = ask(node, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("readable words")
}

fn told_json(node: &Node, arguments: &[&str]) -> Value {
    let text = told(node, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Exit code 1 and one line that holds these words.
fn assert_refused(output: &Output, words: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains(words), "no {words:?} in {errors}");
}

fn status_with(node: &Node, key: &str) -> u16 {
    node.client_with_key(Some(key)).get("/v1/models").status
}

#[test]
fn keys_and_tenants_count_at_once() {
    let node = Node::start();
    let created = told_json(&node, &["key", "create", "--name", "laptop"]);
    let key = created["key"].as_str().expect("a key");
    assert_eq!(status_with(&node, key), 200);
    let listed = told_json(&node, &["key", "list"]).to_string();
    assert!(listed.contains("laptop") && !listed.contains(key), "{listed}");
    told(&node, &["key", "revoke", key]);
    assert_eq!(status_with(&node, key), 401);
    assert_refused(&ask(&node, &["key", "revoke", key]), "revoked already");

    assert_refused(
        &ask(&node, &["key", "create", "--tenant", "research"]),
        "research",
    );
    told(&node, &["tenant", "add", "research"]);
    let plain = told(&node, &["key", "create", "--tenant", "research"]);
    assert_eq!(
        status_with(&node, plain.trim()),
        200,
        "stdout holds the key alone"
    );
    assert_refused(
        &ask(&node, &["tenant", "rm", "research"]),
        "`research` still has 1 API key",
    );
    told(&node, &["key", "revoke", plain.trim()]);
    told(&node, &["tenant", "rm", "research"]);
    assert_eq!(
        told_json(&node, &["tenant", "list"])["tenants"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_refused(&ask(&node, &["tenant", "rm", "default"]), "cannot be removed");
}

#[test]
fn without_a_node_one_line_says_what_to_do() {
    let folder = TempFolder::new();
    let data = folder.path().to_str().expect("a readable path");
    assert_refused(&run_to_end(&["key", "list", "--data-dir", data]), "cluster up");
}

/// As it stays behind in an environment when it was revoked.
const NOBODYS_KEY: &str = "sk-nobodys";

/// A command for this node with this text on its standard input, and another key in its environment.
fn ask_with_input(node: &Node, arguments: &[&str], input: &str) -> Output {
    ask_with_input_and_stdout(node, arguments, input, Stdio::piped())
}

fn ask_with_input_and_stdout(node: &Node, arguments: &[&str], input: &str, stdout: Stdio) -> Output {
    let mut command = Command::new(cluster_binary());
    command.args(arguments).arg("--data-dir").arg(node.data_folder());
    command
        .env("CLUSTER_KEY", NOBODYS_KEY)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the cluster binary runs");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_piped_chat_prints_the_answer_alone() {
    let node = Node::start();
    let chat = [
        "chat",
        "--temperature",
        "0",
        "--max-tokens",
        "12",
        "--system",
        "Be brief.",
    ];
    let output = ask_with_input(&node, &chat, "Hello!\n");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let body = serde_json::json!({
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
        "temperature": 0, "max_tokens": 12,
    });
    let expected = node.client().chat(body)["choices"][0]["message"]["content"].clone();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{}\n", expected.as_str().expect("text"))
    );

    let unknown = ask_with_input(&node, &["chat", "no-such-model"], "Hello!");
    assert_refused(&unknown, "no-such-model");
    assert_refused(&ask_with_input(&node, &["chat"], "\n"), "nothing to say");
    let hot = ask_with_input(&node, &["chat", "--temperature", "9"], "Hello!");
    let errors = String::from_utf8_lossy(&hot.stderr);
    assert_eq!(hot.status.code(), Some(2), "{errors}");
    assert!(errors.contains("temperature is a number from 0 to 2"), "{errors}");
}

#[test]
fn a_key_of_the_environment_is_for_servers_that_are_named() {
    let node = Node::start();
    let short = ["chat", "--max-tokens", "1"];
    let chat = |more: &[&str]| ask_with_input(&node, &[&short[..], more].concat(), "Hello!");
    let url = format!("http://{}", node.address());
    let key = node.key().expect("it asks for keys");
    for taken in [chat(&[]), chat(&["--url", &url, "--key", key])] {
        assert!(
            taken.status.success(),
            "{}",
            String::from_utf8_lossy(&taken.stderr)
        );
    }
    assert_refused(&chat(&["--url", &url]), "no valid API key");
    assert_refused(&chat(&["--url", &url]), "--key or CLUSTER_KEY");
    assert_refused(&chat(&["--key", NOBODYS_KEY]), "no valid API key");
}

/// `up --print-config` with this as its stdout.
fn config_printed_to(stdout: Stdio) -> Output {
    let mut command = Command::new(cluster_binary());
    command.args(["up", "--print-config", "--json"]).stdout(stdout);
    command.stderr(Stdio::piped()).output().expect("it runs")
}

#[test]
fn with_json_the_settings_are_json() {
    let settings: Value = serde_json::from_slice(&config_printed_to(Stdio::piped()).stdout).expect("JSON");
    assert_eq!(settings["device"]["value"], "auto", "{settings}");
    assert!(settings["http"]["origin"].is_string(), "{settings}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_in_peace() {
    let node = Node::start();
    for arguments in [&["status"][..], &["key", "list"], &["node", "list", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(cluster_binary());
        command.args(arguments).arg("--data-dir").arg(node.data_folder());
        let output = command
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), errors.as_ref()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let chat = ["chat", "--max-tokens", "8"];
    let output = ask_with_input_and_stdout(&node, &chat, "Hello!", writer.into());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.as_ref()), (Some(0), ""));
    assert!(
        config_printed_to(Stdio::from(
            std::fs::File::create("/dev/full").expect("Linux has it")
        ))
        .status
        .code()
            == Some(1)
    );
}

#[test]
fn status_can_be_watched_line_by_line() {
    let node = Node::start();
    node.client()
        .complete(serde_json::json!({"prompt": "One", "max_tokens": 4, "ignore_eos": true}));
    let mut command = Command::new(cluster_binary());
    command
        .args(["status", "--watch", "--json", "--data-dir"])
        .arg(node.data_folder());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
    let reports: Vec<Value> = lines
        .take(2)
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON alone"))
        .collect();
    child.kill().expect("it still runs");
    child.wait().expect("it ends");
    assert_eq!(reports[0]["replicas"][0]["sampled_tokens"], 4);
    assert!(
        reports[1]["first_token_ms"]["p95"].as_f64() > Some(0.0),
        "{}",
        reports[1]
    );
    let output = ask(&node, &["status"]);
    assert!(
        !output.stdout.contains(&0x1b),
        "no colours where nobody sees them"
    );
}

#[test]
fn load_is_put_on_the_node_of_this_host_without_a_key() {
    let node = Node::start();
    let load = [
        "bench",
        "serve",
        "--requests",
        "6",
        "--concurrency",
        "2",
        "--rate",
        "50",
        "--prompt-tokens",
        "8",
    ];
    let summary = told_json(&node, &[&load[..], &["--output-tokens", "4"]].concat());
    assert_eq!(
        (summary["succeeded"].as_u64(), summary["output_tokens"].as_u64()),
        (Some(6), Some(24))
    );
}

#[test]
fn the_engine_is_measured_over_a_grid() {
    let (model, store) = (model_path().to_str().expect("a path"), store());
    let output = run_to_end(&[
        "bench",
        "engine",
        "--model",
        model,
        "--store",
        store.to_str().expect("a path"),
        "--prompt-tokens",
        "8,20",
        "--output-tokens",
        "3",
        "--batch",
        "1,2",
        "--rounds",
        "1",
        "--threads",
        "2",
        "--tp",
        "2",
        "--json",
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 4, "{report}");
    for row in rows {
        assert!(
            row["prefill_tokens_per_sec"]["median"].as_f64() > Some(0.0),
            "{row}"
        );
        assert!(
            row["decode_tokens_per_sec"]["median"].as_f64() > Some(0.0),
            "{row}"
        );
    }
}

#[test]
fn chat_and_top_behave_on_a_terminal() {
    let node = Node::start();
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("python/terminal_suite.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(cluster_binary()).arg(node.data_folder());
    let output = python.stdin(Stdio::null()).output().expect("python3 runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told.trim(),
        "all is well",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
