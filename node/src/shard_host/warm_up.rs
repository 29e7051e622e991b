//! A few steps through the real ranks before the first request: they touch every weight and workspace page once, and
//! they tell how long steps take here, so that neither the first batches nor `cluster up` have to guess.

use super::exercise::{Batch, Exercise, ExerciseError, Shape};
use coordinator::cost::{CostFit, StepCost, StepWork};
use coordinator::placer::layout::Room;
use proto::Span;
use shard::{Lost, StepInput, StepOutput};
use std::time::Duration;

/// As much time as this is spent on more sequences than two.
const BUDGET: Duration = Duration::from_millis(250);
/// Where the first round took longer, there is no second one: nobody wants to wait for a figure.
const FIRST_MAX: Duration = Duration::from_secs(2);
const PROMPT_TOKENS: u32 = 8;
/// Steps after a prompt.
const DECODE_STEPS: u32 = 2;
/// Prompts that are computed side by side when there is time.
const SEQUENCES_WANTED: u32 = 8;

/// `None`: the first steps took too long, or there is no room for more.
pub fn measure<Compute>(
    compute: Compute,
    vocabulary: u32,
    room: Room,
) -> Result<Option<StepCost>, ExerciseError>
where
    Compute: FnMut(StepInput) -> Result<StepOutput, Lost>,
{
    let mut warm_up = WarmUp {
        exercise: Exercise::new(compute, vocabulary, room.step_tokens_max),
        fit: CostFit::new(StepCost::PRIOR),
        spent: Duration::ZERO,
    };
    if shape(1).blocks() > room.blocks {
        return Ok(None);
    }
    let first = warm_up.round(1, Prompt::Cold)?;
    let sequences = affordable(BUDGET.saturating_sub(first), first).clamp(2, SEQUENCES_WANTED);
    if first > FIRST_MAX || shape(sequences).blocks() > room.blocks {
        return Ok(None);
    }
    warm_up.round(sequences, Prompt::Warm)?;
    Ok(Some(warm_up.fit.cost()))
}

/// At worst a round takes in proportion to its sequences.
fn affordable(left: Duration, one: Duration) -> u32 {
    (left.as_secs_f64() / one.as_secs_f64().max(f64::MIN_POSITIVE)) as u32
}

fn shape(sequences: u32) -> Shape {
    Shape {
        sequences,
        prompt_tokens: PROMPT_TOKENS,
        output_tokens: DECODE_STEPS,
        temperature: 0.0,
    }
}

/// Does the prompt's step say how long such steps take?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prompt {
    /// No: it is the first of all and waits for memory.
    Cold,
    Warm,
}

struct WarmUp<Compute> {
    exercise: Exercise<Compute>,
    fit: CostFit,
    spent: Duration,
}

impl<Compute> WarmUp<Compute>
where
    Compute: FnMut(StepInput) -> Result<StepOutput, Lost>,
{
    /// Gives the time of the whole round.
    fn round(&mut self, sequences: u32, prompt: Prompt) -> Result<Duration, ExerciseError> {
        let before = self.spent;
        let mut batch = self.exercise.admit(shape(sequences));
        let elapsed = self.step(&mut batch, PROMPT_TOKENS)?;
        if prompt == Prompt::Warm {
            self.learn(sequences, 0, PROMPT_TOKENS, elapsed);
        }
        for position in PROMPT_TOKENS..PROMPT_TOKENS + DECODE_STEPS {
            let elapsed = self.step(&mut batch, 1)?;
            self.learn(sequences, position, 1, elapsed);
        }
        self.exercise.forget(batch);
        Ok(self.spent - before)
    }

    fn step(&mut self, batch: &mut Batch, count: u32) -> Result<Duration, ExerciseError> {
        let elapsed = self.exercise.advance(batch, count)?;
        self.spent += elapsed;
        Ok(elapsed)
    }

    fn learn(&mut self, sequences: u32, start: u32, count: u32, elapsed: Duration) {
        let mut work = StepWork::default();
        (0..sequences).for_each(|_| work += StepWork::slice(start, count));
        self.fit.observe(work, Span::from_secs_f64(elapsed.as_secs_f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::step::Verdict;
    use shard::SampledToken;

    fn answer(input: &StepInput) -> StepOutput {
        let token = |_| SampledToken {
            id: 1,
            score: None,
            verdict: Verdict::Continue,
        };
        let wanted = input.passes.iter().flat_map(|pass| &pass.logits);
        StepOutput {
            sampled: wanted.map(|row| (row.sequence, token(()))).collect(),
            ..StepOutput::default()
        }
    }

    fn room(blocks: u32) -> Room {
        Room {
            blocks,
            step_tokens_max: 512,
        }
    }

    #[test]
    fn two_rounds_tell_what_steps_cost() {
        let mut rows = Vec::new();
        let compute = |input: StepInput| {
            rows.push(input.passes.iter().map(|pass| pass.tokens.len()).sum::<usize>());
            Ok(answer(&input))
        };
        let cost = measure(compute, 100, room(1000)).unwrap();
        // A busy machine gets no further than two.
        let side_by_side = rows[4];
        assert!((2..=8).contains(&side_by_side), "{rows:?}");
        assert_eq!(rows[..4], [8, 1, 1, 8 * side_by_side]);
        assert!(cost.is_some_and(|cost| cost != StepCost::PRIOR));
    }

    #[test]
    fn without_room_nothing_is_computed() {
        let compute = |_: StepInput| -> Result<StepOutput, Lost> { panic!("there are no blocks for it") };
        assert_eq!(measure(compute, 100, room(0)).unwrap(), None);
    }

    #[test]
    fn only_what_can_be_afforded_is_tried() {
        let millis = Duration::from_millis;
        assert_eq!(affordable(millis(300), millis(70)), 4);
        assert_eq!(affordable(millis(0), millis(70)), 0);
        assert!(affordable(millis(1), Duration::ZERO) > SEQUENCES_WANTED);
    }
}
