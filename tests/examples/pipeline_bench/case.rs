//! What is asked of the model, all at once.

use crate::pipelined::{Pipelined, Used};
use crate::placed::Placed;
use serde_json::Value;
use tests::run_to_end;

/// Of one case, before its layers stay as they are.
const TRIES_MAX: u64 = 4;

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
    Case::of_streams("16 streams", 16, 32, 96),
    Case::of_streams("128 streams", 128, 16, 48),
    Case::of_prompts(1024),
];

/// For one slow thread, too. The last has four tokens of prompts for each of output, for which layers are cut.
pub const FEWER_CASES: [Case; 3] = [
    Case::of_streams("16 streams", 16, 32, 96),
    Case::of_prompts(1024),
    Case::of_streams("both", 16, 256, 64),
];

/// Some ten seconds of two threads.
pub const RECUT_CASE: Case = Case::of_streams("16 streams", 16, 32, 96);

pub struct Measured {
    pub tokens_per_sec: f64,
    /// Where there are several stages.
    pub pipelined: Option<Pipelined>,
}

impl Case {
    const fn of_streams(name: &'static str, streams: u32, prompt_tokens: u32, output_tokens: u32) -> Case {
        Case {
            name,
            streams,
            prompt_tokens,
            output_tokens,
            figure: Figure::Output,
        }
    }

    /// Four at once.
    const fn of_prompts(prompt_tokens: u32) -> Case {
        Case {
            name: "prompts",
            streams: 4,
            prompt_tokens,
            output_tokens: 1,
            figure: Figure::Prompts,
        }
    }

    /// Measured again where the layers are cut anew meanwhile, as they are once nodes turn out other than they were measured.
    pub fn run(&self, placed: &Placed) -> Measured {
        let mut tries = (0..TRIES_MAX).filter_map(|seed| self.run_once(placed, seed));
        tries.next().expect("the layers were cut anew each time")
    }

    fn run_once(&self, placed: &Placed, seed: u64) -> Option<Measured> {
        self.warm_up(placed);
        let (before, layers) = (used_so_far(placed), placed.layers());
        let summary = self.ask(placed, seed);
        let used = used_so_far(placed).since(&before);
        if placed.layers() != layers {
            println!(
                "{}: the layers were cut anew, and it is measured again",
                self.name
            );
            return None;
        }
        let figure = |name: &str| summary[name].as_f64().expect("a number");
        Some(Measured {
            tokens_per_sec: match self.figure {
                Figure::Output => figure("output_tokens_per_sec"),
                Figure::Prompts => figure("prompt_tokens") / figure("wall_secs"),
            },
            pipelined: (used.computed_secs.len() > 1).then(|| Pipelined::new(self, placed, &used)),
        })
    }

    /// One stream alone, with a prompt of its own. Before the stages' time counts: half of its time is a bubble.
    pub fn warm_up(&self, placed: &Placed) {
        self.bench_serve(placed, 1, u64::MAX);
    }

    /// Prompts of another seed are in no cache yet.
    pub fn ask(&self, placed: &Placed, seed: u64) -> Value {
        self.bench_serve(placed, self.streams, seed)
    }

    fn bench_serve(&self, placed: &Placed, streams: u32, seed: u64) -> Value {
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
            "--warm-up",
            "0",
            "--seed",
            &seed.to_string(),
            "--concurrency",
            &number(streams),
            "--requests",
            &number(streams),
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

fn used_so_far(placed: &Placed) -> Used {
    // Told with the next report of the engine's load.
    std::thread::sleep(std::time::Duration::from_secs(1));
    Used::read(placed)
}
