//! A model on its way to being served: found, read as far as the node needs it, planned.

use super::tokenizer_source;
use crate::clock;
use crate::config::Config;
use crate::os;
use crate::shard_host::prepare::{MemoryPlan, ModelFile};
use crate::shard_host::setup::ShardSetup;
use crate::shard_host::supervisor::ReplicaPlan;
use crate::state::{NodeState, StateError};
use crate::store::error::StoreError;
use crate::store::spec::NamedSpec;
use crate::store::{Check, Store, Stored, Use};
use crate::text::TextModel;
use anyhow::Context;
use proto::cluster::{ClusterCommand, ModelRecord};
use proto::{Epoch, ReplicaId};
use std::path::PathBuf;

pub struct PreparedModel {
    pub named: NamedSpec,
    pub stored: Stored,
    pub in_use: Use,
    /// Where packed weights are kept.
    packed: PathBuf,
    pub text: TextModel,
    pub memory: MemoryPlan,
}

impl PreparedModel {
    /// Blocks: fetches and hashes where it must. `available` is the memory for this model.
    pub fn prepare(
        store: &Store,
        named: &NamedSpec,
        config: &Config,
        available: u64,
    ) -> anyhow::Result<PreparedModel> {
        let (stored, in_use) = store.take(&named.spec, Check::Length)?;
        // Metadata only; the weights are touched by the shard host alone.
        let file = ModelFile::map(&stored.path, config.kv_cache.value.format())?;
        let gguf = file.parse()?;
        let model = file.config(&gguf)?;
        let memory = MemoryPlan::new(
            &file.memory(&gguf, &model, config.tp.value)?,
            model.context_tokens_max,
            available,
        )?;
        let text = tokenizer_source::read(&gguf)
            .map_err(anyhow::Error::from)
            .and_then(|source| Ok(TextModel::from_source(source)?))
            .with_context(|| format!("model file {}", stored.path.display()))?;
        Ok(PreparedModel {
            named: named.clone(),
            packed: store.packed(&stored.digest),
            stored,
            in_use,
            text,
            memory,
        })
    }

    pub fn replica(&self, config: &Config, replica: ReplicaId) -> ReplicaPlan {
        ReplicaPlan {
            model: self.named.name.clone(),
            model_digest: self.stored.digest,
            setup: ShardSetup {
                replica,
                epoch: Epoch(1),
                model: self.named.name.clone(),
                model_path: self.stored.path.to_string_lossy().into_owned(),
                packed: self.packed.to_string_lossy().into_owned(),
                ranks: config.tp.value as u32,
                threads: config.threads.value as u32,
                kv_cache: config.kv_cache.value,
                cpu_level: config.cpu_level.value.clone(),
            },
            log_format: config.log_format.value,
        }
    }

    /// In the cluster's state; a name that meant another file before means this one now.
    pub fn commit(&self, state: &NodeState) -> Result<u64, StateError> {
        let known = state.applied().model(&self.named.name).cloned();
        match known {
            Some(known) if known.digest == self.stored.digest => return Ok(known.added_at_secs),
            Some(known) => state.commit(&ClusterCommand::RemoveModel { name: known.name })?,
            None => {}
        }
        let added_at_secs = clock::unix_secs();
        state.commit(&ClusterCommand::AddModel(ModelRecord {
            name: self.named.name.clone(),
            spec: self.named.spec.to_string(),
            digest: self.stored.digest,
            bytes: self.stored.bytes,
            added_at_secs,
        }))?;
        Ok(added_at_secs)
    }

    /// For a person: what was chosen, and why.
    pub fn plan_lines(&self, config: &Config) -> Vec<String> {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let memory = &self.memory;
        vec![
            format!("model    {} from {}", self.named.name, self.stored.path.display()),
            format!(
                "memory   weights {} MiB, workspace {} MiB, KV cache {} MiB in {} ({} MiB available; a quarter of the rest, \
                 at least one context)",
                mebibytes(memory.weight_bytes),
                mebibytes(memory.workspace_bytes),
                mebibytes(memory.cache_bytes),
                config.kv_cache.value.format(),
                os::memory::available_bytes() >> 20,
            ),
            format!("context  {} tokens (the model's own)", memory.context_tokens_max),
            format!("ranks    {} ({})", config.tp.value, config.tp.origin),
        ]
    }
}

/// All models that were asked for, sharing the memory that is there.
pub fn prepare_all(config: &Config, store: &Store) -> anyhow::Result<Vec<PreparedModel>> {
    let mut available = os::memory::available_bytes();
    let mut prepared = Vec::new();
    for named in &config.models.value {
        let model = PreparedModel::prepare(store, named, config, available)?;
        let memory = &model.memory;
        available =
            available.saturating_sub(memory.weight_bytes + memory.workspace_bytes + memory.cache_bytes);
        prepared.push(model);
    }
    Ok(prepared)
}

/// The store that the configuration names, with this machine's ways to the outside.
pub fn open_store(folder: &std::path::Path) -> Result<Store, StoreError> {
    use crate::store::{hub::Hub, pypi::Python};
    Store::open(folder, Hub::from_environment(), Python::from_environment())
}
