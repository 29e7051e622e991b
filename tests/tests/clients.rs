//! Real clients, installed from PyPI and npm and unchanged, against a running node.
//!
//!     cargo test -p tests --features clients --test clients

use tests::{Suite, TOKENIZER_NAME, suites, tokenizer_folder};

#[test]
fn the_official_client_for_javascript() {
    Suite::javascript("openai").passes();
}

#[test]
fn litellm() {
    // Its list of prices would be fetched from the network.
    Suite::python("litellm")
        .environment("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .passes();
}

#[test]
fn langchain() {
    Suite::python("langchain")
        .environment("LANGSMITH_TRACING", "false")
        .passes();
}

/// Scores of the served model and of the same weights in transformers.
#[test]
fn lm_eval() {
    Suite::python("lm_eval")
        .with_tokenizer()
        .argument(suites("python").join("evaluation"))
        .argument(suites("goldens").join("evaluation.json"))
        .argument(tokenizer_folder())
        .passes();
}

#[test]
fn guidellm() {
    Suite::python("guidellm")
        .with_tokenizer()
        .argument(tokenizer_folder())
        .passes();
}

/// Offline it knows tokenizers by name alone.
#[test]
fn aiperf() {
    Suite::python("aiperf")
        .with_tokenizer()
        .argument(TOKENIZER_NAME)
        .passes();
}
