//! The model's tokens as llguidance wants them: a tree of their bytes.

use crate::text::Vocabulary;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};
use std::sync::Arc;

/// Tokens that are no text (control tokens, and those taken whole from the input) stand apart from it: no grammar of
/// text reaches them, one that names them in angle brackets does.
pub fn token_tree(vocabulary: &Vocabulary, end_tokens: &[u32]) -> TokEnv {
    let count = u32::try_from(vocabulary.len()).expect("token ids are 32 bits wide");
    let mut words: Vec<Vec<u8>> = (0..count).map(|token| vocabulary.bytes(token).to_vec()).collect();
    for token in vocabulary.taken_whole() {
        words[token as usize].insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
    }
    let info = TokRxInfo::new(count, end_tokens.first().copied().unwrap_or(INVALID_TOKEN));
    let mut tree = TokTrie::from(&info, &words);
    if !end_tokens.is_empty() {
        tree = tree.with_eos_tokens(end_tokens);
    }
    Arc::new(ApproximateTokEnv::new(tree))
}
