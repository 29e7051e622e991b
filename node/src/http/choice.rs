//! One choice of an answer: its tokens become fragments of text.

use crate::text::{Detokenizer, SpecialTokens, StopMatcher, Stopped, TextModel};
use proto::Position;
use proto::engine::TokenScore;
use proto::request::Finish;
use std::sync::Arc;

/// Why a choice ended, as clients see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    Stop,
    Length,
}

impl FinishReason {
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// What one event adds to a choice. Text and tokens need not match: text is held back while it is uncertain.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fragment {
    pub text: String,
    pub tokens: Vec<ScoredToken>,
    /// The place of the last token; `None` when no generated token is in it.
    pub position: Option<Position>,
    pub finish: Option<FinishReason>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct ScoredToken {
    pub id: u32,
    /// `None` for the first token of a prompt, and where no scores were asked for.
    pub score: Option<TokenScore>,
    /// Characters of the choice's text before this token.
    pub offset: usize,
}

/// A prompt that is given back before the answer (`echo`).
pub struct Echo {
    pub text: Arc<str>,
    pub prompt: Arc<[u32]>,
}

/// What all choices of a request have in common.
pub struct ChoiceRules {
    pub special: SpecialTokens,
    pub stops: Vec<String>,
    /// Ascending.
    pub stop_tokens: Arc<[u32]>,
    pub min_tokens: u32,
}

pub struct Choice {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens that end the choice: counted and scored, not shown.
    stop_tokens: Arc<[u32]>,
    /// Text of so many tokens is not searched for stop strings.
    min_tokens: u32,
    echo: Option<Echo>,
    prompt_scores: Vec<TokenScore>,
    /// Characters that the tokens so far stand for, whether shown yet or not.
    decoded_chars: usize,
    tokens: u32,
    finish: Option<FinishReason>,
}

impl Choice {
    pub fn new(text: &TextModel, rules: &ChoiceRules, echo: Option<Echo>) -> Choice {
        Choice {
            detokenizer: Detokenizer::new(text.vocabulary().clone(), rules.special),
            stops: StopMatcher::new(rules.stops.clone()),
            stop_tokens: rules.stop_tokens.clone(),
            min_tokens: rules.min_tokens,
            echo,
            prompt_scores: Vec::new(),
            decoded_chars: 0,
            tokens: 0,
            finish: None,
        }
    }

    /// How many tokens were generated.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    pub fn add_prompt_scores(&mut self, scores: Vec<TokenScore>) {
        self.prompt_scores.extend(scores);
    }

    /// The prompt as a fragment, once, before anything else of the choice; its scores have all come by then.
    pub fn take_echo(&mut self, text: &TextModel) -> Option<Fragment> {
        let echo = self.echo.take()?;
        let scores = std::mem::take(&mut self.prompt_scores);
        let scores = std::iter::once(None)
            .chain(scores.into_iter().map(Some))
            .chain(std::iter::repeat(None));
        let mut walk = Detokenizer::new(text.vocabulary().clone(), SpecialTokens::Skip);
        let mut tokens = Vec::with_capacity(echo.prompt.len());
        let mut offset = 0;
        for (&id, score) in echo.prompt.iter().zip(scores) {
            tokens.push(ScoredToken { id, score, offset });
            offset += walk.push(id).chars().count();
        }
        self.decoded_chars = echo.text.chars().count();
        Some(Fragment {
            text: echo.text.to_string(),
            tokens,
            position: None,
            finish: None,
        })
    }

    /// Takes the next generated token. A choice that a stop string ended takes no more.
    pub fn push(&mut self, position: Position, id: u32, score: Option<TokenScore>) -> Fragment {
        assert!(self.finish.is_none(), "a token after the end of its choice");
        self.tokens += 1;
        let scored = ScoredToken {
            id,
            score,
            offset: self.decoded_chars,
        };
        let text = self.text_of(id);
        if self.stops.stopped() == Stopped::Yes {
            self.finish = Some(FinishReason::Stop);
        }
        Fragment {
            text,
            tokens: vec![scored],
            position: Some(position),
            finish: self.finish,
        }
    }

    fn text_of(&mut self, id: u32) -> String {
        if self.stop_tokens.binary_search(&id).is_ok() {
            return String::new();
        }
        let decoded = self.detokenizer.push(id);
        self.decoded_chars += decoded.chars().count();
        match self.tokens <= self.min_tokens {
            true => decoded,
            false => self.stops.push(&decoded),
        }
    }

    /// The engine has ended the choice: what was held back comes out.
    pub fn end(&mut self, reason: FinishReason) -> Fragment {
        assert!(self.finish.is_none(), "a choice ended twice");
        let mut text = self.stops.push(&self.detokenizer.finish());
        text.push_str(&self.stops.finish());
        let reason = match self.stops.stopped() {
            Stopped::Yes => FinishReason::Stop,
            Stopped::No => reason,
        };
        self.finish = Some(reason);
        Fragment {
            text,
            finish: self.finish,
            ..Fragment::default()
        }
    }
}

impl TryFrom<Finish> for FinishReason {
    type Error = Finish;

    /// `Err` is an end that is no answer.
    fn try_from(finish: Finish) -> Result<FinishReason, Finish> {
        match finish {
            Finish::Stop => Ok(FinishReason::Stop),
            Finish::Length => Ok(FinishReason::Length),
            Finish::Cancelled | Finish::Expired | Finish::Failed => Err(finish),
        }
    }
}
