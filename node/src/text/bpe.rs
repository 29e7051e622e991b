//! Byte-pair encoding of one word: neighbours are merged, best rank first and leftmost first within a rank, until no
//! pair of them can be.
//!
//! Short words look for the best pair again after each merge. Long ones are cut into blocks, of which the best rank is
//! known, so that a word of any length costs little more than its length: only a block that has the best pair of all is
//! looked through again. Beside the tokens themselves that takes less than a byte for each of the word's.

use super::byte_alphabet;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Up to here looking again is cheaper than any order.
const SHORT_TOKENS: usize = 48;
/// Of a long word, in places.
const BLOCK: usize = 32;
/// The bit that no token's id has: there are fewer.
const GONE: u32 = 1 << 31;
/// No merge's.
const NO_RANK: u32 = u32::MAX;

#[derive(thiserror::Error, PartialEq, Eq, Debug)]
pub enum BpeError {
    #[error("tokenizer.ggml.merges[{index}] is not two tokens with a space between")]
    NoPair { index: usize },
    #[error("tokenizer.ggml.merges[{index}] speaks of {token:?}, which is no token")]
    NoToken { index: usize, token: String },
}

/// Whether a word that is a token as it stands skips the merges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merging {
    Always,
    SkippedForWholeWords,
}

pub struct Bpe {
    /// By byte; `None`: the vocabulary cannot spell it.
    token_of_byte: [Option<u32>; 256],
    merges: Merges,
    /// Empty unless whole words skip the merges.
    whole_words: HashMap<Box<[u8]>, u32>,
    whole_word_bytes_max: usize,
}

/// By the pair.
type Merges = HashMap<(u32, u32), Merge, BuildHasherDefault<PairHasher>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Merge {
    rank: u32,
    token: u32,
}

impl Bpe {
    /// From tokens by id, written in the byte alphabet, and merges, best first. Of what is there twice the last counts,
    /// as in Hugging Face's.
    pub fn new(tokens: &[String], merges: &[String], merging: Merging) -> Result<Bpe, BpeError> {
        let ids: HashMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
        let token_of_byte = std::array::from_fn(|byte| {
            let letter = byte_alphabet::letter(byte as u8);
            ids.get(letter.encode_utf8(&mut [0; 4]) as &str).copied()
        });
        let whole_words: HashMap<Box<[u8]>, u32> = match merging {
            Merging::Always => HashMap::new(),
            Merging::SkippedForWholeWords => {
                let bytes = |(token, id): (&&str, &u32)| Some((byte_alphabet::decoded(token)?.into(), *id));
                ids.iter().filter_map(bytes).collect()
            }
        };
        Ok(Bpe {
            token_of_byte,
            merges: merge_table(&ids, merges)?,
            whole_word_bytes_max: whole_words.keys().map(|word| word.len()).max().unwrap_or(0),
            whole_words,
        })
    }

    /// Appends the tokens of `word`. Bytes that the vocabulary cannot spell are left out.
    pub fn encode(&self, word: &[u8], ids: &mut Vec<u32>) {
        if word.len() <= self.whole_word_bytes_max
            && let Some(id) = self.whole_words.get(word)
        {
            return ids.push(*id);
        }
        let start = ids.len();
        ids.reserve(word.len());
        ids.extend(word.iter().filter_map(|byte| self.token_of_byte[*byte as usize]));
        match ids.len() - start {
            0 | 1 => {}
            2..=SHORT_TOKENS => self.merge_short(ids, start),
            _long => {
                let count = LongWord::new(self, &mut ids[start..]).merge();
                ids.truncate(start + count);
            }
        }
    }

    /// How many bytes of `text` are not left out of its tokens.
    pub fn spelled_bytes(&self, text: &str) -> usize {
        let bytes = text.bytes();
        bytes
            .filter(|byte| self.token_of_byte[*byte as usize].is_some())
            .count()
    }

    fn merge(&self, left: u32, right: u32) -> Option<Merge> {
        self.merges.get(&(left, right)).copied()
    }

    /// Merges the tokens from `start` on, in place.
    fn merge_short(&self, ids: &mut Vec<u32>, start: usize) {
        let mut pairs = [None; SHORT_TOKENS];
        for (pair, two) in pairs.iter_mut().zip(ids[start..].windows(2)) {
            *pair = self.merge(two[0], two[1]);
        }
        loop {
            let count = ids.len() - start;
            let known = pairs[..count - 1].iter().enumerate();
            let best = known
                .filter_map(|(at, pair)| pair.map(|merge| (merge.rank, at, merge.token)))
                .min();
            let Some((_, at, token)) = best else { return };
            ids[start + at] = token;
            ids.remove(start + at + 1);
            // The pair that was merged gives way to the one after it.
            pairs.copy_within(at + 1..count - 1, at);
            let word = &ids[start..];
            if at > 0 {
                pairs[at - 1] = self.merge(word[at - 1], token);
            }
            if at + 1 < word.len() {
                pairs[at] = self.merge(token, word[at + 1]);
            }
        }
    }
}

fn merge_table(ids: &HashMap<&str, u32>, merges: &[String]) -> Result<Merges, BpeError> {
    let id = |index: usize, token: &str| {
        ids.get(token).copied().ok_or_else(|| BpeError::NoToken {
            index,
            token: token.to_owned(),
        })
    };
    let row = |(index, merge): (usize, &String)| {
        let (left, right) = merge.split_once(' ').ok_or(BpeError::NoPair { index })?;
        let pair = (id(index, left)?, id(index, right)?);
        let token = id(index, &format!("{left}{right}"))?;
        let rank = index as u32;
        Ok((pair, Merge { rank, token }))
    };
    merges.iter().enumerate().map(row).collect()
}

/// The tokens of a word, each at the place where its text begins, so that a merge moves nothing.
struct LongWord<'a> {
    bpe: &'a Bpe,
    /// Where no token begins any more, `GONE`; right after a token's place and at its last one with how many it spans.
    /// So both neighbours of a token are found.
    tokens: &'a mut [u32],
    /// By block: no pair that begins there has a lower rank.
    best: Vec<u32>,
    /// Of each block that may have a pair: its best rank, and which it is.
    queue: BTreeSet<(u32, usize)>,
}

impl<'a> LongWord<'a> {
    fn new(bpe: &'a Bpe, tokens: &'a mut [u32]) -> LongWord<'a> {
        let blocks = tokens.len().div_ceil(BLOCK);
        let mut word = LongWord {
            bpe,
            tokens,
            best: vec![NO_RANK; blocks],
            queue: BTreeSet::new(),
        };
        for block in 0..blocks {
            let places = word.places(block);
            let best = places.filter_map(|at| word.rank(at)).min();
            word.offer(block, best);
        }
        word
    }

    /// How many tokens are left; they stand in front.
    fn merge(mut self) -> usize {
        while let Some((rank, block)) = self.queue.pop_first() {
            self.best[block] = NO_RANK;
            self.merge_rank(rank, block);
        }
        let (mut at, mut count) = (0, 0);
        while at < self.tokens.len() {
            let span = self.span(at);
            self.tokens[count] = self.tokens[at];
            count += 1;
            at += span;
        }
        count
    }

    /// Merges what has this rank and begins in the block, and finds the best of what is left there.
    fn merge_rank(&mut self, rank: u32, block: usize) {
        let mut best = None;
        for at in self.places(block) {
            let Some(merge) = self.pair(at) else { continue };
            if merge.rank != rank {
                best = Some(best.map_or(merge.rank, |best: u32| best.min(merge.rank)));
                continue;
            }
            let earliest = self.join(at, merge.token);
            if earliest.is_some_and(|earliest| earliest <= rank) {
                // Only where ranks are out of order: what came about goes first, or takes its place among these.
                best = Some(rank);
                break;
            }
        }
        self.offer(block, best);
    }

    /// Puts `token` in the place of the pair at `at`; the lowest rank that its new neighbourhood has.
    fn join(&mut self, at: usize, token: u32) -> Option<u32> {
        let right = at + self.span(at);
        let end = right + self.span(right);
        let gone = GONE | (end - at) as u32;
        self.tokens[at] = token;
        self.tokens[right] = GONE;
        self.tokens[at + 1] = gone;
        self.tokens[end - 1] = gone;
        let own = self.note(at);
        let left = self.before(at).and_then(|before| self.note(before));
        own.into_iter().chain(left).min()
    }

    /// Tells its block of the pair at `at`, whose rank is given back.
    fn note(&mut self, at: usize) -> Option<u32> {
        let rank = self.rank(at);
        self.offer(at / BLOCK, rank);
        rank
    }

    fn offer(&mut self, block: usize, rank: Option<u32>) {
        let before = self.best[block];
        if let Some(rank) = rank.filter(|rank| *rank < before) {
            self.queue.remove(&(before, block));
            self.queue.insert((rank, block));
            self.best[block] = rank;
        }
    }

    fn places(&self, block: usize) -> std::ops::Range<usize> {
        block * BLOCK..self.tokens.len().min((block + 1) * BLOCK)
    }

    fn rank(&self, at: usize) -> Option<u32> {
        self.pair(at).map(|merge| merge.rank)
    }

    fn pair(&self, at: usize) -> Option<Merge> {
        let left = Some(self.tokens[at]).filter(|left| left & GONE == 0)?;
        let right = self.tokens.get(at + self.span(at))?;
        self.bpe.merge(left, *right)
    }

    /// How many places the token at `at` spans.
    fn span(&self, at: usize) -> usize {
        match self.tokens.get(at + 1) {
            Some(gone) if gone & GONE != 0 => (gone & !GONE) as usize,
            Some(_) | None => 1,
        }
    }

    /// The place of the token before the one at `at`.
    fn before(&self, at: usize) -> Option<usize> {
        let last = at.checked_sub(1)?;
        match self.tokens[last] {
            gone if gone & GONE != 0 => Some(at - (gone & !GONE) as usize),
            _token => Some(last),
        }
    }
}

/// For keys that a model file fixed once; nobody who sends text chooses them.
#[derive(Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(32) ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        // The high bits are the well-mixed ones, and the table picks its slot by the low ones.
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::Model;
    use tokenizers::models::bpe::BPE;

    /// Tokens `a`, `b`, `c` and whatever `merges` make of them.
    fn tokens(merges: &[String]) -> Vec<String> {
        let mut tokens: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        for merge in merges {
            let joined = merge.replace(' ', "");
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        }
        tokens
    }

    fn encoded(bpe: &Bpe, word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        bpe.encode(word.as_bytes(), &mut ids);
        ids
    }

    /// The one of Hugging Face.
    fn twin(tokens: &[String], merges: &[String], merging: Merging) -> BPE {
        let pairs = merges.iter().filter_map(|merge| merge.split_once(' '));
        BPE::builder()
            .vocab_and_merges(
                tokens
                    .iter()
                    .cloned()
                    .zip(0u32..)
                    .collect::<tokenizers::models::bpe::Vocab>(),
                pairs
                    .map(|(left, right)| (left.to_owned(), right.to_owned()))
                    .collect(),
            )
            .ignore_merges(merging == Merging::SkippedForWholeWords)
            .build()
            .unwrap()
    }

    /// Merges of what was made before, in the order of training or in any.
    fn merge_lists() -> impl Strategy<Value = Vec<String>> {
        let steps = prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            0..12,
        );
        (steps, any::<prop::sample::Index>()).prop_map(|(steps, turn)| {
            let mut known: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
            let mut merges: Vec<String> = Vec::new();
            for (left, right) in steps {
                let (left, right) = (left.get(&known).clone(), right.get(&known).clone());
                let (merge, joined) = (format!("{left} {right}"), format!("{left}{right}"));
                if !merges.contains(&merge) && joined.len() <= 12 {
                    known.push(joined);
                    merges.push(merge);
                }
            }
            let count = merges.len().max(1);
            merges.rotate_left(turn.index(count));
            merges
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn tokens_are_those_of_the_twin(
            merges in merge_lists(),
            word in "([abc]{1,20}|a{1,200}|(ab){1,100}|(abc|b){30,120})",
        ) {
            for merging in [Merging::Always, Merging::SkippedForWholeWords] {
                let tokens = tokens(&merges);
                let bpe = Bpe::new(&tokens, &merges, merging).unwrap();
                let twin = twin(&tokens, &merges, merging).tokenize(&word).unwrap();
                prop_assert_eq!(encoded(&bpe, &word), twin.iter().map(|token| token.id).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn tokens_longer_than_a_block_are_merged_too() {
        let run = |length: usize| "a".repeat(length);
        let doubled = (0..8).map(|power| format!("{0} {0}", run(1 << power)));
        let merges: Vec<String> = doubled.chain([format!("{} b", run(BLOCK))]).collect();
        let tokens = tokens(&merges);
        let bpe = Bpe::new(&tokens, &merges, Merging::Always).unwrap();
        let model = twin(&tokens, &merges, Merging::Always);
        for length in [BLOCK + 17, 4 * BLOCK, 1000, 1023] {
            let word = format!("{0}b{0}{0}b", run(length));
            let twin = model.tokenize(&word).unwrap();
            assert_eq!(
                encoded(&bpe, &word),
                twin.iter().map(|token| token.id).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn bytes_without_a_token_are_left_out() {
        let merges = ["a b".to_owned()];
        let bpe = Bpe::new(&tokens(&merges), &merges, Merging::Always).unwrap();
        assert_eq!(encoded(&bpe, "axb"), [3]);
        assert!(encoded(&bpe, "xyz").is_empty());
    }

    #[test]
    fn merges_of_what_is_no_token_are_refused_with_their_place() {
        let refused = |merge: &str| {
            let merges = ["a b".to_owned(), merge.to_owned()];
            Bpe::new(&tokens(&merges[..1]), &merges, Merging::Always).err()
        };
        assert_eq!(refused("ab"), Some(BpeError::NoPair { index: 1 }));
        let no_token = |token: &str| {
            Some(BpeError::NoToken {
                index: 1,
                token: token.to_owned(),
            })
        };
        assert_eq!(refused("z a"), no_token("z"));
        assert_eq!(refused("ab c"), no_token("abc"));
    }
}
