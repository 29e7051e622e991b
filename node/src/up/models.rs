//! Which models a node serves.

use super::announce::Output;
use super::model::{self, Failed, PreparedModel, Wish};
use super::shared::{Mended, SharedFiles, SharedModel, Sought};
use super::waiting::WaitingModel;
use crate::config::Config;
use crate::config::byte_size::ByteSize;
use crate::config::high::Origin;
use crate::peers::entry::Entry;
use crate::peers::weights::Shelf;
use crate::shard_host::prepare::PrepareError;
use crate::store::error::StoreError;
use crate::store::spec::{NamedSpec, Spec};
use crate::store::{Store, Use};
use coordinator::cluster_state::{ClusterState, FOUNDER};
use proto::NodeId;
use tokio::task::spawn_blocking;

/// What a node is to serve.
#[derive(Clone)]
pub enum Models {
    /// Somebody asked for these: what cannot be had is an error.
    Asked(Vec<NamedSpec>),
    /// What the cluster serves, as far as this node can have it: the same files, with their digests.
    Shared(Vec<Sought>),
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
fn of_node(config: &Config, entry: &Entry) -> Models {
    let begins = begins(&entry.state.applied(), entry.state.node());
    if config.models.origin != Origin::Default || begins {
        return Models::Asked(config.models.value.clone());
    }
    let shared = shared(&entry.state.applied());
    Models::Shared(shared.into_iter().map(Sought::new).collect())
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
fn placed_here(entry: &Entry) -> Vec<[u8; 32]> {
    let applied = entry.state.applied();
    let placed = applied.placements_of(entry.state.node());
    let deployed = placed.filter_map(|placement| applied.deployment(&placement.model));
    deployed.map(|deployment| deployment.model.digest).collect()
}

impl Models {
    fn prepare(&self, config: &Config, store: &Store) -> anyhow::Result<Prepared> {
        let wishes: Vec<Wish<'_>> = match self {
            Models::Asked(models) => models.iter().map(Wish::Asked).collect(),
            Models::Shared(models) => models.iter().map(Wish::Shared).collect(),
        };
        let mut prepared = Prepared::default();
        let whole = model::prepare_all(wishes.into_iter(), config, store, |failed| prepared.note(failed))?;
        Ok(Prepared { whole, ..prepared })
    }
}

/// What this node serves by its own choice, out of other nodes' stores where it is not here.
pub async fn own(config: &Config, entry: &Entry, files: &SharedFiles) -> anyhow::Result<Prepared> {
    let mut models = of_node(config, entry);
    if let Models::Shared(shared) = &mut models {
        files.seek(shared).await;
    }
    let placed = placed_here(entry);
    let prepare = || {
        prepare(
            models.clone(),
            placed.clone(),
            config.clone(),
            files.shelf.clone(),
            files.output,
        )
    };
    let prepared = prepare().await?;
    let mut is_mended = false;
    for waiting in prepared.waiting.iter().filter(|waiting| waiting.is_damaged) {
        is_mended |= files.mend(&waiting.model).await == Mended::Tried;
    }
    match is_mended {
        true => prepare().await,
        false => Ok(prepared),
    }
}

async fn prepare(
    models: Models,
    placed: Vec<[u8; 32]>,
    config: Config,
    shelf: Shelf,
    output: Output,
) -> anyhow::Result<Prepared> {
    spawn_blocking(move || {
        let store = shelf.store();
        let mut prepared = models.prepare(&config, store)?;
        for digest in &placed {
            let held = store.take_held(digest)?;
            prepared.placed_use.extend(held.map(|(_, in_use)| in_use));
        }
        if let Some(bytes_max) = config.store_max.value {
            tell_collected(output, bytes_max, store)?;
        }
        Ok(prepared)
    })
    .await?
}

/// After the models are in use, so that none of them goes.
fn tell_collected(output: Output, bytes_max: ByteSize, store: &Store) -> Result<(), StoreError> {
    let collected = store.collect(Some(bytes_max.bytes()))?;
    for removal in collected.removed {
        let (path, bytes) = (removal.file.path.display(), ByteSize::new(removal.file.bytes));
        output.say(&format!(
            "store    removed {path}, {bytes}: {}",
            removal.reason.words()
        ));
    }
    for error in collected.failed {
        tracing::warn!(%error, "a file that should leave the store could not be removed");
    }
    if collected.bytes_left > bytes_max.bytes() {
        let left = ByteSize::new(collected.bytes_left);
        output.say(&format!(
            "store    holds {left}, more than --store-max {bytes_max}: the rest is in use"
        ));
    }
    Ok(())
}

/// What became of the models of a node.
#[derive(Default)]
pub struct Prepared {
    pub whole: Vec<PreparedModel>,
    /// These go over several nodes.
    pub too_big: Vec<TooBig>,
    /// Shared ones that cannot be had at present.
    pub waiting: Vec<WaitingModel>,
    /// Of what the cluster has placed here, as far as it is in the store: it is not collected before it runs again.
    pub placed_use: Vec<Use>,
}

pub struct TooBig {
    pub named: NamedSpec,
    pub reason: String,
}

impl Prepared {
    /// What its models take of this node's memory, or will.
    pub fn memory_bytes(&self) -> u64 {
        let whole = self.whole.iter().map(PreparedModel::memory_bytes);
        whole
            .chain(self.waiting.iter().map(WaitingModel::memory_bytes))
            .sum()
    }

    /// How many bytes are to be kept free for it. An error where this node cannot go on without.
    fn note(&mut self, failed: Failed<'_>) -> anyhow::Result<u64> {
        match failed.wish {
            Wish::Asked(named) if is_too_big(&failed.error) => self.too_big.push(TooBig {
                named: named.clone(),
                reason: format!("{:#}", failed.error),
            }),
            Wish::Asked(_) => return Err(failed.error),
            Wish::Shared(sought) if is_too_big(&failed.error) => leave(&sought.model, &failed.error),
            Wish::Shared(sought) => match WaitingModel::new(&sought.model, &failed) {
                Some(waiting) => {
                    let memory_bytes = waiting.memory_bytes();
                    self.waiting.push(waiting);
                    return Ok(memory_bytes);
                }
                None => leave(&sought.model, &failed.error),
            },
        }
        Ok(0)
    }
}

fn is_too_big(error: &anyhow::Error) -> bool {
    let prepare = error.downcast_ref::<PrepareError>();
    matches!(prepare, Some(PrepareError::TooBig { .. }))
}

fn leave(model: &SharedModel, error: &anyhow::Error) {
    let (model, error) = (&model.named.name, format!("{error:#}"));
    tracing::warn!(model, error, "left to other nodes: there is no room for it here");
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
