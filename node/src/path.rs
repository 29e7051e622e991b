//! Paths in words.

use std::path::{self, Path, PathBuf};

/// What a person typed where no shell has read it: `~/` is the home folder.
pub fn of_person(typed: &str) -> PathBuf {
    let below_home = typed.strip_prefix("~/").zip(std::env::home_dir());
    below_home.map_or_else(|| typed.into(), |(rest, home)| home.join(rest))
}

/// Where a file was looked for: what is relative depends on where the command was started.
pub fn in_full(path: &Path) -> PathBuf {
    path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_folder_at_the_beginning_alone() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(of_person("~/a/b.json"), home.join("a/b.json"));
        assert_eq!(of_person("a/~/b"), Path::new("a/~/b"));
        assert_eq!(of_person("~other/b"), Path::new("~other/b"));
    }
}
