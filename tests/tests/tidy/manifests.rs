//! What each crate depends on.

/// Our crates, and which of ours each may know.
const DIRECTIONS: [(&str, &[&str]); 7] = [
    ("proto", &[]),
    ("kernels", &[]),
    ("coordinator", &["proto"]),
    ("shard", &["proto", "kernels"]),
    ("sim", &["proto", "coordinator"]),
    ("node", &["proto", "kernels", "coordinator", "shard", "sim"]),
    (
        "tests",
        &["proto", "kernels", "coordinator", "shard", "sim", "node"],
    ),
];

/// Crates that bring a runtime, a socket or a thread with them.
const RUNTIMES: [&str; 9] = [
    "tokio",
    "ractor",
    "quinn",
    "axum",
    "openraft",
    "hyper",
    "hyper-util",
    "async-std",
    "rayon",
];

pub struct Manifest {
    path: String,
    room: String,
    dependencies: Vec<String>,
}

impl Manifest {
    pub fn new(path: &str, text: &str) -> Manifest {
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut dependencies = Vec::new();
        collect_dependencies(&table, &mut dependencies);
        let folder = path.trim_end_matches("/Cargo.toml");
        // A fuzz crate exercises its room from outside.
        let room = if folder.ends_with("/fuzz") {
            "tests"
        } else {
            folder
        };
        Manifest {
            path: path.to_owned(),
            room: room.to_owned(),
            dependencies,
        }
    }

    pub fn wrong_directions(&self) -> Vec<String> {
        let allowed = DIRECTIONS.iter().find(|(room, _)| *room == self.room);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{}: a room that DIRECTIONS does not know", self.path));
        let may_run = matches!(self.room.as_str(), "node" | "tests");
        let wrong = |name: &&String| {
            is_ours(name) && !allowed.contains(&name.as_str())
                || RUNTIMES.contains(&name.as_str()) && !may_run
        };
        self.dependencies
            .iter()
            .filter(wrong)
            .map(|name| format!("{} → {name}", self.path))
            .collect()
    }

    /// Dependencies that `explanations` does not name in backquotes.
    pub fn unexplained(&self, explanations: &str) -> Vec<String> {
        let missing = |name: &&String| !is_ours(name) && !explanations.contains(&format!("`{name}`"));
        self.dependencies
            .iter()
            .filter(missing)
            .map(|name| format!("{}: {name}", self.path))
            .collect()
    }
}

fn is_ours(name: &str) -> bool {
    DIRECTIONS.iter().any(|(room, _)| *room == name)
}

/// From `[dependencies]`, `[dev-dependencies]`, `[build-dependencies]`, and the same for single targets.
fn collect_dependencies(table: &toml::Table, found: &mut Vec<String>) {
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            found.extend(inner.keys().cloned());
        } else if key == "target" || key.starts_with("cfg(") {
            collect_dependencies(inner, found);
        }
    }
}
