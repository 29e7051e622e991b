//! How a node comes into its cluster: it founds one, joins one, or has been a member before.

#[cfg(test)]
mod tests;

use super::attendance;
use super::certificates::{self, Renewal};
use super::custody::Custody;
use super::folder::{DataFolder, FolderError, Memory};
use super::legacy::{self, LegacyError};
use super::membership::CommittedMembership;
use super::papers::{Papers, PapersError};
use super::reachable::{self, Bound};
use super::repair;
use super::reseeding::Reseeding;
use super::{Desk, PeerLinks, directory};
use crate::clock;
use crate::raft::disk::{Change, Disk, DiskError};
use crate::raft::{self, AppliedState, Member, OpenDisk, OpenError};
use crate::random;
use crate::state::{NodeState, StateError};
use crate::transport::{self, BindError, JoinError, Peers, Settings};
use crate::trust::{Bundle, Identity, JoinToken, TrustError};
use coordinator::cluster_state::{FOUNDER, Rejected};
use proto::NodeId;
use proto::cluster::{ClusterCommand, Founding, NewTenant};
use proto::join::{JoinRequest, Joining, MemberAddress, NodeIdentity};
use proto::wire::{self, Kind, WireError};
use rustls::pki_types::CertificateDer;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The highest feature level that this program understands.
pub const FEATURE_LEVEL: u32 = 2;

/// Between its certificate and the first word of the leader.
const WELCOME_MAX: Duration = Duration::from_secs(30);

#[derive(thiserror::Error, Debug)]
pub enum EntryError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("joining the cluster")]
    Join(#[from] JoinError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Papers(#[from] PapersError),
    #[error(
        "what this node wrote down about itself does not read ({0}): restore the data folder, or join anew"
    )]
    Identity(#[from] WireError),
    #[error(
        "the log (raft/) is missing in {folder}, which held {}: it must not begin anew under that name, with nothing of what it has voted \
         for. To repair it from the other nodes, start it with --join and a token of theirs (`cluster token create`); if there \
         are none, restore a backup into an empty folder (`cluster restore`)",
        .node.map_or_else(|| "a member of a cluster".to_owned(), |node| format!("node {node}"))
    )]
    LogMissing { folder: PathBuf, node: Option<NodeId> },
    #[error("`{command}` has begun in {folder} and not come to its end: run it again, nothing is lost")]
    HalfReseeded { folder: PathBuf, command: &'static str },
    #[error(
        "{0} belongs to a member of another cluster than the one that the token is for: start it without --join, or join \
         with an empty --data-dir"
    )]
    MemberAlready(PathBuf),
    #[error(
        "node {0} was let in, but its cluster has not spoken to it within {max} s: see on another node whether \
         `cluster status` shows a leader, and whether UDP reaches this node",
        max = WELCOME_MAX.as_secs()
    )]
    Unheard(NodeId),
}

/// What there is to say about a node's own place.
pub struct Place<'a> {
    pub data_dir: &'a Path,
    /// Where the port is opened.
    pub quic: SocketAddr,
    pub http_scheme: &'static str,
    pub http: SocketAddr,
}

impl Place<'_> {
    fn bound(&self, quic: SocketAddr) -> Bound {
        Bound {
            quic,
            http: self.http,
            http_scheme: self.http_scheme,
        }
    }
}

/// A node that is a member.
pub struct Entry {
    pub state: Arc<NodeState>,
    pub desk: Arc<Desk>,
    pub peers: Peers,
    pub folder: Arc<DataFolder>,
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub how: How,
    /// Run for as long as the node does.
    pub tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Founded,
    Joined,
    Returned,
    /// For which it had no use: it is a member already.
    ReturnedWithToken,
}

/// What a node has taken for itself before it knows who it is. All of it is held from here on.
struct Seat {
    folder: DataFolder,
    disk: Disk,
    /// The port, since the cluster is told where it is.
    socket: UdpSocket,
}

/// The parts of a node that is somebody.
struct Ground {
    seat: Seat,
    identity: Arc<Identity>,
    bundle: Arc<Bundle>,
    custody: Custody,
    kept: NodeIdentity,
}

/// Blocks as long as it takes to be let in.
pub async fn enter(place: &Place<'_>, token: Option<&JoinToken>) -> Result<Entry, EntryError> {
    // First, so that a port which is taken leaves no new folder behind.
    let socket = transport::listen_soon(place.quic).await?;
    let folder = DataFolder::lock(place.data_dir)?;
    if let Some(begun) = Reseeding::of(folder.path())? {
        return Err(half_reseeded(folder.path(), &begun));
    }
    let (disk, kept) = match (open(&folder), token) {
        (Err(damage), Some(_)) if repair::is_for(&damage) => {
            repair::begin(&folder, &damage)?;
            (Disk::make(folder.path())?, None)
        }
        (opened, _) => opened?,
    };
    let seat = Seat { folder, disk, socket };
    let entry = enter_as(place, seat, kept, token).await?;
    repair::end(&entry).await?;
    Ok(entry)
}

async fn enter_as(
    place: &Place<'_>,
    seat: Seat,
    kept: Option<Kept>,
    token: Option<&JoinToken>,
) -> Result<Entry, EntryError> {
    match (kept, token) {
        (Some(_), Some(token)) if !is_of_own_cluster(&seat.folder, token) => {
            Err(EntryError::MemberAlready(place.data_dir.to_owned()))
        }
        // A token that lets into this same cluster may stay in a service's settings.
        (Some(kept), Some(token)) => {
            seat.folder.remember_joining(&token.authority)?;
            let entry = come_back(place, seat, kept).await?;
            Ok(Entry {
                how: How::ReturnedWithToken,
                ..entry
            })
        }
        (Some(kept), None) => come_back(place, seat, kept).await,
        // A repair that was begun and has not found its cluster: another one is not what was asked for.
        (None, None) if seat.folder.is_to_join_anew() => Err(log_missing(&seat.folder)),
        (None, None) => found(place, seat).await,
        (None, Some(token)) => join(place, seat, token).await,
    }
}

fn is_of_own_cluster(folder: &DataFolder, token: &JoinToken) -> bool {
    let believed = Bundle::load(&folder.authorities()).map(|bundle| bundle.spki_hashes());
    // After a change of authorities a token in a service's settings is for one that nobody believes any more.
    folder.has_joined_with(&token.authority)
        || believed.is_ok_and(|believed| believed.contains(&token.authority))
}

/// A member that was here before, and all that it needs to go on.
struct Kept {
    identity: NodeIdentity,
    papers: Papers,
}

/// Without the second, this folder has never held a member.
fn open(folder: &DataFolder) -> Result<(Disk, Option<Kept>), EntryError> {
    let disk = match Memory::of(folder.path()) {
        Memory::New => Disk::make(folder.path())?,
        Memory::Kept => raft::checked(Disk::open(folder.path())?)?,
        Memory::Lost => return Err(log_missing(folder)),
    };
    let identity = disk.identity().map(|bytes| wire::read(Kind::NodeIdentity, bytes));
    let Some(identity): Option<NodeIdentity> = identity.transpose()? else {
        return Ok((disk, None));
    };
    let papers = Papers::read(folder, identity.node)?;
    Ok((disk, Some(Kept { identity, papers })))
}

pub(super) fn log_missing(folder: &DataFolder) -> EntryError {
    EntryError::LogMissing {
        folder: folder.path().to_owned(),
        node: repair::whose(folder),
    }
}

pub(super) fn half_reseeded(data_dir: &Path, begun: &Reseeding) -> EntryError {
    EntryError::HalfReseeded {
        folder: data_dir.to_owned(),
        command: match begun {
            Reseeding::Recovery { .. } => "cluster recover",
            Reseeding::Restoration => "cluster restore FILE",
        },
    }
}

async fn come_back(place: &Place<'_>, seat: Seat, kept: Kept) -> Result<Entry, EntryError> {
    let Papers {
        identity,
        bundle,
        custody,
    } = kept.papers;
    let ground = Ground {
        identity,
        bundle,
        custody,
        kept: kept.identity,
        seat,
    };
    ground.open(How::Returned)?.start(place).await
}

async fn found(place: &Place<'_>, mut seat: Seat) -> Result<Entry, EntryError> {
    let folder = &seat.folder;
    let now_secs = clock::unix_secs();
    let identity = own_key(folder)?;
    let custody = Custody::load(folder)?;
    let authority = custody.any_or_new(folder, now_secs)?;
    let certificate = authority.sign(&identity.csr()?, FOUNDER, now_secs)?;
    identity.set_chain(vec![certificate, authority.certificate().clone()])?;
    identity.store_chain(&folder.chain())?;
    let bundle = Bundle::new(vec![authority.certificate().clone()])?;
    bundle.store(&folder.authorities())?;
    let kept = NodeIdentity {
        node: FOUNDER,
        members: Vec::new(),
    };
    seat.keep(&kept)?;
    let ground = Ground {
        seat,
        identity: Arc::new(identity),
        bundle: Arc::new(bundle),
        custody,
        kept,
    };
    ground.open(How::Founded)?.start(place).await
}

async fn join(place: &Place<'_>, mut seat: Seat, token: &JoinToken) -> Result<Entry, EntryError> {
    let folder = &seat.folder;
    let identity = own_key(folder)?;
    let quic = seat.socket.local_addr().unwrap_or(place.quic);
    let bound = place.bound(quic);
    let reachable = bound.reachable(&token.addresses, None);
    let reachable = reachable.unwrap_or_else(|| bound.as_bound());
    let request = JoinRequest::V1(Box::new(Joining {
        token_id: token.id,
        secret: token.secret,
        csr: identity.csr()?,
        quic_address: reachable.quic,
        http_url: reachable.http,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level: FEATURE_LEVEL,
    }));
    let welcome = transport::join(token, &request).await?;
    let authorities = welcome.authorities.into_iter().map(CertificateDer::from);
    let authorities: Vec<CertificateDer<'static>> = authorities.collect();
    let mut chain = vec![CertificateDer::from(welcome.certificate)];
    chain.extend(authorities.iter().cloned());
    identity.set_chain(chain)?;
    identity.store_chain(&folder.chain())?;
    let bundle = Bundle::new(authorities)?;
    bundle.store(&folder.authorities())?;
    let kept = NodeIdentity {
        node: welcome.node,
        members: welcome.members,
    };
    folder.remember_joining(&token.authority)?;
    seat.keep(&kept)?;
    let ground = Ground {
        seat,
        identity: Arc::new(identity),
        bundle: Arc::new(bundle),
        custody: Custody::default(),
        kept,
    };
    ground.open(How::Joined)?.start(place).await
}

/// One that was made before and not used up is used: the cluster may have let it in already.
pub(super) fn own_key(folder: &DataFolder) -> Result<Identity, EntryError> {
    if folder.key().exists() {
        return Ok(Identity::load(&folder.key(), &folder.chain())?);
    }
    let identity = Identity::make()?;
    identity.store_key(&folder.key())?;
    Ok(identity)
}

impl Seat {
    /// From now on the folder holds this member.
    fn keep(&mut self, identity: &NodeIdentity) -> Result<(), EntryError> {
        let bytes = wire::frame(Kind::NodeIdentity, 0, identity);
        Ok(self.disk.commit(&[Change::Identity(bytes)])?)
    }
}

/// A node whose port is served and whose Raft has not begun.
struct Opened {
    folder: Arc<DataFolder>,
    open: OpenDisk,
    identity: Arc<Identity>,
    bundle: Arc<Bundle>,
    custody: Custody,
    node: NodeId,
    how: How,
    applied: AppliedState,
    desk: Arc<Desk>,
    peers: Peers,
}

impl Ground {
    fn open(self, how: How) -> Result<Opened, EntryError> {
        let Seat { folder, disk, socket } = self.seat;
        let NodeIdentity { node, members } = self.kept;
        // Before anybody is met: who may sign needs nobody's help with a certificate that has run out.
        certificates::renew_own(&self.identity, &self.bundle, &self.custody, &folder, node)?;
        let applied = AppliedState::default();
        let trust = (Arc::clone(&self.identity), Arc::clone(&self.bundle));
        let desk = Arc::new(Desk::new(trust.0, trust.1, self.custody.clone()));
        let membership = CommittedMembership {
            applied: applied.clone(),
            own: node,
            named: members.clone(),
        };
        let peers = transport::bind(Settings {
            socket,
            identity: Arc::clone(&self.identity),
            bundle: Arc::clone(&self.bundle),
            membership: Arc::new(membership),
            service: Arc::clone(&desk) as _,
        })?;
        for member in members.iter().filter(|member| member.node != node) {
            set_address(&peers, member);
        }
        Ok(Opened {
            open: this_one_first(disk, folder.path().to_owned()),
            folder: Arc::new(folder),
            identity: self.identity,
            bundle: self.bundle,
            custody: self.custody,
            node,
            how,
            applied,
            desk,
            peers,
        })
    }
}

/// The disk that was verified just now serves the first run of Raft; each further one opens and verifies it anew.
fn this_one_first(disk: Disk, data_dir: PathBuf) -> OpenDisk {
    let first = Mutex::new(Some(disk));
    Arc::new(move || {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| Disk::open(&data_dir), Ok)
    })
}

fn set_address(peers: &Peers, member: &MemberAddress) {
    if let Ok(address) = member.quic_address.parse() {
        peers.set_address(member.node, address);
    }
}

impl Opened {
    async fn start(self, place: &Place<'_>) -> Result<Entry, EntryError> {
        let node = self.node;
        let links = PeerLinks::new(self.peers.clone());
        let open = Arc::clone(&self.open);
        let (member, raft) = Member::start(node, self.applied.clone(), links, open).await?;
        self.desk.open(member.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = raft.await;
        });
        tasks.spawn(directory::follow(node, self.applied.clone(), self.peers.clone()));
        let state = Arc::new(NodeState { member });
        let quic = self.peers.local_address().unwrap_or(place.quic);
        let bound = place.bound(quic);
        match self.how {
            How::Founded => self.found(&state, &bound).await?,
            // A founder that was killed before it had founded does so now.
            How::Returned if node == FOUNDER && !state.applied().is_founded() => {
                self.found(&state, &bound).await?;
            }
            // One that was killed while it took over goes on with it.
            How::Returned if node == FOUNDER => take_over(&state, &self.folder).await?,
            How::Returned if state.applied().is_founded() => {}
            // Or it was killed before it had heard anything.
            How::Returned | How::ReturnedWithToken | How::Joined => self.hear(&state).await?,
        }
        tasks.spawn(attendance::keep(state.member.clone()));
        tasks.spawn(reachable::tell_where(Arc::clone(&state), bound));
        tasks.spawn(certificates::keep(Renewal {
            node,
            identity: Arc::clone(&self.identity),
            bundle: Arc::clone(&self.bundle),
            custody: self.custody,
            folder: Arc::clone(&self.folder),
            applied: self.applied,
            peers: self.peers.clone(),
        }));
        Ok(Entry {
            state,
            desk: self.desk,
            peers: self.peers,
            folder: self.folder,
            identity: self.identity,
            bundle: self.bundle,
            how: self.how,
            tasks,
        })
    }

    async fn found(&self, state: &NodeState, bound: &Bound) -> Result<(), EntryError> {
        let reachable = bound.reachable(&[], None).unwrap_or_else(|| bound.as_bound());
        state.member.found().await.map_err(StateError::from)?;
        let authority = self.bundle.authorities();
        let founding = Founding {
            cluster: u128::from_le_bytes(random::bytes()).max(1),
            spki: self.identity.spki_hash(),
            quic: reachable.quic,
            http: reachable.http,
            level: FEATURE_LEVEL,
            at_secs: clock::unix_secs(),
            authority: authority.first().map(|der| der.to_vec()).unwrap_or_default(),
            salt: random::bytes(),
        };
        match state.commit(ClusterCommand::Found(Box::new(founding))).await {
            Ok(_) | Err(StateError::Rejected(Rejected::Founded)) => {}
            Err(error) => return Err(error.into()),
        }
        take_over(state, &self.folder).await
    }

    /// Until the leader has told this node what was agreed on so far.
    async fn hear(&self, state: &NodeState) -> Result<(), EntryError> {
        let node = state.node();
        let mut changes = self.applied.changes();
        let heard = async {
            while self.applied.read().member(node).is_none() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(WELCOME_MAX, heard)
            .await
            .map_err(|_| EntryError::Unheard(node))
    }
}

/// Tenants and keys of a node that knew no others.
async fn take_over(state: &NodeState, folder: &DataFolder) -> Result<(), EntryError> {
    let path = folder.path().join("log");
    let Some(legacy) = legacy::read(&path)? else {
        return Ok(());
    };
    // What was taken over before the node was killed is refused now, and is there.
    let commit = async |command| match state.commit(command).await {
        Ok(_) | Err(StateError::Rejected(_)) => Ok(()),
        Err(error) => Err(EntryError::from(error)),
    };
    for (name, salt) in legacy.tenants {
        commit(ClusterCommand::AddTenant(Box::new(NewTenant { name, salt }))).await?;
    }
    let count = legacy.keys.len();
    for (tenant, mut key) in legacy.keys {
        if let Some(tenant) = tenant {
            let known = state
                .applied()
                .tenants()
                .find(|known| known.name == tenant)
                .map(|known| known.id);
            key.tenant = known.unwrap_or(key.tenant);
        }
        commit(ClusterCommand::AddKey(Box::new(key))).await?;
    }
    tracing::info!(keys = count, "took over the keys of an earlier version");
    let aside = folder.path().join("log.taken-over");
    std::fs::rename(&path, aside).map_err(|error| FolderError::Io { path, error })?;
    Ok(())
}
