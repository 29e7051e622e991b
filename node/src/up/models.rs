//! Which models a node serves.

use super::model::{self, PreparedModel, Wish};
use super::shared::SharedModel;
use crate::config::Config;
use crate::config::high::Origin;
use crate::peers::entry::Entry;
use crate::placement::file::is_damage;
use crate::shard_host::prepare::PrepareError;
use crate::store::error::StoreError;
use crate::store::spec::{NamedSpec, Spec};
use crate::store::{Store, Use};
use coordinator::cluster_state::{ClusterState, FOUNDER};
use proto::NodeId;
use std::cell::RefCell;

/// What a node is to serve.
#[derive(Clone)]
pub enum Models {
    /// Somebody asked for these: what cannot be had is an error.
    Asked(Vec<NamedSpec>),
    /// What the cluster serves, as far as this node can have it: the same files, with their digests.
    Shared(Vec<SharedModel>),
}

/// Files of the user's own, before a cluster is founded for what is not there. Whether they hold models is seen later.
pub fn look_for_files(models: &[NamedSpec]) -> Result<(), StoreError> {
    let paths = models.iter().filter_map(|model| match &model.spec {
        Spec::Path(path) => Some(path),
        Spec::Hub { .. } | Spec::Pypi { .. } | Spec::Catalogue(_) => None,
    });
    for path in paths {
        if !path.exists() {
            return Err(StoreError::NoFile(path.clone()));
        }
    }
    Ok(())
}

/// A node that was told nothing shares the load of its cluster.
pub fn of_node(config: &Config, entry: &Entry) -> Models {
    let begins = begins(&entry.state.applied(), entry.state.node());
    if config.models.origin != Origin::Default || begins {
        return Models::Asked(config.models.value.clone());
    }
    Models::Shared(shared(&entry.state.applied()))
}

/// The founder, or a node that is left alone: there is nothing to share. The only node of a cluster that was restored or
/// recovered shares what that served.
fn begins(applied: &ClusterState, own: NodeId) -> bool {
    own == FOUNDER || applied.members().count() == 1 && applied.models().next().is_none()
}

fn shared(applied: &ClusterState) -> Vec<SharedModel> {
    // What is deployed goes where the cluster says.
    let chosen = applied
        .models()
        .filter(|model| applied.deployment(&model.name).is_none());
    let shared = chosen.filter_map(|model| {
        Some(SharedModel {
            named: format!("{}={}", model.name, model.spec).parse().ok()?,
            digest: model.digest,
            bytes: model.bytes,
        })
    });
    shared.collect()
}

/// Files of the models of which the cluster has placed a stage on this node, by digest.
pub fn placed_here(entry: &Entry) -> Vec<[u8; 32]> {
    let applied = entry.state.applied();
    let placed = applied.placements_of(entry.state.node());
    let deployed = placed.filter_map(|placement| applied.deployment(&placement.model));
    deployed.map(|deployment| deployment.model.digest).collect()
}

impl Models {
    pub fn prepare(&self, config: &Config, store: &Store) -> anyhow::Result<Prepared> {
        let too_big = RefCell::new(Vec::new());
        let damaged = RefCell::new(Vec::new());
        let whole = match self {
            Models::Asked(models) => {
                let wishes = models.iter().map(Wish::Asked);
                model::prepare_all(wishes, config, store, |named, error| {
                    if !is_too_big(&error) {
                        return Err(error);
                    }
                    too_big.borrow_mut().push(TooBig {
                        named: named.clone(),
                        reason: format!("{error:#}"),
                    });
                    Ok(())
                })?
            }
            Models::Shared(models) => {
                let wishes = models.iter().map(Wish::Shared);
                let mut prepared = model::prepare_all(wishes, config, store, |named, error| {
                    if is_damage(&error) {
                        let model = models.iter().find(|model| model.named.name == named.name);
                        damaged.borrow_mut().extend(model.cloned());
                    }
                    let error = format!("{error:#}");
                    tracing::warn!(
                        model = named.name,
                        error,
                        "left to other nodes: it cannot be had here"
                    );
                    Ok(())
                })?;
                prepared.retain(|model| is_the_same(model, models));
                prepared
            }
        };
        Ok(Prepared {
            whole,
            too_big: too_big.into_inner(),
            damaged: damaged.into_inner(),
            placed_use: Vec::new(),
        })
    }
}

/// What became of the models of a node.
pub struct Prepared {
    pub whole: Vec<PreparedModel>,
    /// These go over several nodes.
    pub too_big: Vec<TooBig>,
    /// Shared ones whose files turned out damaged on this node's disk.
    pub damaged: Vec<SharedModel>,
    /// Of what the cluster has placed here, as far as it is in the store: it is not collected before it runs again.
    pub placed_use: Vec<Use>,
}

pub struct TooBig {
    pub named: NamedSpec,
    pub reason: String,
}

fn is_too_big(error: &anyhow::Error) -> bool {
    let prepare = error.downcast_ref::<PrepareError>();
    matches!(prepare, Some(PrepareError::TooBig { .. }))
}

/// A path may lead to another file on another host.
fn is_the_same(model: &PreparedModel, shared: &[SharedModel]) -> bool {
    let wanted = shared.iter().find(|shared| shared.named.name == model.named.name);
    let is_the_same = wanted.is_some_and(|shared| shared.digest == model.stored.digest);
    if !is_the_same {
        tracing::warn!(
            model = model.named.name,
            "left to other nodes: it is another file here"
        );
    }
    is_the_same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::founded;
    use coordinator::cluster_state::Sole;
    use proto::cluster::{ClusterCommand, ModelRecord, NodeModels, Proposal};

    fn apply(state: &mut ClusterState, index: u64, command: ClusterCommand) {
        let id = u128::from(index);
        let outcome = state.apply(index, &Proposal { id, command });
        outcome.expect("it is accepted");
    }

    fn serve(name: &str, digest: u8) -> ClusterCommand {
        let model = ModelRecord {
            name: name.to_owned(),
            spec: "smollm2-135m".to_owned(),
            digest: [digest; 32],
            bytes: 1,
            added_at_secs: 0,
        };
        ClusterCommand::ServeModels(Box::new(NodeModels {
            node: FOUNDER,
            models: vec![model],
        }))
    }

    fn reborn(state: ClusterState) -> (ClusterState, NodeId) {
        let node = state.id_above(2);
        let sole = Sole {
            node,
            spki: [2; 32],
            authority: vec![2],
            level: 1,
            at_secs: 0,
        };
        (state.reborn(&sole), node)
    }

    #[test]
    fn what_a_lost_cluster_served_is_served_by_the_node_that_is_left() {
        let mut state = founded();
        apply(&mut state, 2, serve("own", 7));
        assert!(begins(&state, FOUNDER));
        let (state, node) = reborn(state);
        assert!(!begins(&state, node));
        let shared = shared(&state);
        let names: Vec<_> = shared
            .iter()
            .map(|model| (model.named.name.as_str(), model.digest))
            .collect();
        assert_eq!(names, [("own", [7; 32])]);
    }

    #[test]
    fn where_nothing_was_served_the_default_is() {
        let (state, node) = reborn(founded());
        assert!(begins(&state, node));
    }
}
