use crate::config::low::KvCache;
use crate::peers::weights::{BegunStage, FetchError, Fetched, Fetcher, Patience, Shelf, Wanted, Which};
use crate::shard_host::coming::{ComingFile, Fetch};
use crate::shard_host::prepare::{ModelFile, PrepareError};
use crate::store::chunks::Manifest;
use crate::store::error::StoreError;
use crate::store::spec::NamedSpec;
use crate::store::{Check, Stored, Use, Weeded};
use crate::text::TokenizerSource;
use crate::transport::Peers;
use anyhow::{Context, bail};
use proto::NodeId;
use proto::cluster::Deployment;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// The file of a deployed model on this node, or those parts of it that a stage needs. Nobody collects it while this is
/// kept.
pub struct PlacedFile {
    pub path: PathBuf,
    /// What its chunks must be.
    pub manifest: Manifest,
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

/// A file of which a stage can begin to load, before anything of it was looked at.
struct Opening {
    path: PathBuf,
    manifest: Manifest,
    kept: Kept,
    coming: Option<ComingFile>,
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
        if let Some((stored, in_use)) = self.held(deployment).await? {
            return self.take_whole(deployment, stored, in_use).await;
        }
        let wanted = wanted(deployment);
        match self.fetcher().begin_stage(&wanted, &layers, others).await {
            Ok(begun) => self.take_begun(deployment, begun).await,
            Err(error) => {
                let (stored, in_use) = self.original_after(error, deployment).await?;
                self.take_whole(deployment, stored, in_use).await
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
                self.original_after(error, deployment).await?;
                Ok(Came::Elsewhere)
            }
        }
    }

    async fn take_whole(
        &self,
        deployment: &Deployment,
        stored: Stored,
        in_use: Use,
    ) -> anyhow::Result<(PlacedFile, Option<Rest>)> {
        let opening = Opening {
            manifest: self.manifest(&stored).await?,
            path: stored.path,
            kept: Kept::Whole { _in_use: in_use },
            coming: None,
        };
        Ok((self.open(deployment, opening).await?, None))
    }

    async fn manifest(&self, stored: &Stored) -> anyhow::Result<Manifest> {
        let (shelf, stored) = (self.shelf.clone(), stored.clone());
        Ok(spawn_blocking(move || shelf.store().manifest(&stored)).await??)
    }

    async fn take_begun(
        &self,
        deployment: &Deployment,
        begun: BegunStage,
    ) -> anyhow::Result<(PlacedFile, Option<Rest>)> {
        let path = begun.fetched.path();
        let manifest = match &begun.fetched {
            Fetched::Whole(stored) => self.manifest(stored).await?,
            Fetched::Parts(partial) => partial.manifest().clone(),
        };
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
        let opening = Opening {
            path,
            manifest,
            kept: Kept::Fetched {
                _fetched: begun.fetched,
            },
            coming,
        };
        Ok((self.open(deployment, opening).await?, rest))
    }

    /// Reads all again that is here of a file that was found damaged. What is damaged is not here any more, and is taken from
    /// others next. An error where nothing is.
    pub async fn weed(&self, deployment: &Deployment) -> anyhow::Result<()> {
        let (shelf, digest) = (self.shelf.clone(), deployment.model.digest);
        let weeded = spawn_blocking(move || shelf.weed(&digest)).await??;
        weeded.tell(&deployment.model.name);
        if weeded == Weeded::Nothing {
            bail!("its file was damaged or gone, and what is here of it now is sound: it is taken anew");
        }
        Ok(())
    }

    async fn held(&self, deployment: &Deployment) -> anyhow::Result<Option<(Stored, Use)>> {
        let (shelf, digest) = (self.shelf.clone(), deployment.model.digest);
        Ok(spawn_blocking(move || shelf.store().take_held(&digest)).await??)
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher {
            own: self.own,
            peers: self.peers.clone(),
            shelf: self.shelf.clone(),
            patience: Patience::default(),
        }
    }

    /// From where the model's spec leads.
    async fn original_after(
        &self,
        error: FetchError,
        deployment: &Deployment,
    ) -> anyhow::Result<(Stored, Use)> {
        if error.is_of_own_disk() {
            return Err(error.into());
        }
        let (shelf, model) = (self.shelf.clone(), deployment.model.clone());
        let named: NamedSpec = format!("{}={}", model.name, model.spec).parse()?;
        let taken = spawn_blocking(move || shelf.store().take(&named.spec, Check::Touched)).await?;
        let (stored, in_use) = taken.map_err(|original| error.and_original(original))?;
        if stored.digest != model.digest {
            bail!(
                "other nodes could not give it ({error}): {} is not the file that was deployed as {}, so it is damaged, was \
                 changed, or is another one on this node: put the same file there, or deploy it anew",
                stored.path.display(),
                model.name
            );
        }
        Ok((stored, in_use))
    }

    async fn open(&self, deployment: &Deployment, opening: Opening) -> anyhow::Result<PlacedFile> {
        let Opening {
            path,
            manifest,
            kept,
            coming,
        } = opening;
        let (file, its_manifest, kv) = (path.clone(), manifest.clone(), self.kv);
        let landed = coming.as_ref().map(ComingFile::landed_now);
        let source = spawn_blocking(move || -> anyhow::Result<TokenizerSource> {
            let mut mapped = ModelFile::map(&file, kv.format())?.verified(its_manifest);
            if let Some(landed) = landed {
                mapped = mapped.coming(Arc::new(landed));
            }
            let source = TokenizerSource::from_gguf(&mapped.parse()?);
            source.with_context(|| format!("model file {}", file.display()))
        });
        Ok(PlacedFile {
            packed: self.shelf.store().packed(&deployment.model.digest),
            source: source.await??,
            path,
            manifest,
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

/// Is the file on this node's disk not what it must be?
pub fn is_damage(error: &anyhow::Error) -> bool {
    let prepare = error.downcast_ref::<PrepareError>();
    let store = error.downcast_ref::<StoreError>();
    prepare.is_some_and(PrepareError::is_damage) || matches!(store, Some(StoreError::Damaged(_)))
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
