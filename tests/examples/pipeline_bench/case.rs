//! What is asked of the model, all at once.

use crate::pipelined::{Pipelined, Used};
use crate::placed::Placed;
use serde_json::Value;
use tests::run_to_end;

/// What a case is measured by.
#[derive(Clone, Copy)]
pub enum Figure {
    Output,
    /// Prompt tokens over the time of the whole run, of which the one output token takes next to nothing.
    Prompts,
}

pub struct Case {
    pub name: &'static str,
    pub streams: u32,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    figure: Figure,
}

pub const CASES: [Case; 3] = [
    Case {
        name: "16 streams",
        streams: 16,
        prompt_tokens: 32,
        output_tokens: 96,
        figure: Figure::Output,
    },
    Case {
        name: "128 streams",
        streams: 128,
        prompt_tokens: 16,
        output_tokens: 48,
        figure: Figure::Output,
    },
    Case {
        name: "prompts",
        streams: 4,
        prompt_tokens: 1024,
        output_tokens: 1,
        figure: Figure::Prompts,
    },
];

/// Short enough for one slow thread.
pub const SHORT_CASES: [Case; 2] = [
    Case {
        name: "16 streams",
        streams: 16,
        prompt_tokens: 16,
        output_tokens: 48,
        figure: Figure::Output,
    },
    Case {
        name: "prompts",
        streams: 4,
        prompt_tokens: 256,
        output_tokens: 1,
        figure: Figure::Prompts,
    },
];

pub struct Measured {
    pub tokens_per_sec: f64,
    /// Where there are several stages.
    pub pipelined: Option<Pipelined>,
}

impl Case {
    pub fn run(&self, placed: &Placed) -> Measured {
        let before = Used::read(placed);
        let summary = self.ask(placed);
        // Told with the next report of the engine's load.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let used = Used::read(placed).since(&before);
        let figure = |name: &str| summary[name].as_f64().expect("a number");
        Measured {
            tokens_per_sec: match self.figure {
                Figure::Output => figure("output_tokens_per_sec"),
                Figure::Prompts => figure("prompt_tokens") / figure("wall_secs"),
            },
            pipelined: (used.computed_secs.len() > 1).then(|| Pipelined::new(self, placed, &used)),
        }
    }

    fn ask(&self, placed: &Placed) -> Value {
        let number = |value: u32| value.to_string();
        let output = run_to_end(&[
            "bench",
            "serve",
            "--json",
            "--url",
            &placed.url(),
            "--key",
            placed.fleet.key(),
            "--model",
            "measured",
            "--concurrency",
            &number(self.streams),
            "--requests",
            &number(self.streams),
            "--prompt-tokens",
            &number(self.prompt_tokens),
            "--output-tokens",
            &number(self.output_tokens),
        ]);
        let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
        assert_eq!(summary["failed"], 0, "{summary}");
        summary
    }
}
