//! A model on its way to being served: found, read as far as the node needs it, planned.

use super::shared::{SharedModel, Sought};
use crate::clock;
use crate::config::Config;
use crate::config::byte_size::ByteSize;
use crate::os;
use crate::shard_host::prepare::{MemoryPlan, ModelFile};
use crate::shard_host::setup::{FileState, ShardSetup};
use crate::shard_host::supervisor::ReplicaPlan;
use crate::store::chunks::Manifest;
use crate::store::error::StoreError;
use crate::store::spec::NamedSpec;
use crate::store::{Check, Store, Stored, Use};
use crate::text::{TextModel, TokenizerSource};
use anyhow::Context;
use proto::cluster::{ModelRecord, ReplicaRecord};
use std::path::PathBuf;
use std::sync::Arc;

pub struct PreparedModel {
    pub named: NamedSpec,
    pub stored: Stored,
    /// What the file's chunks must be.
    manifest: Manifest,
    pub in_use: Use,
    /// `None`: a person has asked for it.
    pub shared: Option<SharedModel>,
    /// Where packed weights are kept.
    packed: PathBuf,
    /// For nodes that do not hold it.
    pub source: TokenizerSource,
    pub text: TextModel,
    pub memory: MemoryPlan,
    /// What the plan was made with.
    available: u64,
}

impl PreparedModel {
    /// Blocks: fetches and hashes where it must. `available` is the memory for this model.
    pub fn prepare(
        wish: Wish<'_>,
        store: &Store,
        config: &Config,
        available: u64,
    ) -> anyhow::Result<PreparedModel> {
        let named = wish.named();
        let (stored, in_use) = wish.take(store)?;
        // Metadata only; the weights are touched by the shard host alone.
        let manifest = store.manifest(&stored)?;
        let file = ModelFile::map(&stored.path, config.kv_cache.value.format())?.verified(manifest.clone());
        let gguf = file.parse()?;
        let model = file.config(&gguf)?;
        let memory = MemoryPlan::new(
            &file.memory(&gguf, &model, &model.whole(), config.tp.value)?,
            model.context_tokens_max,
            available,
        )?;
        let of_file = || format!("model file {}", stored.path.display());
        let source = TokenizerSource::from_gguf(&gguf).with_context(of_file)?;
        let text = TextModel::from_source(source.clone()).with_context(of_file)?;
        Ok(PreparedModel {
            named: named.clone(),
            packed: store.packed(&stored.digest),
            stored,
            manifest,
            in_use,
            shared: wish.shared().cloned(),
            source,
            text,
            memory,
            available,
        })
    }

    pub fn memory_bytes(&self) -> u64 {
        let memory = &self.memory;
        memory.weight_bytes + memory.workspace_bytes + memory.cache_bytes
    }

    /// As the cluster knows it from now on.
    pub fn record(&self) -> ModelRecord {
        ModelRecord {
            name: self.named.name.clone(),
            spec: self.named.spec.to_string(),
            digest: self.stored.digest,
            bytes: self.stored.bytes,
            added_at_secs: clock::unix_secs(),
        }
    }

    pub fn replica(&self, config: &Config, record: &ReplicaRecord) -> ReplicaPlan {
        ReplicaPlan {
            model: self.named.name.clone(),
            setup: ShardSetup {
                replica: record.replica,
                epoch: record.epoch,
                model: self.named.name.clone(),
                model_path: self.stored.path.to_string_lossy().into_owned(),
                file: FileState::Here,
                manifest: self.manifest.to_bytes(),
                packed: self.packed.to_string_lossy().into_owned(),
                ranks: config.tp.value as u32,
                threads: config.threads.value as u32,
                kv_cache: config.kv_cache.value,
                memory_bytes_max: Some(self.available),
                cpu_level: config.cpu_level.value.clone(),
                placed: None,
            },
            link: None,
            coming: None,
            damage: Arc::default(),
            log_format: config.log_format.value,
        }
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
                self.available >> 20,
            ),
            format!("context  {} tokens (the model's own)", memory.context_tokens_max),
            format!("ranks    {} ({})", config.tp.value, config.tp.origin),
        ]
    }
}

/// Which model, and where it comes from.
#[derive(Clone, Copy)]
pub enum Wish<'a> {
    /// From where the spec leads.
    Asked(&'a NamedSpec),
    Shared(&'a Sought),
}

impl<'a> Wish<'a> {
    fn named(self) -> &'a NamedSpec {
        match self {
            Wish::Asked(named) => named,
            Wish::Shared(sought) => &sought.model.named,
        }
    }

    fn shared(self) -> Option<&'a SharedModel> {
        match self {
            Wish::Asked(_) => None,
            Wish::Shared(sought) => Some(&sought.model),
        }
    }

    fn take(self, store: &Store) -> anyhow::Result<(Stored, Use)> {
        match self {
            Wish::Asked(named) => Ok(store.take(&named.spec, Check::Length)?),
            Wish::Shared(sought) => sought.take(store),
        }
    }
}

/// A model that cannot be had at present.
pub struct Failed<'a> {
    pub wish: Wish<'a>,
    pub error: anyhow::Error,
    /// The memory that was there for it.
    pub available: u64,
}

/// These models one after the other, sharing the memory that is there. What cannot be had goes to `failed`, which says
/// how many bytes of it to keep free, or that nothing can go on without it.
pub fn prepare_all<'a>(
    wishes: impl Iterator<Item = Wish<'a>>,
    config: &Config,
    store: &Store,
    mut failed: impl FnMut(Failed<'a>) -> anyhow::Result<u64>,
) -> anyhow::Result<Vec<PreparedModel>> {
    let mut available = budget(config);
    let mut prepared = Vec::new();
    for wish in wishes {
        let taken_bytes = match PreparedModel::prepare(wish, store, config, available) {
            Ok(model) => {
                let taken_bytes = model.memory_bytes();
                prepared.push(model);
                taken_bytes
            }
            Err(error) => failed(Failed {
                wish,
                error,
                available,
            })?,
        };
        available = available.saturating_sub(taken_bytes);
    }
    Ok(prepared)
}

/// What models may take on this node.
pub fn budget(config: &Config) -> u64 {
    let given = config.memory.value.map_or(u64::MAX, ByteSize::bytes);
    os::memory::available_bytes().min(given)
}

/// The store that the configuration names, with this machine's ways to the outside.
pub fn open_store(folder: &std::path::Path) -> Result<Store, StoreError> {
    use crate::store::{hub::Hub, pypi::Python};
    Store::open(folder, Hub::from_environment(), Python::from_environment())
}
