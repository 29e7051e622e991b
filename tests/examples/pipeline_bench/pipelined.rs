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
    layers: Vec<u64>,
    /// Of the pace that the same steps would have under the best cut of the layers, with its slowest stage never idle.
    of_optimum: f64,
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
        let layers = placed.layers();
        Pipelined {
            of_optimum: optimum_secs(&used.computed_secs, &layers) / used.occupied_secs,
            layers,
            bubble: 1.0 - computed_secs / (used.occupied_secs * stages),
            between: 1.0 - used.least_secs / used.occupied_secs,
            simulated: [&placed.shares, &shares].map(|shares| simulated::bubble(case, placed, shares)),
            shares,
        }
    }
}

/// Of the slowest stage under the best cut, each layer taking as long on a stage's device as its layers did, with what else the
/// stage does (embeddings, the output matrix) in equal parts.
fn optimum_secs(computed_secs: &[f64], layers: &[u64]) -> f64 {
    let there: u64 = layers.iter().sum();
    let layer_secs = computed_secs.iter().zip(layers);
    let layer_secs: Vec<f64> = layer_secs.map(|(secs, layers)| secs / *layers as f64).collect();
    let fits = |secs: &f64| {
        // A stage takes just so many layers in just so long, whatever the division rounds to.
        let within = |layer: &f64| (secs / layer * (1.0 + 1e-9)).floor();
        let each_has_one = layer_secs.iter().all(|layer| within(layer) >= 1.0);
        each_has_one && layer_secs.iter().map(within).sum::<f64>() >= there as f64
    };
    let stages = layer_secs
        .iter()
        .flat_map(|layer| (1..=there).map(move |count| layer * count as f64));
    stages.filter(fits).fold(f64::INFINITY, f64::min)
}

pub const HEADER: &str = "  bubble  between  as planned  as it was  of optimum  layers  computing";

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
        let layers: Vec<String> = self.layers.iter().map(u64::to_string).collect();
        write!(
            formatter,
            "{bubble:>7.1}% {between:>7.1}% {planned:>10.1}% {measured:>9.1}% {:>10.2}  {:>6}  {}",
            self.of_optimum,
            layers.join(":"),
            shares.join(":")
        )
    }
}
