//! `cluster bench schemas`: what grammars cost, and what a random walk through them writes.
//!
//! A walk takes any token that the grammar allows, and gladly one that closes what is open, so that thousands of outputs
//! are there in seconds. No model is asked: what is valid in them is the grammar's doing alone.

use super::summary::Spread;
use crate::constraint::compiler::{Compiled, Compiler};
use crate::constraint::follower::Follower;
use crate::shard_host::prepare::ModelFile;
use crate::text::{TokenizerSource, Vocabulary};
use anyhow::Context;
use clap::Args;
use kernels::KvFormat;
use proto::request::Grammar;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shard::{GrammarEnd, TokenMask};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many walks, and how long.
#[derive(Args, Clone, Debug)]
pub struct Walks {
    /// Random outputs of each schema
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub walks: u32,
    /// Tokens after which a walk is cut off
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub tokens: u32,
    /// Other seeds walk other ways
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// A line of the input.
#[derive(Deserialize, Debug)]
pub struct Case {
    pub name: String,
    pub schema: Box<RawValue>,
    /// Is each of these one of its outputs?
    #[serde(default)]
    pub texts: Vec<String>,
}

/// What became of a case.
#[derive(Serialize, Debug)]
pub struct Report {
    pub name: String,
    pub compile_ms: f64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Serialize, Debug)]
#[serde(untagged)]
pub enum Outcome {
    Refused { refused: String },
    Taken(Taken),
}

#[derive(Serialize, Debug)]
pub struct Taken {
    /// That the grammar holds, about.
    pub bytes: usize,
    /// `null` when there was no walk.
    pub mask_us: Option<Spread>,
    pub walks: Vec<Walk>,
    /// For each of the case's texts.
    pub texts: Vec<bool>,
}

#[derive(Serialize, Debug)]
pub struct Walk {
    pub end: End,
    pub text: String,
    pub tokens: u32,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Complete,
    /// Too long.
    Cut,
    /// The grammar could not be followed any further.
    Lost,
}

/// Compiles every case and walks through it. `told` hears each report when it is there.
pub fn run(model: &Path, cases: &[Case], walks: &Walks, told: &mut dyn FnMut(Report)) -> anyhow::Result<()> {
    let file = ModelFile::map(model, KvFormat::default())?;
    let source = TokenizerSource::from_gguf(&file.parse()?)?;
    let vocabulary = Vocabulary::new(&source);
    let bench = Bench {
        compiler: Compiler::new(&vocabulary, &source.end_tokens()),
        tokens: Tokens::of(&vocabulary),
        vocabulary,
    };
    cases.iter().for_each(|case| told(bench.report(case, walks)));
    Ok(())
}

/// One case a line.
pub fn read(text: &str) -> anyhow::Result<Vec<Case>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| serde_json::from_str(line).with_context(|| format!("line {}", index + 1)))
        .collect()
}

struct Bench {
    compiler: Compiler,
    vocabulary: Vocabulary,
    tokens: Tokens,
}

/// Tokens to choose from.
struct Tokens {
    all: Vec<u32>,
    /// Without those of white space alone, which is allowed almost everywhere.
    black: Vec<u32>,
    /// Close strings, arrays and objects.
    closing: Vec<u32>,
    /// Of one byte.
    short: Vec<u32>,
}

impl Tokens {
    fn of(vocabulary: &Vocabulary) -> Tokens {
        let all: Vec<u32> = (0..vocabulary.len() as u32).collect();
        let of = |is_wanted: &dyn Fn(&[u8]) -> bool| {
            let wanted = |token: &u32| is_wanted(vocabulary.bytes(*token));
            all.iter().copied().filter(wanted).collect()
        };
        Tokens {
            closing: of(&|bytes| !bytes.is_empty() && bytes.iter().all(|byte| b"\"]}".contains(byte))),
            short: of(&|bytes| bytes.len() == 1),
            black: of(&|bytes| !bytes.trim_ascii().is_empty()),
            all,
        }
    }
}

impl Bench {
    fn report(&self, case: &Case, walks: &Walks) -> Report {
        let began = Instant::now();
        let grammar = Grammar::JsonSchema(case.schema.get().to_owned());
        let compiled = self.compiler.compile(&grammar);
        let compile_ms = began.elapsed().as_secs_f64() * 1e3;
        let outcome = match compiled {
            Ok(compiled) => Outcome::Taken(self.taken(&compiled, case, walks)),
            Err(error) => Outcome::Refused {
                refused: error.to_string(),
            },
        };
        Report {
            name: case.name.clone(),
            compile_ms,
            outcome,
        }
    }

    fn taken(&self, compiled: &Compiled, case: &Case, walks: &Walks) -> Taken {
        let mut times = Vec::new();
        let walked = (0..u64::from(walks.walks)).map(|walk| {
            let chance = Chance(walks.seed << 32 | walk);
            self.walk(compiled.follower(), walks.tokens, chance, &mut times)
        });
        let walked = walked.collect();
        let times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        Taken {
            bytes: compiled.bytes,
            mask_us: (!times.is_empty()).then(|| Spread::of(times)),
            walks: walked,
            texts: case.texts.iter().map(|text| self.has(compiled, text)).collect(),
        }
    }

    fn walk(
        &self,
        mut follower: Follower,
        tokens: u32,
        mut chance: Chance,
        times: &mut Vec<Duration>,
    ) -> Walk {
        let (mut bytes, mut end, mut taken) = (Vec::new(), End::Cut, 0);
        while taken < tokens {
            let began = Instant::now();
            let mask = follower.mask();
            times.push(began.elapsed());
            let hurry = match taken > tokens / 2 {
                true => Hurry::Some,
                false => Hurry::None,
            };
            let token = match mask {
                Ok(mask) if is_over(mask.end(), hurry, &mut chance) => {
                    end = End::Complete;
                    break;
                }
                Ok(mask) => self.choose(&mask, hurry, &mut chance),
                Err(_lost) => None,
            };
            match token.map(|token| (token, follower.accept(token))) {
                Some((token, Ok(()))) => bytes.extend(self.vocabulary.bytes(token)),
                Some((_, Err(_))) | None => {
                    end = End::Lost;
                    break;
                }
            }
            taken += 1;
        }
        Walk {
            end,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            tokens: taken,
        }
    }

    fn choose(&self, mask: &TokenMask, hurry: Hurry, chance: &mut Chance) -> Option<u32> {
        let list = match (hurry, chance.below(16)) {
            (Hurry::None | Hurry::Some, 0) => &self.tokens.all,
            (Hurry::None, 1..6) => &self.tokens.black,
            (Hurry::None, 6..9) | (Hurry::Some, 1..4) => &self.tokens.short,
            (Hurry::None | Hurry::Some, _) => &self.tokens.closing,
        };
        [list, &self.tokens.black, &self.tokens.all]
            .into_iter()
            .find_map(|list| chance.allowed(mask, list))
    }

    /// Byte by byte, so that it does not hang on how a tokenizer would cut it.
    fn has(&self, compiled: &Compiled, text: &str) -> bool {
        let mut follower = compiled.follower();
        for byte in text.bytes() {
            let token = self.tokens.short.iter().copied();
            let mut token = token.filter(|token| self.vocabulary.bytes(*token) == [byte]);
            match (token.next(), follower.mask()) {
                (Some(token), Ok(mask)) if mask.allows(token) && follower.accept(token).is_ok() => {}
                (_, _) => return false,
            }
        }
        follower.mask().is_ok_and(|mask| mask.end() != GrammarEnd::NotYet)
    }
}

#[derive(Clone, Copy)]
enum Hurry {
    None,
    /// The walk has gone on for long.
    Some,
}

fn is_over(end: GrammarEnd, hurry: Hurry, chance: &mut Chance) -> bool {
    match (end, hurry) {
        (GrammarEnd::Due, _) | (GrammarEnd::Allowed, Hurry::Some) => true,
        (GrammarEnd::Allowed, Hurry::None) => chance.below(2) == 0,
        (GrammarEnd::NotYet, _) => false,
    }
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// The first token of `list` that is allowed, from a random place on.
    fn allowed(&mut self, mask: &TokenMask, list: &[u32]) -> Option<u32> {
        let start = self.below(list.len().max(1) as u64) as usize;
        let (before, after) = list.split_at(start);
        after
            .iter()
            .chain(before)
            .copied()
            .find(|token| mask.allows(*token))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>10.1}", self.compile_ms)?;
        match &self.outcome {
            Outcome::Refused { refused } => {
                let line = refused.lines().next().unwrap_or_default();
                write!(out, "          -      -  {}: refused: {line}", self.name)
            }
            Outcome::Taken(taken) => {
                let complete = taken.walks.iter().filter(|walk| walk.end == End::Complete);
                let slowest = taken.mask_us.map_or(0.0, |spread| spread.max);
                write!(
                    out,
                    " {slowest:>10.0} {:>6}  {}",
                    format!("{}/{}", complete.count(), taken.walks.len()),
                    self.name
                )
            }
        }
    }
}

impl Report {
    /// What the lines stand below.
    pub const HEAD: &str = "compile ms  mask µs ≤   done  schema";
}
