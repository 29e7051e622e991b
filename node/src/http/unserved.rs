//! Fields that would change the answer and are not served: refused, unless their value asks for nothing.

use super::error::ApiError;
use super::request::{CompletionRequest, Shared, Unserved, UnservedNumber, is_empty};
use serde_json::value::RawValue;

const BEAMS: &str = "answers are sampled; for the likeliest tokens set `temperature` to 0";
const CODE: &str = "requests cannot bring code";
const PROMPTS: &str = "prompts are text or token ids";

pub fn refuse(shared: &Shared) -> Result<(), ApiError> {
    refuse_functions(shared)?;
    refuse_samplers(shared)?;
    refuse_forms(shared)?;
    refuse_about_prompts(shared)?;
    refuse_about_engines(shared)?;
    refuse_about_text(shared)?;
    refuse_others(shared)
}

/// A field that is there with a value that asks for something.
fn refuse_field(name: &str, value: Option<Unserved>, advice: &str) -> Result<(), ApiError> {
    match value {
        Some(Unserved::AsksForSomething) => {
            let message = format!("`{name}` is not supported: {advice}");
            Err(ApiError::unsupported(name, message))
        }
        Some(Unserved::AsksForNothing) | None => Ok(()),
    }
}

/// Not of every request, so not among the shared ones.
pub fn refuse_template(chat_template: Option<Unserved>) -> Result<(), ApiError> {
    let advice = "the model's own is used; `chat_template_kwargs` sets variables of it";
    refuse_field("chat_template", chat_template, advice)
}

/// Of a completion.
pub fn refuse_what_chats_have(request: &CompletionRequest) -> Result<(), ApiError> {
    if request.tools == Some(Unserved::AsksForSomething) {
        let message = "`tools` are for /v1/chat/completions";
        return Err(ApiError::unsupported("tools", message));
    }
    if request.tool_choice.as_deref().is_some_and(asks_for_function) {
        let message = "`tool_choice` is for /v1/chat/completions, as `tools` are";
        return Err(ApiError::unsupported("tool_choice", message));
    }
    match request.top_logprobs {
        Some(UnservedNumber(Unserved::AsksForSomething)) => {
            let message = "`top_logprobs` is for /v1/chat/completions; here `logprobs` is how many are given";
            Err(ApiError::unsupported("top_logprobs", message))
        }
        Some(UnservedNumber(Unserved::AsksForNothing)) | None => Ok(()),
    }
}

/// Ways to choose tokens that other servers have.
fn refuse_samplers(shared: &Shared) -> Result<(), ApiError> {
    const ADVICE: &str = "tokens are chosen by `temperature`, `top_p`, `top_k`, `min_p` and the penalties";
    let length_penalty = shared.length_penalty.map(|number| number.0);
    refuse_field(
        "length_penalty",
        length_penalty,
        "answers are sampled, not ranked",
    )?;
    let repetition = "`max_tokens` and `stop` end an answer";
    refuse_field("repetition_detection", shared.repetition_detection, repetition)?;
    refuse_field("typical_p", shared.typical_p.map(|number| number.0), ADVICE)?;
    refuse_field("mirostat", shared.mirostat.map(|number| number.0), ADVICE)?;
    refuse_field(
        "dry_multiplier",
        shared.dry_multiplier.map(|number| number.0),
        ADVICE,
    )?;
    refuse_field(
        "xtc_probability",
        shared.xtc_probability.map(|number| number.0),
        ADVICE,
    )?;
    refuse_field("tfs", shared.tfs.map(|number| number.0), ADVICE)?;
    refuse_field("tfs_z", shared.tfs_z.map(|number| number.0), ADVICE)?;
    let ngrams = shared.no_repeat_ngram_size.map(|number| number.0);
    refuse_field("no_repeat_ngram_size", ngrams, ADVICE)?;
    refuse_field("top_a", shared.top_a.map(|number| number.0), ADVICE)?;
    let range = shared.dynatemp_range.map(|number| number.0);
    refuse_field("dynatemp_range", range, ADVICE)?;
    refuse_unless("top_n_sigma", &shared.top_n_sigma, is_at_most_zero)?;
    refuse_field("num_beams", shared.num_beams.map(|number| number.0), BEAMS)?;
    if shared.do_sample == Some(false) {
        let message = "`do_sample` is not supported here: set `temperature` to 0";
        return Err(ApiError::unsupported("do_sample", message));
    }
    refuse_other_names(shared)
}

/// What is served here under another name.
fn refuse_other_names(shared: &Shared) -> Result<(), ApiError> {
    refuse_field(
        "repeat_penalty",
        shared.repeat_penalty.map(|number| number.0),
        "it is `repetition_penalty` here",
    )?;
    refuse_field("max_new_tokens", shared.max_new_tokens, "it is `max_tokens` here")?;
    refuse_field("n_predict", shared.n_predict, "it is `max_tokens` here")?;
    let kept = "it is `include_stop_str_in_output` here";
    refuse_field("no_stop_trim", shared.no_stop_trim, kept)?;
    refuse_field(
        "min_new_tokens",
        shared.min_new_tokens.map(|number| number.0),
        "it is `min_tokens` here",
    )
}

fn refuse_about_prompts(shared: &Shared) -> Result<(), ApiError> {
    let salt = "no tenant finds what another one's prompts have left in the cache; give those that are to be apart keys of \
        different tenants";
    refuse_field("cache_salt", shared.cache_salt, salt)?;
    let ids = "completions take token ids as `prompt`";
    refuse_field("input_ids", shared.input_ids, ids)?;
    refuse_field("input_embeds", shared.input_embeds, PROMPTS)?;
    refuse_unless("truncation_side", &shared.truncation_side, |side| {
        is_text(side, "left") || is_empty(side)
    })
}

/// What an answer's text is like, and where it ends.
fn refuse_about_text(shared: &Shared) -> Result<(), ApiError> {
    let strings = "answers end at the strings of `stop` and the tokens of `stop_token_ids`";
    refuse_field("stop_regex", shared.stop_regex, strings)?;
    if shared.spaces_between_special_tokens == Some(false) {
        return Err(not_supported("spaces_between_special_tokens"));
    }
    // What a template does by itself is its own matter, so neither value is known to change nothing.
    if shared.enable_thinking.is_some() {
        let message = "`enable_thinking` is not supported here: set it in `chat_template_kwargs`";
        return Err(ApiError::unsupported("enable_thinking", message));
    }
    refuse_unless("verbosity", &shared.verbosity, |verbosity| {
        is_text(verbosity, "medium") || is_empty(verbosity)
    })
}

/// When, where and with what a request is computed.
fn refuse_about_engines(shared: &Shared) -> Result<(), ApiError> {
    let fair = "tenants are scheduled fairly; `service_tier` is a class of the queue: `priority`, `default` or `flex`";
    refuse_field("priority", shared.priority.map(|number| number.0), fair)?;
    refuse_field("custom_logit_processor", shared.custom_logit_processor, CODE)?;
    let adapters = "no adapters are served; `model` names a whole model";
    refuse_field("lora_path", shared.lora_path, adapters)?;
    let place = "where keys and values are kept is not for requests to say";
    refuse_field("kv_transfer_params", shared.kv_transfer_params, place)
}

/// The form of an answer in the words of other servers.
fn refuse_forms(shared: &Shared) -> Result<(), ApiError> {
    let lark = "give a grammar in Lark's dialect as `structured_outputs.grammar`";
    refuse_field("grammar", shared.grammar, lark)?;
    refuse_field("ebnf", shared.ebnf, lark)?;
    refuse_field("regex", shared.regex, "give it as `structured_outputs.regex`")?;
    let schema = "give it in `response_format` of type `json_schema`";
    refuse_field("json_schema", shared.json_schema, schema)
}

/// The forms that tools had before.
fn refuse_functions(shared: &Shared) -> Result<(), ApiError> {
    if shared.functions == Some(Unserved::AsksForSomething) {
        let message = "`functions` is not supported; give the functions as `tools`";
        return Err(ApiError::unsupported("functions", message));
    }
    match &shared.function_call {
        Some(choice) if asks_for_function(choice) => {
            let message = "`function_call` is not supported; use `tools` and `tool_choice`";
            Err(ApiError::unsupported("function_call", message))
        }
        Some(_) | None => Ok(()),
    }
}

/// Where there are no tools.
fn asks_for_function(choice: &RawValue) -> bool {
    !is_text(choice, "none") && !is_text(choice, "auto")
}

fn refuse_others(shared: &Shared) -> Result<(), ApiError> {
    let fields = [
        (
            "guided_whitespace_pattern",
            shared.guided_whitespace_pattern,
            "white space in JSON has our rules",
        ),
        (
            "suffix",
            shared.suffix,
            "text is not filled in before a suffix; leave it out",
        ),
        ("use_beam_search", shared.use_beam_search, BEAMS),
        (
            "bad_words",
            shared.bad_words,
            "give the tokens' ids a `logit_bias` of -100",
        ),
        (
            "allowed_token_ids",
            shared.allowed_token_ids,
            "give the wanted tokens' ids a `logit_bias` of 100",
        ),
        ("logits_processors", shared.logits_processors, CODE),
        ("audio", shared.audio, "models here speak text alone"),
        (
            "web_search_options",
            shared.web_search_options,
            "models here search nothing",
        ),
        (
            "documents",
            shared.documents,
            "put them into a message, or into `chat_template_kwargs` for a template that shows them",
        ),
        (
            "thinking_token_budget",
            shared.thinking_token_budget,
            "`max_tokens` bounds thoughts and answer together",
        ),
        (
            "logprob_token_ids",
            shared.logprob_token_ids,
            "log-probabilities are those of the likeliest tokens",
        ),
        ("prompt_embeds", shared.prompt_embeds, PROMPTS),
    ];
    for (name, value, advice) in fields {
        refuse_field(name, value, advice)?;
    }
    refuse_template(shared.chat_template)?;
    refuse_unless("modalities", &shared.modalities, is_text_alone)
}

fn is_text_alone(modalities: &RawValue) -> bool {
    let is_text = serde_json::from_str::<[&str; 1]>(modalities.get()).is_ok_and(|names| names == ["text"]);
    is_text || is_empty(modalities)
}

fn refuse_unless(
    name: &str,
    value: &Option<Box<RawValue>>,
    is_harmless: impl Fn(&RawValue) -> bool,
) -> Result<(), ApiError> {
    match value {
        Some(value) if !is_harmless(value) => Err(not_supported(name)),
        Some(_) | None => Ok(()),
    }
}

fn not_supported(name: &str) -> ApiError {
    ApiError::unsupported(name, format!("`{name}` is not supported with this value"))
}

fn is_at_most_zero(value: &RawValue) -> bool {
    serde_json::from_str::<f64>(value.get()).is_ok_and(|number| number <= 0.0)
}

fn is_text(value: &RawValue, text: &str) -> bool {
    serde_json::from_str::<&str>(value.get()).is_ok_and(|found| found == text)
}
