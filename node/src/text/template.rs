//! The chat template of a model file: Jinja, rendered in a sandbox.
//!
//! A template sees the conversation and the names below, nothing of the host: no files, no clock, no other templates.
//! Fuel bounds its work and `RENDERED_BYTES_MAX` its result. It is set up as in `transformers`: blocks trimmed,
//! `raise_exception`, `tojson` as Python writes it, and the usual methods of Python's strings, lists and dicts.

use super::conversation::Conversation;
use super::families::{ToolSupport, tools_described};
use super::python_json;
use super::python_methods::call_python_method;
use super::tokenizer::NamedTokens;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// About a hundred steps for each of some thousand messages.
const FUEL: u64 = 2_000_000;
/// More would not fit any context we serve.
const RENDERED_BYTES_MAX: usize = 16 << 20;
const RECURSION_MAX: usize = 100;
const INDENT_MAX: usize = 16;
const NAME: &str = "chat_template";

#[derive(thiserror::Error, Debug)]
pub enum TemplateError {
    #[error("it has {0} bytes; at most {TEMPLATE_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("{0}")]
    Syntax(String),
    /// The template itself objects to the conversation (`raise_exception`).
    #[error("{0}")]
    Rejected(String),
    #[error("the chat template does not work for this conversation: {0}")]
    Failed(String),
    #[error("the conversation takes too much work or space to render")]
    TooMuch,
}

pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    named: NamedTokens,
    tool_support: ToolSupport,
}

impl ChatTemplate {
    pub fn new(source: &str, named: &NamedTokens) -> Result<ChatTemplate, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong(source.len()));
        }
        Ok(ChatTemplate {
            source: source.to_string(),
            environment: unless_it_panics(|| environment(source))?,
            named: named.clone(),
            tool_support: ToolSupport::of(source),
        })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// How a conversation may offer tools; `render` does what that asks for.
    pub fn tool_support(&self) -> ToolSupport {
        self.tool_support
    }

    /// The prompt as text. Special tokens are spelled out in it; it already has those that belong at its start.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        unless_it_panics(|| self.page(conversation))
    }

    fn page(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| failure(&error))?;
        let mut page = BoundedPage::default();
        let context = match self.tool_support {
            ToolSupport::Described(_) => self.context(&tools_described(conversation)),
            ToolSupport::Native(_) | ToolSupport::Unknown => self.context(conversation),
        };
        match template.render_captured_to(context, &mut page) {
            Ok(_) => String::from_utf8(page.bytes).map_err(|error| TemplateError::Failed(error.to_string())),
            Err(_) if page.is_full => Err(TemplateError::TooMuch),
            Err(error) => Err(failure(&error)),
        }
    }

    fn context(&self, conversation: &Conversation) -> Value {
        let tools = (!conversation.tools.is_empty()).then_some(Serde(&conversation.tools));
        let ours = context! {
            messages => Serde(&conversation.messages),
            // Without tools it is there and `none`, as in transformers: templates ask for both.
            tools => tools,
            add_generation_prompt => conversation.add_generation_prompt,
        };
        context! { ..ours, ..Value::from(Serde(&self.named)), ..Value::from(Serde(&conversation.variables)) }
    }
}

/// minijinja panics over an empty list that is sliced backwards, and who knows over what else. No request ends for that
/// with a fault of ours, and no node with its model's template.
fn unless_it_panics<T>(work: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
    // What the work has changed is dropped with it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done,
        Err(_) => Err(TemplateError::Failed("the template engine broke".to_string())),
    }
}

fn environment(source: &str) -> Result<Environment<'static>, TemplateError> {
    let mut environment = sandbox();
    environment
        .add_template_owned(NAME, source.to_string())
        .map_err(|error| TemplateError::Syntax(described(&error)))?;
    Ok(environment)
}

fn sandbox() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    // Prompts are no HTML: nothing is escaped.
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(call_python_method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", python_json);
    environment
}

/// Marks an error as the template's own words.
#[derive(thiserror::Error, Debug)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The filter `tojson`.
fn python_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let written = match indent {
        Some(indent) => python_json::indented(&value, indent.min(INDENT_MAX)),
        None => python_json::line(&value),
    };
    written.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Takes what a template writes until the bound.
#[derive(Default)]
struct BoundedPage {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for BoundedPage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDERED_BYTES_MAX {
            self.is_full = true;
            return Err(io::Error::other("the page is full"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failure(error: &Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::TooMuch;
    }
    match raised(error) {
        Some(message) => TemplateError::Rejected(message),
        None => TemplateError::Failed(described(error)),
    }
}

fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref::<Raised>() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// What and in which line, without the values at hand: those are the user's text.
fn described(error: &Error) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_string);
    match error.line() {
        Some(line) => format!("{what} (line {line})"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Message;

    fn template(source: &str) -> ChatTemplate {
        let named = NamedTokens {
            bos: Some("<s>".into()),
            ..NamedTokens::default()
        };
        ChatTemplate::new(source, &named).unwrap()
    }

    fn rendered(source: &str) -> Result<String, TemplateError> {
        let message = |role: &str, content: &str| Message {
            role: role.into(),
            content: Some(content.into()),
            ..Message::default()
        };
        template(source).render(&Conversation {
            messages: vec![message("system", " Be <brief>. "), message("user", "Hi\n")],
            add_generation_prompt: true,
            variables: serde_json::Map::from_iter([("thinking".to_string(), serde_json::Value::Bool(false))]),
            tools: Vec::new(),
        })
    }

    #[test]
    fn a_template_sees_messages_named_tokens_and_the_clients_variables() {
        let source = "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'user' %}\n[{{ m['content'] | trim }}]\n  {% endif %}\n{% endfor %}{{ thinking }}";
        assert_eq!(rendered(source).unwrap(), "<s>[Hi]\nFalse");
    }

    #[test]
    fn nothing_is_escaped_and_json_is_written_as_python_writes_it() {
        assert_eq!(rendered("{{ messages[0].content }}").unwrap(), " Be <brief>. ");
        assert_eq!(
            rendered("{{ {'a': [1, 'é<'], 'b': none} | tojson }}").unwrap(),
            r#"{"a": [1, "é<"], "b": null}"#
        );
    }

    #[test]
    fn python_methods_work() {
        let source = "{{ messages[0].content.strip().split(' ')[0].upper() }}{{ 'abc'.startswith('a') }}{% for k, v in {'x': 1}.items() %}{{ k }}{% endfor %}";
        assert_eq!(rendered(source).unwrap(), "BETruex");
    }

    #[test]
    fn what_a_template_raises_is_told_in_its_own_words() {
        let error =
            rendered("{{ raise_exception('Only user and assistant roles are supported!') }}").unwrap_err();
        assert!(
            matches!(error, TemplateError::Rejected(words) if words == "Only user and assistant roles are supported!")
        );
    }

    #[test]
    fn work_and_space_are_bounded() {
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}";
        assert!(matches!(
            rendered(endless),
            Err(TemplateError::TooMuch | TemplateError::Failed(_))
        ));
        assert!(matches!(
            rendered("{{ 'x' * 90000000 }}"),
            Err(TemplateError::TooMuch)
        ));
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        name: String,
        template: String,
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        messages: Vec<Message>,
        tools: Option<Vec<serde_json::Value>>,
        add_generation_prompt: bool,
        rendered: String,
    }

    #[test]
    fn templates_of_several_families_render_as_in_transformers() {
        let named = NamedTokens {
            bos: Some("<s>".into()),
            eos: Some("</s>".into()),
            ..NamedTokens::default()
        };
        let goldens: Vec<Golden> = serde_json::from_str(include_str!("testdata/templates.json")).unwrap();
        for Golden {
            name,
            template,
            cases,
        } in goldens
        {
            let template = ChatTemplate::new(&template, &named).unwrap();
            for case in cases {
                let variables = [("enable_thinking".to_string(), serde_json::Value::Bool(false))];
                let rendered = template.render(&Conversation {
                    messages: case.messages,
                    tools: case.tools.unwrap_or_default(),
                    add_generation_prompt: case.add_generation_prompt,
                    variables: serde_json::Map::from_iter(variables),
                });
                assert_eq!(rendered.unwrap(), case.rendered, "{name}");
            }
        }
    }

    #[test]
    fn a_panic_of_the_template_engine_is_an_error() {
        let error = rendered("{% for x in [][::-1] %}{{ x }}{% endfor %}").unwrap_err();
        assert!(matches!(error, TemplateError::Failed(_)), "{error}");
    }

    #[test]
    fn a_template_cannot_reach_other_templates() {
        assert!(matches!(
            rendered("{% include 'other' %}"),
            Err(TemplateError::Failed(_))
        ));
    }

    #[test]
    fn an_error_does_not_repeat_the_users_text() {
        let error = rendered("{{ messages[0].content.no_such_method() }}").unwrap_err();
        assert!(!error.to_string().contains("brief"), "{error}");
    }
}
