//! Where our dependencies come from and under what terms, by the rules in `deny.toml`.
//!
//! `cargo deny` checks the same and advisories too; it takes longer to build than the project, so the tests do not
//! ask for it.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn rules() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml");
    std::fs::read_to_string(path)
        .expect("deny.toml")
        .parse()
        .expect("valid TOML")
}

fn texts(value: &toml::Value) -> Vec<String> {
    let items = value.as_array().expect("a list");
    items
        .iter()
        .map(|item| {
            item.get("crate")
                .unwrap_or(item)
                .as_str()
                .expect("a text")
                .to_owned()
        })
        .collect()
}

/// All crates that a build for this machine's kind uses, tests included.
fn packages() -> Vec<Value> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        &host,
    ]);
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let used = metadata["resolve"]["nodes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|node| node["id"].clone());
    let used: Vec<Value> = used.collect();
    let all = metadata["packages"].as_array().expect("a list").iter();
    all.filter(|package| used.contains(&package["id"]))
        .cloned()
        .collect()
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

#[test]
fn every_licence_is_one_we_may_use() {
    let rules = rules();
    for package in packages() {
        let allowed = allowed_licences(&rules, text(&package, "name"));
        let licence = text(&package, "license");
        assert!(
            permits(licence, &allowed),
            "{}: {licence:?} is not among {allowed:?}",
            package["name"]
        );
    }
}

/// For all, and by exception for this crate.
fn allowed_licences(rules: &toml::Table, name: &str) -> Vec<String> {
    let licences = &rules["licenses"];
    let exceptions = licences["exceptions"].as_array().expect("a list").iter();
    let mine = exceptions.filter(|exception| exception["crate"].as_str() == Some(name));
    mine.map(|exception| &exception["allow"])
        .chain([&licences["allow"]])
        .flat_map(texts)
        .collect()
}

#[test]
fn every_crate_comes_from_the_registry_or_from_here() {
    for package in packages() {
        let source = text(&package, "source");
        let known = source.is_empty() || source == "registry+https://github.com/rust-lang/crates.io-index";
        assert!(known, "{} comes from {source}", package["name"]);
    }
}

#[test]
fn nothing_needs_more_than_a_c_compiler() {
    let banned = texts(&rules()["bans"]["deny"]);
    for package in packages() {
        assert!(
            !banned.iter().any(|name| name == text(&package, "name")),
            "{} is banned",
            package["name"]
        );
    }
}

/// Does an SPDX expression let us choose among `allowed`? `/` is the old way to write `OR`.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ");
    let words = expression.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let (permitted, rest) = alternatives(&words, allowed);
    permitted && rest.is_empty()
}

/// `a OR b …`: any of them will do.
fn alternatives<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut permitted, mut rest) = conditions(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (one, after) = conditions(more, allowed);
        (permitted, rest) = (permitted || one, after);
    }
    (permitted, rest)
}

/// `a AND b …`: all of them bind.
fn conditions<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut permitted, mut rest) = licence(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (one, after) = licence(more, allowed);
        (permitted, rest) = (permitted && one, after);
    }
    (permitted, rest)
}

fn licence<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let is_allowed = |name: &str| allowed.iter().any(|licence| licence == name);
    match words {
        ["(", inner @ ..] => match alternatives(inner, allowed) {
            (permitted, [")", rest @ ..]) => (permitted, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => (is_allowed(&format!("{name} WITH {exception}")), rest),
        [name, rest @ ..] => (is_allowed(name), rest),
        [] => (false, words),
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = [
        "MIT".to_owned(),
        "Apache-2.0".to_owned(),
        "Apache-2.0 WITH LLVM-exception".to_owned(),
    ];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-2.0",
        "(MIT OR GPL-3.0) AND Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND GPL-2.0",
        "Apache-2.0 WITH Classpath",
        "(MIT",
    ] {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}
