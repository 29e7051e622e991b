mod edges;

use super::compiler::{Compiler, GrammarError};
use super::follower::{Cost, Follower};
use super::masks::MaskThreads;
use super::spacing;
use super::stream::StreamConstraint;
use crate::text::{TokenizerSource, Vocabulary};
use proto::request::Grammar;
use proto::{Attempt, Position, RequestId, StreamId};
use serde_json::{Map, Value, json};
use shard::{Constraint, GrammarEnd, Mask, TokenMask};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

pub const END: u32 = 128;
const CALL: u32 = 129;

/// One token for each ASCII character, one that ends an answer, one that stands for a tool call, and some words.
pub fn vocabulary() -> Vocabulary {
    let mut tokens: Vec<String> = (0..128u8).map(letter).collect();
    tokens.extend(["<|end|>", "<tool_call>"].map(str::to_owned));
    tokens.extend(["true", "false", "null", "\":", "\"a", "ab", "abc", "12", "{\""].map(str::to_owned));
    let mut token_types = vec![1; tokens.len()];
    token_types[END as usize] = 3;
    token_types[CALL as usize] = 4;
    Vocabulary::new(&TokenizerSource {
        tokens,
        token_types,
        ..TokenizerSource::default()
    })
}

/// In the byte alphabet of GPT-2.
fn letter(byte: u8) -> String {
    let letter = match byte {
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)),
        0x7f => Some('\u{121}'),
        _printable => Some(char::from(byte)),
    };
    letter.unwrap().to_string()
}

fn compiler() -> Compiler {
    Compiler::new(&vocabulary(), &[END])
}

fn compiled(grammar: &Grammar) -> Result<Follower, GrammarError> {
    Ok(compiler().compile(grammar)?.follower())
}

pub fn refusal(grammar: &Grammar) -> String {
    match compiled(grammar) {
        Ok(_) => panic!("{grammar:?} was taken"),
        Err(error) => error.to_string(),
    }
}

pub fn schema(schema: serde_json::Value) -> Grammar {
    Grammar::JsonSchema(schema.to_string())
}

/// Whether `text`, byte by byte, stays within the grammar, and whether it may end after it.
fn follows(grammar: &Grammar, text: &str) -> Option<GrammarEnd> {
    let mut follower = compiled(grammar).unwrap();
    for byte in text.bytes() {
        if !follower.mask().unwrap().allows(u32::from(byte)) {
            return None;
        }
        follower.accept(u32::from(byte)).unwrap();
    }
    Some(follower.mask().unwrap().end())
}

#[test]
fn json_is_followed_to_its_end_and_nothing_comes_after_it() {
    let grammar = schema(json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 3}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name"],
        "additionalProperties": false,
    }));
    assert_eq!(
        follows(&grammar, "{\"name\": \"abc\", \"age\": 12}"),
        Some(GrammarEnd::Due)
    );
    assert_eq!(follows(&grammar, "{\"name\":\"abc\""), Some(GrammarEnd::NotYet));
    for wrong in [
        "{}",
        "{\"name\":\"abcd\"}",
        "{\"name\":\"a\",\"b\":1}",
        "{\"name\":\"a\",\"age\":-1}",
        "[]",
    ] {
        assert_eq!(follows(&grammar, wrong), None, "{wrong}");
    }
    assert_eq!(
        follows(&Grammar::JsonObject, "{\"a\":[1,{\"b\":null}]}"),
        Some(GrammarEnd::Due)
    );
    assert_eq!(follows(&Grammar::JsonObject, "[1]"), None);
}

#[test]
fn a_regex_or_a_choice_may_end_wherever_it_is_complete() {
    let regex = Grammar::Regex("[a-c]{2,3}(/x)?".to_owned());
    assert_eq!(follows(&regex, "a"), Some(GrammarEnd::NotYet));
    assert_eq!(follows(&regex, "ab"), Some(GrammarEnd::Allowed));
    assert_eq!(follows(&regex, "abc/x"), Some(GrammarEnd::Due));
    assert_eq!(follows(&regex, "abcd"), None);
    let choices = ["a", "ab", "\\x41\"\n", ""].map(str::to_owned);
    let choice = Grammar::Choice(choices.to_vec());
    assert_eq!(follows(&choice, ""), Some(GrammarEnd::Allowed));
    assert_eq!(follows(&choice, "a"), Some(GrammarEnd::Allowed));
    assert_eq!(follows(&choice, "ab"), Some(GrammarEnd::Due));
    assert_eq!(follows(&choice, "\\x41\"\n"), Some(GrammarEnd::Due));
    assert_eq!(follows(&choice, "A"), None);
}

#[test]
fn a_token_that_is_no_text_is_reached_by_its_name_alone() {
    let grammar = Grammar::Lark("start: <tool_call> \"a\"".to_owned());
    let mut follower = compiled(&grammar).unwrap();
    let mask = follower.mask().unwrap();
    assert!(mask.allows(CALL) && !mask.allows(u32::from(b'<')));
    follower.accept(CALL).unwrap();
    assert!(follower.mask().unwrap().allows(u32::from(b'a')));
    let text = Grammar::Regex("<tool_call>a".to_owned());
    let mask = compiled(&text).unwrap().mask().unwrap();
    assert!(!mask.allows(CALL) && mask.allows(u32::from(b'<')));
    let unknown = Grammar::Lark("start: <no_such_token>".to_owned());
    assert!(refusal(&unknown).contains("no_such_token"));
}

#[test]
fn tokens_that_end_an_answer_are_never_part_of_it() {
    for (text, grammar) in [
        ("", Grammar::JsonObject),
        ("ab", Grammar::Regex("[a-c]{2,3}".to_owned())),
    ] {
        let mut follower = compiled(&grammar).unwrap();
        for byte in text.bytes() {
            follower.accept(u32::from(byte)).unwrap();
        }
        let mask = follower.mask().unwrap();
        assert!(!mask.allows(END) && !mask.allows(130 + 64), "{grammar:?}");
    }
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    for (keyword, refused) in [
        ("uniqueItems", json!({"type": "array", "uniqueItems": true})),
        ("not", json!({"not": {"pattern": "a"}})),
        ("if", json!({"if": {"pattern": "a"}, "then": {"maxLength": 3}})),
        (
            "contains",
            json!({"type": "array", "contains": {"type": "string"}}),
        ),
        (
            "propertyNames",
            json!({"type": "object", "propertyNames": {"maxLength": 3}}),
        ),
        (
            "unevaluatedProperties",
            json!({"type": "object", "unevaluatedProperties": false}),
        ),
        (
            "plainly exclude",
            json!({"oneOf": [{"type": "number"}, {"type": "integer"}]}),
        ),
        ("format", json!({"type": "string", "format": "regex"})),
        ("minProperties", json!({"type": "object", "minProperties": 2})),
        (
            "$id",
            json!({"properties": {"a": {"$id": "http://x.y/z", "type": "string"}}}),
        ),
        ("x-guidance", json!({"not": {}, "x-guidance": {"lenient": true}})),
        ("within the document", json!({"$ref": "http://x.y/z"})),
    ] {
        let message = refusal(&schema(refused));
        assert!(message.contains(keyword), "{keyword}: {message}");
    }
    for (what, text) in [("JSON", "{"), ("object", "3"), ("nothing is valid", "false")] {
        assert!(refusal(&Grammar::JsonSchema(text.to_owned())).contains(what));
    }
}

#[test]
fn what_asks_for_nothing_is_no_reason_to_refuse() {
    let items = json!({"type": "array", "uniqueItems": false, "items": {"uniqueItems": false}});
    let nested = schema(json!({"properties": {"uniqueItems": items}}));
    assert_eq!(follows(&nested, "{\"uniqueItems\":[1,1]}"), Some(GrammarEnd::Due));
}

/// What may be written for it, and what not.
fn assert_texts(text: Value, valid: &[&str], wrong: &[&str]) {
    let grammar = schema(text.clone());
    for valid in valid {
        let end = follows(&grammar, valid);
        assert!(
            end.is_some_and(|end| end != GrammarEnd::NotYet),
            "{text}: {valid}: {end:?}"
        );
    }
    for wrong in wrong {
        let end = follows(&grammar, wrong);
        assert!(
            end.is_none_or(|end| end == GrammarEnd::NotYet),
            "{text}: {wrong}: {end:?}"
        );
    }
}

#[test]
fn what_the_compiler_would_take_for_something_else_is_put_right() {
    let date = json!({"format": "date", "type": "string"});
    assert_texts(
        date,
        &["\"2024-02-29\"", "\"2000-02-29\""],
        &["\"2023-02-29\"", "\"1900-02-29\"", "\"0000-01-01\""],
    );
    let dated = json!({"format": "date", "pattern": "^2", "type": "string"});
    assert_texts(dated, &["\"2024-02-29\""], &["\"1999-01-01\""]);
    assert_texts(
        json!({"type": "string", "pattern": "^[a[]b$"}),
        &["\"[b\"", "\"ab\""],
        &["\"b\"", "\"a[]b\""],
    );
    assert_texts(
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}),
        &["0.25"],
        &["0", "0.0", "0.6"],
    );
    let flagged = json!({"minimum": 3, "enum": [3, 4], "exclusiveMinimum": true, "type": "integer"});
    assert_texts(flagged, &["4"], &["3"]);
    let separate = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array", "items": [{"type": "null"}], "allOf": [{}], "additionalItems": false,
    });
    assert_texts(separate, &["[]", "[null]"], &["[null,1]"]);
    assert_texts(
        json!({"type": "string", "format": "telephone"}),
        &["\"a\""],
        &["1"],
    );
}

#[test]
fn what_the_compiler_cannot_write_is_refused() {
    for (word, refused) in [
        ("control characters", json!({"const": "a\u{1}b"})),
        ("control characters", json!({"enum": [["a\u{0}"]]})),
        ("control character", json!({"pattern": "a\u{7f}"})),
        ("exactly", json!({"const": 9_007_199_254_740_993_u64})),
        ("looking ahead", json!({"patternProperties": {"^(?!a)": {}}})),
        (
            "minProperties",
            json!({"required": ["a", "a"], "minProperties": 3}),
        ),
        ("list of schemas", json!({"$ref": "#/$defs", "$defs": {}})),
    ] {
        let message = refusal(&schema(refused));
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn alternatives_that_exclude_each_other_need_not_be_counted() {
    let way = |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"], "additionalProperties": false});
    let one_of = json!({
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "$defs": {"cat": way("cat"), "dog": way("dog")},
    });
    assert_texts(
        one_of,
        &["{\"kind\":\"cat\"}", "{\"kind\":\"dog\"}"],
        &["{\"kind\":\"cow\"}"],
    );
}

#[test]
fn dependencies_and_opposites_are_honoured_where_alternatives_can_say_them() {
    let names = json!({"a": {"type": "null"}, "b": {"type": "null"}});
    let object = |more: Value| {
        let mut object = json!({"type": "object", "properties": names, "additionalProperties": false});
        object
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        object
    };
    let (neither, a, b, both) = ("{}", "{\"a\":null}", "{\"b\":null}", "{\"a\":null,\"b\":null}");
    assert_texts(
        object(json!({"dependentRequired": {"a": ["b"]}})),
        &[neither, b, both],
        &[a],
    );
    assert_texts(
        object(json!({"not": {"required": ["a", "b"]}})),
        &[neither, a, b],
        &[both],
    );
    assert_texts(
        object(
            json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"properties": {"b": false}}}),
        ),
        &[neither, both],
        &[a, b],
    );
}

#[test]
fn schemas_are_read_alike_wherever_a_reference_finds_them() {
    let elsewhere = json!({
        "$ref": "#/components/schemas/a",
        "components": {"schemas": {"a": {"type": "string", "pattern": "^[a[]$"}}},
    });
    assert_texts(elsewhere, &["\"[\""], &["\"b\""]);
    let hidden = json!({"$ref": "#/components/a", "components": {"a": {"minProperties": 2}}});
    assert!(refusal(&schema(hidden)).contains("minProperties"));
}

#[test]
fn a_property_cannot_be_smuggled_in_under_another_spelling_of_its_name() {
    let grammar = schema(json!({"type": "object", "properties": {"a": {"type": "boolean"}}}));
    assert_eq!(follows(&grammar, "{\"\\u0061\":1"), None);
    assert_eq!(follows(&grammar, "{\"b\":1}"), Some(GrammarEnd::Due));
}

#[test]
fn white_space_is_what_people_write_and_has_an_end() {
    let deep = format!("{{\n\t\"a\": [\n{}1, 2\n  ]\n}}", " ".repeat(20));
    for written in [
        "{\"a\":1,\"b\":[]}",
        "{\"a\": 1, \"b\": []}",
        "{ \"a\": 1 }",
        &deep,
    ] {
        assert_eq!(
            follows(&Grammar::JsonObject, written),
            Some(GrammarEnd::Due),
            "{written}"
        );
    }
    for lost in ["{  ", "{\n\n", "{ \n", "{\t", &format!("{{\n{}", " ".repeat(21))] {
        assert_eq!(follows(&Grammar::JsonObject, lost), None, "{lost:?}");
    }
}

#[test]
fn compact_json_has_no_white_space() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "array"}, "b": {"const": " "}}});
    let grammar = Grammar::JsonSchema(spacing::compact(&schema.to_string()));
    assert_eq!(
        follows(&grammar, "{\"a\":[1,2],\"b\":\" \"}"),
        Some(GrammarEnd::Due)
    );
    for spaced in ["{ ", "{\n", "{\"a\": ", "{\"a\":[1, "] {
        assert_eq!(follows(&grammar, spaced), None, "{spaced:?}");
    }
}

#[test]
fn hostile_grammars_are_refused_or_followed_within_their_fuel() {
    let optional: Map<String, Value> = (0..94)
        .map(|index| {
            (
                format!("option_{index}"),
                json!({"type": ["string", "null"], "maxLength": 2000}),
            )
        })
        .collect();
    let many: Map<String, Value> = (0..3000).map(|index| (format!("p{index}"), json!({}))).collect();
    let chain: Map<String, Value> = (0..3000)
        .map(|index| {
            (
                index.to_string(),
                json!({"$ref": format!("#/$defs/{}", index + 1)}),
            )
        })
        .chain([("3000".to_owned(), json!({"type": "null"}))])
        .collect();
    let values: Vec<String> = (0..8000)
        .map(|index| format!("value {}", index * 7919 % 8000))
        .collect();
    let both_ways: Vec<Value> = (0..14)
        .map(|index| json!({"anyOf": [{"minimum": index}, {"maxLength": index}]}))
        .collect();
    let grammars = [
        schema(json!({"type": "object", "properties": optional})),
        schema(json!({"$ref": "#/$defs/0", "$defs": chain})),
        schema(json!({"type": "object", "properties": many})),
        schema(json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        schema(json!({"allOf": both_ways})),
        schema(json!({"enum": values})),
        schema(json!({"type": "string", "pattern": "(a{1,900}){1,900}"})),
        schema(json!({"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "minLength": 5000})),
        schema(json!({"type": "array", "minItems": 100000, "maxItems": 1000000})),
        Grammar::Regex("(((a{1,100}){1,100}){1,100}){1,100}".to_owned()),
        Grammar::Regex(".*a.{4000}".to_owned()),
        Grammar::Regex("(a|b|ab)*c{1000}".repeat(40)),
        Grammar::Lark("start: start start | \"a\" | ".to_owned()),
        Grammar::Lark(format!("start: {}\na: \"x\"?", "a ".repeat(1000))),
        Grammar::Lark("start: a{9000}\na: \"x\"?".to_owned()),
        Grammar::Lark("start: b{90}\nb: a{90}\na: \"x\"?".to_owned()),
        Grammar::Lark(
            (0..9000)
                .map(|n| format!("A{n}: A{}\n", n + 1))
                .collect::<String>()
                + "A3000: \"x\"\nstart: A0",
        ),
        Grammar::Lark(
            (0..9000)
                .map(|n| format!("a{n}: a{}\n", n + 1))
                .collect::<String>()
                + "a3000: \"x\"\nstart: a0",
        ),
        Grammar::Lark(format!("start: {}\"a\"{}", "(".repeat(120), ")*".repeat(120))),
        Grammar::Lark(
            (0..1000)
                .map(|n| format!("A{n}: A{}*\n", n + 1))
                .collect::<String>()
                + "A1000: /\\p{L}/\nstart: A0",
        ),
    ];
    let compiler = compiler();
    let work = move || {
        for grammar in grammars {
            let compiled = compiler.compile(&grammar);
            let Ok(compiled) = compiled else { continue };
            let mut follower = compiled.follower();
            let text = "aaaabbbb{\"option_1\":\"xxxxxxx".bytes();
            for byte in text {
                match follower.mask() {
                    Ok(mask) if mask.allows(byte.into()) => follower.accept(byte.into()).unwrap(),
                    Ok(_) | Err(_) => break,
                }
            }
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(super::STACK_BYTES)
        .spawn(work);
    thread.unwrap().join().unwrap();
}

/// An object of so many properties that may all be left out.
fn optional(name: &str, count: usize) -> Value {
    let properties: Map<String, Value> = (0..count)
        .map(|index| (format!("{name}_{index}"), json!({"type": "integer"})))
        .collect();
    json!({"type": "object", "properties": properties})
}

#[test]
fn all_the_properties_that_are_promised_can_be_written_though_each_may_be_left_out() {
    let text = "{\"option_1\": 1, \"option_12\":2,\"option_123\": 12, \"option_1022\":0,\"option_1023\":0}";
    assert_eq!(
        follows(&schema(optional("option", 1024)), text),
        Some(GrammarEnd::Due)
    );
}

#[test]
fn what_is_too_costly_behind_the_first_brace_is_refused_before_anything_is_written() {
    let ways = ["a", "b", "c", "d", "e"].map(|name| optional(name, 300));
    assert!(refusal(&schema(json!({"anyOf": ways}))).contains("too costly to follow"));
}

#[test]
fn a_grammar_of_many_symbols_is_known_to_be_large() {
    let many: Map<String, Value> = (0..1000).map(|index| (format!("p{index}"), json!({}))).collect();
    let bytes = |grammar: Value| compiler().compile(&schema(grammar)).unwrap().bytes;
    let small = bytes(json!({"type": "object", "properties": {"p": {}}}));
    assert!(bytes(json!({"type": "object", "properties": many})) > small + 1000 * 1024);
}

#[test]
fn a_small_mask_is_known_to_be_small() {
    let mut follower = compiled(&Grammar::JsonObject).unwrap();
    follower.mask().unwrap();
    assert_eq!(follower.cost(), Cost::Small);
}

const STREAM: StreamId = StreamId {
    request: RequestId(1),
    choice: 0,
};

/// Threads, and what they say about masks that were awaited.
fn mask_threads() -> (Arc<MaskThreads>, Receiver<StreamId>) {
    let (sender, resumed) = channel();
    let resume = Box::new(move |stream, _attempt| {
        let _ = sender.send(stream);
    });
    (MaskThreads::start(resume).unwrap(), resumed)
}

fn constraint(grammar: &Grammar, output: &[u8], threads: &Arc<MaskThreads>) -> StreamConstraint {
    let output: Vec<u32> = output.iter().copied().map(u32::from).collect();
    let follower = compiled(grammar).unwrap();
    StreamConstraint::new(STREAM, Attempt(1), follower, &output, threads).unwrap()
}

/// Waits for it as an engine does.
fn mask_at(constraint: &StreamConstraint, position: usize, resumed: &Receiver<StreamId>) -> Arc<TokenMask> {
    loop {
        match constraint.mask(Position(position as u32)) {
            Mask::Ready(mask) => return mask,
            Mask::Late => assert_eq!(resumed.recv().unwrap(), STREAM),
            Mask::Failed => panic!("the grammar was lost"),
        }
    }
}

#[test]
fn a_stream_that_is_resumed_has_the_same_masks_as_one_that_was_not() {
    let grammar =
        schema(json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}));
    let text = b"{\"a\": 12, \"b\":[]}";
    let (threads, resumed) = mask_threads();
    let whole = constraint(&grammar, b"", &threads);
    for (position, byte) in text.iter().enumerate() {
        let mask = mask_at(&whole, position, &resumed);
        let again = constraint(&grammar, &text[..position], &threads);
        assert_eq!(mask_at(&again, position, &resumed), mask, "position {position}");
        assert!(mask.allows(u32::from(*byte)));
        whole.accept(u32::from(*byte));
    }
    assert_eq!(mask_at(&whole, text.len(), &resumed).end(), GrammarEnd::Due);
}

#[test]
fn output_that_the_grammar_does_not_have_cannot_be_resumed() {
    let follower = compiled(&Grammar::JsonObject).unwrap();
    let (threads, _resumed) = mask_threads();
    let output = [u32::from(b'['), u32::from(b'1')];
    assert!(StreamConstraint::new(STREAM, Attempt(1), follower, &output, &threads).is_err());
}

#[test]
fn a_stream_may_go_at_any_moment() {
    let (threads, resumed) = mask_threads();
    for _ in 0..50 {
        let constraint = constraint(&Grammar::JsonObject, b"", &threads);
        mask_at(&constraint, 0, &resumed);
        constraint.accept(u32::from(b'{'));
    }
    let last = constraint(&Grammar::JsonObject, b"{", &threads);
    assert!(mask_at(&last, 1, &resumed).allows(u32::from(b'}')));
}

#[test]
fn repetitions_within_repetitions_are_bounded_in_every_language() {
    let lark = |count: usize| {
        let lexemes = (0..count).map(|index| format!("A{index}: A{}*\n", index + 1));
        Grammar::Lark(format!(
            "start: A0\n{}A{count}: \"ab\"",
            lexemes.collect::<String>()
        ))
    };
    let stars = |count: usize| format!("{}ab{}", "(".repeat(count), "c)*".repeat(count));
    for (taken, too_deep) in [
        (lark(32), lark(33)),
        (Grammar::Regex(stars(32)), Grammar::Regex(stars(33))),
        (
            schema(json!({"type": "string", "pattern": format!("^{}$", stars(32))})),
            schema(json!({"type": "string", "pattern": format!("^{}$", stars(33))})),
        ),
    ] {
        assert_eq!(compiled(&taken).err(), None, "{taken:?}");
        assert!(refusal(&too_deep).contains("within one another"), "{too_deep:?}");
    }
    assert!(compiled(&Grammar::Regex("(ab)*".repeat(200))).is_ok());
}

#[test]
fn a_grammar_that_nothing_matches_is_refused() {
    assert!(refusal(&schema(json!({"$ref": "#"}))).ends_with("(no token can come next)"));
    assert!(
        refusal(&schema(json!({"type": "string", "minLength": 2, "maxLength": 1}))).contains("nsatisfiable")
    );
}
