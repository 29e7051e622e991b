//! What nodes of one cluster say to each other.
//!
//! Variants hold a box, so that one more at the end changes no size.

use crate::cluster::Proposal;
use crate::raft::{CommandAnswer, RaftAnswer, RaftRequest, ReadAnswer};
use crate::stage::StageAddress;
use crate::weights::{Holding, ManifestAnswer};
use crate::{Epoch, NodeId, ReplicaId};
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// A question; the answer comes on the same stream.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum PeerRequest {
    /// Whether the other is there; its nonce comes back.
    Ping(Box<Nonce>),
    Raft(Box<RaftRequest>),
    /// A change that the leader is to have agreed on.
    Command(Box<Proposal>),
    /// Up to where somebody has to have applied the log for a read of now to be linearizable.
    ReadIndex(Box<ReadRequest>),
    /// What has to be known of a model to speak with an engine that has it.
    ModelText(Box<ModelIs>),
    /// From a node that may vote, to one that does.
    AuthorityKey(Box<ReadRequest>),
    /// Which authority has signed the certificate that the other shows now.
    SignedBy(Box<ReadRequest>),
    /// Where the process is that computes the asked node's stage of this replica.
    StageAt(Box<Replica>),
    /// What the other has of a model's file.
    Holds(Box<ModelIs>),
    /// What the chunks of a model's file must be.
    Manifest(Box<ModelIs>),
    /// To the node that leads: what its placer sees.
    Outlook(Box<ReadRequest>),
    /// Whose certificate the other shows, whom it believes, and with whose key it signs.
    Papers(Box<ReadRequest>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum PeerAnswer {
    Pong(Box<Nonce>),
    Raft(Box<RaftAnswer>),
    Command(Box<CommandAnswer>),
    ReadIndex(Box<ReadAnswer>),
    ModelText(Box<ModelText>),
    AuthorityKey(Box<AuthorityKey>),
    /// For people: what is wrong, and what to do.
    Refused(Box<Refusal>),
    SignedBy(Box<SignedBy>),
    StageAt(Box<StageAddress>),
    Holds(Box<Holding>),
    Manifest(Box<ManifestAnswer>),
    Outlook(Box<Outlook>),
    Papers(Box<Papers>),
}

impl PeerAnswer {
    /// For whoever asked something that this is no answer to: why, in words.
    pub fn amiss(self) -> String {
        match self {
            PeerAnswer::Refused(refusal) => refusal.reason,
            PeerAnswer::Pong(_)
            | PeerAnswer::Raft(_)
            | PeerAnswer::Command(_)
            | PeerAnswer::ReadIndex(_)
            | PeerAnswer::ModelText(_)
            | PeerAnswer::AuthorityKey(_)
            | PeerAnswer::SignedBy(_)
            | PeerAnswer::StageAt(_)
            | PeerAnswer::Holds(_)
            | PeerAnswer::Manifest(_)
            | PeerAnswer::Outlook(_)
            | PeerAnswer::Papers(_) => "an answer to another question".to_owned(),
        }
    }
}

/// What a stream that stays open is for. It is the first frame of the one who opens it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Hello {
    /// `ToEngine` one way, `FromEngine` the other.
    Engine(Box<Replica>),
    /// Activations from one stage to the next.
    Stage(Box<Stage>),
    /// The bytes of a file: see [`crate::weights`].
    Blob(Box<Blob>),
    /// So many bytes of nothing, to see how long they take.
    Probe(Box<Probe>),
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce {
    pub nonce: u64,
}

/// No fields yet; a struct, so that it can get some.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadRequest {}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ModelIs {
    /// SHA-256 of its file.
    pub digest: [u8; 32],
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ModelText {
    /// A frame of `Kind::ModelText`.
    pub frame: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedBy {
    /// SHA-256 of the authority's public key; zeros: of none that the node knows.
    pub authority: [u8; 32],
}

/// What a node has of authorities; each is named by the SHA-256 of its public key.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Papers {
    /// Who has signed the certificate that it shows. `None`: nobody whom it believes.
    pub shows: Option<[u8; 32]>,
    pub believes: Vec<[u8; 32]>,
    /// With whose key it would sign now. `None`: it holds none.
    pub signs_with: Option<[u8; 32]>,
}

/// The authority of the cluster: whoever holds it can let in whom he likes.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct AuthorityKey {
    /// DER.
    pub certificate: Vec<u8>,
    /// PKCS#8 in PEM.
    pub key: String,
}

/// Without the key: it must not get into a log.
impl fmt::Debug for AuthorityKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuthorityKey").finish_non_exhaustive()
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub reason: String,
}

/// What the leader's placer sees beside what the log says.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Outlook {
    /// Nodes that have been silent for so long that nothing is placed on them.
    pub lost: Vec<NodeId>,
    pub obstacles: Vec<Obstacle>,
}

/// Why not all of a model is where it should be, for people.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Obstacle {
    pub model: String,
    pub reason: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    pub replica: ReplicaId,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage {
    pub replica: ReplicaId,
    pub epoch: Epoch,
    /// Of the one who sends.
    pub stage: u16,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    pub bytes: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Blob {
    /// Of a model's file: its SHA-256 in hexadecimal.
    pub name: String,
}
