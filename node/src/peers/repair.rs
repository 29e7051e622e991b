//! A folder whose node cannot go on as who it was becomes that of a new member, which takes its place.

use super::entry::{Entry, EntryError};
use super::folder::{DataFolder, FolderError};
use super::former::{Former, Standing, Traces};
use super::papers;
use crate::clock;
use crate::raft::WrittenState;
use crate::raft::disk::{Disk, DiskError};
use crate::state::StateError;
use crate::trust::{self, Identity};
use proto::NodeId;
use proto::cluster::{ClusterCommand, MemberIs};
use proto::join::NodeIdentity;
use proto::wire::{self, Kind};

/// Is this what a repair is for? Then nothing gets better by waiting, and what is there starts nothing as it is.
pub fn is_for(error: &EntryError) -> bool {
    match error {
        EntryError::Disk(DiskError::Corrupt { .. })
        | EntryError::Identity(_)
        | EntryError::LogMissing { .. } => true,
        EntryError::Open(error) => error.is_repairable(),
        EntryError::Papers(error) => error.is_damage(),
        EntryError::Folder(_)
        | EntryError::Trust(_)
        | EntryError::Bind(_)
        | EntryError::Join(_)
        | EntryError::Disk(_)
        | EntryError::Legacy(_)
        | EntryError::State(_)
        | EntryError::MemberAlready(_)
        | EntryError::HalfReseeded { .. }
        | EntryError::Unheard(_) => false,
    }
}

/// Moves out of the way what the node was, and writes down who that is.
pub fn begin(folder: &DataFolder, damage: &EntryError) -> Result<(), FolderError> {
    folder.remember_former(traces(folder).former().after(folder.former()))?;
    let aside = folder.free_aside(clock::unix_secs());
    let aside = folder.set_aside(&aside, &papers::damaged_parts(folder))?;
    tracing::warn!(
        aside = %aside.display(),
        %damage,
        "what this node was is damaged and was moved aside; it joins as a new member"
    );
    Ok(())
}

/// Whose folder this is, as far as that can be told without its log.
pub fn whose(folder: &DataFolder) -> Option<NodeId> {
    let named = trust::named_in(&folder.chain()).map(|(node, _)| node);
    named.or_else(|| folder.former().and_then(|former| former.node))
}

fn traces(folder: &DataFolder) -> Traces {
    let key = Identity::load_key(&folder.key()).ok();
    let traces = Traces {
        certificate: trust::named_in(&folder.chain()),
        key: key.map(|identity| identity.spki_hash()),
        ..Traces::default()
    };
    let Ok(disk) = Disk::open(folder.path()) else {
        return traces;
    };
    let identity = disk.identity().map(|bytes| wire::read(Kind::NodeIdentity, bytes));
    let Some(Ok(NodeIdentity { node, .. })) = identity else {
        return traces;
    };
    let written = WrittenState::read(disk).ok();
    let member = written.as_ref().and_then(|written| written.state.member(node));
    Traces {
        log: Some(node),
        log_key: member.map(|member| member.spki),
        ..traces
    }
}

/// Of the one that this node was before it was repaired, if it was one. Nothing for a node that is not being repaired.
pub async fn end(entry: &Entry) -> Result<(), FolderError> {
    let (Some(former), own) = (entry.folder.former(), entry.state.node()) else {
        return Ok(());
    };
    let standing = {
        let applied = entry.state.applied();
        match applied.member(own) {
            Some(_) => former.standing(&applied),
            // What the log says now is older than this node.
            None => return Ok(()),
        }
    };
    match standing {
        Standing::Member(former) if former != own => replace(entry, former).await,
        Standing::Member(_) | Standing::Unknown => {
            tracing::info!(
                "no member of this cluster has the key of the one that this node was: none is removed"
            );
            entry.folder.forget_former()
        }
        Standing::Untold => {
            warn_of_untold(&former);
            entry.folder.forget_former()
        }
    }
}

/// Where the cluster cannot agree now, the next start tries again.
async fn replace(entry: &Entry, former: NodeId) -> Result<(), FolderError> {
    let remove = ClusterCommand::RemoveMember(Box::new(MemberIs { node: former }));
    match entry.state.commit(remove).await {
        Ok(_) => {
            tracing::info!(%former, "this node has taken the place of the one it was");
            entry.folder.forget_former()
        }
        Err(error @ StateError::Rejected(_)) => {
            tracing::warn!(%error, "the member that this node was stays: remove it yourself with `cluster node rm {former}`");
            entry.folder.forget_former()
        }
        Err(error @ StateError::Commit(_)) => {
            tracing::warn!(
                %error,
                "the member that this node was stays for now: the next start removes it, or `cluster node rm {former}`"
            );
            Ok(())
        }
    }
}

fn warn_of_untold(former: &Former) {
    match former.node {
        Some(former) => tracing::warn!(
            "this node was node {former}, and nothing is left to prove it: where `cluster node list` shows that node as lost, \
             remove it with `cluster node rm {former}`"
        ),
        None => tracing::warn!(
            "nothing is left that says for certain which member this node was, so none was removed: where `cluster node list` \
             shows it as lost, remove it with `cluster node rm NODE`"
        ),
    }
}
