//! Getting a file, or parts of it, from the nodes that have it.

use super::error::FetchError;
use super::run::Run;
use super::shelf::{Begun, Fetching, Shelf};
use super::sources::{Blame, Sources, View};
use crate::store::chunk_set::ChunkSet;
use crate::store::chunks::Manifest;
use crate::store::error::StoreError;
use crate::store::partial::Partial;
use crate::store::{Promotion, Stored};
use crate::transport::{PeerError, Peers};
use futures_util::future::join_all;
use proto::NodeId;
use proto::peer::{ModelIs, PeerAnswer, PeerRequest};
use proto::weights::{Holding, ManifestAnswer};
use std::ops::Range;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// So often chunks may be damaged on this node's disk between coming and being read again.
pub(super) const DAMAGED_MAX: u32 = 3;
/// For saying what one has.
const HOLDS_MAX: Duration = Duration::from_secs(2);

/// Cheap to make; one for each node will do.
pub struct Fetcher {
    pub own: NodeId,
    pub peers: Peers,
    pub shelf: Shelf,
    pub patience: Patience,
}

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a byte, or a word that one is coming.
    pub stall: Duration,
    /// Between two looks at who has what.
    pub look_every: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            stall: Duration::from_secs(5),
            look_every: Duration::from_millis(500),
        }
    }
}

/// What is to be had.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// SHA-256 of the whole file.
    pub digest: [u8; 32],
    pub file_bytes: u64,
    /// SHA-256 of its manifest, where the cluster has agreed on it. Otherwise a member's word is taken for the manifest: a whole
    /// file is verified all the same, and parts are as good as that word.
    pub manifest: Option<[u8; 32]>,
    pub which: Which,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    All,
    /// So many chunks of its beginning.
    Head(u32),
    /// The chunks that hold these bytes, in the order of the ranges as far as there is a choice.
    Ranges(Vec<Range<u64>>),
}

pub enum Fetched {
    /// In the store, verified.
    Whole(Stored),
    /// What was wanted is there. Others may have it too, as long as this node runs.
    Parts(Partial),
}

/// Bytes that are there, of those that are wanted.
pub trait Progress: Send {
    fn set(&mut self, bytes: u64, wanted_bytes: u64);
}

impl<F: FnMut(u64, u64) + Send> Progress for F {
    fn set(&mut self, bytes: u64, wanted_bytes: u64) {
        self(bytes, wanted_bytes);
    }
}

impl Fetcher {
    /// From any of `candidates`, among whom are other nodes that want the same. May be given up at any time: what has come
    /// is there the next time, but for the last 64 MiB.
    pub async fn fetch(
        &self,
        wanted: &Wanted,
        candidates: &[NodeId],
        progress: &mut dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let mut sources = Sources::new(self.own);
        let (mut damaged, mut has_waited) = (0, false);
        loop {
            if let Some(stored) = self.held(wanted).await? {
                return Ok(Fetched::Whole(stored));
            }
            let (giver, manifest) = self.manifest(wanted, candidates, &mut sources).await?;
            let chunks = wanted.which.chunks(&manifest);
            let fetching = match self.begin(wanted, manifest, chunks).await? {
                Begun::Whole(stored) => return Ok(Fetched::Whole(stored)),
                Begun::Fetching(fetching) => fetching,
                Begun::Elsewhere => {
                    if !has_waited {
                        tracing::info!(
                            "another process of this host, or another task of this one, fetches this model's file: waiting for it"
                        );
                    }
                    has_waited = true;
                    sleep(self.patience.look_every).await;
                    continue;
                }
            };
            let run = Run::new(self, wanted, &fetching, candidates, &mut sources);
            run.finish(progress).await?;
            let path = fetching.partial.path();
            match self.end(wanted, fetching).await {
                Ok(Some(fetched)) => return Ok(fetched),
                // Damaged on the disk: what is missing now is fetched again.
                Ok(None) if damaged < DAMAGED_MAX => damaged += 1,
                Ok(None) => return Err(StoreError::Damaged(path).into()),
                Err(FetchError::Store(error @ StoreError::WrongDigest { .. })) => {
                    sources.blame(giver, Blame::Lied, format!("its manifest is wrong: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn held(&self, wanted: &Wanted) -> Result<Option<Stored>, FetchError> {
        let (shelf, digest) = (self.shelf.clone(), wanted.digest);
        Ok(spawn_blocking(move || shelf.store().find_held(&digest)).await??)
    }

    async fn begin(
        &self,
        wanted: &Wanted,
        manifest: Manifest,
        chunks: ChunkSet,
    ) -> Result<Begun, FetchError> {
        let (shelf, digest) = (self.shelf.clone(), wanted.digest);
        Ok(spawn_blocking(move || shelf.begin(&digest, &manifest, chunks)).await??)
    }

    async fn end(&self, wanted: &Wanted, fetching: Fetching) -> Result<Option<Fetched>, FetchError> {
        let (shelf, partial) = (self.shelf.clone(), fetching.partial.clone());
        match wanted.which {
            Which::All => {
                let promoted = spawn_blocking(move || shelf.store().promote(&partial)).await?;
                fetching.let_go();
                match promoted? {
                    Promotion::Whole(stored) => Ok(Some(Fetched::Whole(stored))),
                    Promotion::Damaged => Ok(None),
                }
            }
            Which::Head(_) | Which::Ranges(_) => {
                spawn_blocking(move || partial.keep()).await??;
                Ok(Some(Fetched::Parts(fetching.keep())))
            }
        }
    }

    /// From whoever has anything of the file, and who that is.
    async fn manifest(
        &self,
        wanted: &Wanted,
        candidates: &[NodeId],
        sources: &mut Sources,
    ) -> Result<(NodeId, Manifest), FetchError> {
        if let Some(manifest) = self.shelf.manifest_of_parts(&wanted.digest) {
            return Ok((self.own, manifest));
        }
        loop {
            let asked = candidates
                .iter()
                .map(|node| holding(&self.peers, *node, wanted.digest));
            for (node, holding) in candidates.iter().zip(join_all(asked).await) {
                match holding {
                    Ok(holding) => sources.see(*node, View::at_first(&holding)),
                    Err(reason) => sources.miss(*node, reason),
                }
            }
            let mut is_in_the_making = false;
            for node in sources.holders() {
                match self.manifest_of(node, wanted).await {
                    Ok(Some(manifest)) => return Ok((node, manifest)),
                    Ok(None) => is_in_the_making = true,
                    Err((blame, reason)) => sources.blame(node, blame, reason),
                }
            }
            if !is_in_the_making {
                return Err(FetchError::Nobody {
                    tried: sources.tried(),
                });
            }
            sleep(self.patience.look_every).await;
        }
    }

    /// `None`: it is in the making.
    async fn manifest_of(&self, node: NodeId, wanted: &Wanted) -> Result<Option<Manifest>, (Blame, String)> {
        let request = PeerRequest::Manifest(Box::new(ModelIs {
            digest: wanted.digest,
        }));
        let failed = |reason: String| (Blame::Failed, reason);
        let answer = self.peers.call(node, request).await;
        let answer = match answer.map_err(|error| failed(error.to_string()))? {
            PeerAnswer::Manifest(answer) => *answer,
            other => return Err(failed(other.amiss())),
        };
        match answer {
            ManifestAnswer::Nothing => Err(failed("it has no manifest of the file".to_owned())),
            ManifestAnswer::InTheMaking => Ok(None),
            ManifestAnswer::Manifest(bytes) => {
                let manifest = Manifest::from_bytes(&bytes.bytes);
                let is_wanted = |manifest: &Manifest| {
                    manifest.file_bytes == wanted.file_bytes
                        && wanted
                            .manifest
                            .is_none_or(|committed| committed == manifest.digest())
                };
                let manifest = manifest.filter(is_wanted);
                let lied = (Blame::Lied, "its manifest is not that of the file".to_owned());
                manifest.map(Some).ok_or(lied)
            }
        }
    }
}

impl Which {
    pub(super) fn chunks(&self, manifest: &Manifest) -> ChunkSet {
        match self {
            Which::All => ChunkSet::all(manifest.chunks()),
            Which::Head(count) => {
                let head = 0..manifest.place(*count).start;
                ChunkSet::of_ranges(&[head], manifest.chunk_bytes, manifest.chunks())
            }
            Which::Ranges(ranges) => ChunkSet::of_ranges(ranges, manifest.chunk_bytes, manifest.chunks()),
        }
    }
}

/// What a node has of a file; else why it does not say.
pub(super) async fn holding(peers: &Peers, node: NodeId, digest: [u8; 32]) -> Result<Holding, String> {
    let request = PeerRequest::Holds(Box::new(ModelIs { digest }));
    let answered: Result<PeerAnswer, PeerError> = peers.call_within(node, request, HOLDS_MAX).await;
    match answered {
        Ok(PeerAnswer::Holds(holding)) => Ok(*holding),
        Ok(answer) => Err(answer.amiss()),
        Err(error) => Err(error.to_string()),
    }
}
