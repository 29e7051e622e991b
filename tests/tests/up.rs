//! The command line, as a person meets it: what starts, what is refused and how, what ends and how fast.

use serde_json::{Value, json};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use tests::{Node, NodeOptions, TempFolder, model_path, run_to_end, signal, until};

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

const ANY_PORT: &str = "127.0.0.1:0";

/// `cluster up` with an empty data folder and a store of its own.
fn up(folder: &TempFolder, http: &str, arguments: &[&str]) -> Output {
    let (data, store) = (folder.path().join("data"), folder.path().join("store"));
    let common = [
        "up",
        "--http",
        http,
        "--data-dir",
        text(&data),
        "--store",
        text(&store),
    ];
    run_to_end(&[&common, arguments].concat())
}

/// Exit code 1, and on stderr one clear line with all of these words.
fn assert_refused(output: &Output, words: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap_or_default().to_lowercase();
    for word in words {
        assert!(last.contains(&word.to_lowercase()), "no {word:?} in {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

/// A copy of the model with some change to its bytes.
fn spoilt_model(folder: &TempFolder, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(model_path()).expect("the model can be read");
    change(&mut bytes);
    let path = folder.path().join("spoilt.gguf");
    fs::write(&path, bytes).expect("room for a copy");
    path
}

#[test]
fn a_port_in_use_is_named_before_anything_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = TempFolder::new();
    let output = up(&folder, &address, &["--model", text(model_path())]);
    assert_refused(&output, &[&address, "in use"]);
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = up(&folder, ANY_PORT, &["--quic", &address]);
    assert_refused(&output, &[&address]);
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_truncated_model_is_refused() {
    let folder = TempFolder::new();
    let path = spoilt_model(&folder, |bytes| bytes.truncate(bytes.len() / 2));
    assert_refused(
        &up(&folder, ANY_PORT, &["--model", text(&path)]),
        &["spoilt.gguf"],
    );
}

/// Whoever reads logs as JSON finds nothing else on stderr.
#[test]
fn with_logs_in_json_all_of_stderr_is_json() {
    let folder = TempFolder::new();
    let path = spoilt_model(&folder, |bytes| bytes.truncate(bytes.len() / 2));
    let arguments = ["--model", text(&path), "--json", "--log-format", "json"];
    let output = up(&folder, ANY_PORT, &arguments);
    assert_refused(&output, &["spoilt.gguf"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let levels: Vec<&str> = lines
        .iter()
        .map(|line| line["level"].as_str().expect("a level"))
        .collect();
    assert_eq!(levels.last(), Some(&"ERROR"), "{errors}");
}

#[test]
fn a_file_that_is_no_model_is_refused() {
    let folder = TempFolder::new();
    let path = spoilt_model(&folder, |bytes| bytes[..4].copy_from_slice(b"GGML"));
    assert_refused(
        &up(&folder, ANY_PORT, &["--model", text(&path)]),
        &["spoilt.gguf"],
    );
}

#[test]
fn an_unknown_family_is_named() {
    let folder = TempFolder::new();
    let path = spoilt_model(&folder, |bytes| {
        let key = b"general.architecture";
        let at = bytes
            .windows(key.len())
            .position(|window| window == key)
            .expect("the key is there")
            + key.len();
        // A type (u32) and a length (u64) stand before the value "llama".
        let value = at + 12;
        assert_eq!(&bytes[value..value + 5], b"llama");
        bytes[value..value + 5].copy_from_slice(b"alpac");
    });
    assert_refused(&up(&folder, ANY_PORT, &["--model", text(&path)]), &["alpac"]);
}

#[test]
fn a_model_that_does_not_exist_is_refused() {
    let folder = TempFolder::new();
    let output = up(&folder, ANY_PORT, &["--model", "/nowhere/model.gguf"]);
    assert_refused(&output, &["/nowhere/model.gguf"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        !folder.path().join("data").exists(),
        "a cluster was founded for it"
    );
    let output = up(&folder, ANY_PORT, &["--model", "no-such-name"]);
    assert_refused(&output, &["no-such-name"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("no-such-name").count(), 1, "{errors}");
}

#[test]
fn without_authentication_only_loopback_is_served() {
    let folder = TempFolder::new();
    let output = up(
        &folder,
        "0.0.0.0:0",
        &["--model", text(model_path()), "--no-auth"],
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-auth"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn arguments_that_cannot_be_meant_are_wrong_usage() {
    for arguments in [
        vec!["--no-such-flag"],
        vec!["--tp", "0"],
        vec!["--threads", "100000"],
        vec!["--cpu-level", "foo", "--print-config"],
        vec!["--no-auth=nope", "--print-config"],
    ] {
        let output = run_to_end(&[&["up"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// What `up --print-config` does with this in its environment and this file.
fn printed_config(no_auth: &str, config: &Path) -> std::process::Output {
    let mut command = std::process::Command::new(tests::cluster_binary());
    command.args(["up", "--print-config", "--json", "--config", text(config)]);
    command.env("CLUSTER_NO_AUTH", no_auth);
    command.output().expect("the cluster binary runs")
}

#[test]
fn a_value_of_the_environment_that_cannot_be_meant_is_told_with_its_variable() {
    for (variable, value) in [
        ("CLUSTER_THREADS", "x"),
        ("CLUSTER_THREADS", "0"),
        ("CLUSTER_TP", "0"),
        ("CLUSTER_CPU_LEVEL", "foo"),
        ("CLUSTER_LOG_FORMAT", "xml"),
        ("CLUSTER_STORE_MAX", "many"),
    ] {
        let mut command = std::process::Command::new(tests::cluster_binary());
        let output = command
            .args(["up", "--print-config"])
            .env(variable, value)
            .output();
        let output = output.expect("the cluster binary runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variable}: {errors}");
        assert!(errors.contains(variable), "{errors}");
    }
}

#[test]
fn the_environment_opens_a_node_only_in_plain_words_and_beats_the_file() {
    let folder = TempFolder::new();
    let config = folder.path().join("cluster.toml");
    fs::write(&config, "no_auth = true\n").expect("the folder is ours");
    for word in ["nope", "maybe", ""] {
        let output = printed_config(word, &config);
        assert_eq!(output.status.code(), Some(2), "{word}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains("true, false, 1, 0, yes, no, on or off"),
            "{errors}"
        );
    }
    for (word, value) in [
        ("false", "false"),
        ("0", "false"),
        ("off", "false"),
        ("yes", "true"),
    ] {
        let output = printed_config(word, &config);
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let expected = serde_json::json!({"value": value, "origin": "environment"});
        assert_eq!(printed["no_auth"], expected, "{word}");
    }
}

#[test]
fn without_a_network_and_without_a_model_one_line_says_what_to_do() {
    let folder = TempFolder::new();
    let (data, store) = (folder.path().join("data"), folder.path().join("store"));
    let mut command = std::process::Command::new(tests::cluster_binary());
    command.args([
        "up",
        "--http",
        "127.0.0.1:0",
        "--data-dir",
        text(&data),
        "--store",
        text(&store),
    ]);
    // Nothing listens there, and pip finds no index either.
    command
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
    command
        .env("PIP_RETRIES", "0")
        .env("PIP_NO_CACHE_DIR", "1")
        .env("PIP_CONFIG_FILE", "/dev/null");
    command
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("HTTPS_PROXY", "http://127.0.0.1:9");
    command
        .env("http_proxy", "http://127.0.0.1:9")
        .env("https_proxy", "http://127.0.0.1:9");
    let output = command.output().expect("the cluster binary runs");
    assert_refused(&output, &["smollm2-135m", "--model"]);
    let left: Vec<_> = files_under(&store)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "gguf"))
        .collect();
    assert!(left.is_empty(), "half-written: {left:?}");
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files_under(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn endless_stream(node: &Node) -> tests::Stream {
    let mut stream = node.client().stream(
        "/v1/completions",
        json!({"prompt": "Go on", "max_tokens": 8000, "ignore_eos": true}),
    );
    assert!(stream.next().is_some(), "a first token");
    stream
}

#[test]
fn ctrl_c_drains_and_ends_within_five_seconds() {
    let mut node = Node::start();
    let stream = endless_stream(&node);
    let children = node.children();
    node.signal("INT");
    // A client that is cut off hears why.
    let last = stream.last().expect("an event");
    assert_eq!(last["error"]["type"], "service_unavailable_error", "{last}");
    // Two seconds of grace for a busy machine.
    let status = node.wait(Duration::from_secs(7)).expect("it ends");
    assert!(status.success(), "{status}\n{}", node.log());
    assert!(!node.log().contains("shutdown"), "{}", node.log());
    assert_all_gone(&children);
}

#[test]
fn an_idle_node_ends_at_once() {
    let mut node = Node::start();
    node.signal("INT");
    assert!(node.wait(Duration::from_secs(3)).expect("it ends").success());
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let mut node = Node::start();
    let _stream = endless_stream(&node);
    node.signal("INT");
    std::thread::sleep(Duration::from_millis(200));
    if node.wait(Duration::ZERO).is_none() {
        node.signal("INT");
    }
    assert!(node.wait(Duration::from_secs(2)).is_some(), "it ends at once");
}

#[test]
fn the_shard_host_dies_with_its_node() {
    let mut node = Node::start();
    let children = node.children();
    assert!(!children.is_empty(), "a shard host");
    node.signal("KILL");
    node.wait(Duration::from_secs(5)).expect("it is dead");
    assert_all_gone(&children);
}

fn assert_all_gone(processes: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes.iter().any(|id| is_alive(*id)) {
        assert!(Instant::now() < deadline, "still there: {processes:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A zombie holds no memory; who adopts it in a container may never bury it.
fn is_alive(process_id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process_id}/stat")).unwrap_or_default();
    status
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_stream_survives_the_death_of_its_shard_host_with_the_same_tokens() {
    let node = Node::start();
    let body = json!({"prompt": "The sea was calm", "max_tokens": 300, "ignore_eos": true, "temperature": 0.8, "seed": 7});
    let expected = node.client().complete(body.clone())["choices"][0]["text"].clone();
    let mut stream = node.client().stream("/v1/completions", body);
    let mut text = String::new();
    for _ in 0..5 {
        text += event_text(&stream.next().expect("a token"));
    }
    node.children().into_iter().for_each(|host| signal(host, "KILL"));
    for event in &mut stream {
        assert!(event.get("error").is_none(), "{event}");
        text += event_text(&event);
    }
    assert!(stream.ended_properly(), "the stream was cut");
    assert_eq!(expected, json!(text));
}

fn event_text(event: &Value) -> &str {
    event["choices"][0]["text"].as_str().unwrap_or_default()
}

#[test]
fn status_tells_what_runs() {
    let node = Node::start();
    let output = run_to_end(&["status", "--json", "--data-dir", text(node.data_folder())]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert!(status.to_string().contains(tests::MODEL), "{status}");
}

#[test]
fn how_fast_it_will_be_is_said_with_the_reason() {
    let node = Node::start();
    // On a machine that is busy with something else it may be that it was not measured; that is said then.
    let is_speed = |line: &str| line.starts_with("speed") && line.contains("measured");
    // That it is ready comes through another pipe.
    until("it says how fast it will be", Duration::from_secs(10), || {
        node.log().lines().any(is_speed)
    });
}

#[test]
fn a_key_outlives_a_restart_and_is_shown_once() {
    let folder = TempFolder::new();
    let first = NodeOptions::new().data(folder.path()).start();
    let key = first.key().expect("shown at first start").to_owned();
    drop(first);
    let second = NodeOptions::new().data(folder.path()).start();
    assert_eq!(second.key(), None);
    assert_eq!(second.client_with_key(Some(&key)).get("/v1/models").status, 200);
    assert_eq!(
        second.client_with_key(Some("wrong")).get("/v1/models").status,
        401
    );
    assert_eq!(second.client_with_key(None).get("/v1/models").status, 401);
    assert_eq!(second.client_with_key(None).get("/health").status, 200);
}

#[test]
fn two_nodes_do_not_share_a_data_folder() {
    let node = Node::start();
    let store = tests::store();
    let output = run_to_end(&[
        "up",
        "--http",
        "127.0.0.1:0",
        "--data-dir",
        text(node.data_folder()),
        "--store",
        text(&store),
        "--model",
        text(model_path()),
    ]);
    assert_refused(&output, &[text(node.data_folder())]);
}

#[test]
fn logs_hold_no_prompt_and_every_answer_has_a_request_id() {
    let node = NodeOptions::new().with(&[]).start();
    let answer = node.client().post(
        "/v1/completions",
        &json!({"model": tests::MODEL, "prompt": "xylophone quartz", "max_tokens": 2, "ignore_eos": true}),
    );
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
    assert!(!node.log().contains("xylophone"), "{}", node.log());
}
