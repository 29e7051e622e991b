//! From what a client writes about the form of its answer to a grammar.

use super::error::ApiError;
use super::request::{
    Choices, FormatKind, JsonSchemaFormat, ResponseFormat, Shared, StructuredOutputs, Unserved,
};
use crate::constraint::{bounds, schema, spacing};
use proto::request::Grammar;
use serde_json::Value;
use serde_json::value::RawValue;

pub struct Form {
    pub grammar: Grammar,
    /// The field that asked for it.
    pub field: &'static str,
    /// What it is made of, where it is made of several: one of them may be to blame when it cannot be followed.
    pub parts: Vec<Part>,
}

pub struct Part {
    /// Where it stands in the request.
    pub field: String,
    pub grammar: Grammar,
}

impl Form {
    /// In one part.
    fn whole(field: &'static str, grammar: Grammar) -> Form {
        Form {
            grammar,
            field,
            parts: Vec::new(),
        }
    }
}

/// A schema that becomes a part of a grammar.
pub fn schema_part(field: &str, text: String, parts: &mut Vec<Part>) -> Result<Value, ApiError> {
    let grammar = Grammar::JsonSchema(text.clone());
    let schema = bounds::check(&grammar).and_then(|()| schema::read(&text));
    let schema =
        schema.map_err(|error| ApiError::bad_grammar(&format!("`{field}`: {error}")).about(field))?;
    parts.push(Part {
        field: field.to_owned(),
        grammar,
    });
    Ok(schema)
}

/// `None`: the answer is free. Whether the grammar can be followed is asked later.
pub fn form(shared: &mut Shared) -> Result<Option<Form>, ApiError> {
    let outputs = shared.structured_outputs.take();
    let is_compact = outputs
        .as_ref()
        .is_some_and(|outputs| outputs.disable_any_whitespace == Some(true));
    let mut forms = Vec::new();
    let mut add =
        |field, grammar: Option<Grammar>| forms.extend(grammar.map(|grammar| Form::whole(field, grammar)));
    add("response_format", response_format(shared.response_format.take())?);
    add("structured_outputs", structured_outputs(outputs)?);
    add(
        "guided_json",
        schema_text("guided_json", shared.guided_json.take())?,
    );
    let regex = text("guided_regex", shared.guided_regex.take())?;
    add("guided_regex", regex.map(Grammar::Regex));
    add(
        "guided_choice",
        choices("guided_choice", shared.guided_choice.take())?,
    );
    let grammar = text("guided_grammar", shared.guided_grammar.take())?;
    add("guided_grammar", grammar.map(Grammar::Lark));
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
        None if is_compact => compact(form).map(Some),
        None => Ok(form),
    }
}

/// The same without white space between the tokens of JSON.
fn compact(form: Option<Form>) -> Result<Form, ApiError> {
    let (field, schema) = match form.map(|form| (form.field, form.grammar)) {
        Some((field, Grammar::JsonObject)) => (field, "{\"type\":\"object\"}".to_owned()),
        Some((field, Grammar::JsonSchema(schema))) => (field, schema),
        Some((_, Grammar::Regex(_) | Grammar::Choice(_) | Grammar::Lark(_))) | None => {
            let field = "structured_outputs.disable_any_whitespace";
            let message = format!("`{field}` is about JSON, and this request asks for none");
            return Err(ApiError::invalid(field, message));
        }
    };
    Ok(Form::whole(field, Grammar::JsonSchema(spacing::compact(&schema))))
}

fn response_format(format: Option<ResponseFormat>) -> Result<Option<Grammar>, ApiError> {
    let Some(format) = format else { return Ok(None) };
    let grammar = |schema: Box<RawValue>| Some(Grammar::JsonSchema(schema.get().to_owned()));
    match (format.kind, format.json_schema, format.schema) {
        (FormatKind::Text, None, None) => Ok(None),
        (FormatKind::JsonObject, None, None) => Ok(Some(Grammar::JsonObject)),
        (FormatKind::JsonObject, None, Some(schema)) => Ok(grammar(schema)),
        (
            FormatKind::JsonSchema,
            Some(JsonSchemaFormat {
                schema: Some(schema), ..
            }),
            None,
        ) => Ok(grammar(schema)),
        (FormatKind::JsonSchema, _, None) => Err(ApiError::missing("response_format.json_schema.schema")),
        (FormatKind::Text | FormatKind::JsonObject, Some(_), _) => Err(misplaced(
            "response_format.json_schema",
            "`response_format.type` is `json_schema`",
        )),
        (FormatKind::Text | FormatKind::JsonSchema, _, Some(_)) => Err(misplaced(
            "response_format.schema",
            "`response_format.type` is `json_object`",
        )),
    }
}

/// To ignore it would give an answer of another form than is meant.
fn misplaced(field: &str, place: &str) -> ApiError {
    ApiError::invalid(field, format!("`{field}` counts only where {place}"))
}

fn structured_outputs(outputs: Option<StructuredOutputs>) -> Result<Option<Grammar>, ApiError> {
    const FIELD: &str = "structured_outputs";
    let Some(outputs) = outputs else { return Ok(None) };
    for (name, value) in [
        ("structural_tag", outputs.structural_tag),
        ("whitespace_pattern", outputs.whitespace_pattern),
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
        schema_text("structured_outputs.json", outputs.json)?,
        text("structured_outputs.regex", outputs.regex)?.map(Grammar::Regex),
        choices("structured_outputs.choice", outputs.choice)?,
        text("structured_outputs.grammar", outputs.grammar)?.map(Grammar::Lark),
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

/// An object, or the text of one. An empty schema allows any JSON, which is a form too.
fn schema_text(field: &str, schema: Option<Box<RawValue>>) -> Result<Option<Grammar>, ApiError> {
    let Some(schema) = schema else { return Ok(None) };
    let no_schema = || ApiError::invalid(field, format!("`{field}` must be a JSON schema or its text"));
    match schema.get().as_bytes().first() {
        Some(b'"') => {
            let given = serde_json::from_str(schema.get()).map_err(|_| no_schema())?;
            Ok(text(field, Some(given))?.map(Grammar::JsonSchema))
        }
        Some(b'{') => Ok(Some(Grammar::JsonSchema(schema.get().to_owned()))),
        Some(_) | None => Err(no_schema()),
    }
}

fn text(field: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.is_empty() => Err(empty(field)),
        Some(_) | None => Ok(text),
    }
}

fn choices(field: &str, choices: Option<Choices>) -> Result<Option<Grammar>, ApiError> {
    match choices {
        Some(choices) if choices.0.is_empty() => Err(empty(field)),
        Some(choices) => Ok(Some(Grammar::Choice(choices.0))),
        None => Ok(None),
    }
}

/// Whoever asks for a form means one: a free answer would be another.
fn empty(field: &str) -> ApiError {
    let message = format!("`{field}` is empty; leave it out for an answer of any form");
    ApiError::invalid(field, message)
}
