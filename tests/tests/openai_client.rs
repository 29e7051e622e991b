//! The official `openai` client for Python, installed here and unchanged, against a running node.

use tests::Suite;

#[test]
fn the_official_client_works_unchanged() {
    Suite::python("openai").passes();
}
