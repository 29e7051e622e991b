//! How long a step really takes, and when it returns.

use crate::random::Random;
use crate::scenario::{Device, secs};
use coordinator::cost::{StepCost, StepWork};
use proto::step::StepPlan;
use proto::{Span, Time};

/// Stages in tandem. Each computes plans in the order in which they come, one at a time.
pub struct ModelledDevice {
    cost: StepCost,
    noise: f64,
    random: Random,
    /// From one stage to the next.
    hop: Span,
    /// In the order in which a plan visits them.
    stages: Vec<Stage>,
}

struct Stage {
    /// Its part of a step's time.
    share: f64,
    /// When it will have computed everything that was planned so far.
    free_at: Time,
}

/// What becomes of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Computation {
    /// How long each stage computes, in the order in which the plan visits them.
    pub parts: Vec<Span>,
    /// When the last stage has sampled.
    pub returns_at: Time,
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
            hop: secs(device.hop_us * 1e-6),
            stages: stages(device),
        }
    }

    /// Nothing is planned any more.
    pub fn clear(&mut self) {
        self.stages
            .iter_mut()
            .for_each(|stage| stage.free_at = Time::ZERO);
    }

    /// To be called once for each plan, in order: earlier ones are under way before it.
    pub fn compute(&mut self, now: Time, plan: &StepPlan) -> Computation {
        let step_secs = self.step_secs(plan);
        let is_cut = self.stages.len() > 1;
        let mut done = Computation {
            parts: Vec::with_capacity(self.stages.len()),
            returns_at: now,
        };
        for stage in &mut self.stages {
            // The engine is beside the last stage, so that a plan travels to the first one like anything else.
            let arrives_at = done.returns_at + if is_cut { self.hop } else { Span::ZERO };
            let takes = secs(step_secs * stage.share);
            stage.free_at = stage.free_at.max(arrives_at) + takes;
            done.parts.push(takes);
            done.returns_at = stage.free_at;
        }
        done
    }

    fn step_secs(&mut self, plan: &StepPlan) -> f64 {
        let mut work = StepWork::default();
        plan.slices
            .iter()
            .for_each(|slice| work += StepWork::slice(slice.start, slice.count));
        let noise = 1.0 + self.noise * (2.0 * self.random.unit() - 1.0);
        self.cost.secs(work) * noise
    }
}

fn stages(device: &Device) -> Vec<Stage> {
    let mut shares = device.stage_shares.clone();
    shares.resize(device.stages as usize, 1.0);
    let sum: f64 = shares.iter().sum();
    shares
        .into_iter()
        .map(|share| Stage {
            share: share / sum,
            free_at: Time::ZERO,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_follow_one_another_through_the_stages_until_all_is_lost() {
        let device = Device {
            fixed_us: 3000.0,
            per_token_us: 0.0,
            per_context_ns: 0.0,
            noise_percent: 0.0,
            stages: 2,
            stage_shares: vec![2.0, 1.0],
            hop_us: 500.0,
        };
        let mut device = ModelledDevice::new(&device, Random::new(1, 0));
        let returns_at = |now_us, device: &mut ModelledDevice| {
            let now = Time::ZERO + Span::from_micros(now_us);
            let done = device.compute(now, &StepPlan::default());
            assert_eq!(done.parts, [Span::from_millis(2), Span::from_millis(1)]);
            done.returns_at
        };
        let after = |us| Time::ZERO + Span::from_micros(us);
        // Half a millisecond to each stage, and two and one in them.
        assert_eq!(returns_at(0, &mut device), after(4_000));
        // The first stage is busy until 2.5 ms.
        assert_eq!(returns_at(1_000, &mut device), after(6_000));
        device.clear();
        assert_eq!(returns_at(1_000, &mut device), after(5_000));
    }
}
