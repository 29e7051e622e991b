//! The tools of a chat, checked: what the template is told, what is read as a call, what the answer is held to.

use super::choice::CallsMax;
use super::error::ApiError;
use super::form::{Form, Part, schema_part};
use super::free_json::FreeJson;
use super::request::{RequestFunction, RequestTool, ToolChoice, Tools};
use crate::constraint::schema;
use crate::constraint::spacing::Spacing;
use crate::text::TextModel;
use crate::text::families::{
    AnswerRules, BesideCalls, CallCount, CallRules, CallsForm, Family, Presence, Reasoning, ReasoningFirst,
    Tool,
};
use proto::request::Grammar;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

const NAME_BYTES_MAX: usize = 64;
/// Of all tools together: JSON of free form takes many times its text in memory.
const SCHEMAS_BYTES_MAX: usize = 512 << 10;

/// The tools that a request offers. Empty where it wants none called: the model does not hear of them then.
pub struct Offer {
    tools: Vec<OfferedTool>,
    demand: Demand,
    calls_max: CallsMax,
}

struct OfferedTool {
    tool: Tool,
    strictness: Strictness,
}

/// Whether the arguments of a call that the model makes of its own accord are held to the schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    AsModelWrites,
    Strict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Nothing,
    AnyTool,
    /// The tool at this index.
    OneTool(usize),
}

impl Offer {
    /// The second part: the definitions that templates are given.
    pub fn new(
        tools: Option<Tools>,
        choice: Option<ToolChoice>,
        parallel: Option<bool>,
    ) -> Result<(Offer, Vec<Value>), ApiError> {
        let given = tools.map_or_else(Vec::new, |tools| tools.0);
        check_bytes(&given)?;
        let mut json = FreeJson::new();
        let given = given.into_iter().enumerate();
        let (tools, definitions) = given
            .map(|(index, given)| offered(index, given, &mut json))
            .collect::<Result<(Vec<_>, Vec<_>), _>>()?;
        refuse_repeats(&tools)?;
        let demand = demand(&tools, choice.as_ref())?;
        let (tools, definitions) = match choice {
            Some(ToolChoice::None) => (Vec::new(), Vec::new()),
            Some(ToolChoice::Auto | ToolChoice::Required | ToolChoice::Function(_)) | None => {
                (tools, definitions)
            }
        };
        let offer = Offer {
            tools,
            demand,
            calls_max: match (demand, parallel) {
                (Demand::OneTool(_), _) | (_, Some(false)) => CallsMax::One,
                (Demand::Nothing | Demand::AnyTool, Some(true) | None) => CallsMax::Any,
            },
        };
        Ok((offer, definitions))
    }

    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    pub fn calls_max(&self) -> CallsMax {
        self.calls_max
    }

    /// What to read in the answer.
    pub fn rules(&self, family: Option<&'static dyn Family>, reasoning: Reasoning) -> AnswerRules {
        let names = || {
            self.tools
                .iter()
                .map(|offered| offered.tool.name.clone())
                .collect()
        };
        let calls = family.filter(|_| !self.is_empty()).map(|family| CallRules {
            family,
            names: names(),
            beside: match self.demand {
                Demand::Nothing => BesideCalls::Content,
                Demand::AnyTool | Demand::OneTool(_) => BesideCalls::Nothing,
            },
        });
        AnswerRules { reasoning, calls }
    }

    /// What the answer is held to, where content is held to `content` already. Takes a while: schemas are read.
    pub fn form(
        &self,
        text: &TextModel,
        calls: &CallRules,
        reasoning: Reasoning,
        content: Option<Form>,
    ) -> Result<Option<Form>, ApiError> {
        let mut parts = Vec::new();
        let Some(presence) = self.presence(content, &mut parts)? else {
            return Ok(None);
        };
        if matches!(presence, Presence::OrJson(_)) && !calls.family.marks_calls() {
            let message = "this model's calls look like other JSON, so tools that it may call or not do not go \
                together with JSON content; set `tool_choice` to none or required";
            return Err(ApiError::unsupported("tools", message));
        }
        let form = CallsForm {
            tools: &self.callable(&mut parts)?,
            presence,
            count: match self.calls_max {
                CallsMax::One => CallCount::One,
                CallsMax::Any => CallCount::OneOrMore,
            },
            reasoning: match reasoning {
                Reasoning::Unmarked => ReasoningFirst::No,
                Reasoning::MayOpen => ReasoningFirst::May,
                Reasoning::Opened => ReasoningFirst::Opened,
            },
            special: &|mark| text.mark_token(mark),
        };
        Ok(Some(Form {
            grammar: Grammar::Lark(calls.family.grammar(&form)),
            field: "tools",
            parts,
        }))
    }

    /// `None`: the model may say what it likes.
    fn presence(&self, content: Option<Form>, parts: &mut Vec<Part>) -> Result<Option<Presence>, ApiError> {
        let is_strict = |offered: &OfferedTool| offered.strictness == Strictness::Strict;
        let content = content.map(|form| (form.field, form.grammar));
        match (self.demand, content) {
            (Demand::AnyTool | Demand::OneTool(_), _) => Ok(Some(Presence::Forced)),
            (Demand::Nothing, Some((_, Grammar::JsonObject))) => {
                Ok(Some(Presence::OrJson(schema::object().to_string())))
            }
            (Demand::Nothing, Some((field, Grammar::JsonSchema(text)))) => {
                let schema = schema_part(field, text, parts)?;
                Ok(Some(Presence::OrJson(schema.to_string())))
            }
            (Demand::Nothing, Some((_, Grammar::Regex(_) | Grammar::Choice(_) | Grammar::Lark(_)))) => {
                let message = "tools that the model may call or not go together with JSON content only; \
                    set `tool_choice` to none or required, or leave out the other constraint";
                Err(ApiError::unsupported("tools", message))
            }
            (Demand::Nothing, None) => Ok(self.tools.iter().any(is_strict).then_some(Presence::Free)),
        }
    }

    /// The tools that may be called, with the schemas that calls are held to.
    fn callable(&self, parts: &mut Vec<Part>) -> Result<Vec<Tool>, ApiError> {
        let mut held = |index: usize| {
            let OfferedTool { tool, strictness } = &self.tools[index];
            let mut schema = match (self.demand, strictness) {
                (Demand::Nothing, Strictness::AsModelWrites) => schema::object(),
                (Demand::Nothing, Strictness::Strict) | (Demand::AnyTool | Demand::OneTool(_), _) => {
                    let text = Value::Object(tool.parameters.clone()).to_string();
                    schema_part(&format!("tools[{index}].function.parameters"), text, parts)?
                }
            };
            Spacing::OfCalls.set(&mut schema);
            let Value::Object(parameters) = schema else {
                unreachable!("schemas are read as objects");
            };
            Ok(Tool {
                name: tool.name.clone(),
                parameters,
            })
        };
        match self.demand {
            Demand::OneTool(index) => Ok(vec![held(index)?]),
            Demand::Nothing | Demand::AnyTool => (0..self.tools.len()).map(held).collect(),
        }
    }
}

fn check_bytes(tools: &[RequestTool]) -> Result<(), ApiError> {
    let of_tool = |tool: &RequestTool| tool.function.parameters.as_ref().map_or(0, |raw| raw.get().len());
    match tools.iter().map(of_tool).sum::<usize>() > SCHEMAS_BYTES_MAX {
        true => {
            let message = format!("the schemas in `tools` have more than {SCHEMAS_BYTES_MAX} bytes");
            Err(ApiError::invalid("tools", message))
        }
        false => Ok(()),
    }
}

/// A tool and its definition.
fn offered(index: usize, given: RequestTool, json: &mut FreeJson) -> Result<(OfferedTool, Value), ApiError> {
    let RequestFunction {
        name,
        description,
        parameters,
        strict,
    } = given.function;
    if !is_name(&name) {
        let message = format!(
            "the name of a function must have 1 to {NAME_BYTES_MAX} letters, digits, underscores or dashes"
        );
        return Err(ApiError::invalid(
            &format!("tools[{index}].function.name"),
            message,
        ));
    }
    let parameters = parameters.as_deref().map(|raw| schema(index, raw, json));
    let parameters = parameters.transpose()?;
    let mut function = json!({"name": name});
    if let Some(description) = description {
        function["description"] = json!(description);
    }
    if let Some(parameters) = &parameters {
        function["parameters"] = Value::Object(parameters.clone());
    }
    let offered = OfferedTool {
        tool: Tool {
            name,
            parameters: parameters.unwrap_or_else(no_parameters),
        },
        strictness: match strict.unwrap_or(false) {
            true => Strictness::Strict,
            false => Strictness::AsModelWrites,
        },
    };
    let mut definition = json!({"type": "function"});
    definition["function"] = function;
    Ok((offered, definition))
}

fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn schema(index: usize, raw: &RawValue, json: &mut FreeJson) -> Result<Map<String, Value>, ApiError> {
    let schema: Option<Map<String, Value>> = json
        .read(raw.get())
        .map_err(|error| ApiError::invalid("tools", format!("the schemas in `tools` have {error}")))?;
    let of_object = schema.filter(|schema| schema.get("type").is_none_or(|kind| kind == "object"));
    of_object.ok_or_else(|| {
        let message = "`parameters` must be a JSON schema of type `object`";
        ApiError::invalid(&format!("tools[{index}].function.parameters"), message)
    })
}

fn no_parameters() -> Map<String, Value> {
    let schema = [
        ("type", json!("object")),
        ("properties", json!({})),
        ("additionalProperties", json!(false)),
    ];
    schema
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect()
}

fn refuse_repeats(tools: &[OfferedTool]) -> Result<(), ApiError> {
    for (index, offered) in tools.iter().enumerate() {
        let name = &offered.tool.name;
        if tools[..index].iter().any(|before| before.tool.name == *name) {
            let param = format!("tools[{index}].function.name");
            return Err(ApiError::invalid(
                &param,
                format!("the function `{name}` is given twice"),
            ));
        }
    }
    Ok(())
}

fn demand(tools: &[OfferedTool], choice: Option<&ToolChoice>) -> Result<Demand, ApiError> {
    let invalid = |message: String| ApiError::invalid("tool_choice", message);
    match choice {
        None | Some(ToolChoice::Auto | ToolChoice::None) => Ok(Demand::Nothing),
        Some(ToolChoice::Required) if tools.is_empty() => {
            Err(invalid("`tool_choice` needs `tools` to choose from".to_string()))
        }
        Some(ToolChoice::Required) => Ok(Demand::AnyTool),
        Some(ToolChoice::Function(name)) => {
            let index = tools.iter().position(|offered| offered.tool.name == *name);
            index
                .map(Demand::OneTool)
                .ok_or_else(|| invalid("`tool_choice` names a function that is not in `tools`".to_string()))
        }
    }
}
