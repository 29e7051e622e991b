//! Other people's programs that speak with a node, installed below the target folder: once for each version of the file
//! that names them, whichever test process comes first.

use crate::binary::target_folder;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of `tests/`, such as `python`.
pub fn suites(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(language)
}

/// The `bin` folder of a virtual environment with what `tests/python/requirements/{name}.txt` names.
///
/// # Panics
/// When it cannot be installed.
pub fn python_programs(name: &str) -> PathBuf {
    let requirements = suites("python").join(format!("requirements/{name}.txt"));
    let wanted = read(&requirements);
    let folder = made_once(&format!("python-{name}"), &wanted, |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder));
        // What is run once or twice need not be compiled ahead.
        run(Command::new(folder.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-compile", "-r"])
            .arg(&requirements));
    });
    folder.join("bin")
}

/// A folder with `tests/javascript/` and the packages that its package-lock.json names, and the `node` to run it with.
///
/// # Panics
/// When it cannot be installed.
pub fn javascript() -> (PathBuf, PathBuf) {
    let programs = python_programs("node");
    let lists = ["package.json", "package-lock.json"].map(|name| suites("javascript").join(name));
    let wanted = lists.each_ref().map(|list| read(list)).concat();
    let folder = made_once("javascript", &wanted, |folder| {
        fs::create_dir_all(folder).expect("room for a folder");
        lists.iter().for_each(|list| copy_into(folder, list));
        run(Command::new(programs.join("npm"))
            .args(["ci", "--silent", "--no-audit", "--no-fund"])
            .current_dir(folder));
    });
    // Packages are looked for beside the file that imports them.
    for entry in fs::read_dir(suites("javascript")).expect("tests/javascript") {
        copy_into(&folder, &entry.expect("a readable folder").path());
    }
    (folder, programs.join("node"))
}

/// Where Hugging Face's libraries keep what they know (`HF_HOME`), with the model's tokenizer in it.
///
/// # Panics
/// When it cannot be written.
pub fn hugging_face_home() -> PathBuf {
    let script = suites("goldens").join("tokenizer.py");
    let wanted = [
        read(&script),
        read(&suites("python").join("requirements/tokenizer.txt")),
    ]
    .concat();
    made_once("huggingface", &wanted, |home| {
        run(Command::new(python_programs("tokenizer").join("python"))
            .arg(&script)
            .arg(crate::model_path())
            .arg(snapshot_in(home)));
        let branches = snapshot_in(home).join("../../refs");
        fs::create_dir_all(&branches).expect("room for a folder");
        fs::write(branches.join("main"), SNAPSHOT).expect("room for a name");
    })
}

/// The model's tokenizer as a folder. Its name in Hugging Face's cache is [`TOKENIZER_NAME`].
pub fn tokenizer_folder() -> PathBuf {
    snapshot_in(&hugging_face_home())
}

/// By this name the tokenizer is found without a network, as if it had been downloaded.
pub const TOKENIZER_NAME: &str = "local/smollm2-135m";

/// Where the branch `main` stands. Hugging Face would have the hash of a commit here.
const SNAPSHOT: &str = "0000000000000000000000000000000000000000";

fn snapshot_in(home: &Path) -> PathBuf {
    let repository = format!("hub/models--{}", TOKENIZER_NAME.replace('/', "--"));
    home.join(repository).join("snapshots").join(SNAPSHOT)
}

/// A folder below the target folder that `make` fills, unless it holds what was made from the same `wanted` already.
///
/// # Panics
/// When there is no place for it.
pub fn made_once(name: &str, wanted: &[u8], make: impl FnOnce(&Path)) -> PathBuf {
    let clients = target_folder().join("clients");
    fs::create_dir_all(&clients).expect("room for a folder");
    let lock = File::create(clients.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("one at a time");
    let folder = clients.join(name);
    // Written last: a folder without it was not finished.
    let note = clients.join(format!("{name}.made-from"));
    if folder.is_dir() && fs::read(&note).is_ok_and(|found| found == wanted) {
        return folder;
    }
    let _ = fs::remove_file(&note);
    let _ = fs::remove_dir_all(&folder);
    make(&folder);
    fs::write(note, wanted).expect("room for a note");
    folder
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn copy_into(folder: &Path, file: &Path) {
    let name = file.file_name().expect("a file has a name");
    fs::copy(file, folder.join(name)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
