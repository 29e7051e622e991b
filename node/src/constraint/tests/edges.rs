//! What llguidance does not survive, or takes seconds for: it is refused before.

use super::{assert_texts, compiled, compiler, follows, refusal, schema};
use proto::request::Grammar;
use serde_json::json;

#[test]
fn bounds_beyond_64_bits_are_followed_inwards_or_refused_and_never_end_the_process() {
    let least = i64::MIN;
    let refused = [
        json!({"type": "integer", "minimum": least, "maximum": least}),
        json!({"type": "integer", "maximum": -9.1e18}),
        json!({"type": "integer", "minimum": 9_223_372_036_854_775_808_u64, "maximum": 1e30}),
        json!({"allOf": [{"type": "number", "maximum": -1e19}, {"type": "integer"}]}),
    ];
    for bounds in refused {
        assert!(
            refusal(&schema(bounds.clone())).contains("imum` is beyond 9e18"),
            "{bounds}"
        );
        let lark = Grammar::Lark(format!("start: %json {bounds}"));
        assert!(refusal(&lark).contains("imum` is beyond 9e18"), "{bounds}");
        let mut titled = bounds.clone();
        titled["$comment"] = json!("%json");
        let lark = Grammar::Lark(format!("start: %json {titled}"));
        assert!(refusal(&lark).contains("imum` is beyond 9e18"), "{titled}");
    }
    let taken = [
        json!({"type": "integer", "minimum": least, "maximum": i64::MAX}),
        json!({"type": "integer", "minimum": least, "maximum": -5}),
        json!({"type": "integer", "minimum": -1e300, "maximum": -8_999_999_999_999_999_999_i64}),
        json!({"type": "integer", "minimum": 5, "maximum": u64::MAX}),
        json!({"type": "number", "minimum": -1e300, "maximum": 1e300}),
    ];
    for bounds in taken {
        assert!(compiled(&schema(bounds.clone())).is_ok(), "{bounds}");
    }
    let exclusive = json!({"type": "integer", "exclusiveMinimum": 9_007_199_254_740_992_i64, "maximum": 9_007_199_254_740_995_i64});
    let exclusive = schema(exclusive);
    assert!(follows(&exclusive, "9007199254740992").is_none());
    assert!(follows(&exclusive, "9007199254740994").is_some());
}

/// In pairs: a fault of the compiler would end the test's process, as it would a node's.
#[test]
fn whatever_the_bounds_are_they_are_followed_or_refused() {
    let edges = [
        0_i64,
        1,
        9,
        10,
        1 << 53,
        999_999_999_999_999_999,
        1_000_000_000_000_000_000,
        i64::MAX,
    ];
    let edges = edges
        .map(|edge| [json!(edge), json!(-edge), json!(-edge - 1)])
        .concat();
    let edges = [
        edges,
        vec![
            json!(9e18),
            json!(-9e18),
            json!(u64::MAX),
            json!(1e300),
            json!(-1e300),
        ],
    ]
    .concat();
    let compiler = compiler();
    let mut taken = 0;
    for kind in ["integer", "number"] {
        for (least, most) in edges
            .iter()
            .flat_map(|least| edges.iter().map(move |most| (least, most)))
        {
            let within = json!({"type": kind, "minimum": least, "maximum": most});
            let between = json!({"type": kind, "exclusiveMinimum": least, "exclusiveMaximum": most});
            for bounds in [within, between] {
                taken += usize::from(compiler.compile(&schema(bounds)).is_ok());
            }
        }
    }
    assert!(taken > 300, "{taken}");
}

#[test]
fn what_would_be_compiled_for_seconds_is_refused_at_once() {
    let divided = |schema: serde_json::Value| refusal(&Grammar::JsonSchema(schema.to_string()));
    let too_large = json!({"type": "integer", "multipleOf": 2_000_003});
    assert!(divided(too_large.clone()).contains("multipleOf"));
    let within_lark = Grammar::Lark(format!("start: %json {too_large}"));
    assert!(refusal(&within_lark).contains("multipleOf"));
    let at_once = json!({"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]});
    assert!(divided(at_once).contains("multipleOf"));
    for taken in [
        json!({"multipleOf": 10_007}),
        json!({"multipleOf": 0.000001}),
        json!({"multipleOf": 1e4}),
    ] {
        assert!(compiled(&schema(json!({"type": "number", "allOf": [taken]}))).is_ok());
    }
    let chain = "a?".repeat(20_000);
    assert!(refusal(&Grammar::Regex(chain.clone())).contains("repeats"));
    assert!(refusal(&Grammar::Lark(format!("start: /{chain}/"))).contains("repeats"));
}

/// As in the schemas of programs that write every rule twice.
#[test]
fn a_closed_object_ends_when_its_names_are_used_up() {
    let kinds = json!({"enum": ["cat", "dog"]});
    let closed = json!({
        "type": "object",
        "properties": {"kind": kinds, "on": {}, "off": {}},
        "patternProperties": {"^kind$": {"type": "string"}, "^(on|off)$": {"type": "null"}},
        "required": ["kind"],
        "additionalProperties": false,
    });
    let valid = [r#"{"kind":"cat"}"#, r#"{"kind":"dog","on":null,"off":null}"#];
    assert_texts(closed.clone(), &valid, &[r#"{"on":null}"#]);
    let closed = schema(closed);
    let used_up = r#"{"kind":"cat","on":null,"off":null"#;
    assert!(follows(&closed, used_up).is_some());
    for more in [",", " ,"] {
        assert!(follows(&closed, &format!("{used_up}{more}")).is_none(), "{more}");
    }
}

#[test]
fn a_hostname_has_253_characters_at_most() {
    let label = "a".repeat(49);
    let names = [label.as_str(); 5].join(".");
    assert_eq!(names.len(), 249);
    assert_texts(
        json!({"type": "string", "format": "hostname"}),
        &[&format!("\"{names}.abc\""), "\"a.example.com\""],
        &[&format!("\"{names}.abcd\""), "\"-a\""],
    );
    assert_texts(
        json!({"type": "string", "format": "hostname", "pattern": "^a", "maxLength": 5}),
        &["\"a.b.c\""],
        &["\"b.c\"", "\"a.b.cd\""],
    );
}
