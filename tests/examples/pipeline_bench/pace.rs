//! How much of a core a node may have.

use std::path::{Path, PathBuf};

pub enum Pace {
    Whole,
    /// What this control group allows. Processes outside it are in its parent.
    Within(PathBuf),
}

impl Pace {
    /// What `start` starts is held to it for good; this process only until then.
    pub fn of<T>(&self, start: impl FnOnce() -> T) -> T {
        let Pace::Within(group) = self else {
            return start();
        };
        enter(group);
        let started = start();
        enter(group.parent().expect("a control group has a parent"));
        started
    }
}

fn enter(group: &Path) {
    let processes = group.join("cgroup.procs");
    std::fs::write(&processes, std::process::id().to_string())
        .unwrap_or_else(|error| panic!("no way into {}: {error}", processes.display()));
}
