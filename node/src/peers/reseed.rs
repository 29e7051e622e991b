//! A cluster of one out of a backup, or out of what one node still has when the majority is lost for good.
//!
//! Both begin a new log. The node gets an id that was never given, all others have to join anew, and whoever still belongs
//! to the old cluster is refused: two halves that both believe to be the cluster cannot meet.

use super::custody::Custody;
use super::entry::{EntryError, FEATURE_LEVEL, half_reseeded, log_missing, own_key};
use super::folder::{DataFolder, FolderError, Memory, last_aside};
use super::papers::damaged_parts;
use super::reseeding::Reseeding;
use crate::clock;
use crate::raft::disk::{Change, Disk, DiskError};
use crate::raft::{OpenError, WrittenState};
use crate::trust::{Bundle, TrustError};
use coordinator::cluster_state::{ClusterState, Sole};
use proto::NodeId;
use proto::cluster::{ClusterImage, Role};
use proto::join::NodeIdentity;
use proto::raft::{LogId, Membership, SnapshotMeta, StoredMembership, Vote, VoteStanding};
use proto::wire::{self, Kind, WireError};
use std::path::{Path, PathBuf};

#[derive(thiserror::Error, Debug)]
pub enum ReseedError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("{0} holds a node already: restore into an empty folder (--data-dir)")]
    NotEmpty(PathBuf),
    #[error("{0} has never been a member of a cluster: there is nothing to recover")]
    Empty(PathBuf),
    #[error(
        "{folder} holds no log of a cluster, but one that was set aside lies in {aside}: move its raft/ and identity/ back, then \
         recover"
    )]
    SetAside { folder: PathBuf, aside: PathBuf },
    #[error("{path}: this is no backup of a cluster ({error})")]
    Backup { path: PathBuf, error: WireError },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
}

/// What has come of it.
pub struct Reseeded {
    pub node: NodeId,
    /// What it was in the cluster before, where it was in one. What was agreed on reaches a worker later than a voter.
    pub was: Option<Role>,
    pub tenants: usize,
    pub keys: usize,
    /// What the folder held before.
    pub aside: Option<PathBuf>,
}

/// Of a file that `cluster backup` wrote, into an empty folder.
pub fn restore(file: &Path, data_dir: &Path) -> Result<Reseeded, ReseedError> {
    let bytes = std::fs::read(file).map_err(|error| ReseedError::Io {
        path: file.to_owned(),
        error,
    })?;
    let image: ClusterImage = wire::read(Kind::Backup, &bytes).map_err(|error| ReseedError::Backup {
        path: file.to_owned(),
        error,
    })?;
    restorable(data_dir)?;
    let folder = DataFolder::lock(data_dir)?;
    // Once more: whoever had it until now may have come to his end.
    if let Some(begun) = restorable(data_dir)? {
        begun.undo(&folder)?;
    }
    Reseeding::Restoration.begin(&folder)?;
    // Where the old log stood does not matter: nobody who has it can meet the new one.
    let reseeded = seed(&folder, ClusterState::of_image(image), 0)?;
    Reseeding::end(&folder)?;
    Ok(reseeded)
}

/// What has to be undone first.
fn restorable(data_dir: &Path) -> Result<Option<Reseeding>, ReseedError> {
    match (Reseeding::of(data_dir)?, Memory::of(data_dir)) {
        (begun @ Some(Reseeding::Restoration), _) => Ok(begun),
        (Some(other @ Reseeding::Recovery { .. }), _) => Err(half_reseeded(data_dir, &other).into()),
        (None, Memory::New) => Ok(None),
        (None, Memory::Kept | Memory::Lost) => Err(ReseedError::NotEmpty(data_dir.to_owned())),
    }
}

/// There is no log here, unless one was set aside.
fn no_log(data_dir: &Path, otherwise: ReseedError) -> ReseedError {
    let folder = data_dir.to_owned();
    last_aside(data_dir).map_or(otherwise, |aside| ReseedError::SetAside { folder, aside })
}

fn never_a_member(data_dir: &Path) -> ReseedError {
    no_log(data_dir, ReseedError::Empty(data_dir.to_owned()))
}

/// Of what this folder's node has in its log, agreed on or not: what was not may have been acknowledged by those who are
/// lost.
pub fn recover(data_dir: &Path) -> Result<Reseeded, ReseedError> {
    recoverable(data_dir)?;
    let folder = DataFolder::lock(data_dir)?;
    // Once more: whoever had it until now may have come to his end.
    if let Some(begun) = recoverable(data_dir)? {
        begun.undo(&folder)?;
    }
    if Memory::of(data_dir) == Memory::Lost {
        return Err(no_log(data_dir, log_missing(&folder).into()));
    }
    let disk = Disk::open(folder.path())?;
    let own = disk.identity().map(|bytes| wire::read(Kind::NodeIdentity, bytes));
    let own: Option<NodeIdentity> = own.transpose().map_err(EntryError::from)?;
    let written = WrittenState::read(disk)?;
    if !written.state.is_founded() {
        return Err(never_a_member(data_dir));
    }
    let member = own.and_then(|own| written.state.member(own.node));
    let was = member.map(|member| member.role);
    let name = folder.free_aside(clock::unix_secs());
    Reseeding::Recovery { aside: name.clone() }.begin(&folder)?;
    let aside = folder.set_aside(&name, &damaged_parts(&folder))?;
    let reseeded = seed(&folder, written.state, written.index)?;
    Reseeding::end(&folder)?;
    Ok(Reseeded {
        was,
        aside: Some(aside),
        ..reseeded
    })
}

/// What has to be undone first.
fn recoverable(data_dir: &Path) -> Result<Option<Reseeding>, ReseedError> {
    match (Reseeding::of(data_dir)?, Memory::of(data_dir)) {
        (begun @ Some(Reseeding::Recovery { .. }), _) => Ok(begun),
        (Some(other @ Reseeding::Restoration), _) => Err(half_reseeded(data_dir, &other).into()),
        (None, Memory::New) => Err(never_a_member(data_dir)),
        (None, Memory::Kept | Memory::Lost) => Ok(None),
    }
}

fn seed(folder: &DataFolder, state: ClusterState, index: u64) -> Result<Reseeded, ReseedError> {
    let now_secs = clock::unix_secs();
    let identity = own_key(folder)?;
    let custody = Custody::load(folder)?;
    let authority = custody.any_or_new(folder, now_secs)?;
    let node = state.id_above(index);
    let certificate = authority.sign(&identity.csr()?, node, now_secs)?;
    identity.set_chain(vec![certificate, authority.certificate().clone()])?;
    identity.store_chain(&folder.chain())?;
    Bundle::new(vec![authority.certificate().clone()])?.store(&folder.authorities())?;
    let state = state.reborn(&Sole {
        node,
        spki: identity.spki_hash(),
        authority: authority.certificate().to_vec(),
        level: FEATURE_LEVEL,
        at_secs: now_secs,
    });
    let mut disk = Disk::make(folder.path())?;
    disk.commit(&first_step(node, &state))?;
    Ok(Reseeded {
        node,
        was: None,
        tenants: state.tenants().count(),
        keys: state.keys().count(),
        aside: None,
    })
}

/// A log that begins with this state, and a node that leads because nobody else votes. The place of the state in the log
/// is the node's id, so that every id to come is greater.
fn first_step(node: NodeId, state: &ClusterState) -> Vec<Change> {
    let place = LogId {
        term: 1,
        leader: node,
        index: node.0,
    };
    let meta = SnapshotMeta {
        last: Some(place),
        membership: StoredMembership {
            at: Some(place),
            membership: Membership {
                voters: vec![vec![node]],
                nodes: vec![node],
            },
        },
        name: format!("reborn-{}", place.index),
    };
    let vote = Vote {
        term: 1,
        candidate: node,
        standing: VoteStanding::Granted,
    };
    let identity = NodeIdentity {
        node,
        members: Vec::new(),
    };
    vec![
        Change::Snapshot {
            meta: wire::frame(Kind::SnapshotMeta, 0, &meta),
            data: wire::frame(Kind::ClusterImage, 0, &state.image()),
        },
        Change::PurgeThrough {
            index: place.index,
            marker: wire::frame(Kind::RaftLogId, 0, &place),
        },
        Change::Vote(wire::frame(Kind::RaftVote, 0, &vote)),
        Change::Identity(wire::frame(Kind::NodeIdentity, 0, &identity)),
    ]
}
