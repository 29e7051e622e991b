//! All files of the workspace.

use crate::manifests::Manifest;
use crate::source::Source;
use std::fs;
use std::path::{Path, PathBuf};

pub struct Tree {
    texts: Vec<(String, String)>,
    sources: Vec<Source>,
}

impl Tree {
    pub fn of_workspace() -> Tree {
        let root = workspace_root();
        let mut texts = Vec::new();
        collect(&root, &root, &mut texts);
        assert!(
            texts.len() > 20,
            "only {} files under {}",
            texts.len(),
            root.display()
        );
        texts.sort();
        let sources = sources_of(&texts);
        Tree { texts, sources }
    }

    /// Path relative to the workspace, and content.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    pub fn manifests(&self) -> impl Iterator<Item = Manifest> {
        self.texts()
            .filter(|(path, _)| path.ends_with("/Cargo.toml"))
            .map(|(path, text)| Manifest::new(path, text))
    }

    pub fn text(&self, wanted: &str) -> String {
        let found = self.texts().find(|(path, _)| *path == wanted);
        found
            .unwrap_or_else(|| panic!("{wanted} is not there"))
            .1
            .to_owned()
    }
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .to_owned()
}

fn collect(root: &Path, folder: &Path, texts: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().expect("entries have names").to_string_lossy();
        if is_foreign(&name) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, texts);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root).expect("found under the root");
            texts.push((relative.to_string_lossy().into_owned(), text));
        }
    }
}

/// Build results, version control, fuzzing corpora and virtual environments are not ours to judge.
fn is_foreign(name: &str) -> bool {
    matches!(
        name,
        ".git" | "target" | "corpus" | "artifacts" | "venv" | ".venv" | "__pycache__"
    )
}

fn sources_of(texts: &[(String, String)]) -> Vec<Source> {
    let rust = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
    let mut sources: Vec<Source> = rust.map(|(path, text)| Source::new(path, text)).collect();
    let test_modules: Vec<String> = sources.iter().flat_map(test_module_paths).collect();
    for source in &mut sources {
        if test_modules
            .iter()
            .any(|path| source.path == format!("{path}.rs") || source.path.starts_with(&format!("{path}/")))
        {
            source.mark_as_test();
        }
    }
    sources
}

/// Paths, without `.rs`, of the modules that the file declares for tests only.
fn test_module_paths(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => folder,
        Some(_) | None => stem,
    };
    source
        .test_modules()
        .into_iter()
        .map(|module| format!("{folder}/{module}"))
        .collect()
}

/// Lines that name a folder which exists only on the machine of whoever wrote them.
pub fn foreign_paths(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let places = [
        format!("/{}/", "work"),
        format!("/{}/", "root"),
        format!("../{}/", "shared"),
    ];
    let names_a_place = |line: &str| places.iter().any(|place| names(line, place));
    let lines = text.lines().enumerate().filter(|(_, line)| names_a_place(line));
    lines.map(|(index, _)| format!("{path}:{}", index + 1)).collect()
}

fn names(line: &str, place: &str) -> bool {
    line.match_indices(place)
        .any(|(start, _)| !line[..start].ends_with(|letter: char| letter.is_alphanumeric()))
}
