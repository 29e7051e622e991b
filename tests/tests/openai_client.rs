//! The official `openai` Python client, installed here and unchanged, against a running node.

use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{MODEL, Node};

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

#[test]
fn the_official_client_works_unchanged() {
    let python = tests::python(&suite().join("requirements.txt"));
    let node = Node::start();
    let output = Command::new(python)
        .arg(suite().join("openai_suite.py"))
        .arg(format!("http://{}/v1", node.address()))
        .args([node.key().expect("a key"), MODEL])
        .output()
        .expect("python runs");
    let report = String::from_utf8_lossy(&output.stdout);
    println!("{report}");
    assert!(
        output.status.success(),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
