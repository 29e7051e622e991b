//! What is deployed, where it is, and whether it does what was expected of it.

use super::report::{DeploymentStatus, Expectation, PlacementStatus, StageStatus};
use crate::actors::board::{Board, Phase, ReplicaView};
use crate::placement::outlook;
use coordinator::cluster_state::ClusterState;
use coordinator::cost::{StepCost, StepWork};
use coordinator::engine::{PROMPT_STEP_MAX, prompt_step_through};
use coordinator::placer::layout::{CONTEXT_TOKENS_USUAL, PROMPT_TOKENS, STEP_TOKENS_LEAST};
use proto::cluster::{Deployment, Placement};
use proto::engine::{Load, PipelineUse};
use proto::peer::Outlook;

/// A plan that is further off than this is said to be.
const OFF_PERCENT: f64 = 20.0;
/// What a replica has to have done before its own figures are told: until then there are only the few small steps by which it was tried
/// when it came up. Tokens of streams, and of prompts.
const EVIDENCE_TOKENS: [u64; 2] = [64, 2 * PROMPT_TOKENS];
/// A stage with so many times its equal part of the computing is one that the others wait for.
const TOO_MUCH: f64 = 1.2;
/// A prompt is cut into no more steps than this.
const STEPS_MAX: f64 = PROMPT_TOKENS as f64 / STEP_TOKENS_LEAST as f64;

pub fn list(state: &ClusterState, board: &Board, outlook: &Outlook) -> Vec<DeploymentStatus> {
    let views = board.views();
    let status = |deployment: &Deployment| {
        let name = &deployment.model.name;
        let placed = state.placements().filter(|placement| placement.model == *name);
        DeploymentStatus {
            model: name.clone(),
            replicas: deployment.replicas,
            placed: placed
                .map(|placement| placement_status(placement, views.get(&placement.replica)))
                .collect(),
            waits_for: outlook::obstacle(outlook, name).map(str::to_owned),
        }
    };
    state.deployments().map(status).collect()
}

fn placement_status(placement: &Placement, view: Option<&ReplicaView>) -> PlacementStatus {
    let load = view
        .filter(|view| matches!(view.phase, Phase::Ready(_)))
        .map(|view| &view.load);
    let measured = load.map(|load| measured(&StepCost::of_load(load), placement.stages.len()));
    let done = load.map_or([0, 0], tokens_done);
    let predicted = [
        placement.predicted.decode_1_millitokens_per_sec as f64 / 1e3,
        placement.predicted.prefill_millitokens_per_sec as f64 / 1e3,
    ];
    let used = view.and_then(|view| view.pipeline.as_ref());
    let shares: Vec<f64> = used.map(|used| used.shares().collect()).unwrap_or_default();
    let expectation = |place: usize| Expectation {
        predicted: predicted[place],
        measured: measured
            .filter(|_| done[place] >= EVIDENCE_TOKENS[place])
            .map(|measured| measured[place]),
    };
    PlacementStatus {
        replica: placement.replica.0,
        stages: placement
            .stages
            .iter()
            .enumerate()
            .map(|(place, stage)| StageStatus {
                node: stage.node.0,
                layer_first: stage.layer_first,
                layer_end: stage.layer_end,
                ranks: stage.ranks,
                memory_bytes: stage.memory_bytes,
                share: shares.get(place).copied(),
            })
            .collect(),
        blocks: placement.blocks,
        decode_tokens_per_sec: expectation(0),
        prefill_tokens_per_sec: expectation(1),
        bubble: used.map(PipelineUse::bubble),
    }
}

/// By streams, and by prompts.
fn tokens_done(load: &Load) -> [u64; 2] {
    let prompts = load.computed_tokens.saturating_sub(load.sampled_tokens);
    [load.sampled_tokens, prompts]
}

/// Of one stream, and of prompts, for what the prediction is made for. A load tells the marginal costs of all stages at work.
fn measured(cost: &StepCost, stages: usize) -> [f64; 2] {
    let step_max = prompt_step_through(u32::try_from(stages).unwrap_or(u32::MAX), PROMPT_STEP_MAX);
    let stages = stages as f64;
    let token = StepWork {
        tokens: 1,
        context: CONTEXT_TOKENS_USUAL,
    };
    let one_token = cost.fixed_secs + cost.marginal_secs(token) * stages;
    let prompt = cost.marginal_secs(StepWork::slice(0, PROMPT_TOKENS as u32));
    // Each step of it begins anew.
    let step = step_max.as_secs_f64() - cost.fixed_secs;
    let steps = (prompt * stages / step.max(0.0)).ceil().clamp(1.0, STEPS_MAX);
    let prompt = prompt + cost.fixed_secs / stages * steps;
    [1.0 / one_token, PROMPT_TOKENS as f64 / prompt].map(|rate| if rate.is_finite() { rate } else { 0.0 })
}

impl PlacementStatus {
    /// The stage that the others wait for, where that is worth telling, and its share.
    pub fn slowest(&self) -> Option<(&StageStatus, f64)> {
        let shares = self
            .stages
            .iter()
            .filter_map(|stage| stage.share.map(|share| (stage, share)));
        let slowest = shares.max_by(|(_, one), (_, other)| one.total_cmp(other));
        slowest.filter(|(_, share)| share * self.stages.len() as f64 > TOO_MUCH)
    }
}

impl Expectation {
    /// How far it is off, where that is worth telling: positive where more is done than was expected.
    pub fn off_percent(&self) -> Option<f64> {
        let measured = self.measured.filter(|measured| *measured > 0.0)?;
        let off = (measured / self.predicted - 1.0) * 100.0;
        (off.is_finite() && off.abs() > OFF_PERCENT).then_some(off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::board::Where;
    use proto::cluster::StagePlace;
    use proto::engine::ReplicaInfo;
    use proto::{Epoch, NodeId, ReplicaId, Span};

    #[test]
    fn only_what_is_far_off_is_told() {
        let off = |predicted, measured| Expectation { predicted, measured }.off_percent();
        assert_eq!(off(100.0, Some(119.0)), None);
        assert_eq!(off(100.0, Some(150.0)), Some(50.0));
        assert_eq!(off(100.0, Some(50.0)), Some(-50.0));
        assert_eq!(off(100.0, None), None);
        assert_eq!(off(0.0, Some(3.0)), None);
    }

    /// As the node of the last stage sees it, where stages have computed for so long while 10 s went by.
    fn placed(computed_secs: &[u64]) -> PlacementStatus {
        let board = Board::default();
        board.starting(ReplicaId(1), Epoch(1), "m", Where::Here);
        let used = PipelineUse {
            occupied: Span::from_secs(10),
            least: Span::from_secs(9),
            computed: computed_secs.iter().copied().map(Span::from_secs).collect(),
        };
        board.pipeline(ReplicaId(1), used);
        let stage = |node| StagePlace {
            node: NodeId(node),
            ..StagePlace::default()
        };
        let placement = Placement {
            stages: (7..).map(stage).take(computed_secs.len()).collect(),
            ..Placement::default()
        };
        placement_status(&placement, board.views().get(&ReplicaId(1)))
    }

    #[test]
    fn a_stage_that_the_others_wait_for_is_told() {
        let uneven = placed(&[5, 9, 4]);
        assert_eq!(uneven.bubble, Some(0.4));
        let shares: Vec<_> = uneven.stages.iter().map(|stage| stage.share).collect();
        assert_eq!(shares, [5.0, 9.0, 4.0].map(|secs| Some(secs / 18.0)));
        let slowest = uneven.slowest().map(|(stage, share)| (stage.node, share));
        assert_eq!(slowest, Some((8, 0.5)));
        // A fifth more than half.
        assert_eq!(placed(&[6, 4]).slowest(), None);
        assert!(placed(&[7, 4]).slowest().is_some());
        assert_eq!(placed(&[0, 0]).slowest(), None);
        let elsewhere = placement_status(&Placement::default(), None);
        assert_eq!((elsewhere.bubble, elsewhere.slowest()), (None, None));
    }

    #[test]
    fn what_a_replica_was_tried_with_is_not_told_as_what_it_does() {
        let board = Board::default();
        board.starting(ReplicaId(1), Epoch(1), "m", Where::Here);
        let info = ReplicaInfo {
            replica: ReplicaId(1),
            epoch: Epoch(1),
            context_tokens_max: 2048,
            block_tokens: 16,
            blocks: 128,
            numerics: 0,
            description: String::new(),
        };
        board.phase(ReplicaId(1), Phase::Ready(info));
        let told = |sampled_tokens, prompt_tokens| {
            let load = Load {
                step_per_token_secs: 1e-3,
                sampled_tokens,
                computed_tokens: sampled_tokens + prompt_tokens,
                ..Load::default()
            };
            board.load(ReplicaId(1), load);
            let status = placement_status(&Placement::default(), board.views().get(&ReplicaId(1)));
            [status.decode_tokens_per_sec, status.prefill_tokens_per_sec].map(|told| told.measured.is_some())
        };
        assert_eq!(told(0, 0), [false, false]);
        assert_eq!(told(64, 30), [true, false]);
        assert_eq!(told(2, 2 * PROMPT_TOKENS), [false, true]);
    }

    #[test]
    fn a_pipeline_s_prompts_overlap_and_its_single_stream_does_not() {
        let cost = StepCost {
            fixed_secs: 0.0,
            per_token_secs: 1e-3,
            per_context_secs: 0.0,
        };
        assert_eq!(measured(&cost, 1), [1000.0, 1000.0]);
        assert_eq!(measured(&cost, 2), [500.0, 1000.0]);
    }

    #[test]
    fn attention_counts_and_what_every_step_of_a_prompt_costs() {
        let cost = StepCost {
            fixed_secs: 10e-3,
            per_token_secs: 1e-3,
            per_context_secs: 1e-6,
        };
        let [stream, prompts] = measured(&cost, 1);
        assert!((stream - 1.0 / 11.512e-3).abs() < 1e-6, "{stream}");
        // 643 ms to compute, of which a step has 240: so there are three, with 10 ms more each.
        assert!((prompts - 512.0 / 673.328e-3).abs() < 1e-6, "{prompts}");
    }
}
