//! Until layers are cut as the work at hand wants them.

use crate::case::Case;
use crate::pipelined::Used;
use crate::placed::Placed;

/// What a first cut is judged by, in seconds that all stages together compute. Each new one takes twice as much.
const EVIDENCE_SECS: f64 = 60.0;
/// Of prompts that nobody has measured or will measure.
const SEED_FIRST: u64 = 1 << 32;

pub struct Settling<'a> {
    placed: &'a Placed,
    evidence_secs: f64,
    layers: Vec<u64>,
    seed: u64,
}

impl Settling<'_> {
    pub fn new(placed: &Placed) -> Settling<'_> {
        Settling {
            placed,
            evidence_secs: EVIDENCE_SECS,
            layers: placed.layers(),
            seed: SEED_FIRST,
        }
    }

    /// For as long as it takes to judge the cut by this case alone: what is under way is judged by both this and the last one.
    pub fn settle(&mut self, case: &Case) {
        let mut begun_secs = self.computed_secs();
        while self.computed_secs() < begun_secs + 2.0 * self.evidence_secs {
            case.ask(self.placed, self.seed);
            self.seed += 1;
            let layers = self.placed.layers();
            if layers != self.layers {
                println!("{}: {:?} became {layers:?}", case.name, self.layers);
                self.layers = layers;
                self.evidence_secs *= 2.0;
                begun_secs = self.computed_secs();
            }
        }
    }

    fn computed_secs(&self) -> f64 {
        Used::read(self.placed).computed_secs.iter().sum()
    }
}
