//! What members say to each other to agree on the log, and how the log is written down (Ongaro and Ousterhout, "In Search
//! of an Understandable Consensus Algorithm", 2014; names as there).

use crate::NodeId;
use crate::cluster::{Outcome, Proposal};
use rkyv::{Archive, Deserialize, Serialize};

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogId {
    pub term: u64,
    /// Who led in that term.
    pub leader: NodeId,
    pub index: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    pub term: u64,
    pub candidate: NodeId,
    pub standing: VoteStanding,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteStanding {
    Asked,
    /// A quorum has granted it.
    Granted,
}

/// Who votes; two sets while one takes over from the other. All of `nodes` are sent the log.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    pub voters: Vec<Vec<NodeId>>,
    pub nodes: Vec<NodeId>,
}

/// A membership and where in the log it stands.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct StoredMembership {
    pub at: Option<LogId>,
    pub membership: Membership,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub id: LogId,
    pub payload: Payload,
}

/// Boxed for the reason that [`crate::cluster::ClusterCommand`] gives.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A new leader's first.
    Blank,
    Command(Box<Proposal>),
    Membership(Box<Membership>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct SnapshotMeta {
    pub last: Option<LogId>,
    pub membership: StoredMembership,
    pub name: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum RaftRequest {
    Append(Box<Append>),
    Vote(Box<VoteRequest>),
    Snapshot(Box<SnapshotPart>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum RaftAnswer {
    Append(Box<AppendAnswer>),
    Vote(Box<VoteAnswer>),
    Snapshot(Box<SnapshotAnswer>),
    /// It has stopped to take part, or never began.
    Away(Box<Away>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Append {
    pub vote: Vote,
    pub previous: Option<LogId>,
    pub entries: Vec<Entry>,
    pub committed: Option<LogId>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendAnswer {
    Success,
    Partial(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct VoteRequest {
    pub vote: Vote,
    pub last: Option<LogId>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct VoteAnswer {
    pub vote: Vote,
    pub verdict: Verdict,
    pub last: Option<LogId>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Granted,
    Refused,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct SnapshotPart {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub offset: u64,
    pub data: Vec<u8>,
    pub place: PartPlace,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartPlace {
    More,
    Last,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum SnapshotAnswer {
    Taken(Vote),
    /// Another part is due: begin anew.
    Mismatch {
        expected: u64,
        got: u64,
        name: String,
    },
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Away {
    pub reason: String,
}

/// What a leader says to a change that another member wants.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum CommandAnswer {
    /// It stands in the log at this index, for good.
    Committed(Box<Committed>),
    /// Nothing was logged.
    NotLeader(Box<NotLeader>),
    /// Whether it counts is not known yet; the same proposal may be made again.
    Unknown(Box<Away>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub index: u64,
    pub outcome: Outcome,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotLeader {
    pub leader: Option<NodeId>,
}

/// How far a reader has to have applied the log to see everything that was acknowledged before it asked.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ReadAnswer {
    Index(Box<ReadIndex>),
    NotLeader(Box<NotLeader>),
    Unknown(Box<Away>),
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIndex {
    pub index: u64,
}
