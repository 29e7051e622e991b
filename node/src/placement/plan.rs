//! Plans, in words for people.

use coordinator::cluster_state::ClusterState;
use coordinator::placer::{View, rehearse};
use proto::NodeId;
use proto::cluster::{ClusterCommand, Deployment, Placement, Prediction};
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

/// What `cluster deploy` of this would come to now: what is placed already, and where one copy more would go, and why. An error
/// is why it cannot be.
pub fn foreseen(
    state: &ClusterState,
    outlook: &Outlook,
    deployment: &Deployment,
) -> Result<Vec<String>, String> {
    let command = ClusterCommand::Deploy(Box::new(deployment.clone()));
    state.accepts(&command).map_err(|error| error.to_string())?;
    let stays = staying(state, deployment);
    let wanted = deployment.replicas as usize;
    let mut lines: Vec<String> = stays.iter().map(|placement| words(placement)).collect();
    if stays.len() < wanted {
        lines.extend(reasons(state, outlook, deployment)?);
    } else if stays.len() == wanted {
        lines.push("nothing changes: it is placed already".to_owned());
    } else {
        lines.push(format!("of these copies {} would go", stays.len() - wanted));
    }
    Ok(lines)
}

/// The copies that such a deployment leaves where they are.
fn staying<'a>(state: &'a ClusterState, deployment: &Deployment) -> Vec<&'a Placement> {
    let name = &deployment.model.name;
    let known = state.deployment(name);
    let is_cut_alike =
        known.is_some_and(|known| known.shape == deployment.shape && known.ranks == deployment.ranks);
    let placed = state.placements().filter(|placement| placement.model == *name);
    placed.filter(|_| is_cut_alike).collect()
}

/// Where one copy more would be placed now, and why. An error is why it cannot be.
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
