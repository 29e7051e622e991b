//! What a family of models has its own way of.

use super::call_object::Names;
use super::grammar::{CallGrammar, CallsForm};
use super::json_calls::{Body, JsonCalls, JsonSyntax};
use super::pieces::Pieces;
use super::reasoning;
use std::sync::Arc;

/// How a family of models writes calls of tools.
pub trait Family: Send + Sync {
    /// Marks around calls. Where one is a special token of a vocabulary, it must still reach the reader as text.
    fn markers(&self) -> Vec<&'static str>;

    /// Reads one answer. `names`: the tools that may be called.
    fn reader(&self, names: Arc<[String]>) -> Box<dyn CallReader>;

    /// Whether calls begin with a mark of their own, so that an answer may be JSON instead of calls.
    fn marks_calls(&self) -> bool;

    /// The answers that have calls in this form.
    fn grammar(&self, form: &CallsForm) -> String;

    /// The name of a call for its answer to refer to: `letters` are as random as the request, as many are taken as the
    /// family's templates ask for.
    fn call_id(&self, letters: &str) -> String;
}

/// Finds calls in the text of one answer.
pub trait CallReader: Send {
    fn push(&mut self, text: &str, pieces: &mut Pieces);

    /// Nothing more comes.
    fn finish(&mut self, ending: Ending, pieces: &mut Pieces);

    /// How many calls are complete, or broke off and will not go on.
    fn calls_over(&self) -> u32;
}

/// How an answer has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The model has said all that it had to say.
    Whole,
    /// More would have come: the beginning of a mark is no text.
    Cut,
}

/// Qwen 2.5 and 3, Hermes and many others: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
pub static HERMES: JsonFamily = JsonFamily {
    syntax: JsonSyntax {
        opening: "<tool_call>",
        body: Body::Enclosed("</tool_call>"),
    },
    arguments_key: "arguments",
    call_id: CallId::Prefixed,
};

/// Llama 3.1 and later: `{"name": …, "parameters": {…}}`, with or without `<|python_tag|>`.
pub static LLAMA: JsonFamily = JsonFamily {
    syntax: JsonSyntax {
        opening: "<|python_tag|>",
        body: Body::Bare,
    },
    arguments_key: "parameters",
    call_id: CallId::Prefixed,
};

/// Mistral, to its tokenizer's version 7: `[TOOL_CALLS][{"name": …, "arguments": {…}}]`.
pub static MISTRAL: JsonFamily = JsonFamily {
    syntax: JsonSyntax {
        opening: "[TOOL_CALLS]",
        body: Body::List,
    },
    arguments_key: "arguments",
    call_id: CallId::NineLetters,
};

/// What any family marks calls or reasoning with.
pub fn marks() -> Vec<&'static str> {
    let families: [&dyn Family; 3] = [&HERMES, &LLAMA, &MISTRAL];
    let of_calls = families.iter().flat_map(|family| family.markers());
    of_calls.chain([reasoning::OPENING, reasoning::CLOSING]).collect()
}

/// A family that writes a call as a JSON object.
pub struct JsonFamily {
    syntax: JsonSyntax,
    /// The key it is trained to write; both are read.
    arguments_key: &'static str,
    call_id: CallId,
}

enum CallId {
    /// `call_…`, as OpenAI's.
    Prefixed,
    /// Mistral's templates refuse all others.
    NineLetters,
}

impl Family for JsonFamily {
    fn markers(&self) -> Vec<&'static str> {
        match self.syntax.body {
            Body::Enclosed(closing) => vec![self.syntax.opening, closing],
            Body::List | Body::Bare => vec![self.syntax.opening],
        }
    }

    fn reader(&self, names: Arc<[String]>) -> Box<dyn CallReader> {
        let names = match self.syntax.body {
            Body::Enclosed(_) | Body::List => Names::Any,
            Body::Bare => Names::Only(names),
        };
        Box::new(JsonCalls::new(self.syntax, names))
    }

    fn marks_calls(&self) -> bool {
        match self.syntax.body {
            Body::Enclosed(_) | Body::List => true,
            Body::Bare => false,
        }
    }

    fn grammar(&self, form: &CallsForm) -> String {
        CallGrammar {
            syntax: self.syntax,
            arguments_key: self.arguments_key,
        }
        .text(form)
    }

    fn call_id(&self, letters: &str) -> String {
        match self.call_id {
            CallId::Prefixed => format!("call_{}", &letters[..24]),
            CallId::NineLetters => letters[..9].to_string(),
        }
    }
}
