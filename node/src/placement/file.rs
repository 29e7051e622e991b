use crate::config::low::KvCache;
use crate::peers::weights::{BegunStage, FetchError, Fetched, Fetcher, Patience, Shelf, Wanted, Which};
use crate::shard_host::coming::{ComingFile, Fetch};
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
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// The file of a deployed model on this node, or those parts of it that a stage needs. Nobody collects it while this is
/// kept.
pub struct PlacedFile {
    pub path: PathBuf,
    /// Where packed weights are kept.
    pub packed: PathBuf,
    /// For nodes that do not hold it.
    pub source: TokenizerSource,
    /// `None`: all that is needed is here.
    pub coming: Option<ComingFile>,
    _kept: Kept,
}

/// The parts of a file that are still to be fetched, beside whoever loads those that have come.
pub struct Rest {
    wanted: Wanted,
    progress: watch::Sender<Fetch>,
}

/// Where the rest of a file has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// Where its beginning is: whoever loads it goes on.
    There,
    /// The whole file is here, at another place: to be taken anew.
    Elsewhere,
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
    /// Out of this node's store, or as far as these layers need it out of others', or from where its spec leads. Of what comes
    /// from others only the beginning is there; the rest is to be fetched while it is loaded.
    pub async fn take(
        &self,
        deployment: &Deployment,
        layers: Range<u32>,
        others: &[NodeId],
    ) -> anyhow::Result<(PlacedFile, Option<Rest>)> {
        if let Some((path, in_use)) = self.held(deployment).await? {
            return self.take_whole(deployment, path, in_use).await;
        }
        let wanted = wanted(deployment);
        match self.fetcher().begin_stage(&wanted, &layers, others).await {
            Ok(begun) => self.take_begun(deployment, begun).await,
            Err(error) => {
                let (path, in_use) = self.original_after(&error, deployment).await?;
                self.take_whole(deployment, path, in_use).await
            }
        }
    }

    /// From other nodes, or else from where the model's spec leads. May be given up.
    pub async fn finish(
        &self,
        rest: Rest,
        deployment: &Deployment,
        others: &[NodeId],
    ) -> anyhow::Result<Came> {
        let mut tell = Teller::of(&deployment.model.name);
        let mut tell = |bytes: u64, wanted_bytes: u64| tell.tell(bytes, wanted_bytes);
        match self.fetcher().fetch(&rest.wanted, others, &mut tell).await {
            Ok(Fetched::Parts(_)) => {
                // Who has gone needs to hear nothing.
                let _ = rest.progress.send(Fetch::Done);
                Ok(Came::There)
            }
            Ok(Fetched::Whole(_)) => Ok(Came::Elsewhere),
            Err(error) => {
                self.original_after(&error, deployment).await?;
                Ok(Came::Elsewhere)
            }
        }
    }

    async fn take_whole(
        &self,
        deployment: &Deployment,
        path: PathBuf,
        in_use: Use,
    ) -> anyhow::Result<(PlacedFile, Option<Rest>)> {
        let kept = Kept::Whole { _in_use: in_use };
        Ok((self.open(deployment, path, kept, None).await?, None))
    }

    async fn take_begun(
        &self,
        deployment: &Deployment,
        begun: BegunStage,
    ) -> anyhow::Result<(PlacedFile, Option<Rest>)> {
        let path = begun.fetched.path();
        let (coming, rest) = match &begun.fetched {
            Fetched::Whole(_) => (None, None),
            Fetched::Parts(partial) => {
                let (progress, watched) = watch::channel(Fetch::UnderWay);
                let rest = Rest {
                    wanted: begun.wanted,
                    progress,
                };
                (Some(ComingFile::new(partial.clone(), watched)), Some(rest))
            }
        };
        let kept = Kept::Fetched {
            _fetched: begun.fetched,
        };
        Ok((self.open(deployment, path, kept, coming).await?, rest))
    }

    async fn held(&self, deployment: &Deployment) -> anyhow::Result<Option<(PathBuf, Use)>> {
        let (shelf, digest) = (self.shelf.clone(), deployment.model.digest);
        let taken = spawn_blocking(move || shelf.store().take_held(&digest)).await??;
        Ok(taken.map(|(stored, in_use)| (stored.path, in_use)))
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher {
            own: self.own,
            peers: self.peers.clone(),
            shelf: self.shelf.clone(),
            patience: Patience::default(),
        }
    }

    async fn original_after(
        &self,
        error: &FetchError,
        deployment: &Deployment,
    ) -> anyhow::Result<(PathBuf, Use)> {
        let original = self.original(deployment).await;
        original.with_context(|| format!("other nodes could not give it ({error})"))
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

    async fn open(
        &self,
        deployment: &Deployment,
        path: PathBuf,
        kept: Kept,
        coming: Option<ComingFile>,
    ) -> anyhow::Result<PlacedFile> {
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
            coming,
            _kept: kept,
        })
    }
}

fn wanted(deployment: &Deployment) -> Wanted {
    let model = &deployment.model;
    Wanted {
        digest: model.digest,
        file_bytes: model.bytes,
        manifest: (deployment.manifest != [0; 32]).then_some(deployment.manifest),
        which: Which::All,
    }
}

const TELL_EVERY_PERCENT: u64 = 10;

/// Says how far a fetch has come, in the log.
struct Teller<'a> {
    model: &'a str,
    told_percent: u64,
}

impl Teller<'_> {
    fn of(model: &str) -> Teller<'_> {
        Teller {
            model,
            told_percent: 0,
        }
    }

    fn tell(&mut self, bytes: u64, wanted_bytes: u64) {
        let percent = bytes * 100 / wanted_bytes.max(1);
        if percent >= self.told_percent + TELL_EVERY_PERCENT {
            self.told_percent = percent;
            tracing::info!(
                model = self.model,
                percent,
                wanted_bytes,
                "weights from other nodes"
            );
        }
    }
}
