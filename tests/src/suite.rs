//! A client's test suite, written in the client's own language, against a node of its own.

use crate::environment::{hugging_face_home, javascript, python_programs, suites};
use crate::{MODEL, Node, TempFolder};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// One suite and the program that runs it, with the client installed.
pub struct Suite {
    command: Command,
    more_arguments: Vec<OsString>,
}

impl Suite {
    /// `tests/python/{client}_suite.py`, run where `requirements/{client}.txt` is installed.
    pub fn python(client: &str) -> Suite {
        let programs = python_programs(client);
        let file = suites("python").join(format!("{client}_suite.py"));
        Suite::new(&programs.join("python"), &file).environment("PATH", programs_first(&programs))
    }

    /// `tests/javascript/{client}_suite.mjs`.
    pub fn javascript(client: &str) -> Suite {
        let (folder, node) = javascript();
        Suite::new(&node, &folder.join(format!("{client}_suite.mjs")))
    }

    fn new(program: &Path, file: &Path) -> Suite {
        let mut command = Command::new(program);
        command.arg(file);
        Suite {
            command,
            more_arguments: Vec::new(),
        }
    }

    /// A variable for the client.
    pub fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Suite {
        self.command.env(name, value);
        self
    }

    /// Hugging Face's libraries find the model's tokenizer, and look nothing up on the network.
    pub fn with_tokenizer(self) -> Suite {
        self.environment("HF_HOME", hugging_face_home())
            .environment("HF_HUB_OFFLINE", "1")
    }

    /// One more argument, after the node's address and key and the model's name.
    pub fn argument(mut self, value: impl AsRef<OsStr>) -> Suite {
        self.more_arguments.push(value.as_ref().to_owned());
        self
    }

    /// Starts a node and runs the suite against it.
    ///
    /// # Panics
    /// When a test of the suite fails; the message holds its report.
    pub fn passes(mut self) {
        let scratch = TempFolder::new();
        let node = Node::start();
        let output = self
            .command
            .arg(format!("http://{}/v1", node.address()))
            .args([node.key().expect("a key"), MODEL])
            .args(&self.more_arguments)
            .current_dir(scratch.path())
            .output()
            .expect("the suite runs");
        let report = String::from_utf8_lossy(&output.stdout);
        println!("{report}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{report}{errors}");
    }
}

/// A search path that finds an environment's own programs before the machine's.
fn programs_first(programs: &Path) -> OsString {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&others));
    std::env::join_paths(folders).expect("folders without a colon")
}
