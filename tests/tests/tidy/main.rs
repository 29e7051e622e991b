//! The rules of docs/ARCHITECTURE.md that a machine can check, so that they cannot rot.
//!
//! Every rule is also run on a sample that breaks it: a rule that cannot fail proves nothing.

mod manifests;
mod rules;
mod source;
mod tree;

use manifests::Manifest;
use rules::Rule;
use source::Source;
use tree::Tree;

/// Rust files longer than this should have been two.
const FILE_LINES_MAX: usize = 600;
/// The longest function there is. A ratchet: lower it when you can, never raise it.
const FUNCTION_LINES_MAX: usize = 70;

fn assert_none(what: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}

#[test]
fn words_that_touch_the_outside_stay_in_their_rooms() {
    let tree = Tree::of_workspace();
    for rule in rules::all() {
        let found = tree
            .sources()
            .flat_map(|source| rule.violations(source))
            .collect();
        assert_none(rule.reason, found);
    }
}

#[test]
fn every_rule_about_words_can_fail() {
    for rule in rules::all() {
        let Rule {
            breaks: (path, text), ..
        } = rule;
        assert_eq!(
            rule.violations(&Source::new(path, text)).len(),
            1,
            "{}",
            rule.reason
        );
        let (path, text) = rule.keeps;
        assert_none(rule.reason, rule.violations(&Source::new(path, text)));
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let found = Tree::of_workspace()
        .manifests()
        .flat_map(|manifest| manifest.wrong_directions())
        .collect();
    assert_none("a crate depends on one that it must not know", found);
}

#[test]
fn a_dependency_in_the_wrong_direction_is_found() {
    let ours = Manifest::new(
        "coordinator/Cargo.toml",
        "[dependencies]\nnode.workspace = true\nproto.workspace = true",
    );
    assert_eq!(ours.wrong_directions().len(), 1);
    let runtime = Manifest::new(
        "shard/Cargo.toml",
        "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"",
    );
    assert_eq!(runtime.wrong_directions().len(), 1);
    let fine = Manifest::new(
        "node/Cargo.toml",
        "[dependencies]\ntokio = \"1\"\nshard.workspace = true",
    );
    assert_none("node may know everything", fine.wrong_directions());
}

#[test]
fn every_direct_dependency_is_explained() {
    let tree = Tree::of_workspace();
    let explanations = tree.text("docs/dependencies.md");
    let found = tree
        .manifests()
        .flat_map(|manifest| manifest.unexplained(&explanations))
        .collect();
    assert_none("not in docs/dependencies.md", found);
}

#[test]
fn an_unexplained_dependency_is_found() {
    let manifest = Manifest::new(
        "node/Cargo.toml",
        "[dependencies]\nserde = \"1\"\ntoml = \"1\"\nproto.workspace = true",
    );
    assert_eq!(
        manifest.unexplained("* `serde`: JSON"),
        vec!["node/Cargo.toml: toml"]
    );
}

#[test]
fn files_and_functions_stay_short() {
    let tree = Tree::of_workspace();
    let files = tree
        .sources()
        .filter_map(|source| source.too_long(FILE_LINES_MAX))
        .collect();
    assert_none("files too long", files);
    let functions = tree
        .sources()
        .flat_map(|source| source.long_functions(FUNCTION_LINES_MAX))
        .collect();
    assert_none("functions too long", functions);
}

#[test]
fn a_long_file_and_a_long_function_are_found() {
    let body = "    step();\n".repeat(9);
    let text =
        format!("fn short() {{}}\nfn long<T>(x: [u8; 3]) -> T\nwhere\n    T: Default,\n{{\n{body}}}\n");
    let source = Source::new("node/src/lib.rs", &text);
    assert_eq!(
        source.long_functions(13),
        vec!["node/src/lib.rs:2: long has 14 lines".to_owned()]
    );
    assert_none("14 lines are allowed", source.long_functions(14));
    assert!(source.too_long(14).is_some());
    assert!(source.too_long(15).is_none());
}

#[test]
fn pure_crates_forbid_unsafe_code() {
    let tree = Tree::of_workspace();
    for room in ["proto", "coordinator", "sim"] {
        let text = tree.text(&format!("{room}/src/lib.rs"));
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{room}/src/lib.rs lacks #![forbid(unsafe_code)]"
        );
    }
}

#[test]
fn nothing_committed_names_a_place_on_somebodys_machine() {
    let found = Tree::of_workspace()
        .texts()
        .flat_map(|(path, text)| tree::foreign_paths(path, text))
        .collect();
    assert_none("paths outside the repository", found);
}

#[test]
fn a_path_on_somebodys_machine_is_found() {
    let bad = format!("ok\nsee /{}/notes.md", "work");
    assert_eq!(
        tree::foreign_paths("docs/x.md", &bad),
        vec!["docs/x.md:2".to_owned()]
    );
    assert_none(
        "a word is no path",
        tree::foreign_paths("docs/x.md", "net/work/load, framework/"),
    );
}
