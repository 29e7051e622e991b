use crate::config::low::KvCache;
use crate::peers::weights::{FetchError, Fetched, Fetcher, Patience, Shelf, Wanted, Which};
use crate::shard_host::prepare::ModelFile;
use crate::store::spec::NamedSpec;
use crate::store::{Check, Use};
use crate::text::TokenizerSource;
use crate::transport::Peers;
use anyhow::{Context, bail};
use proto::NodeId;
use proto::cluster::Deployment;
use std::ops::Range;
use std::path::PathBuf;
use tokio::task::spawn_blocking;

/// The file of a deployed model on this node, or those parts of it that a stage needs. Nobody collects it while this is
/// kept.
pub struct PlacedFile {
    pub path: PathBuf,
    /// Where packed weights are kept.
    pub packed: PathBuf,
    /// For nodes that do not hold it.
    pub source: TokenizerSource,
    _kept: Kept,
}

enum Kept {
    Whole { _in_use: Use },
    Fetched { _fetched: Fetched },
}

/// From where this node has models.
#[derive(Clone)]
pub struct ModelFiles {
    pub own: NodeId,
    pub peers: Peers,
    pub shelf: Shelf,
    pub kv: KvCache,
}

impl ModelFiles {
    /// Out of this node's store, or as far as these layers need it out of others', or from where its spec leads.
    pub async fn take(
        &self,
        deployment: &Deployment,
        layers: Range<u32>,
        others: &[NodeId],
    ) -> anyhow::Result<PlacedFile> {
        if let Some((path, in_use)) = self.held(deployment).await? {
            return self.open(deployment, path, Kept::Whole { _in_use: in_use }).await;
        }
        match self.fetch(deployment, &layers, others).await {
            Ok(fetched) => {
                let path = fetched.path();
                self.open(deployment, path, Kept::Fetched { _fetched: fetched })
                    .await
            }
            Err(error) => {
                let (path, in_use) = self
                    .original(deployment)
                    .await
                    .with_context(|| format!("other nodes could not give it ({error})"))?;
                self.open(deployment, path, Kept::Whole { _in_use: in_use }).await
            }
        }
    }

    async fn held(&self, deployment: &Deployment) -> anyhow::Result<Option<(PathBuf, Use)>> {
        let (shelf, digest) = (self.shelf.clone(), deployment.model.digest);
        let taken = spawn_blocking(move || shelf.store().take_held(&digest)).await??;
        Ok(taken.map(|(stored, in_use)| (stored.path, in_use)))
    }

    async fn fetch(
        &self,
        deployment: &Deployment,
        layers: &Range<u32>,
        others: &[NodeId],
    ) -> Result<Fetched, FetchError> {
        let fetcher = Fetcher {
            own: self.own,
            peers: self.peers.clone(),
            shelf: self.shelf.clone(),
            patience: Patience::default(),
        };
        let model = &deployment.model;
        let wanted = Wanted {
            digest: model.digest,
            file_bytes: model.bytes,
            manifest: (deployment.manifest != [0; 32]).then_some(deployment.manifest),
            which: Which::All,
        };
        let mut told_percent = 0;
        let mut tell = |bytes: u64, wanted_bytes: u64| {
            let percent = bytes * 100 / wanted_bytes.max(1);
            if percent >= told_percent + TELL_EVERY_PERCENT {
                told_percent = percent;
                tracing::info!(
                    model = model.name,
                    percent,
                    wanted_bytes,
                    "weights from other nodes"
                );
            }
        };
        let fetched = fetcher.fetch_stage(&wanted, layers, others, &mut tell).await?;
        Ok(fetched.fetched)
    }

    async fn original(&self, deployment: &Deployment) -> anyhow::Result<(PathBuf, Use)> {
        let (shelf, model) = (self.shelf.clone(), deployment.model.clone());
        let named: NamedSpec = format!("{}={}", model.name, model.spec).parse()?;
        let taken = spawn_blocking(move || shelf.store().take(&named.spec, Check::Length)).await?;
        let (stored, in_use) = taken?;
        if stored.digest != model.digest {
            bail!(
                "{} is another file here than the one that was deployed as {}: deploy it anew, or put the same file here",
                stored.path.display(),
                model.name
            );
        }
        Ok((stored.path, in_use))
    }

    async fn open(&self, deployment: &Deployment, path: PathBuf, kept: Kept) -> anyhow::Result<PlacedFile> {
        let (file, kv) = (path.clone(), self.kv);
        let source = spawn_blocking(move || -> anyhow::Result<TokenizerSource> {
            let mapped = ModelFile::map(&file, kv.format())?;
            let source = TokenizerSource::from_gguf(&mapped.parse()?);
            source.with_context(|| format!("model file {}", file.display()))
        });
        Ok(PlacedFile {
            packed: self.shelf.store().packed(&deployment.model.digest),
            source: source.await??,
            path,
            _kept: kept,
        })
    }
}

const TELL_EVERY_PERCENT: u64 = 10;
