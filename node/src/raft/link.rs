//! How Raft's messages reach other members: over QUIC in a node, through memory in tests.

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, RaftNetwork, RaftNetworkFactory, SnapshotSegmentId};
use proto::NodeId;
use proto::cluster::Proposal;
use proto::raft::{
    AppendAnswer, CommandAnswer, RaftAnswer, RaftRequest, ReadAnswer, SnapshotAnswer, VoteAnswer,
};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::acknowledged::{Acknowledged, Asked};
use super::convert;
use super::member::HEARTBEAT_MILLIS;
use super::types::TypeConfig;

/// The ways to the other members.
pub trait Links: Clone + Send + Sync + 'static {
    /// One message and its answer.
    fn raft(
        &self,
        to: NodeId,
        request: RaftRequest,
        within: Duration,
    ) -> impl Future<Output = Result<RaftAnswer, LinkError>> + Send;

    /// A change for the leader to have agreed on.
    fn command(
        &self,
        to: NodeId,
        proposal: Proposal,
        within: Duration,
    ) -> impl Future<Output = Result<CommandAnswer, LinkError>> + Send;

    fn read_index(
        &self,
        to: NodeId,
        within: Duration,
    ) -> impl Future<Output = Result<ReadAnswer, LinkError>> + Send;

    /// How long nothing has been heard of it.
    fn silent(&self, node: NodeId) -> Duration;
}

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// Not sent: it may be tried again as it is.
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable { node: NodeId, reason: String },
    /// Whether it arrived is not known.
    #[error("node {node} did not answer: {reason}")]
    Unanswered { node: NodeId, reason: String },
}

/// Makes openraft's way to each member.
pub struct LinkFactory<L> {
    pub links: L,
    pub acknowledged: Acknowledged,
}

/// Between two tries to reach a member that is not there: what openraft does by itself.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(500);

/// openraft's way to one member.
pub struct Link<L> {
    links: L,
    acknowledged: Acknowledged,
    to: NodeId,
    /// It has answered the last time, and lacks what it had acknowledged.
    has_forgotten: Arc<AtomicBool>,
}

impl<L: Links> RaftNetworkFactory<TypeConfig> for LinkFactory<L> {
    type Network = Link<L>;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Link<L> {
        Link {
            links: self.links.clone(),
            acknowledged: self.acknowledged.clone(),
            to: NodeId(target),
            has_forgotten: Arc::default(),
        }
    }
}

type Failed<E> = RPCError<u64, EmptyNode, E>;

impl<L: Links> Link<L> {
    async fn ask<E: std::error::Error>(
        &self,
        request: RaftRequest,
        option: &RPCOption,
    ) -> Result<RaftAnswer, Failed<E>> {
        match self.links.raft(self.to, request, option.hard_ttl()).await {
            Ok(answer) => Ok(answer),
            Err(error @ LinkError::Unreachable { .. }) => {
                Err(RPCError::Unreachable(Unreachable::new(&error)))
            }
            Err(error @ LinkError::Unanswered { .. }) => Err(RPCError::Network(NetworkError::new(&error))),
        }
    }

    /// The other side spoke of something else, or takes no part at the moment.
    fn amiss<E: std::error::Error>(&self, answer: &RaftAnswer) -> Failed<E> {
        let reason = match answer {
            RaftAnswer::Away(away) => away.reason.clone(),
            RaftAnswer::Append(_) | RaftAnswer::Vote(_) | RaftAnswer::Snapshot(_) => {
                "an answer to another question".to_owned()
            }
        };
        let node = self.to;
        RPCError::Unreachable(Unreachable::new(&LinkError::Unreachable { node, reason }))
    }
}

impl<L: Links> RaftNetwork<TypeConfig> for Link<L> {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<RaftError<u64>>> {
        let asked = Asked {
            vote: request.vote,
            previous: request.prev_log_id,
            last: request
                .entries
                .last()
                .map(|entry| entry.log_id)
                .or(request.prev_log_id),
        };
        let request = RaftRequest::Append(Box::new(convert::append(&request)));
        match self.ask(request, &option).await? {
            RaftAnswer::Append(answer) => {
                let answer = convert::append_answer_back(&answer);
                let heard = self.acknowledged.hear(self.to, &asked, &answer);
                self.has_forgotten.store(heard.is_err(), Ordering::Relaxed);
                heard.map_err(|forgotten| RPCError::Unreachable(Unreachable::new(&forgotten)))?;
                Ok(answer)
            }
            answer => Err(self.amiss(&answer)),
        }
    }

    /// Who has forgotten something still has to hear that there is a leader: otherwise it stands for election, and the one
    /// that has noticed, and says so, leads no longer.
    ///
    /// Asked for once, and then again only after an answer that is no fault.
    fn backoff(&self) -> Backoff {
        let has_forgotten = Arc::clone(&self.has_forgotten);
        Backoff::new(std::iter::repeat_with(move || {
            match has_forgotten.load(Ordering::Relaxed) {
                true => Duration::from_millis(HEARTBEAT_MILLIS),
                false => UNREACHABLE_PAUSE,
            }
        }))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<RaftError<u64, InstallSnapshotError>>> {
        let (own, last) = (request.vote, request.meta.last_log_id.filter(|_| request.done));
        let request = RaftRequest::Snapshot(Box::new(convert::snapshot_part(request)));
        match self.ask(request, &option).await? {
            RaftAnswer::Snapshot(answer) => match *answer {
                SnapshotAnswer::Taken(vote) => {
                    let vote = convert::vote_back(&vote);
                    self.acknowledged.note(self.to, own, last.filter(|_| vote == own));
                    Ok(InstallSnapshotResponse { vote })
                }
                SnapshotAnswer::Mismatch { expected, got, name } => {
                    let segment = |offset| SnapshotSegmentId {
                        id: name.clone(),
                        offset,
                    };
                    let mismatch = SnapshotMismatch {
                        expect: segment(expected),
                        got: segment(got),
                    };
                    let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                    Err(RPCError::RemoteError(RemoteError::new(self.to.0, error)))
                }
            },
            answer => Err(self.amiss(&answer)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<RaftError<u64>>> {
        let request = RaftRequest::Vote(Box::new(convert::vote_request(&request)));
        match self.ask(request, &option).await? {
            RaftAnswer::Vote(answer) => Ok(convert::vote_answer_back(&answer)),
            answer => Err(self.amiss(&answer)),
        }
    }
}

/// The other side of [`Links::raft`]: what this member says to a message of another one.
pub async fn answer(raft: &super::types::Raft, request: RaftRequest) -> RaftAnswer {
    let answered: Result<RaftAnswer, String> = match request {
        RaftRequest::Append(append) => raft
            .append_entries(convert::append_back(*append))
            .await
            .map(|answer| RaftAnswer::Append(Box::<AppendAnswer>::new(convert::append_answer(&answer))))
            .map_err(|error| error.to_string()),
        RaftRequest::Vote(vote) => raft
            .vote(convert::vote_request_back(&vote))
            .await
            .map(|answer| RaftAnswer::Vote(Box::<VoteAnswer>::new(convert::vote_answer(&answer))))
            .map_err(|error| error.to_string()),
        RaftRequest::Snapshot(part) => {
            match raft.install_snapshot(convert::snapshot_part_back(*part)).await {
                Ok(taken) => Ok(snapshot(SnapshotAnswer::Taken(convert::vote(&taken.vote)))),
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                    Ok(snapshot(SnapshotAnswer::Mismatch {
                        expected: mismatch.expect.offset,
                        got: mismatch.got.offset,
                        name: mismatch.expect.id,
                    }))
                }
                Err(RaftError::Fatal(error)) => Err(error.to_string()),
            }
        }
    };
    answered.unwrap_or_else(|reason| RaftAnswer::Away(Box::new(proto::raft::Away { reason })))
}

fn snapshot(answer: SnapshotAnswer) -> RaftAnswer {
    RaftAnswer::Snapshot(Box::new(answer))
}
