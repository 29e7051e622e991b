//! How long a step may take.

use super::EngineConfig;
use super::config::prompt_step_through;
use proto::Span;

/// Decoding alone may take most of the promise, or more. Prompts get this many times as long even then: with less they would wait
/// for minutes behind streams that have lost their promise anyway.
const PROMPTS_LEAST: f64 = 1.0;

/// How long a step may take, and why.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum StepTarget {
    /// Somebody reads along.
    Promised(Span),
    /// About as long: nobody waits for the step itself.
    Preferred(Span),
}

impl StepTarget {
    /// With nobody reading along.
    pub fn of_prompts(config: &EngineConfig) -> StepTarget {
        StepTarget::Preferred(prompt_step_through(config.stages, config.prompt_step_max))
    }

    /// With streams whose next tokens take so long by themselves.
    pub fn beside_streams(config: &EngineConfig, decoding: Span) -> StepTarget {
        let shared = Span::from_secs_f64(decoding.as_secs_f64() * (1.0 + PROMPTS_LEAST));
        StepTarget::Promised(config.between_tokens_max.max(shared))
    }

    pub fn time(self) -> Span {
        let (StepTarget::Promised(time) | StepTarget::Preferred(time)) = self;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Epoch, ReplicaId};

    #[test]
    fn a_step_keeps_the_promise_until_decoding_takes_half_of_it_and_then_prompts_get_as_much_as_decoding() {
        let config = EngineConfig {
            between_tokens_max: Span::from_millis(50),
            ..EngineConfig::for_replica(ReplicaId(0), Epoch(0))
        };
        for (decoding_ms, step_ms) in [(0, 50), (4, 50), (25, 50), (30, 60), (50, 100), (200, 400)] {
            let target = StepTarget::beside_streams(&config, Span::from_millis(decoding_ms));
            assert_eq!(
                target,
                StepTarget::Promised(Span::from_millis(step_ms)),
                "{decoding_ms} ms"
            );
        }
    }
}
