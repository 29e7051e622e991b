//! How well stages were used, and what the simulator says of stages like them.

use crate::case::Case;
use crate::placed::Placed;
use crate::simulated;
use std::fmt::{self, Display, Formatter};

/// As an engine counts it.
pub struct Used {
    occupied_secs: f64,
    least_secs: f64,
    /// Of each stage.
    pub computed_secs: Vec<f64>,
}

impl Used {
    pub fn read(placed: &Placed) -> Used {
        let total = |part: &str, label: &str| {
            placed.labelled_metric(&format!("cluster_pipeline_{part}_seconds_total"), label)
        };
        Used {
            occupied_secs: total("occupied", ""),
            least_secs: total("least", ""),
            computed_secs: (0..placed.stages().len())
                .map(|stage| total("computed", &format!("stage=\"{stage}\"")))
                .collect(),
        }
    }

    pub fn since(self, before: &Used) -> Used {
        let computed = self.computed_secs.iter().zip(&before.computed_secs);
        Used {
            occupied_secs: self.occupied_secs - before.occupied_secs,
            least_secs: self.least_secs - before.least_secs,
            computed_secs: computed.map(|(after, before)| after - before).collect(),
        }
    }
}

/// Parts of the stages' time, while there was work, in which they did none.
pub struct Pipelined {
    bubble: f64,
    /// What of it was lost between stages: to ways, planning, and cores that were not free.
    between: f64,
    /// Simulated with stages as they were planned, and with stages as they were on average.
    simulated: [f64; 2],
    /// Of the computing.
    shares: Vec<f64>,
}

impl Pipelined {
    pub fn new(case: &Case, placed: &Placed, used: &Used) -> Pipelined {
        let computed_secs: f64 = used.computed_secs.iter().sum();
        let shares: Vec<f64> = used
            .computed_secs
            .iter()
            .map(|secs| secs / computed_secs)
            .collect();
        let stages = shares.len() as f64;
        Pipelined {
            bubble: 1.0 - computed_secs / (used.occupied_secs * stages),
            between: 1.0 - used.least_secs / used.occupied_secs,
            simulated: [&placed.shares, &shares].map(|shares| simulated::bubble(case, placed, shares)),
            shares,
        }
    }
}

pub const HEADER: &str = "  bubble  between  as planned  as it was  stages";

impl Display for Pipelined {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let [planned, measured] = self.simulated;
        let percent = [self.bubble, self.between, planned, measured].map(|part| part * 100.0);
        let [bubble, between, planned, measured] = percent;
        let shares: Vec<String> = self
            .shares
            .iter()
            .map(|share| format!("{:.1}", share * 100.0))
            .collect();
        write!(
            formatter,
            "{bubble:>7.1}% {between:>7.1}% {planned:>10.1}% {measured:>9.1}%  {}",
            shares.join(":")
        )
    }
}
