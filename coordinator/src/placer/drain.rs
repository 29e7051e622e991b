//! What draining a node comes to, before or after it has begun: pure.

use super::view::View;
use proto::NodeId;
use proto::cluster::Placement;
use std::collections::BTreeSet;

/// A model that a drained node goes on serving.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staying {
    pub model: String,
    /// Why there is no other place for it.
    pub reason: String,
}

/// Of the models that are placed on this node, those that stay there when it is drained, since there is no other place for
/// them now. All that happens until then is thought through as the placer would do it.
pub fn rehearse_drain(view: &View, lost: &BTreeSet<NodeId>, node: NodeId) -> Vec<Staying> {
    let mut view = view.clone();
    view.drained.insert(node);
    let reasons = view.go_on(lost, |_| false);
    let models: BTreeSet<&String> = view
        .placements_on(node)
        .map(|placement| &placement.model)
        .collect();
    let staying = |(model, reason): (String, String)| Staying { model, reason };
    let reasons = reasons.into_iter().filter(|(model, _)| models.contains(model));
    reasons.map(staying).collect()
}

impl View {
    fn placements_on(&self, node: NodeId) -> impl Iterator<Item = &Placement> {
        let is_on = move |placement: &&Placement| placement.stages.iter().any(|stage| stage.node == node);
        self.placements.iter().filter(is_on)
    }
}
