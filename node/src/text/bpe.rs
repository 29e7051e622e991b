//! Byte-pair encoding of one word: neighbours are merged, best rank first and leftmost first within a rank, until no
//! pair of them can be.
//!
//! Short words look for the best pair again after each merge. Long ones keep the places of each rank together, so that a
//! word of any length costs little more than its length: merges of a rank run through memory from left to right, and
//! what they bring about has, in vocabularies that were trained, a later rank.

use super::byte_alphabet;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Up to here looking again is cheaper than any order.
const SHORT_TOKENS: usize = 48;
/// No token's id: there are fewer.
const GONE: u32 = u32::MAX;

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

    /// Whether every byte has a token, so that none of a word is left out.
    pub fn spells_every_byte(&self) -> bool {
        self.token_of_byte.iter().all(Option::is_some)
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
    /// `GONE` where no token begins any more.
    tokens: &'a mut [u32],
    /// At the first and at the last place of each token: how many places it spans. So both neighbours are found.
    spans: Vec<u32>,
    /// By rank: the left places of pairs that had it when they were noted. Pairs change; each is looked at again.
    places: BTreeMap<u32, Vec<u32>>,
}

impl<'a> LongWord<'a> {
    fn new(bpe: &'a Bpe, tokens: &'a mut [u32]) -> LongWord<'a> {
        let spans = vec![1; tokens.len()];
        let mut word = LongWord {
            bpe,
            tokens,
            spans,
            places: BTreeMap::new(),
        };
        for at in 0..word.tokens.len() {
            word.note(at);
        }
        word
    }

    /// How many tokens are left; they stand in front.
    fn merge(mut self) -> usize {
        while let Some((rank, mut places)) = self.places.pop_first() {
            places.sort_unstable();
            self.merge_rank(rank, &places);
        }
        let (mut at, mut count) = (0, 0);
        while at < self.tokens.len() {
            self.tokens[count] = self.tokens[at];
            count += 1;
            at += self.spans[at] as usize;
        }
        count
    }

    fn merge_rank(&mut self, rank: u32, places: &[u32]) {
        for (done, at) in (1..).zip(places) {
            let at = *at as usize;
            let Some(merge) = self.pair(at).filter(|merge| merge.rank == rank) else {
                continue;
            };
            let earliest = self.join(at, merge.token);
            if earliest.is_some_and(|earliest| earliest <= rank) {
                // Only where ranks are out of order: what came about goes first, or takes its place among these.
                let rest = self.places.entry(rank).or_default();
                rest.extend_from_slice(&places[done..]);
                return;
            }
        }
    }

    /// Puts `token` in the place of the pair at `at`; the lowest rank that its new neighbourhood has.
    fn join(&mut self, at: usize, token: u32) -> Option<u32> {
        let right = at + self.spans[at] as usize;
        let end = right + self.spans[right] as usize;
        self.tokens[at] = token;
        self.tokens[right] = GONE;
        self.spans[at] = (end - at) as u32;
        self.spans[end - 1] = (end - at) as u32;
        let own = self.note(at);
        let before = at.checked_sub(1).map(|last| at - self.spans[last] as usize);
        let left = before.and_then(|before| self.note(before));
        own.into_iter().chain(left).min()
    }

    /// Keeps the place of the pair at `at` with its rank, which is given back.
    fn note(&mut self, at: usize) -> Option<u32> {
        let rank = self.pair(at)?.rank;
        self.places.entry(rank).or_default().push(at as u32);
        Some(rank)
    }

    fn pair(&self, at: usize) -> Option<Merge> {
        let left = Some(self.tokens[at]).filter(|left| *left != GONE)?;
        let right = self.tokens.get(at + self.spans[at] as usize)?;
        self.bpe.merge(left, *right)
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
