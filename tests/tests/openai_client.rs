//! The official `openai` Python client, installed here and unchanged, against a running node.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{MODEL, Node};

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// A virtual environment below the target folder with what `requirements.txt` names; made once for each version of it.
fn python() -> PathBuf {
    let requirements = suite().join("requirements.txt");
    let target = tests::store()
        .parent()
        .expect("the store lies in the target folder")
        .to_owned();
    let folder = target.join("openai-venv");
    let lock = File::create(target.join("openai-venv.lock")).expect("a lock file");
    lock.lock().expect("one at a time");
    let wanted = fs::read(&requirements).expect("requirements.txt");
    let installed = folder.join("installed.txt");
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return folder.join("bin/python");
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder));
    run(Command::new(folder.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "-r"])
        .arg(&requirements));
    fs::write(installed, wanted).expect("room for a note");
    folder.join("bin/python")
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn the_official_client_works_unchanged() {
    let python = python();
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
