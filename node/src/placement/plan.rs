//! Plans, in words for people.

use coordinator::cluster_state::ClusterState;
use coordinator::placer::{View, rehearse, rehearse_copies};
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

/// What `cluster deploy` of this would come to now: what is placed already, and where copies more would go, and why. An error
/// is why none can be placed.
pub fn foreseen(
    state: &ClusterState,
    outlook: &Outlook,
    deployment: &Deployment,
) -> Result<Vec<String>, String> {
    let command = ClusterCommand::Deploy(Box::new(deployment.clone()));
    state.accepts(&command).map_err(|error| error.to_string())?;
    let placed: Vec<&Placement> = state
        .placements()
        .filter(|placement| placement.model == deployment.model.name)
        .collect();
    if !placed.is_empty() && !state.leaves_placed(deployment) {
        let ends = "what is placed now ends, since it is cut otherwise; then:".to_owned();
        let view = View::of(state).without(&deployment.model.name);
        let anew = copies(&view, outlook, deployment, 0)?;
        return Ok([vec![ends], anew].concat());
    }
    let mut lines: Vec<String> = placed.iter().map(|placement| words(placement)).collect();
    let troubles: Vec<String> = placed
        .iter()
        .filter_map(|placement| trouble(state, outlook, placement))
        .collect();
    let wanted = deployment.replicas as usize;
    match placed.len().checked_sub(wanted) {
        None => lines.extend(copies(&View::of(state), outlook, deployment, placed.len())?),
        Some(0) if troubles.is_empty() => lines.push("nothing changes: it is placed already".to_owned()),
        Some(0) => {}
        Some(surplus) => lines.push(format!("of these copies {surplus} would go")),
    }
    lines.extend(troubles);
    Ok(lines)
}

/// Why this copy does not stay.
fn trouble(state: &ClusterState, outlook: &Outlook, placement: &Placement) -> Option<String> {
    let mut nodes = placement.stages.iter().map(|stage| stage.node);
    let troubled = nodes.find(|node| outlook.lost.contains(node) || state.is_drained(*node))?;
    let why = match outlook.lost.contains(&troubled) {
        true => "is lost",
        false => "is drained",
    };
    let replica = placement.replica;
    Some(format!(
        "replica {replica} moves as soon as it has another place: node {troubled} {why}"
    ))
}

/// Where one copy more would be placed now, and why. An error is why it cannot be.
pub fn reasons(
    state: &ClusterState,
    outlook: &Outlook,
    deployment: &Deployment,
) -> Result<Vec<String>, String> {
    let lost = lost(outlook);
    let layout = rehearse(&View::of(state), &lost, deployment);
    layout
        .map(|layout| layout.reasons().to_vec())
        .map_err(|error| error.to_string())
}

/// Where those go that are not placed yet. An error is why not even the first has a place.
fn copies(
    view: &View,
    outlook: &Outlook,
    deployment: &Deployment,
    placed: usize,
) -> Result<Vec<String>, String> {
    let wanted = deployment.replicas as usize;
    let rehearsed = rehearse_copies(view, &lost(outlook), deployment, wanted.saturating_sub(placed));
    let mut lines = Vec::new();
    for (copy, layout) in (placed + 1..).zip(rehearsed) {
        match layout {
            Ok(layout) => {
                if wanted > 1 {
                    lines.push(format!("copy {copy} of {wanted}:"));
                }
                lines.extend_from_slice(layout.reasons());
            }
            Err(error) if copy == 1 => return Err(error.to_string()),
            Err(error) => lines.push(format!("copy {copy} of {wanted} has no place now: {error}")),
        }
    }
    Ok(lines)
}

fn lost(outlook: &Outlook) -> BTreeSet<NodeId> {
    outlook.lost.iter().copied().collect()
}
