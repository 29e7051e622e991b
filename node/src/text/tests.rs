//! The tokenizer against ids that Hugging Face's made of the same texts (testdata/make_goldens.py).

use super::bpe::BpeError;
use super::byte_alphabet;
use super::{AddSpecial, BuildError, Detokenizer, SpecialTokens, TextModel, TokenizerSource, decode};
use proptest::prelude::*;
use serde::Deserialize;
use std::sync::LazyLock;

#[derive(Deserialize)]
struct Golden {
    pre: String,
    tokens: Vec<String>,
    token_types: Vec<i32>,
    merges: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

impl Golden {
    fn source(&self) -> TokenizerSource {
        TokenizerSource {
            model: "gpt2".into(),
            pre: Some(self.pre.clone()),
            tokens: self.tokens.clone(),
            token_types: self.token_types.clone(),
            merges: self.merges.clone(),
            bos: Some(1),
            eos: Some(2),
            ..TokenizerSource::default()
        }
    }

    fn model(&self) -> TextModel {
        TextModel::from_source(self.source()).unwrap()
    }
}

/// The small tokenizer of the goldens as a model, for tests of what stands above it.
pub fn small_model(chat_template: &str) -> TextModel {
    let source = TokenizerSource {
        chat_template: Some(chat_template.into()),
        ..goldens()[0].source()
    };
    TextModel::from_source(source).unwrap()
}

/// A model whose tokens are single bytes, for text that the small one cannot spell; `control`: more control tokens.
pub fn byte_model(chat_template: &str, control: &[&str]) -> TextModel {
    let is_byte = |letter: &char| byte_alphabet::decoded(&letter.to_string()).is_some();
    let bytes = (0..0x200).filter_map(char::from_u32).filter(is_byte);
    let control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        .iter()
        .chain(control);
    let mut source = goldens()[0].source();
    source.tokens = control.map(|token| token.to_string()).collect();
    source.token_types = vec![3; source.tokens.len()];
    source.tokens.extend(bytes.map(|letter| letter.to_string()));
    source.token_types.resize(source.tokens.len(), 1);
    source.merges.clear();
    source.chat_template = Some(chat_template.into());
    TextModel::from_source(source).unwrap()
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("testdata/goldens.json")).unwrap()
}

static SMOLLM: LazyLock<TextModel> = LazyLock::new(|| goldens()[0].model());
static LLAMA: LazyLock<TextModel> = LazyLock::new(|| goldens()[2].model());

fn encoded(model: &TextModel, text: &str) -> Vec<u32> {
    model.tokenizer().encode(text, AddSpecial::Never).unwrap()
}

#[test]
fn ids_and_decoded_text_are_those_of_hugging_face() {
    for golden in goldens() {
        let model = golden.model();
        for case in &golden.cases {
            assert_eq!(
                encoded(&model, &case.text),
                case.ids,
                "{}: {:?}",
                golden.pre,
                case.text
            );
            let text = decode(model.vocabulary(), &case.ids, SpecialTokens::Skip);
            assert_eq!(text, case.decoded, "{}: {:?}", golden.pre, case.text);
        }
    }
}

#[test]
fn long_text_has_the_ids_of_its_parts() {
    let golden = &goldens()[0];
    let model = golden.model();
    let line = "The quick brown fox, 漢字とかな: it's 42!";
    let text = vec![line; 2_000].join(" ");
    let mut expected = encoded(&model, line);
    let later = encoded(&model, &format!(" {line}"));
    (1..2_000).for_each(|_| expected.extend(&later));
    assert_eq!(encoded(&model, &text), expected);
}

#[test]
fn long_runs_of_equal_characters_are_tokenized_and_come_back() {
    for golden in goldens() {
        let model = golden.model();
        for run in [".", " ", "\n", "a", "漢", "'", "\r\n \t", "1"] {
            let text = run.repeat(100_000 / run.len());
            let ids = encoded(&model, &text);
            let decoded = decode(model.vocabulary(), &ids, SpecialTokens::Skip);
            assert!(decoded == text, "{run:?}, {}", golden.pre);
        }
    }
}

#[test]
fn bos_and_eos_are_added_where_the_file_says_so_and_the_caller_agrees() {
    let source = TokenizerSource {
        add_bos: true,
        add_eos: true,
        ..goldens()[0].source()
    };
    let model = TextModel::from_source(source).unwrap();
    let plain = encoded(&model, "fox");
    let wrapped = model.tokenizer().encode("fox", AddSpecial::AsModelWants).unwrap();
    assert_eq!(wrapped, [&[1], plain.as_slice(), &[2]].concat());
}

#[test]
fn a_tokenizer_of_another_kind_is_refused_by_name() {
    let source = TokenizerSource {
        model: "llama".into(),
        ..goldens()[0].source()
    };
    assert!(matches!(TextModel::from_source(source), Err(BuildError::Model(kind)) if kind == "llama"));
    let source = TokenizerSource {
        pre: Some("tekken".into()),
        ..goldens()[0].source()
    };
    assert!(matches!(TextModel::from_source(source), Err(BuildError::Words(pre)) if pre == "tekken"));
}

#[test]
fn damaged_metadata_is_refused_with_the_place() {
    let source = TokenizerSource {
        eos: Some(1 << 20),
        ..goldens()[0].source()
    };
    assert!(matches!(
        TextModel::from_source(source),
        Err(BuildError::NoSuchToken {
            field: "eos_token_id",
            ..
        })
    ));
    let source = TokenizerSource {
        merges: vec!["ab".into()],
        ..goldens()[0].source()
    };
    assert!(matches!(
        TextModel::from_source(source),
        Err(BuildError::Merges(BpeError::NoPair { index: 0 }))
    ));
    let source = TokenizerSource {
        merges: vec!["no such".into()],
        ..goldens()[0].source()
    };
    assert!(matches!(
        TextModel::from_source(source),
        Err(BuildError::Merges(BpeError::NoToken { index: 0, .. }))
    ));
}

#[test]
fn a_character_cut_across_tokens_is_held_back_until_it_is_whole() {
    let ids = encoded(&SMOLLM, "🙃ß");
    assert!(ids.len() > 2);
    let mut detokenizer = Detokenizer::new(SMOLLM.vocabulary().clone(), SpecialTokens::Skip);
    let fragments: Vec<String> = ids.iter().map(|id| detokenizer.push(*id)).collect();
    assert!(
        fragments.iter().all(|fragment| !fragment.contains('\u{FFFD}')),
        "{fragments:?}"
    );
    assert_eq!(fragments.concat(), "🙃ß");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn special_tokens_are_shown_only_when_asked_for() {
    let ids = encoded(&SMOLLM, "<|im_start|>fox<|im_end|>");
    assert_eq!(decode(SMOLLM.vocabulary(), &ids, SpecialTokens::Skip), "fox");
    assert_eq!(
        decode(SMOLLM.vocabulary(), &ids, SpecialTokens::Show),
        "<|im_start|>fox<|im_end|>"
    );
}

#[test]
fn the_least_count_of_tokens_is_known_from_the_bytes_that_have_one() {
    let model = byte_model("", &[]);
    // Its longest token is `<|endoftext|>`.
    for (text, tokens) in [("", 0), ("a", 1), ("<|endoftext|>", 1), ("<|endoftext|>!", 2)] {
        assert_eq!(model.tokenizer().tokens_min(text), tokens, "{text}");
        assert!(tokens <= encoded(&model, text).len());
    }
    // It leaves out what it cannot spell, and counts the rest.
    let model = small_model("");
    let (tokenizer, longest) = (model.tokenizer(), model.vocabulary().token_bytes_max());
    assert_eq!(tokenizer.tokens_min("{{{{"), 0);
    assert_eq!(tokenizer.tokens_min(&"a".repeat(5 * longest)), 5);
    let mixed = "{a".repeat(5 * longest);
    assert_eq!(tokenizer.tokens_min(&mixed), 5);
}

proptest! {
    #[test]
    fn no_text_has_fewer_tokens_than_its_least_count(text in "([a-f {}é]|<\\|im_end\\|>|the|漢){0,60}") {
        for model in [&*SMOLLM, &*LLAMA] {
            prop_assert!(model.tokenizer().tokens_min(&text) <= encoded(model, &text).len());
        }
    }

    #[test]
    fn text_that_the_vocabulary_can_spell_comes_back(text in "([a-z ,.\n'0-9]|é|ß|漢|🙂){0,80}") {
        prop_assume!(encoded(&SMOLLM, &text).len() <= 400);
        let spelled = decode(SMOLLM.vocabulary(), &encoded(&SMOLLM, &text), SpecialTokens::Show);
        let bytes_known = text.bytes().all(|byte| SPELLED.contains(&byte));
        prop_assert!(!bytes_known || spelled == text);
    }

    #[test]
    fn incremental_text_equals_the_text_of_all_tokens_together(ids in prop::collection::vec(3u32..600, 0..60)) {
        let mut detokenizer = Detokenizer::new(SMOLLM.vocabulary().clone(), SpecialTokens::Skip);
        let mut text: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
        text.push_str(&detokenizer.finish());
        let bytes: Vec<u8> = ids.iter().flat_map(|id| SMOLLM.vocabulary().bytes(*id).to_vec()).collect();
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

/// Bytes that the small vocabulary has a token for.
static SPELLED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let vocabulary = SMOLLM.vocabulary();
    (0..vocabulary.len() as u32)
        .filter(|id| vocabulary.bytes(*id).len() == 1)
        .map(|id| vocabulary.bytes(id)[0])
        .collect()
});
