//! From what a client writes about the form of its answer to a grammar.

use super::error::ApiError;
use super::request::{Choices, FormatKind, ResponseFormat, Shared, StructuredOutputs, Unserved, is_empty};
use proto::request::Grammar;
use serde_json::value::RawValue;

pub struct Form {
    pub grammar: Grammar,
    /// The field that asked for it.
    pub field: &'static str,
}

/// `None`: the answer is free. Whether the grammar can be followed is asked later.
pub fn form(shared: &mut Shared) -> Result<Option<Form>, ApiError> {
    let mut forms = Vec::new();
    let mut add =
        |field, grammar: Option<Grammar>| forms.extend(grammar.map(|grammar| Form { grammar, field }));
    add("response_format", response_format(shared.response_format.take())?);
    add(
        "structured_outputs",
        structured_outputs(shared.structured_outputs.take())?,
    );
    add("guided_json", schema("guided_json", shared.guided_json.take())?);
    add(
        "guided_regex",
        text(shared.guided_regex.take()).map(Grammar::Regex),
    );
    add("guided_choice", choices(shared.guided_choice.take()));
    add(
        "guided_grammar",
        text(shared.guided_grammar.take()).map(Grammar::Lark),
    );
    let form = forms.pop();
    match forms.pop() {
        Some(other) => Err(ApiError::invalid(
            other.field,
            format!(
                "an answer has one form, and both `{}` and `{}` give one",
                other.field,
                form.map_or(other.field, |form| form.field)
            ),
        )),
        None => Ok(form),
    }
}

fn response_format(format: Option<ResponseFormat>) -> Result<Option<Grammar>, ApiError> {
    let Some(format) = format else { return Ok(None) };
    match format.kind {
        FormatKind::Text => Ok(None),
        FormatKind::JsonObject => Ok(Some(Grammar::JsonObject)),
        FormatKind::JsonSchema => {
            let schema = format.json_schema.and_then(|format| format.schema);
            let missing = || ApiError::missing("response_format.json_schema.schema");
            Ok(Some(Grammar::JsonSchema(
                schema.ok_or_else(missing)?.get().to_owned(),
            )))
        }
    }
}

fn structured_outputs(outputs: Option<StructuredOutputs>) -> Result<Option<Grammar>, ApiError> {
    const FIELD: &str = "structured_outputs";
    let Some(outputs) = outputs else { return Ok(None) };
    for (name, value) in [
        ("structural_tag", outputs.structural_tag),
        ("whitespace_pattern", outputs.whitespace_pattern),
        ("disable_any_whitespace", outputs.disable_any_whitespace),
        (
            "disable_additional_properties",
            outputs.disable_additional_properties,
        ),
    ] {
        if value == Some(Unserved::AsksForSomething) {
            return Err(ApiError::unsupported(
                FIELD,
                format!("`{FIELD}.{name}` is not supported"),
            ));
        }
    }
    let grammars = [
        schema(FIELD, outputs.json)?,
        text(outputs.regex).map(Grammar::Regex),
        choices(outputs.choice),
        text(outputs.grammar).map(Grammar::Lark),
        outputs
            .json_object
            .filter(|is_asked| *is_asked)
            .map(|_| Grammar::JsonObject),
    ];
    let mut grammars = grammars.into_iter().flatten();
    match (grammars.next(), grammars.next()) {
        (_, Some(_)) => Err(ApiError::invalid(
            FIELD,
            format!("`{FIELD}` gives more than one form"),
        )),
        (form, None) => Ok(form),
    }
}

/// An object, or the text of one.
fn schema(field: &'static str, schema: Option<Box<RawValue>>) -> Result<Option<Grammar>, ApiError> {
    let Some(schema) = schema else { return Ok(None) };
    match schema.get().as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(schema.get()).map_err(|_| {
                ApiError::invalid(field, format!("`{field}` must be a JSON schema or its text"))
            })?;
            Ok((!text.is_empty()).then_some(Grammar::JsonSchema(text)))
        }
        // An empty schema allows any JSON, which is a form too.
        Some(b'{') => Ok(Some(Grammar::JsonSchema(schema.get().to_owned()))),
        Some(_) if is_empty(&schema) => Ok(None),
        Some(_) | None => Err(ApiError::invalid(
            field,
            format!("`{field}` must be a JSON schema or its text"),
        )),
    }
}

fn text(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn choices(choices: Option<Choices>) -> Option<Grammar> {
    let choices = choices.filter(|choices| !choices.0.is_empty())?;
    Some(Grammar::Choice(choices.0))
}
