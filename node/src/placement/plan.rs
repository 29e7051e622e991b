//! Plans, in words for people.

use coordinator::cluster_state::ClusterState;
use coordinator::placer::layout::{Device, Wishes, fit};
use proto::cluster::{Deployment, NodeProfile, Placement, Prediction};

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
pub fn reasons(state: &ClusterState, deployment: &Deployment) -> Result<Vec<String>, String> {
    let devices: Vec<Device> = state
        .profiles()
        .filter(|profile| !state.is_drained(profile.node))
        .map(|profile| device(state, profile))
        .collect();
    match fit(&deployment.shape, &devices, Wishes::default()) {
        Ok(layout) => Ok(layout.reasons().to_vec()),
        Err(error) => Err(error.to_string()),
    }
}

fn device(state: &ClusterState, profile: &NodeProfile) -> Device {
    Device {
        node: profile.node,
        memory_bytes: profile
            .memory_bytes
            .saturating_sub(state.placed_bytes(profile.node)),
        threads: profile.threads,
        read_bytes_per_sec: profile.read_bytes_per_sec,
        multiply_adds_per_sec: profile.multiply_adds_per_sec,
        links: profile.links.clone(),
    }
}
