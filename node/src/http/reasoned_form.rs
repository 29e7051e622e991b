//! A form behind reasoning that the prompt has opened: the model ends it first, and only its content has the form.

use super::error::ApiError;
use super::form::{Form, Part, schema_part};
use crate::constraint::schema;
use crate::text::TextModel;
use crate::text::families::behind_reasoning;
use proto::request::Grammar;
use serde_json::{Value, json};

impl Form {
    /// Takes a while: schemas are read.
    pub fn behind_reasoning(self, text: &TextModel) -> Result<Form, ApiError> {
        self.behind_marked(&|mark| text.mark_token(mark))
    }

    fn behind_marked(self, special: &dyn Fn(&str) -> Option<u32>) -> Result<Form, ApiError> {
        let mut parts = self.parts;
        let rules = rules(self.field, self.grammar, &mut parts)?;
        Ok(Form {
            grammar: Grammar::Lark(behind_reasoning(&rules, special)),
            field: self.field,
            parts,
        })
    }
}

/// The rule `content`, and what it needs.
fn rules(field: &str, grammar: Grammar, parts: &mut Vec<Part>) -> Result<String, ApiError> {
    let rules = match &grammar {
        Grammar::JsonObject => return Ok(of_schema(&schema::object())),
        Grammar::JsonSchema(schema) => {
            return Ok(of_schema(&schema_part(field, schema.clone(), parts)?));
        }
        Grammar::Regex(expression) => {
            format!("content: /{}/", llguidance::regex_to_lark(expression, ""))
        }
        Grammar::Choice(choices) => of_choices(choices),
        // A line break, because its last line may be a comment.
        Grammar::Lark(text) => format!("content: %lark {{\n{text}\n}}"),
    };
    parts.push(Part {
        field: field.to_owned(),
        grammar,
    });
    Ok(rules)
}

fn of_schema(schema: &Value) -> String {
    format!("content: %json {schema}")
}

/// A lexeme, as it is where nothing comes before it.
fn of_choices(choices: &[String]) -> String {
    // Lines are bounded in number and in length.
    const IN_LINE: usize = 8;
    let lines: Vec<String> = choices
        .chunks(IN_LINE)
        .map(|choices| choices.iter().map(literal).collect::<Vec<_>>().join(" | "))
        .collect();
    format!("content: CHOICE\nCHOICE: {}", lines.join("\n  | "))
}

/// Lark writes strings as JSON does, and has one letter less that may stand for itself.
fn literal(text: &String) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::compiler::Compiler;
    use crate::constraint::tests::{END, vocabulary};
    use shard::GrammarEnd;

    /// A special token, which stands for the closing mark.
    const MARK: u32 = 129;
    const SCHEMA: &str = r#"{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}"#;

    fn form(grammar: Grammar) -> Form {
        Form {
            grammar,
            field: "response_format",
            parts: Vec::new(),
        }
    }

    /// Where an answer stands in this form after these tokens; `None`: one of them may not come.
    fn end(form: &Form, tokens: &[u32]) -> Option<GrammarEnd> {
        let compiled = Compiler::new(&vocabulary(), &[END]).compile(&form.grammar);
        let mut follower = compiled.unwrap().follower();
        for token in tokens {
            if !follower.mask().unwrap().allows(*token) {
                return None;
            }
            follower.accept(*token).unwrap();
        }
        Some(follower.mask().unwrap().end())
    }

    fn spelled(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    /// The form, a content that has it to its last letter, and one that has not.
    fn cases() -> Vec<(Grammar, &'static str, &'static str)> {
        let choices = ["yes", "no \"way\"/", "\u{7f}\n"].map(str::to_owned);
        let lark = "start: x{2}\nx: \"{\" | /[a-c\\/]}/ # }";
        vec![
            (Grammar::JsonSchema(SCHEMA.to_owned()), "{\"a\":10}", "{\"b\":1}"),
            (Grammar::JsonObject, "{\"b\":[1]}", "[1]"),
            (Grammar::Regex("a/\\d\"\n#".to_owned()), "a/1\"\n#", "a/x"),
            (Grammar::Choice(choices.to_vec()), "no \"way\"/", "maybe"),
            (Grammar::Choice(choices.to_vec()), "\u{7f}\n", "\u{7f}x"),
            (Grammar::Lark(lark.to_owned()), "{/}", "{x"),
        ]
    }

    #[test]
    fn content_has_the_form_and_reasoning_before_it_is_free() {
        for (grammar, right, wrong) in cases() {
            let form = form(grammar).behind_marked(&|_| None).unwrap();
            let answer = |content: &str| spelled(&format!("Hm, {{\"b\" a < b </th\n</think>\n\n{content}"));
            assert_eq!(end(&form, &answer(right)), Some(GrammarEnd::Due), "{right}");
            assert_eq!(end(&form, &answer(wrong)), None, "{wrong}");
            assert_eq!(end(&form, &answer("")), Some(GrammarEnd::NotYet), "{right}");
            assert_eq!(
                end(&form, &spelled(right)),
                Some(GrammarEnd::NotYet),
                "it is reasoning"
            );
        }
    }

    #[test]
    fn a_mark_that_is_a_special_token_is_asked_for_by_its_id() {
        for (grammar, right, wrong) in cases() {
            let form = form(grammar).behind_marked(&|_| Some(MARK)).unwrap();
            let answer = |content: &str| {
                let content = spelled(&format!("\n\n{content}"));
                [spelled("Hm. </think>\n\n"), vec![MARK], content].concat()
            };
            assert_eq!(end(&form, &answer(right)), Some(GrammarEnd::Due), "{right}");
            assert_eq!(end(&form, &answer(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn as_many_choices_as_are_taken_elsewhere_are_taken_here() {
        let choices = (0..4096)
            .map(|index| format!("choice {index} of many words and more"))
            .collect();
        let form = form(Grammar::Choice(choices))
            .behind_marked(&|_| Some(MARK))
            .unwrap();
        assert_eq!(end(&form, &[MARK]), Some(GrammarEnd::NotYet));
    }

    #[test]
    fn a_bad_schema_is_told_by_the_field_it_came_in() {
        let schema = Grammar::JsonSchema(
            "{\"type\":\"array\",\"uniqueItems\":true,\"$id\":1,\"items\":{\"$id\":\"x\"}}".to_owned(),
        );
        let error = form(schema).behind_marked(&|_| None).err().unwrap();
        assert!(format!("{error:?}").contains("response_format"), "{error:?}");
    }
}
