//! Commands about the cluster itself: tokens, nodes, backups.

use super::ControlAnswer;
use super::report::{Backup, CreatedToken, NodeStatus, Nodes, RaftStatus};
use crate::clock;
use crate::hex;
use crate::peers::directory;
use crate::raft::{CommitError, MemberView};
use crate::state::{NodeState, StateError};
use crate::transport::{Class, LinkView};
use crate::trust::{JoinToken, spki_of};
use coordinator::cluster_state::{ClusterState, Rejected};
use proto::NodeId;
use proto::cluster::{ClusterCommand, MemberIs, MemberRecord, Role, TokenIs, TokenRecord};
use proto::wire::{self, Kind};
use std::net::SocketAddr;
use std::time::Duration;

/// A token is for a person who is about to use it.
const TOKEN_TTL_SECS_MAX: u64 = 3600;
/// What a person can still paste.
const TOKEN_ADDRESSES_MAX: usize = 5;
/// How long a removed node may take to be out of the vote.
const REMOVAL_MAX: Duration = Duration::from_secs(10);
/// Who was removed knows by then. With the wait for a leader before it, less than who asks waits for an answer.
const CUT_OFF_MAX: Duration = Duration::from_secs(5);

const NO_ADDRESS: &str = "this node serves all addresses of its host, and no route says by which of them other hosts reach it: \
                          start it with --http IP:PORT, an address of its own";

pub async fn create_token(state: &NodeState, role: &str, ttl_secs: u64) -> ControlAnswer<CreatedToken> {
    let role = Role::named(role)
        .ok_or_else(|| format!("`{role}` is no role: a node joins as a `voter` or as a `worker`"))?;
    if ttl_secs == 0 || ttl_secs > TOKEN_TTL_SECS_MAX {
        return Err("a join token lives for at least a second and at most an hour".to_owned());
    }
    state.linearize().await.map_err(|error| error.to_string())?;
    let (authority, addresses) = {
        let applied = state.applied();
        let first = applied
            .authorities()
            .first()
            .ok_or("the cluster has no authority")?;
        let authority = spki_of(first).map_err(|error| error.to_string())?;
        (authority, addresses(state.node(), applied.members()))
    };
    if addresses.is_empty() {
        return Err(NO_ADDRESS.to_owned());
    }
    let token = JoinToken::draw(role, authority, addresses).map_err(|error| error.to_string())?;
    let id = hex::encode(&token.id);
    let expires_at_secs = clock::unix_secs() + ttl_secs;
    let record = TokenRecord {
        token: id.clone(),
        secret_hash: token.secret_hash(),
        role,
        expires_at_secs,
    };
    let added = state.commit(ClusterCommand::AddToken(Box::new(record))).await;
    added.map_err(|error| error.to_string())?;
    Ok(CreatedToken {
        token: token.to_string(),
        id,
        role: role.name().to_owned(),
        expires_at_secs,
    })
}

/// Whoever has it gets in no more.
pub async fn revoke_token(state: &NodeState, id: String) -> ControlAnswer<()> {
    let token = TokenIs { token: id.clone() };
    match state.commit(ClusterCommand::RevokeToken(Box::new(token))).await {
        Ok(_) => Ok(()),
        Err(StateError::Rejected(Rejected::TokenUnfit)) => Err(format!(
            "there is no token with the id {id}: it has let a node in (see `cluster node list`), has run out, was revoked before, or never \
             was"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Of nodes that can let somebody in, this one first where it can.
fn addresses<'a>(own: NodeId, members: impl Iterator<Item = &'a MemberRecord>) -> Vec<SocketAddr> {
    let mut holders: Vec<&MemberRecord> = members.filter(|member| member.role == Role::Voter).collect();
    holders.sort_by_key(|member| member.node != own);
    holders
        .iter()
        .filter_map(|member| member.quic.parse().ok())
        .filter(|address: &SocketAddr| !address.ip().is_unspecified())
        .take(TOKEN_ADDRESSES_MAX)
        .collect()
}

pub fn list(state: &NodeState) -> Nodes {
    let view = state.member.view();
    let links = state.member.links.peers.links();
    let applied = state.applied();
    let status = |member: &MemberRecord| {
        let link = links
            .iter()
            .find(|link| link.node == member.node && link.class == Class::Control);
        node_status(&applied, member, &view, link, state.node())
    };
    Nodes {
        nodes: applied.members().map(status).collect(),
    }
}

fn node_status(
    state: &ClusterState,
    member: &MemberRecord,
    view: &MemberView,
    link: Option<&LinkView>,
    own: NodeId,
) -> NodeStatus {
    let part = if view.leader == Some(member.node) {
        "leader"
    } else if view.voters.contains(&member.node) {
        "voter"
    } else if view.learners.contains(&member.node) {
        "learner"
    } else {
        "waiting"
    };
    NodeStatus {
        node: member.node.0,
        role: member.role.name().to_owned(),
        part: part.to_owned(),
        drained: state.is_drained(member.node),
        quic: member.quic.clone(),
        http: member.http.clone(),
        connected: link.is_some() || member.node == own,
        round_trip_ms: link.map(|link| link.round_trip.as_micros() as f64 / 1e3),
        joined_at_secs: member.joined_at_secs,
    }
}

/// A node without a leader whom strangers of its own cluster call has been away for too long.
const UNKNOWN_RECENTLY: Duration = Duration::from_secs(30);
const LEFT_BEHIND: &str = "somebody of this cluster calls whom this node does not know: if the members that it knew were replaced \
                           while it was away, it cannot catch up; stop it, move its data folder away, and let it join anew \
                           (`cluster up --join TOKEN`)";

pub fn raft(state: &NodeState) -> RaftStatus {
    let view = state.member.view();
    let unknown_came_ago = state.member.links.peers.unknown_came_ago();
    let is_left_behind = view.leader.is_none() && unknown_came_ago.is_some_and(|ago| ago < UNKNOWN_RECENTLY);
    let left_behind = is_left_behind.then(|| LEFT_BEHIND.to_owned());
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    RaftStatus {
        leader: view.leader.map(|node| node.0),
        term: view.term,
        voters: ids(&view.voters),
        learners: ids(&view.learners),
        last_index: view.last_index,
        applied_index: view.applied_index,
        feature_level: state.applied().feature_level(),
        trouble: view.trouble.or(left_behind),
    }
}

/// Where other nodes reach this one.
pub fn quic(state: &NodeState) -> String {
    let applied = state.applied();
    let known = applied.member(state.node()).map(|member| member.quic.clone());
    known.unwrap_or_default()
}

/// Out of the members at once, and out of the vote when this returns.
pub async fn remove(state: &NodeState, node: NodeId) -> ControlAnswer<()> {
    let command = ClusterCommand::RemoveMember(Box::new(MemberIs { node }));
    let committed = tokio::select! {
        committed = state.commit(command) => committed,
        // No answer comes to who is cut off, and the process ends soon after it has noticed.
        () = directory::removed(state.member.clone()), if node == state.node() => return Ok(()),
    };
    match committed {
        Ok(_) if node == state.node() => return Ok(()),
        Ok(_) => {}
        // Who is removed is cut off, perhaps before it hears that it was. Without a leader nobody is removed.
        Err(StateError::Commit(CommitError::Unknown(_) | CommitError::Away(_)))
            if node == state.node() && is_removed(state).await =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    }
    let gone = async {
        loop {
            let view = state.member.view();
            if !view.voters.contains(&node) && !view.learners.contains(&node) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(REMOVAL_MAX, gone).await;
    waited.map_err(|_| {
        format!(
            "node {node} is no member any more, but still counts in votes: see `cluster status`, and wait"
        )
    })
}

async fn is_removed(state: &NodeState) -> bool {
    let removed = directory::removed(state.member.clone());
    tokio::time::timeout(CUT_OFF_MAX, removed).await.is_ok()
}

/// Everything that was agreed on before this was asked. Without the authority's key: see `docs/operations.md`.
pub async fn backup(state: &NodeState) -> ControlAnswer<Backup> {
    state.linearize().await.map_err(|error| error.to_string())?;
    let (image, index) = {
        let applied = state.applied();
        (applied.image(), state.member.view().applied_index)
    };
    Ok(Backup {
        file: hex::encode(&wire::frame(Kind::Backup, 0, &image)),
        index,
    })
}
