//! Models that can spell every byte, made of the small tokenizers that the unit tests have.

use node::text::{TextModel, TokenizerSource};
use serde_json::Value;
use std::sync::LazyLock;

/// One for each rule that cuts words.
pub static MODELS: LazyLock<Vec<TextModel>> = LazyLock::new(|| {
    sources()
        .into_iter()
        .map(|source| TextModel::from_source(source).expect("it is whole"))
        .collect()
});

pub const TEMPLATE: &str = "{%- if messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}\
    {%- if tools %}# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<tool_call>{% endif %}\
    {%- for message in messages if message.role != 'system' %}<|im_start|>{{ message.role }}\n\
    {%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}\
    {%- for call in message.tool_calls or [] %}<tool_call>{\"name\": \"{{ call.function.name }}\", \"arguments\": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}<|im_end|>\n\
    {%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// With everything that a template of a family of models does, and a chat in it.
pub fn chat_model() -> TextModel {
    let source = sources().remove(0);
    let source = TokenizerSource {
        chat_template: Some(TEMPLATE.to_owned()),
        ..source
    };
    TextModel::from_source(source).expect("it is whole")
}

fn sources() -> Vec<TokenizerSource> {
    let goldens: Vec<Value> =
        serde_json::from_str(include_str!("../../src/text/testdata/goldens.json")).expect("it is JSON");
    goldens.iter().map(source).collect()
}

fn source(golden: &Value) -> TokenizerSource {
    let strings = |name: &str| -> Vec<String> {
        let list = golden[name].as_array().expect("a list").iter();
        list.map(|text| text.as_str().expect("a string").to_owned())
            .collect()
    };
    let types = golden["token_types"].as_array().expect("a list").iter();
    let mut source = TokenizerSource {
        model: "gpt2".to_owned(),
        pre: golden["pre"].as_str().map(str::to_owned),
        tokens: strings("tokens"),
        token_types: types
            .map(|kind| kind.as_i64().expect("a number") as i32)
            .collect(),
        merges: strings("merges"),
        bos: Some(1),
        eos: Some(2),
        ..TokenizerSource::default()
    };
    for letter in letters().map(String::from) {
        if !source.tokens.contains(&letter) {
            source.tokens.push(letter);
            source.token_types.push(1);
        }
    }
    source
}

/// The alphabet in which GPT-2 writes bytes.
fn letters() -> impl Iterator<Item = char> {
    let spare = '\u{100}'..='\u{143}';
    ('!'..='~')
        .chain('\u{a1}'..='\u{ac}')
        .chain('\u{ae}'..='\u{ff}')
        .chain(spare)
}
