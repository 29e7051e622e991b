/// Tokens from heavy to light, put in order only as far as anyone asks: first dealt out to rungs by the leading bits of
/// their weight, then sorted within the one or two rungs where a limit falls.
///
/// The order is that of a full sort: by weight; weights that rounding made equal by logit; equal logits by token.
#[derive(Default)]
pub(super) struct Ladder {
    rungs: Vec<Rung>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Default)]
struct Rung {
    start: usize,
    end: usize,
    mass: f64,
}

#[derive(Clone, Copy, Default)]
struct Candidate {
    weight: f32,
    logit: f32,
    token: u32,
}

/// Leaves the exponent and four bits of the mantissa.
const SHIFT: u32 = 19;
const ONE: u32 = 0x3f80_0000;
const RUNGS: usize = (ONE >> SHIFT) as usize + 1;

impl Ladder {
    /// Weights are at most 1; those that are 0 are left out.
    pub fn fill(&mut self, logits: &[f32], weights: &[f32]) {
        self.rungs.clear();
        self.rungs.resize(RUNGS, Rung::default());
        let heavy = || weights.iter().filter(|weight| **weight > 0.0);
        heavy().for_each(|weight| self.rungs[rung(*weight)].end += 1);
        let mut start = 0;
        for rung in &mut self.rungs {
            let count = rung.end;
            (rung.start, rung.end) = (start, start);
            start += count;
        }
        self.candidates.resize(start, Candidate::default());
        for (token, (weight, logit)) in (0..).zip(weights.iter().zip(logits)) {
            if *weight > 0.0 {
                let rung = &mut self.rungs[rung(*weight)];
                self.candidates[rung.end] = Candidate {
                    weight: *weight,
                    logit: *logit,
                    token,
                };
                rung.end += 1;
                rung.mass += f64::from(*weight);
            }
        }
    }

    pub fn count(&self) -> usize {
        self.candidates.len()
    }

    pub fn count_at_least(&self, weight_min: f32) -> usize {
        self.candidates
            .iter()
            .filter(|candidate| candidate.weight >= weight_min)
            .count()
    }

    /// What the heaviest `count` weigh together.
    pub fn mass_of(&mut self, count: usize) -> f64 {
        let mut mass = 0.0;
        for rung in 0..RUNGS {
            let Rung {
                start,
                end,
                mass: whole,
            } = self.rungs[rung];
            if end <= count {
                mass += whole;
            } else {
                let some = &self.sorted(rung)[..count.saturating_sub(start)];
                return mass
                    + some
                        .iter()
                        .map(|candidate| f64::from(candidate.weight))
                        .sum::<f64>();
            }
        }
        mass
    }

    /// How many of the heaviest weigh `enough` together; all, when they do not.
    pub fn count_to_mass(&mut self, enough: f64) -> usize {
        let mut mass = 0.0;
        for rung in 0..RUNGS {
            let Rung {
                start, mass: whole, ..
            } = self.rungs[rung];
            if mass + whole < enough {
                mass += whole;
                continue;
            }
            for (place, candidate) in self.sorted(rung).iter().enumerate() {
                mass += f64::from(candidate.weight);
                if mass >= enough {
                    return start + place + 1;
                }
            }
        }
        self.count()
    }

    /// The token at a place, counted from the heaviest.
    pub fn token(&mut self, place: usize) -> u32 {
        let rung = self.rungs.partition_point(|rung| rung.end <= place);
        let start = self.rungs[rung].start;
        self.sorted(rung)[place - start].token
    }

    fn sorted(&mut self, rung: usize) -> &[Candidate] {
        let Rung { start, end, .. } = self.rungs[rung];
        let candidates = &mut self.candidates[start..end];
        candidates.sort_unstable_by(|a, b| {
            let by_logit = || b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
            b.weight.total_cmp(&a.weight).then_with(by_logit)
        });
        candidates
    }
}

fn rung(weight: f32) -> usize {
    (ONE.saturating_sub(weight.to_bits()) >> SHIFT) as usize
}
