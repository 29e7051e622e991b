use crate::config::low::KvCache;
use crate::shard_host::prepare::ModelFile;
use crate::store::spec::NamedSpec;
use crate::store::{Check, Store, Stored, Use};
use crate::text::TokenizerSource;
use anyhow::{Context, bail};
use proto::cluster::Deployment;
use std::path::{Path, PathBuf};

/// The file of a deployed model on this node. Nobody collects it while this is kept.
pub struct PlacedFile {
    stored: Stored,
    _in_use: Use,
    /// Where packed weights are kept.
    pub packed: PathBuf,
    /// For nodes that do not hold it.
    pub source: TokenizerSource,
}

impl PlacedFile {
    /// Blocks: fetches and hashes where it must.
    pub fn take(store: &Store, deployment: &Deployment, kv: KvCache) -> anyhow::Result<PlacedFile> {
        let model = &deployment.model;
        let named: NamedSpec = format!("{}={}", model.name, model.spec).parse()?;
        let (stored, in_use) = store.take(&named.spec, Check::Length)?;
        if stored.digest != model.digest {
            bail!(
                "{} is another file here than the one that was deployed as {}: deploy it anew, or put the same file here",
                stored.path.display(),
                model.name
            );
        }
        let file = ModelFile::map(&stored.path, kv.format())?;
        let gguf = file.parse()?;
        let source = TokenizerSource::from_gguf(&gguf)
            .with_context(|| format!("model file {}", stored.path.display()))?;
        Ok(PlacedFile {
            packed: store.packed(&stored.digest),
            stored,
            _in_use: in_use,
            source,
        })
    }

    pub fn path(&self) -> &Path {
        &self.stored.path
    }
}
