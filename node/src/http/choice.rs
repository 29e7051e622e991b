//! One choice of an answer: its tokens become fragments of text, reasoning and calls.

use super::call_id::CallIds;
use crate::text::families::{AnswerReader, AnswerRules, Ending, Piece};
use crate::text::{Detokenizer, SpecialTokens, StopEnding, StopMatcher, Stopped, TextModel};
use proto::engine::TokenScore;
use proto::request::Finish;
use proto::{Position, RequestId};
use std::sync::Arc;

/// Why a choice ended, as clients see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FinishReason {
    Stop,
    Length,
    /// The model has called tools and waits for their answers.
    ToolCalls,
}

impl FinishReason {
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
        }
    }
}

/// What one event adds to a choice. Text and tokens need not match: text is held back while it is uncertain.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Fragment {
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<CallPart>,
    pub tokens: Vec<ScoredToken>,
    /// The place of the last token; `None` when no generated token is in it.
    pub position: Option<Position>,
    pub finish: Option<FinishReason>,
}

impl Fragment {
    /// The ids of generated tokens; those of an echoed prompt are none.
    pub fn generated(&self) -> impl Iterator<Item = u32> {
        let tokens: &[ScoredToken] = match self.position {
            Some(_) => &self.tokens,
            None => &[],
        };
        tokens.iter().map(|token| token.id)
    }
}

/// What a fragment adds to the calls of a choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallPart {
    Begins {
        index: u32,
        id: String,
        name: String,
    },
    /// More of the JSON text of the arguments of call `index`.
    Arguments {
        index: u32,
        text: String,
    },
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
    /// How many of the likeliest tokens are shown with each of its tokens.
    pub top_max: usize,
}

/// What all choices of a request have in common.
pub struct ChoiceRules {
    pub request: RequestId,
    pub special: SpecialTokens,
    pub stops: Arc<[String]>,
    pub stop_ending: StopEnding,
    /// Ascending.
    pub stop_tokens: Arc<[u32]>,
    pub min_tokens: u32,
    pub answer: AnswerRules,
    pub calls_max: CallsMax,
}

/// How many calls a choice may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CallsMax {
    /// The choice ends with its first.
    One,
    #[default]
    Any,
}

pub struct Choice {
    detokenizer: Detokenizer,
    reader: AnswerReader,
    /// Of the content; reasoning and calls are not searched.
    stops: StopMatcher,
    /// Tokens that end the choice: counted and scored, and shown where stop strings are.
    stop_tokens: Arc<[u32]>,
    stop_ending: StopEnding,
    /// Text of so many tokens is not searched for stop strings.
    min_tokens: u32,
    prompt: Arc<[u32]>,
    echo: Option<Echo>,
    prompt_scores: Vec<TokenScore>,
    /// Characters that the tokens so far stand for, whether shown yet or not.
    decoded_chars: usize,
    tokens: u32,
    reasoning_tokens: u32,
    calls_max: CallsMax,
    /// `None`: the choice has no calls.
    call_ids: Option<CallIds>,
    calls_begun: u32,
    finish: Option<FinishReason>,
}

impl Choice {
    /// `index`: which of the answer's choices this is.
    pub fn new(
        text: &TextModel,
        rules: &ChoiceRules,
        index: u32,
        prompt: Arc<[u32]>,
        echo: Option<Echo>,
    ) -> Choice {
        let marks = rules.answer.marks();
        let marks = marks.iter().filter_map(|mark| text.mark_token(mark)).collect();
        let call_ids = rules.answer.calls.as_ref().map(|calls| CallIds {
            family: calls.family,
            request: rules.request,
            choice: index,
        });
        Choice {
            detokenizer: Detokenizer::new(text.vocabulary().clone(), rules.special).with_marks(marks),
            reader: AnswerReader::new(&rules.answer),
            stops: StopMatcher::new(rules.stops.clone(), rules.stop_ending),
            stop_tokens: rules.stop_tokens.clone(),
            stop_ending: rules.stop_ending,
            min_tokens: rules.min_tokens,
            prompt,
            echo,
            prompt_scores: Vec::new(),
            decoded_chars: 0,
            tokens: 0,
            reasoning_tokens: 0,
            calls_max: rules.calls_max,
            call_ids,
            calls_begun: 0,
            finish: None,
        }
    }

    /// How many of its tokens were spent on reasoning.
    pub fn reasoning_tokens(&self) -> u32 {
        self.reasoning_tokens
    }

    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// Of the prompt's tokens from the second on, once they have all come.
    pub fn prompt_scores(&self) -> &[TokenScore] {
        &self.prompt_scores
    }

    pub fn add_prompt_scores(&mut self, scores: Vec<TokenScore>) {
        self.prompt_scores.extend(scores);
    }

    /// The prompt as a fragment, once, before anything else of the choice; its scores have all come by then.
    pub fn take_echo(&mut self, text: &TextModel) -> Option<Fragment> {
        let echo = self.echo.take()?;
        let shown = |score: &TokenScore| TokenScore {
            top: score.top.iter().take(echo.top_max).copied().collect(),
            ..score.clone()
        };
        let scores = std::iter::once(None)
            .chain(self.prompt_scores.iter().map(shown).map(Some))
            .chain(std::iter::repeat(None));
        let mut walk = Detokenizer::new(text.vocabulary().clone(), SpecialTokens::Skip);
        let mut tokens = Vec::with_capacity(self.prompt.len());
        let mut offset = 0;
        for (&id, score) in self.prompt.iter().zip(scores) {
            tokens.push(ScoredToken { id, score, offset });
            offset += walk.push(id).chars().count();
        }
        self.decoded_chars = echo.text.chars().count();
        Some(Fragment {
            text: echo.text.to_string(),
            tokens,
            ..Fragment::default()
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
        let mut fragment = Fragment {
            tokens: vec![scored],
            position: Some(position),
            ..Fragment::default()
        };
        self.read(id, &mut fragment);
        if self.stops.stopped() == Stopped::Yes {
            self.finish = Some(self.reason(FinishReason::Stop));
        } else if self.calls_max == CallsMax::One && self.reader.calls_over() > 0 {
            fragment.text.push_str(&self.stops.finish());
            self.finish = Some(FinishReason::ToolCalls);
        }
        fragment.finish = self.finish;
        fragment
    }

    fn read(&mut self, id: u32, fragment: &mut Fragment) {
        let was_reasoning = self.reader.is_reasoning();
        if self.is_shown(id) {
            let decoded = self.detokenizer.push(id);
            self.decoded_chars += decoded.chars().count();
            let pieces = self.reader.push(&decoded);
            self.tell(pieces, fragment);
        }
        if was_reasoning || self.reader.is_reasoning() {
            self.reasoning_tokens += 1;
        }
    }

    fn is_shown(&self, id: u32) -> bool {
        match (self.stop_tokens.binary_search(&id), self.stop_ending) {
            (Ok(_), StopEnding::BeforeStop) => false,
            (Ok(_), StopEnding::AfterStop) | (Err(_), _) => true,
        }
    }

    /// Nothing is told after a stop string.
    fn tell(&mut self, pieces: Vec<Piece>, fragment: &mut Fragment) {
        for piece in pieces {
            if self.stops.stopped() == Stopped::Yes {
                return;
            }
            match piece {
                Piece::Content(text) if self.is_too_short_to_stop() => fragment.text.push_str(&text),
                Piece::Content(text) => fragment.text.push_str(&self.stops.push(&text)),
                Piece::Reasoning(text) => fragment.reasoning.push_str(&text),
                Piece::Call { index, .. } | Piece::Arguments { index, .. } if self.is_one_too_many(index) => {
                    return;
                }
                Piece::Call { index, name } => {
                    self.calls_begun += 1;
                    let ids = self
                        .call_ids
                        .as_ref()
                        .expect("calls are read where they have names");
                    let id = ids.id(index);
                    fragment.calls.push(CallPart::Begins { index, id, name });
                }
                Piece::Arguments { index, text } => fragment.calls.push(CallPart::Arguments { index, text }),
            }
        }
    }

    fn is_one_too_many(&self, call: u32) -> bool {
        match self.calls_max {
            CallsMax::One => call > 0,
            CallsMax::Any => false,
        }
    }

    fn is_too_short_to_stop(&self) -> bool {
        self.tokens <= self.min_tokens
    }

    /// The engine has ended the choice: what was held back comes out.
    pub fn end(&mut self, reason: FinishReason) -> Fragment {
        assert!(self.finish.is_none(), "a choice ended twice");
        let mut fragment = Fragment::default();
        let mut pieces = self.reader.push(&self.detokenizer.finish());
        pieces.extend(self.reader.finish(match reason {
            FinishReason::Length => Ending::Cut,
            FinishReason::Stop | FinishReason::ToolCalls => Ending::Whole,
        }));
        self.tell(pieces, &mut fragment);
        fragment.text.push_str(&self.stops.finish());
        let reason = match self.stops.stopped() {
            Stopped::Yes => FinishReason::Stop,
            Stopped::No => reason,
        };
        self.finish = Some(self.reason(reason));
        fragment.finish = self.finish;
        fragment
    }

    /// A choice that stopped with calls stopped for them.
    fn reason(&self, reason: FinishReason) -> FinishReason {
        match reason {
            FinishReason::Stop if self.calls_begun > 0 => FinishReason::ToolCalls,
            FinishReason::Stop | FinishReason::Length | FinishReason::ToolCalls => reason,
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
            Finish::Cancelled | Finish::Expired | Finish::Failed | Finish::GrammarTooCostly => Err(finish),
        }
    }
}
