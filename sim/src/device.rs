//! How long a step really takes.

use crate::random::Random;
use crate::scenario::Device;
use coordinator::cost::{StepCost, StepWork};
use proto::Span;
use proto::step::StepPlan;

pub struct ModelledDevice {
    cost: StepCost,
    noise: f64,
    random: Random,
}

impl ModelledDevice {
    pub fn new(device: &Device, random: Random) -> ModelledDevice {
        let cost = StepCost {
            fixed_secs: device.fixed_us * 1e-6,
            per_token_secs: device.per_token_us * 1e-6,
            per_context_secs: device.per_context_ns * 1e-9,
        };
        ModelledDevice {
            cost,
            noise: device.noise_percent / 100.0,
            random,
        }
    }

    pub fn time(&mut self, plan: &StepPlan) -> Span {
        let mut work = StepWork::default();
        plan.slices
            .iter()
            .for_each(|slice| work += StepWork::slice(slice.start, slice.count));
        let noise = 1.0 + self.noise * (2.0 * self.random.unit() - 1.0);
        Span::from_secs_f64(self.cost.secs(work) * noise)
    }
}
