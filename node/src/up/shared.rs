//! What the cluster serves, for a node that shares its load: the same files, out of other nodes' stores where they are not
//! here.

use super::announce::Output;
use crate::config::byte_size::ByteSize;
use crate::peers::entry::Entry;
use crate::peers::weights::{FetchError, Fetched, Fetcher, Patience, Shelf, Wanted, Which};
use crate::state::NodeState;
use crate::store::progress::Progress;
use crate::store::spec::{NamedSpec, Spec};
use crate::store::{Check, Store, Stored, Use};
use crate::transport::Peers;
use anyhow::bail;
use proto::NodeId;
use proto::cluster::PLACING_LEVEL;
use std::fs;
use std::slice;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::spawn_blocking;

#[derive(Clone, Debug)]
pub struct SharedModel {
    pub named: NamedSpec,
    /// SHA-256 of its file.
    pub digest: [u8; 32],
    pub bytes: u64,
}

/// A model that other nodes were asked for.
#[derive(Clone, Debug)]
pub struct Sought {
    pub model: SharedModel,
    /// Why they could not give it. `None`: it is here, or nobody was asked yet.
    missed: Option<Arc<FetchError>>,
}

impl Sought {
    pub fn new(model: SharedModel) -> Sought {
        Sought { model, missed: None }
    }

    /// Wherever it is here; else from where its spec leads, unless this node's own disk was in the way. Blocks.
    pub fn take(&self, store: &Store) -> anyhow::Result<(Stored, Use)> {
        let SharedModel { named, digest, .. } = &self.model;
        if let Some(taken) = store.take_held(digest)? {
            return Ok(taken);
        }
        if let Some(missed) = self.missed.as_ref().filter(|missed| missed.is_of_own_disk()) {
            bail!("{missed}");
        }
        let original = store.take(&named.spec, Check::Length);
        let (stored, in_use) = original.map_err(|original| match &self.missed {
            Some(missed) => missed.and_original(original),
            None => original.into(),
        })?;
        // A path may lead to another file on another host.
        if stored.digest != *digest {
            let path = stored.path.display();
            match &self.missed {
                Some(missed) => bail!("{missed}; and {path} is another file on this host"),
                None => bail!("{path} is another file on this host"),
            }
        }
        Ok((stored, in_use))
    }
}

impl SharedModel {
    /// Blocks, and hashes a file that a user has at the same place as on the node that brought the model in.
    fn is_here(&self, store: &Store) -> bool {
        let is_held = || store.find_held(&self.digest).is_ok_and(|held| held.is_some());
        if is_held() {
            return true;
        }
        match &self.named.spec {
            Spec::Path(path) if fs::metadata(path).is_ok_and(|data| data.len() == self.bytes) => {
                store.resolve(&self.named.spec, Check::Length).is_ok() && is_held()
            }
            Spec::Path(_) | Spec::Catalogue(_) | Spec::Hub { .. } | Spec::Pypi { .. } => false,
        }
    }
}

/// Where shared models come from. Cheap to copy.
#[derive(Clone)]
pub struct SharedFiles {
    state: Arc<NodeState>,
    peers: Peers,
    pub shelf: Shelf,
    pub output: Output,
}

impl SharedFiles {
    pub fn of(entry: &Entry, shelf: &Shelf, output: Output) -> SharedFiles {
        SharedFiles {
            state: Arc::clone(&entry.state),
            peers: entry.peers.clone(),
            shelf: shelf.clone(),
            output,
        }
    }

    /// Fetches what is not here, one model after the other. What no node gives is left to where its spec leads.
    pub async fn seek(&self, models: &mut [Sought]) {
        for sought in models {
            let (shelf, wanted) = (self.shelf.clone(), sought.model.clone());
            let is_here = spawn_blocking(move || wanted.is_here(shelf.store())).await;
            sought.missed = match is_here {
                Ok(true) => None,
                Ok(false) | Err(_) => self.fetch(&sought.model).await.err().map(Arc::new),
            };
            if let Some(missed) = &sought.missed {
                let (model, error) = (&sought.model.named.name, missed.to_string());
                tracing::debug!(model, error, "other nodes did not give the file");
            }
        }
    }

    /// What this node's disk has damaged or lost of it is taken from other nodes, or from where its spec leads.
    pub async fn mend(&self, model: &SharedModel) -> Mended {
        let (shelf, digest, name) = (self.shelf.clone(), model.digest, &model.named.name);
        match spawn_blocking(move || shelf.weed(&digest)).await {
            // Where that is nothing it is gone, or another process of this host has found it first and is mending it.
            Ok(Ok(weeded)) => weeded.tell(name),
            Ok(Err(error)) => tracing::warn!(model = name, %error, "its damaged file cannot be mended"),
            Err(_) => return Mended::Not,
        }
        let mut sought = Sought::new(model.clone());
        self.seek(slice::from_mut(&mut sought)).await;
        let shelf = self.shelf.clone();
        let is_had = spawn_blocking(move || sought.take(shelf.store()).is_ok());
        match is_had.await {
            Ok(true) => Mended::Tried,
            Ok(false) | Err(_) => Mended::Not,
        }
    }

    async fn fetch(&self, model: &SharedModel) -> Result<(), FetchError> {
        let fetcher = Fetcher {
            own: self.state.node(),
            peers: self.peers.clone(),
            shelf: self.shelf.clone(),
            patience: Patience::default(),
        };
        let others: Vec<NodeId> = {
            let applied = self.state.applied();
            let others = applied.members().filter(|member| member.node != fetcher.own);
            // An earlier program hangs up on who asks.
            let able = others.filter(|member| member.level >= PLACING_LEVEL);
            able.map(|member| member.node).collect()
        };
        fetch(model, &fetcher, &others, self.output).await
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mended {
    /// It is worth another start.
    Tried,
    Not,
}

async fn fetch(
    model: &SharedModel,
    fetcher: &Fetcher,
    others: &[NodeId],
    output: Output,
) -> Result<(), FetchError> {
    let name = &model.named.name;
    let wanted = Wanted {
        digest: model.digest,
        file_bytes: model.bytes,
        manifest: None,
        which: Which::All,
    };
    let began = Instant::now();
    let mut progress = None;
    let mut tell = |bytes: u64, wanted_bytes: u64| {
        let start = || Progress::start(&format!("fetching {name} from other nodes"), wanted_bytes);
        progress.get_or_insert_with(start).set(bytes);
    };
    let fetched = fetcher.fetch(&wanted, others, &mut tell).await;
    drop(progress);
    let (Fetched::Whole(_) | Fetched::Parts(_)) = fetched?;
    output.say(&format!(
        "weights  {name}: {} from other nodes in {:.1} s",
        ByteSize::new(model.bytes),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}
