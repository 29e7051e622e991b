//! Where the time of a request went.

use proto::Span;
use proto::engine::Timing;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The engine's word for queue, prefill and decode of each choice, and this process's clock for the whole.
pub struct Times {
    arrived: Instant,
    choices: Vec<ChoiceTimes>,
}

#[derive(Clone, Copy, Default)]
struct ChoiceTimes {
    engine: Timing,
    first_token: Option<Instant>,
}

impl Times {
    pub fn new(arrived: Instant, choices: usize) -> Times {
        Times {
            arrived,
            choices: vec![ChoiceTimes::default(); choices],
        }
    }

    pub fn told(&mut self, choice: u32, timing: Timing) {
        self.choices[choice as usize].engine = timing;
    }

    pub fn token(&mut self, choice: u32, now: Instant) {
        self.choices[choice as usize].first_token.get_or_insert(now);
    }

    /// A stop string ended the choice here, before the engine could tell its last timing.
    pub fn cut(&mut self, choice: u32, now: Instant) {
        let times = &mut self.choices[choice as usize];
        if let Some(first_token) = times.first_token {
            times.engine.decode = span(now - first_token);
        }
    }

    pub fn of_choice(&self, choice: u32) -> Timing {
        self.choices[choice as usize].engine
    }

    /// Of the choice that took longest. `network` is the rest: reading, tokenizing, the way between processes, writing.
    pub fn split(&self, now: Instant) -> Value {
        let computed = |timing: &Timing| timing.queue.0 + timing.prefill.0 + timing.decode.0;
        let engines = self.choices.iter().map(|times| times.engine);
        let longest = engines.max_by_key(computed).unwrap_or_default();
        let total = span(now - self.arrived);
        let network = Span(total.0.saturating_sub(computed(&longest)));
        json!({
            "queue_ms": longest.queue.as_millis_f64(),
            "prefill_ms": longest.prefill.as_millis_f64(),
            "decode_ms": longest.decode.as_millis_f64(),
            "network_ms": network.as_millis_f64(),
            "total_ms": total.as_millis_f64(),
        })
    }
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(queue: u64, prefill: u64, decode: u64) -> Timing {
        Timing {
            queue: Span::from_millis(queue),
            prefill: Span::from_millis(prefill),
            decode: Span::from_millis(decode),
        }
    }

    #[test]
    fn the_parts_are_those_of_the_longest_choice_and_add_up_to_the_whole() {
        let arrived = Instant::now();
        let mut times = Times::new(arrived, 2);
        times.told(0, timing(1, 2, 3));
        times.told(1, timing(5, 10, 20));
        assert_eq!(
            times.split(arrived + Duration::from_millis(100)),
            json!({"queue_ms": 5.0, "prefill_ms": 10.0, "decode_ms": 20.0, "network_ms": 65.0, "total_ms": 100.0})
        );
        let short = times.split(arrived + Duration::from_millis(3));
        assert_eq!(short["network_ms"], 0.0, "clocks of two processes may disagree");
    }

    #[test]
    fn a_choice_that_a_stop_string_ended_was_decoded_until_then() {
        let arrived = Instant::now();
        let mut times = Times::new(arrived, 1);
        times.told(0, timing(1, 2, 0));
        times.token(0, arrived + Duration::from_millis(10));
        times.token(0, arrived + Duration::from_millis(20));
        times.cut(0, arrived + Duration::from_millis(30));
        assert_eq!(times.of_choice(0), timing(1, 2, 20));
    }
}
