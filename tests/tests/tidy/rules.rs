//! Which words belong to which room.

use crate::source::Source;

/// Words that may stand only in some files. Comments, strings, tests and benches are not looked at.
pub struct Rule {
    pub reason: &'static str,
    words: &'static [&'static str],
    /// Beginnings of the paths where the words may stand.
    allowed: &'static [&'static str],
    /// Where not even tests are exempt.
    tests: Tests,
    /// A file with exactly one violation.
    pub breaks: (&'static str, &'static str),
    /// A file that looks like a violation and is none.
    pub keeps: (&'static str, &'static str),
}

#[derive(Clone, Copy)]
enum Tests {
    Exempt,
    Included,
}

impl Rule {
    pub fn violations(&self, source: &Source) -> Vec<String> {
        if self.allowed.iter().any(|room| source.path.starts_with(room)) {
            return Vec::new();
        }
        let code = match self.tests {
            Tests::Exempt => source.product_code(),
            Tests::Included => &source.code,
        };
        code.lines()
            .enumerate()
            .filter_map(|(index, line)| {
                let word = self.words.iter().find(|word| contains_word(line, word))?;
                Some(format!("{}:{}: {word}", source.path, index + 1))
            })
            .collect()
    }
}

pub fn all() -> [Rule; 9] {
    [
        Rule {
            reason: "unsafe code lives only in kernels/, shard/src/exchange/ and node/src/os/",
            words: &["unsafe"],
            allowed: &["kernels/", "shard/src/exchange/", "node/src/os/"],
            tests: Tests::Exempt,
            breaks: ("shard/src/kv.rs", "fn f() { unsafe { g() } }"),
            keeps: (
                "proto/src/lib.rs",
                "#![forbid(unsafe_code)] // unsafe\nconst WORD: &str = \"unsafe\";",
            ),
        },
        Rule {
            reason: "clock, environment and operating-system randomness are read only in node/",
            words: &[
                "Instant::now",
                "SystemTime",
                "std::env",
                "env::var",
                "env::args",
                "getrandom",
            ],
            allowed: &["node/"],
            tests: Tests::Exempt,
            breaks: ("coordinator/src/engine/mod.rs", "let now = Instant::now();"),
            keeps: (
                "sim/src/lib.rs",
                "/* std::env */ const HOME: &str = env!(\"HOME\");",
            ),
        },
        Rule {
            reason: "files, sockets and processes are opened only in node/",
            words: &[
                "std::fs",
                "std::net",
                "std::process",
                "File::open",
                "process::Command",
            ],
            allowed: &["node/"],
            tests: Tests::Exempt,
            breaks: ("shard/src/weights.rs", "use std::fs;"),
            keeps: (
                "shard/src/weights.rs",
                "#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
            ),
        },
        Rule {
            reason: "threads are made only in node/ and in kernels/src/cpu/team.rs",
            words: &["thread::spawn", "thread::Builder", "thread::scope"],
            allowed: &["node/", "kernels/src/cpu/team.rs"],
            tests: Tests::Exempt,
            breaks: ("kernels/src/cpu/mod.rs", "std::thread::scope(|scope| ());"),
            keeps: ("kernels/tests/twins/main.rs", "std::thread::spawn(|| ());"),
        },
        Rule {
            reason: "deciders and the simulator have no hash order: BTreeMap, or a Vec",
            words: &["HashMap", "HashSet"],
            allowed: &["node/", "shard/", "kernels/", "proto/", "tests/"],
            tests: Tests::Exempt,
            breaks: ("coordinator/src/router/mod.rs", "use std::collections::HashMap;"),
            keeps: ("node/src/main.rs", "use std::collections::HashMap;"),
        },
        Rule {
            reason: "only node/ waits: no async elsewhere",
            words: &["async", "await"],
            allowed: &["node/", "tests/"],
            tests: Tests::Exempt,
            breaks: ("shard/src/rank.rs", "pub async fn step() {}"),
            keeps: ("shard/src/rank.rs", "/// Not async.\npub fn step() {}"),
        },
        Rule {
            reason: "nothing is left to be done later",
            words: &["todo!", "unimplemented!", "dbg!"],
            allowed: &[],
            tests: Tests::Included,
            breaks: ("tests/src/lib.rs", "fn f() { todo!() }"),
            keeps: ("tests/src/lib.rs", "fn todo() {} // todo!()"),
        },
        Rule {
            reason: "what nobody calls is not kept",
            words: &["allow(dead_code)", "expect(dead_code)"],
            allowed: &[],
            // Modules that several test binaries share are not used whole by each.
            tests: Tests::Exempt,
            breaks: ("node/src/main.rs", "#[allow(dead_code)]\nfn f() {}"),
            keeps: ("coordinator/tests/shell/mod.rs", "#![allow(dead_code)]"),
        },
        Rule {
            reason: "a test that is not run is no test",
            words: &["#[ignore"],
            allowed: &[],
            tests: Tests::Included,
            breaks: ("tests/tests/up.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"),
            keeps: ("tests/tests/up.rs", "fn ignore() {}"),
        },
    ]
}

/// Is `word` in the line and not a part of a longer name?
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_name) && (!word.ends_with(is_name) || !after.is_some_and(is_name))
    })
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}
