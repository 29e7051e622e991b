//! From text to tokens and back: tokenizer, chat template, incremental detokenizer, stop strings.

/// What a model file says about text. Cheap to share behind the `Arc` of its `ServedModel`.
pub struct TextModel {}
