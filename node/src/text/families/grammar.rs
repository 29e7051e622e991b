//! Grammars of answers with calls, in llguidance's dialect of Lark.

use super::json_calls::{Body, JsonSyntax};
use super::reasoning;
use super::tool::Tool;
use serde_json::{Value, json};

/// What calls an answer has.
pub struct CallsForm<'a> {
    /// Each call is of one of these; at least one. Their schemas are as the compiler wants them, with its options.
    pub tools: &'a [Tool],
    pub presence: Presence,
    pub count: CallCount,
    pub reasoning: ReasoningFirst,
    /// The token that a mark is, if it is a special one.
    pub special: &'a dyn Fn(&str) -> Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Presence {
    /// The answer is calls and nothing else.
    Forced,
    /// The answer is what the model likes; a call that it makes has the right form.
    Free,
    /// The answer is calls, or JSON that is valid under this schema.
    OrJson(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallCount {
    One,
    OneOrMore,
}

/// What comes before content and calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReasoningFirst {
    No,
    /// The model may reason first, where it is free.
    May,
    /// The prompt has opened the model's reasoning: the model ends it first.
    Opened,
}

/// How a family's calls look.
pub struct CallGrammar {
    pub syntax: JsonSyntax,
    pub arguments_key: &'static str,
}

impl CallGrammar {
    pub fn text(&self, form: &CallsForm) -> String {
        assert!(!form.tools.is_empty(), "no tool to call");
        let names: Vec<String> = (0..form.tools.len())
            .map(|index| format!("call_{index}"))
            .collect();
        let mut rules = self.start(form);
        rules.extend(self.calls(form));
        match &form.presence {
            Presence::Forced => {}
            Presence::Free => rules.extend(self.free(form)),
            Presence::OrJson(schema) => rules.push(format!("content: %json {schema}")),
        }
        rules.push(format!("call: {}", names.join(" | ")));
        for (tool, index) in form.tools.iter().zip(0..) {
            rules.extend(self.call(index, tool));
        }
        rules.push(String::new());
        rules.join("\n")
    }

    fn start(&self, form: &CallsForm) -> Vec<String> {
        let answer = match form.presence {
            Presence::Forced => "calls",
            Presence::Free => "free",
            Presence::OrJson(_) => "(calls | content)",
        };
        let (closed, rule) = reasoned(form.special);
        match (form.reasoning, &form.presence, (form.special)(reasoning::OPENING)) {
            (ReasoningFirst::Opened, _, _) => vec![start_behind(&closed, answer), rule],
            (ReasoningFirst::May, Presence::Free, Some(opening)) => {
                vec![format!("start: (<[{opening}]> {closed})? {answer}"), rule]
            }
            // Ordinary tokens that spell the mark are part of free text as it is; a forced answer has no reasoning.
            (ReasoningFirst::May | ReasoningFirst::No, _, _) => vec![format!("start: {answer}")],
        }
    }

    fn calls(&self, form: &CallsForm) -> Vec<String> {
        let opening = mark(form, self.syntax.opening);
        let again = |between: &str, one: &str| match form.count {
            CallCount::One => String::new(),
            CallCount::OneOrMore => format!(" ({between} {one})*"),
        };
        let [calls, marked] = match self.syntax.body {
            Body::Enclosed(closing) => [
                format!(
                    "{opening} marked{}",
                    again("\"\\n\"", &format!("{opening} marked"))
                ),
                format!("\"\\n\" call \"\\n\" {}", mark(form, closing)),
            ],
            Body::List => [
                format!("{opening} marked"),
                format!("\" [\" call{} \"]\"", again("\", \"", "call")),
            ],
            Body::Bare => ["marked".to_string(), format!("call{}", again("\"; \"", "call"))],
        };
        vec![format!("calls: {calls}"), format!("marked: {marked}")]
    }

    /// Text of any kind, in which the opening mark is followed by a call.
    fn free(&self, form: &CallsForm) -> Vec<String> {
        let plain = anything_but(self.syntax.opening);
        let times = match form.count {
            CallCount::One => '?',
            CallCount::OneOrMore => '*',
        };
        let (opened, rule) = up_to(form.special, "opened", self.syntax.opening);
        match self.syntax.body {
            Body::Bare => vec![
                "free: marked | PLAIN".to_string(),
                format!("PLAIN: {plain} & /\\s*([^{{\\s](.|\\n)*)?/"),
            ],
            Body::Enclosed(_) | Body::List => vec![
                format!("free: ({opened} marked){times} PLAIN"),
                rule,
                format!("PLAIN: {plain}"),
            ],
        }
    }

    fn call(&self, index: usize, tool: &Tool) -> [String; 2] {
        let name = json!(tool.name).to_string();
        let head = literal(&format!("{{\"name\": {name}, \"{}\": ", self.arguments_key));
        [
            format!("call_{index}: {head} arguments_{index} \"}}\""),
            format!(
                "arguments_{index}: %json {}",
                Value::Object(tool.parameters.clone())
            ),
        ]
    }
}

/// A whole grammar: reasoning that the prompt has opened comes first, then what the rule `content` in `rules` says.
pub fn behind_reasoning(rules: &str, special: &dyn Fn(&str) -> Option<u32>) -> String {
    let (closed, rule) = reasoned(special);
    format!("{}\n{rule}\n{rules}\n", start_behind(&closed, "content"))
}

/// The line breaks are those that models write there; readers take them for a part of the mark.
fn start_behind(closed: &str, answer: &str) -> String {
    format!("start: {closed} \"\\n\\n\" {answer}")
}

fn reasoned(special: &dyn Fn(&str) -> Option<u32>) -> (String, String) {
    up_to(special, "reasoned", reasoning::CLOSING)
}

/// Text to the end of a mark: how a rule says it, and the rule of this name that it needs.
fn up_to(special: &dyn Fn(&str) -> Option<u32>, name: &str, mark: &str) -> (String, String) {
    match special(mark) {
        Some(id) => (
            format!("{} <[{id}]>", name.to_uppercase()),
            format!("{}: /(.|\\n)*/", name.to_uppercase()),
        ),
        None => (
            name.to_string(),
            format!("{name}[suffix={}]: /(.|\\n)*/", literal(mark)),
        ),
    }
}

/// Text without this mark in it, spelled by ordinary tokens.
fn anything_but(mark: &str) -> String {
    let escaped: String = mark.chars().flat_map(escaped).collect();
    format!("/(.|\\n)*/ & ~/(.|\\n)*{escaped}(.|\\n)*/")
}

/// For a regular expression between slashes.
fn escaped(letter: char) -> Vec<char> {
    match letter.is_alphanumeric() || letter == '_' || letter == '<' || letter == '>' {
        true => vec![letter],
        false => vec!['\\', letter],
    }
}

fn mark(form: &CallsForm, text: &str) -> String {
    match (form.special)(text) {
        Some(id) => format!("<[{id}]>"),
        None => literal(text),
    }
}

/// Lark writes strings as JSON does.
fn literal(text: &str) -> String {
    json!(text).to_string()
}
