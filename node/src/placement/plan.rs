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
    let placed: Vec<&Placement> = state
        .placements()
        .filter(|placement| placement.model == deployment.model.name)
        .collect();
    if !placed.is_empty() && !state.leaves_placed(deployment) {
        let ends = "what is placed now ends, since it is cut otherwise; then:".to_owned();
        let anew = one_more(
            &View::of(state).without(&deployment.model.name),
            outlook,
            deployment,
        )?;
        return Ok([vec![ends], anew].concat());
    }
    let mut lines: Vec<String> = placed.iter().map(|placement| words(placement)).collect();
    let troubles: Vec<String> = placed
        .iter()
        .filter_map(|placement| trouble(state, outlook, placement))
        .collect();
    let wanted = deployment.replicas as usize;
    match placed.len().checked_sub(wanted) {
        None => lines.extend(one_more(&View::of(state), outlook, deployment)?),
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
    one_more(&View::of(state), outlook, deployment)
}

fn one_more(view: &View, outlook: &Outlook, deployment: &Deployment) -> Result<Vec<String>, String> {
    let lost: BTreeSet<NodeId> = outlook.lost.iter().copied().collect();
    let layout = rehearse(view, &lost, deployment);
    layout
        .map(|layout| layout.reasons().to_vec())
        .map_err(|error| error.to_string())
}
