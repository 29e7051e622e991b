//! What the families' readers make of answers, well formed and not, however they are cut.

use super::answer_reader::{AnswerReader, AnswerRules, BesideCalls, CallRules, Reasoning};
use super::family::{Ending, Family, HERMES, LLAMA, MISTRAL};
use super::pieces::Piece;
use proptest::prelude::*;

fn rules(family: &'static dyn Family, reasoning: Reasoning) -> AnswerRules {
    let names = ["f".to_string(), "weather".to_string()];
    AnswerRules {
        reasoning,
        calls: Some(CallRules {
            family,
            names: names.into(),
            beside: BesideCalls::Content,
        }),
    }
}

/// All of an answer, in the order that clients put together.
#[derive(Default, PartialEq, Eq, Debug)]
struct Whole {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

impl Whole {
    fn add(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Content(text) => self.content.push_str(&text),
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Call { index, name } => {
                    assert_eq!(index as usize, self.calls.len(), "calls are counted without gaps");
                    self.calls.push((name, String::new()));
                }
                Piece::Arguments { index, text } => {
                    assert_eq!(
                        index as usize + 1,
                        self.calls.len(),
                        "arguments of a call that is over"
                    );
                    self.calls[index as usize].1.push_str(&text);
                }
            }
        }
    }
}

fn read<'a>(rules: &AnswerRules, fragments: impl IntoIterator<Item = &'a str>) -> Whole {
    read_to(Ending::Whole, rules, fragments)
}

fn read_to<'a>(ending: Ending, rules: &AnswerRules, fragments: impl IntoIterator<Item = &'a str>) -> Whole {
    let mut reader = AnswerReader::new(rules);
    let mut whole = Whole::default();
    for fragment in fragments {
        whole.add(reader.push(fragment));
    }
    whole.add(reader.finish(ending));
    assert!(reader.calls_over() as usize <= whole.calls.len());
    whole
}

fn whole(content: &str, calls: &[(&str, &str)]) -> Whole {
    let owned = |(name, arguments): &(&str, &str)| (name.to_string(), arguments.to_string());
    Whole {
        content: content.into(),
        reasoning: String::new(),
        calls: calls.iter().map(owned).collect(),
    }
}

fn hermes(text: &str) -> Whole {
    read(&rules(&HERMES, Reasoning::Unmarked), [text])
}

#[test]
fn calls_are_found_between_content_and_their_arguments_are_left_as_they_are() {
    let text = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":  \"Köln }\\\"\", \"days\": [1, {}]}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\nDone.";
    let calls = [
        ("weather", "{\"city\":  \"Köln }\\\"\", \"days\": [1, {}]}"),
        ("f", "{}"),
    ];
    assert_eq!(hermes(text), whole("Let me look.\nDone.", &calls));
}

#[test]
fn members_may_come_in_any_order_and_arguments_as_text() {
    let swapped = r#"<tool_call>{"id": 3, "arguments": {"a": 1}, "name": "f"}</tool_call>"#;
    assert_eq!(hermes(swapped), whole("", &[("f", r#"{"a": 1}"#)]));
    let text = r#"<tool_call>{"name": "f", "arguments": "{\"a\": \"\\n\"}", "type": "function"}</tool_call>"#;
    assert_eq!(hermes(text), whole("", &[("f", r#"{"a": "\n"}"#)]));
    let without =
        r#"<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "f", "arguments": null}</tool_call>"#;
    assert_eq!(hermes(without), whole("", &[("f", "{}"), ("f", "{}")]));
}

#[test]
fn what_is_no_call_is_content_to_the_last_letter() {
    for text in [
        "Write <tool_call> before a call.",
        "<tool_call>\n{'name': 'f', 'arguments': {}}\n</tool_call>",
        "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"arguments\": {\"a\": 1}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"f\"",
        "<tool_call>",
        "a < b, <tool, <tool_cal",
        "</tool_call>",
    ] {
        assert_eq!(hermes(text), whole(text, &[]));
    }
}

#[test]
fn a_call_follows_a_failed_one() {
    let text = r#"<tool_call><tool_call>{"name": "f", "arguments": {}}</tool_call>"#;
    assert_eq!(hermes(text), whole("<tool_call>", &[("f", "{}")]));
    let unclosed = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n<tool_call>{\"name\": \"f\", \"arguments\": {}}";
    assert_eq!(hermes(unclosed), whole("", &[("f", r#"{"a": 1}"#), ("f", "{}")]));
}

#[test]
fn a_call_that_breaks_off_keeps_what_was_told_and_the_rest_is_read_on() {
    let cut = r#"<tool_call>{"name": "f", "arguments": {"a": [1, "b"#;
    assert_eq!(hermes(cut), whole("", &[("f", r#"{"a": [1, "b"#)]));
    let brace_forgotten = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>\nYes.";
    assert_eq!(hermes(brace_forgotten), whole("Yes.", &[("f", r#"{"a": 1}"#)]));
    let no_json = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": </tool_call>Yes.";
    assert_eq!(hermes(no_json), whole("Yes.", &[("f", "{\"a\": ")]));
    let more = r#"<tool_call>{"name": "f", "arguments": {}} so </tool_call>"#;
    assert_eq!(hermes(more), whole("so ", &[("f", "{}")]));
}

#[test]
fn a_further_call_that_breaks_off_before_its_name_is_no_content() {
    let call = r#"<tool_call>{"name": "f", "arguments": {}}</tool_call>"#;
    for cut in [
        "<tool_call>",
        "<tool_call>\n{\"",
        "<tool_call>{\"name\": \"f\", \"argu",
    ] {
        assert_eq!(
            hermes(&format!("{call}\n{cut}")),
            whole("", &[("f", "{}")]),
            "{cut}"
        );
    }
    let list = read(
        &rules(&MISTRAL, Reasoning::Unmarked),
        [r#"[TOOL_CALLS][{"name": "f", "arguments": {}}, {"na"#],
    );
    assert_eq!(list, whole("", &[("f", "{}")]));
    let bare = read(
        &rules(&LLAMA, Reasoning::Unmarked),
        [r#"{"name": "f", "parameters": {}};"#],
    );
    assert_eq!(bare, whole("", &[("f", "{}")]));
}

/// Every beginning of `text`.
fn beginnings(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(end, _)| &text[..end]).chain([text])
}

#[test]
fn of_an_answer_that_was_cut_off_no_beginning_of_a_mark_or_of_a_call_is_content() {
    for (family, text) in [
        (
            &HERMES,
            "Hi <tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\"",
        ),
        (
            &MISTRAL,
            "Hi [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"na",
        ),
        (
            &LLAMA,
            "Hi <|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"na",
        ),
    ] {
        for reasoning in [Reasoning::Unmarked, Reasoning::MayOpen] {
            for cut in beginnings(text) {
                let read = read_to(Ending::Cut, &rules(family, reasoning), [cut]);
                assert_eq!(read.content, cut[..cut.len().min(3)], "{cut}");
            }
        }
    }
    let thoughts = "<think>so</think>";
    for cut in beginnings(thoughts) {
        let read = read_to(Ending::Cut, &rules(&HERMES, Reasoning::MayOpen), [cut]);
        assert!(
            read.content.is_empty() && "so".starts_with(&read.reasoning),
            "{cut}: {read:?}"
        );
    }
}

#[test]
fn json_that_was_cut_off_is_content_where_calls_have_no_mark_and_no_tool_is_named() {
    let llama = rules(&LLAMA, Reasoning::Unmarked);
    for (text, content) in [
        ("{\"answer\": 4", "{\"answer\": 4"),
        ("{\"name\": \"Ada", "{\"name\": \"Ada"),
        ("{\"name\": \"f\", \"par", ""),
    ] {
        assert_eq!(
            read_to(Ending::Cut, &llama, [text]),
            whole(content, &[]),
            "{text}"
        );
    }
}

#[test]
fn where_calls_are_demanded_nothing_of_one_that_was_cut_off_is_content() {
    for (family, text) in [
        (
            &HERMES,
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
        ),
        (&LLAMA, "{\"name\": \"f\", \"parameters\": {}}"),
        (&MISTRAL, "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}]"),
    ] {
        let mut demanded = rules(family, Reasoning::Unmarked);
        demanded.calls.as_mut().unwrap().beside = BesideCalls::Nothing;
        for ending in [Ending::Whole, Ending::Cut] {
            for cut in beginnings(text) {
                assert_eq!(read_to(ending, &demanded, [cut]).content, "", "{cut}");
            }
        }
    }
}

#[test]
fn the_beginning_of_the_mark_that_closes_a_call_is_no_content_however_the_answer_ended() {
    let call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}\n";
    assert_eq!(hermes(&format!("{call}</tool_")), whole("", &[("f", "{}")]));
    let after = format!("{call}</tool_call>\nSo a <");
    assert_eq!(hermes(&after), whole("So a <", &[("f", "{}")]));
}

#[test]
fn arguments_go_out_as_they_come() {
    let mut reader = AnswerReader::new(&rules(&HERMES, Reasoning::Unmarked));
    assert_eq!(reader.push("<tool_call>\n{\"name\": \"f\", \"argum"), []);
    let begun = reader.push("ents\": {\"a\": \"x");
    let call = Piece::Call {
        index: 0,
        name: "f".into(),
    };
    let arguments = |text: &str| Piece::Arguments {
        index: 0,
        text: text.into(),
    };
    assert_eq!(begun, [call, arguments("{\"a\": \"x")]);
    assert_eq!(reader.push("y"), [arguments("y")]);
    assert_eq!(
        (reader.push("\"}"), reader.calls_over()),
        (vec![arguments("\"}")], 0)
    );
    assert_eq!((reader.push("}"), reader.calls_over()), (vec![], 1));
}

#[test]
fn llama_calls_without_a_marker_and_only_what_is_offered() {
    let read = |text| read(&rules(&LLAMA, Reasoning::Unmarked), [text]);
    let two = r#"{"name": "f", "parameters": {"a": 1}}; {"name": "weather", "parameters": {}}"#;
    assert_eq!(read(two), whole("", &[("f", r#"{"a": 1}"#), ("weather", "{}")]));
    let marked = r#"<|python_tag|>{"name": "f", "parameters": {}}"#;
    assert_eq!(read(marked), whole("", &[("f", "{}")]));
    for text in [
        r#"{"name": "Ada", "parameters": {}}"#,
        r#"{"answer": 42}"#,
        r#"So: {"name": "f", "parameters": {}}"#,
        "<|python_tag|>print(1)",
    ] {
        assert_eq!(read(text), whole(text, &[]));
    }
    let and_text = r#"{"name": "f", "parameters": {}}; or so"#;
    assert_eq!(read(and_text), whole(";or so", &[("f", "{}")]));
}

#[test]
fn mistral_calls_in_a_list() {
    let read = |text| read(&rules(&MISTRAL, Reasoning::Unmarked), [text]);
    let two = r#"Wait.[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#;
    assert_eq!(read(two), whole("Wait.", &[("f", r#"{"a": 1}"#), ("g", "{}")]));
    let text = "[TOOL_CALLS] none [TOOL_CALLS][]";
    assert_eq!(read(text), whole(text, &[]));
}

#[test]
fn reasoning_is_told_apart_and_its_calls_are_not_made() {
    let text = "<think>\n<tool_call>?\nYes\n\n</think>\n\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
    let expected = Whole {
        reasoning: "<tool_call>?\nYes".into(),
        ..whole("", &[("f", "{}")])
    };
    assert_eq!(read(&rules(&HERMES, Reasoning::MayOpen), [text]), expected);
    let opened = text.strip_prefix("<think>").unwrap();
    assert_eq!(read(&rules(&HERMES, Reasoning::Opened), [opened]), expected);
}

#[test]
fn reasoning_is_looked_for_at_the_start_alone() {
    let read = |reasoning, text| read(&rules(&HERMES, reasoning), [text]);
    for text in ["\n\nHi <think>a</think>", "<thin", " \n", "<think"] {
        assert_eq!(read(Reasoning::MayOpen, text), whole(text, &[]));
    }
    let endless = Whole {
        reasoning: "a </think b </".into(),
        ..Whole::default()
    };
    assert_eq!(read(Reasoning::Opened, "a </think b </"), endless);
    assert_eq!(
        read(Reasoning::MayOpen, "<think>\n\n</think>\n\nHi\n"),
        whole("Hi\n", &[])
    );
    assert_eq!(
        read(Reasoning::Unmarked, "<think>a</think>"),
        whole("<think>a</think>", &[])
    );
}

#[test]
fn whether_an_answer_reasons_is_known_after_each_fragment() {
    let mut reader = AnswerReader::new(&rules(&HERMES, Reasoning::MayOpen));
    let states: Vec<bool> = ["\n", "<think>", "a", "</thi", "nk>", "\n", "b"]
        .iter()
        .map(|fragment| {
            reader.push(fragment);
            reader.is_reasoning()
        })
        .collect();
    assert_eq!(states, [false, true, true, true, false, false, false]);
}

#[test]
fn a_call_with_no_end_becomes_content_and_memory_stays_bounded() {
    let mut text = "<tool_call>{\"arguments\": {\"a\": \"".to_string();
    text.push_str(&"x".repeat(3 << 20));
    assert_eq!(hermes(&text), whole(&text, &[]));
}

/// Text made of what the readers look for and what resembles it.
fn answers() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        "<think>",
        "</think>",
        "</thi",
        "[TOOL_CALLS]",
        "[",
        "]",
        "<|python_tag|>",
        "{\"name\": \"f\", \"arguments\": {",
        "{\"name\": \"f\", \"parameters\": {\"a\": 1}}",
        "\"arguments\": {\"é\": [\"}\"]}",
        "\"name\": \"weather\"",
        "}",
        "{",
        "\"",
        "\\",
        ",",
        ";",
        ":",
        " ",
        "\n",
        "x",
        "é",
        "null",
    ]);
    prop::collection::vec(parts, 0..14).prop_map(|parts| parts.concat())
}

const FAMILIES: [&dyn Family; 3] = [&HERMES, &LLAMA, &MISTRAL];

fn reasonings() -> impl Strategy<Value = Reasoning> {
    prop::sample::select(vec![Reasoning::Unmarked, Reasoning::MayOpen, Reasoning::Opened])
}

fn cut<'a>(text: &'a str, sizes: &[usize]) -> Vec<&'a str> {
    let mut fragments = Vec::new();
    let mut rest = text;
    for size in sizes {
        let end = rest.char_indices().nth(*size).map_or(rest.len(), |(end, _)| end);
        let (fragment, after) = rest.split_at(end);
        fragments.push(fragment);
        rest = after;
    }
    fragments.push(rest);
    fragments
}

proptest! {
    #[test]
    fn cutting_an_answer_changes_nothing(
        family in 0usize..3, reasoning in reasonings(), text in answers(),
        sizes in prop::collection::vec(0usize..6, 0..40)
    ) {
        let rules = rules(FAMILIES[family], reasoning);
        prop_assert_eq!(read(&rules, cut(&text, &sizes)), read(&rules, [text.as_str()]));
    }

    #[test]
    fn every_letter_of_an_answer_is_in_some_piece(
        family in 0usize..3, reasoning in reasonings(), text in answers()
    ) {
        let rules = rules(FAMILIES[family], reasoning);
        let whole = read(&rules, [text.as_str()]);
        // `x` and `é` are in no mark, no key and no name.
        let count = |text: &str| text.matches(['x', 'é']).count();
        let told = count(&whole.content) + count(&whole.reasoning);
        let in_arguments: usize = whole.calls.iter().map(|(_, arguments)| count(arguments)).sum();
        prop_assert!(told + in_arguments <= count(&text));
        if whole.calls.is_empty() {
            prop_assert_eq!(told, count(&text));
        }
        if whole.calls.is_empty() && reasoning == Reasoning::Unmarked {
            prop_assert_eq!(whole.content, text);
        }
    }

    #[test]
    fn well_formed_calls_give_back_name_and_arguments(
        key in "[a-z]{1,4}", value in "[ -~é\n]{0,20}", sizes in prop::collection::vec(0usize..6, 0..40)
    ) {
        let arguments = serde_json::json!({key: value, "more": [1.5, null]}).to_string();
        let text = format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {arguments}}}\n</tool_call>");
        let rules = rules(&HERMES, Reasoning::Unmarked);
        prop_assert_eq!(read(&rules, cut(&text, &sizes)), whole("", &[("f", &arguments)]));
    }
}
