//! Python with the packages that a test needs, and folders that are filled once.

use crate::store;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter of a virtual environment below the target folder with what `requirements` names; made once for each
/// version of that file.
///
/// # Panics
/// When it cannot be made.
pub fn python(requirements: &Path) -> PathBuf {
    let folder = kept_folder("venv", requirements, |folder| {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder));
        let pip = ["-m", "pip", "install", "--quiet", "-r"];
        run(Command::new(folder.join("bin/python"))
            .args(pip)
            .arg(requirements));
    });
    folder.join("bin/python")
}

/// A folder below the target folder that `fill` fills; kept until the file `wanted` changes. `purpose` and the file's
/// name make its name.
///
/// # Panics
/// When there is no place for it.
pub fn kept_folder(purpose: &str, wanted: &Path, fill: impl FnOnce(&Path)) -> PathBuf {
    let store = store();
    let target = store.parent().expect("the store lies in the target folder");
    let name = wanted
        .file_stem()
        .expect("a file")
        .to_str()
        .expect("a readable name");
    let folder = target.join(format!("{name}-{purpose}"));
    fs::create_dir_all(&folder).expect("a folder");
    let lock = File::create(target.join(format!("{name}-{purpose}.lock"))).expect("a lock file");
    lock.lock().expect("one at a time");
    let content = fs::read(wanted).unwrap_or_else(|error| panic!("{}: {error}", wanted.display()));
    let note = folder.join("filled-for.txt");
    if !fs::read(&note).is_ok_and(|found| found == content) {
        fill(&folder);
        fs::write(note, content).expect("room for a note");
    }
    folder
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
