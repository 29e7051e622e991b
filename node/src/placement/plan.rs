//! Plans, in words for people.

use coordinator::cluster_state::ClusterState;
use coordinator::placer::{View, rehearse};
use proto::NodeId;
use proto::cluster::{Deployment, Placement, Prediction};
use proto::peer::Outlook;
use std::collections::BTreeSet;

/// Where the stages of a replica are, and what is expected of it.
pub fn words(placement: &Placement) -> String {
    let stages: Vec<String> = placement
        .stages
        .iter()
        .map(|stage| {
            format!(
                "node {} layers {} to {} ({} MiB)",
                stage.node,
                stage.layer_first,
                stage.layer_end.saturating_sub(1),
                stage.memory_bytes.div_ceil(1 << 20)
            )
        })
        .collect();
    let Prediction {
        decode_1_millitokens_per_sec,
        prefill_millitokens_per_sec,
        first_token_micros,
        ..
    } = placement.predicted;
    format!(
        "replica {}: {}; expected: {:.0} tok/s for one stream, {:.0} tok/s of prompts, first token of 512 after {:.2} s",
        placement.replica,
        stages.join(" -> "),
        decode_1_millitokens_per_sec as f64 / 1e3,
        prefill_millitokens_per_sec as f64 / 1e3,
        first_token_micros as f64 / 1e6
    )
}

/// What would be placed where now, and why. An error is why nothing can be.
pub fn reasons(
    state: &ClusterState,
    outlook: &Outlook,
    deployment: &Deployment,
) -> Result<Vec<String>, String> {
    let lost: BTreeSet<NodeId> = outlook.lost.iter().copied().collect();
    let layout = rehearse(&View::of(state), &lost, deployment);
    layout
        .map(|layout| layout.reasons().to_vec())
        .map_err(|error| error.to_string())
}
