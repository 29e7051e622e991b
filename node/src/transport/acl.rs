//! Which message may stand where, and who may send it. One table; everything that is not in it closes the connection.

use super::protocol::{Class, Side};
use proto::join::Role;
use proto::peer::{Hello, PeerRequest};
use proto::wire::Kind;

/// Where a frame stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The first one of a stream between members.
    Opening(Class),
    /// The answer to a call.
    Answer,
    /// Any further one of a stream that stays open, by who sends it.
    Stream(Class, Side),
    JoinRequest,
    JoinAnswer,
    RenewRequest,
    RenewAnswer,
}

pub fn kind_may_stand(kind: Kind, place: Place) -> bool {
    match kind {
        Kind::PeerRequest => place == Place::Opening(Class::Control),
        Kind::PeerAnswer => place == Place::Answer,
        Kind::Hello => matches!(place, Place::Opening(_)),
        Kind::ToEngine => place == Place::Stream(Class::Control, Side::Opener),
        Kind::FromEngine => place == Place::Stream(Class::Control, Side::Acceptor),
        Kind::Chunk => matches!(place, Place::Stream(Class::Bulk | Class::Activations, _)),
        Kind::StageBegin | Kind::StageStep => place == Place::Stream(Class::Activations, Side::Opener),
        Kind::StageReady => place == Place::Stream(Class::Activations, Side::Acceptor),
        Kind::WantChunks => place == Place::Stream(Class::Bulk, Side::Opener),
        Kind::JoinRequest => place == Place::JoinRequest,
        Kind::JoinAnswer => place == Place::JoinAnswer,
        Kind::RenewRequest => place == Place::RenewRequest,
        Kind::RenewAnswer => place == Place::RenewAnswer,
        // On disks and in pipes only.
        Kind::LogEntry
        | Kind::ShardSetup
        | Kind::PackedIndex
        | Kind::RaftEntry
        | Kind::RaftVote
        | Kind::RaftLogId
        | Kind::SnapshotMeta
        | Kind::ClusterImage
        | Kind::NodeIdentity
        | Kind::Backup
        | Kind::ModelText => false,
    }
}

/// May a node of this role ask this?
pub fn role_may_ask(role: Role, request: &PeerRequest) -> bool {
    match request {
        PeerRequest::Ping(_)
        | PeerRequest::Command(_)
        | PeerRequest::ReadIndex(_)
        | PeerRequest::ModelText(_)
        | PeerRequest::SignedBy(_)
        | PeerRequest::StageAt(_)
        | PeerRequest::Holds(_)
        | PeerRequest::Manifest(_)
        | PeerRequest::Outlook(_)
        | PeerRequest::Papers(_) => true,
        // A worker is told what was agreed on; it votes for nobody, tells nobody, and lets nobody in.
        PeerRequest::Raft(_) | PeerRequest::AuthorityKey(_) => role == Role::Voter,
    }
}

/// May a node of this role open such a stream on a connection of this class?
pub fn role_may_open(role: Role, class: Class, hello: &Hello) -> bool {
    let fits = match hello {
        Hello::Engine(_) => class == Class::Control,
        Hello::Stage(_) => class == Class::Activations,
        Hello::Blob(_) | Hello::Probe(_) => class == Class::Bulk,
    };
    match role {
        // Every node is a gateway, a stage and a holder of weights.
        Role::Voter | Role::Worker => fits,
    }
}
