//! The program under test and the model it serves: built and fetched once for all test processes.

use crate::MODEL;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The `cluster` binary: `CLUSTER_BINARY`, or built by cargo in the profile of this test.
///
/// # Panics
/// When it does not build.
pub fn cluster_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("CLUSTER_BINARY") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

/// `cargo test` does not build the binary of another package, so it is asked for here; cargo does nothing when it is
/// up to date, and its lock keeps test processes apart. With `--workspace` and a test of it, so that dependencies have the
/// features that `cargo test --workspace` gave them, those that only tests ask for too, and are not built a second time.
fn build() -> PathBuf {
    let folder = profile_folder();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--workspace", "--bin", "cluster"]);
    command.args(["--test", "wire_types"]);
    command.arg("--target-dir").arg(target_folder());
    if folder.ends_with("release") {
        command.arg("--release");
    }
    for (name, _) in std::env::vars_os() {
        if is_of_this_package(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    let status = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the cluster binary does not build");
    folder.join("cluster")
}

/// What cargo tells a test of its package. Build scripts that look at it (ring's) would run anew, and what depends on them be
/// built a second time.
fn is_of_this_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"]
        .iter()
        .any(|of_package| variable.starts_with(of_package))
}

/// `target/debug` or `target/release`, whichever this test was built into.
fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a test lies in a folder");
    deps.parent()
        .expect("…/deps lies in the profile's folder")
        .to_owned()
}

/// The model store of all tests, kept between runs: `CLUSTER_TEST_STORE`, or a folder beside the build results.
pub fn store() -> PathBuf {
    match std::env::var_os("CLUSTER_TEST_STORE") {
        Some(path) => PathBuf::from(path),
        None => target_folder().join("test-store"),
    }
}

/// Where build results lie, and what tests keep between runs.
pub fn target_folder() -> PathBuf {
    profile_folder()
        .parent()
        .expect("profiles share a folder")
        .to_owned()
}

/// Where the model's file lies; fetched with `cluster pull` when it is not there yet.
///
/// # Panics
/// When it cannot be fetched: without it no end-to-end test means anything.
pub fn model_path() -> &'static Path {
    static MODEL_PATH: OnceLock<PathBuf> = OnceLock::new();
    MODEL_PATH.get_or_init(|| {
        let store = store();
        let output = run_to_end(&[
            "pull",
            MODEL,
            "--json",
            "--store",
            store.to_str().expect("a readable path"),
        ]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cluster pull {MODEL}: {errors}");
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("pull --json prints JSON");
        PathBuf::from(
            answer["path"]
                .as_str()
                .unwrap_or_else(|| panic!("no path in {answer}")),
        )
    })
}

/// Runs `cluster` with these arguments until it ends by itself, with nothing on its standard input.
pub fn run_to_end(arguments: &[&str]) -> Output {
    run_binary_to_end(cluster_binary(), arguments)
}

/// The same with another build of it.
pub(crate) fn run_binary_to_end(binary: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the cluster binary runs")
}
