//! The grammars of the families, followed byte by byte by the engine that they are written for.

use super::family::{Family, HERMES, LLAMA, MISTRAL};
use super::grammar::{CallCount, CallsForm, Presence, ReasoningFirst};
use super::tool::Tool;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

const HERMES_CALL: &str =
    "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": [\"x\", \"y\"]}}\n</tool_call>";
const HERMES_NEXT: &str = "\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
const LLAMA_CALL: &str = "{\"name\": \"f\", \"parameters\": {\"a\": 1}}";
const LLAMA_NEXT: &str = "; {\"name\": \"g\", \"parameters\": {}}";
const MISTRAL_CALL: &str = "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}]";

fn tools() -> [Tool; 2] {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.into(),
        parameters: parameters.as_object().unwrap().clone(),
    };
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let of_f = json!({
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": texts},
        "required": ["a"],
        "additionalProperties": false,
    });
    [tool("f", of_f), tool("g", json!({"type": "object"}))]
}

/// Whether `text` is a whole answer in this form.
fn is_answer(family: &dyn Family, form: &CallsForm, text: &str) -> bool {
    let factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
    let grammar = TopLevelGrammar::from_lark(family.grammar(form));
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    assert_eq!(matcher.get_error(), None, "{}", family.grammar(form));
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    matcher.try_consume_tokens(&tokens).unwrap() == tokens.len() && matcher.is_accepting().unwrap()
}

fn form<'a>(tools: &'a [Tool], presence: Presence, count: CallCount) -> CallsForm<'a> {
    CallsForm {
        tools,
        presence,
        count,
        reasoning: ReasoningFirst::No,
        special: &|_| None,
    }
}

/// The same call with arguments that its schema forbids.
fn spoilt(call: &str) -> String {
    call.replace("\"a\": 1", "\"a\": \"1\"")
}

const CALLS: [(&dyn Family, &str); 3] = [
    (&HERMES, HERMES_CALL),
    (&LLAMA, LLAMA_CALL),
    (&MISTRAL, MISTRAL_CALL),
];

#[test]
fn a_forced_answer_is_a_call_with_valid_arguments() {
    let tools = tools();
    let one = form(&tools, Presence::Forced, CallCount::One);
    for (family, call) in CALLS {
        assert!(is_answer(family, &one, call), "{call}");
        assert!(!is_answer(family, &one, &spoilt(call)), "{call}");
        assert!(!is_answer(family, &one, "Hello"));
    }
    let many = form(&tools, Presence::Forced, CallCount::OneOrMore);
    for (family, two) in [
        (&HERMES, format!("{HERMES_CALL}{HERMES_NEXT}")),
        (&LLAMA, format!("{LLAMA_CALL}{LLAMA_NEXT}")),
    ] {
        assert!(is_answer(family, &many, &two));
        assert!(!is_answer(family, &one, &two));
    }
}

#[test]
fn a_free_answer_is_text_in_which_calls_are_valid() {
    let tools = tools();
    let free = form(&tools, Presence::Free, CallCount::OneOrMore);
    for (family, call) in CALLS {
        assert!(is_answer(family, &free, "Hello <tool_\n [TOOL <|python"));
        assert!(is_answer(family, &free, ""));
        assert!(is_answer(family, &free, call), "{call}");
        assert!(!is_answer(family, &free, &spoilt(call)), "{call}");
    }
    assert!(is_answer(
        &HERMES,
        &free,
        &format!("So:\n{HERMES_CALL}{HERMES_NEXT}\nDone.")
    ));
    assert!(!is_answer(
        &HERMES,
        &free,
        &format!("So:\n{}\nDone.", spoilt(HERMES_CALL))
    ));
    assert!(!is_answer(&LLAMA, &free, " {\"x\": 1}"));
}

#[test]
fn an_answer_may_be_json_instead_of_calls() {
    let tools = tools();
    let schema = json!({"type": "object", "properties": {"y": {"type": "integer"}}, "required": ["y"]});
    let either = form(&tools, Presence::OrJson(schema.to_string()), CallCount::One);
    for (family, call) in CALLS.into_iter().filter(|(family, _)| family.marks_calls()) {
        assert!(is_answer(family, &either, call), "{call}");
        assert!(is_answer(family, &either, "{\"y\": 3}"));
        assert!(!is_answer(family, &either, "{\"y\": \"3\"}"));
    }
}

#[test]
fn reasoning_that_the_prompt_opened_comes_first() {
    let tools = tools();
    let mut opened = form(&tools, Presence::Forced, CallCount::One);
    opened.reasoning = ReasoningFirst::Opened;
    for (family, call) in CALLS {
        assert!(
            is_answer(family, &opened, &format!("Hm, a < b </th.\n</think>\n\n{call}")),
            "{call}"
        );
        assert!(!is_answer(family, &opened, call));
    }
}

#[test]
fn marks_that_are_special_tokens_are_asked_for_by_id() {
    let tools = tools();
    let mut special = form(&tools, Presence::Free, CallCount::OneOrMore);
    special.special = &|_| Some(7);
    for reasoning in [ReasoningFirst::No, ReasoningFirst::May, ReasoningFirst::Opened] {
        special.reasoning = reasoning;
        for (family, _) in CALLS {
            let is_text = is_answer(family, &special, "Hello");
            assert_eq!(is_text, reasoning != ReasoningFirst::Opened);
        }
    }
    assert!(
        !is_answer(&HERMES, &special, HERMES_CALL),
        "spelled by ordinary tokens"
    );
}
