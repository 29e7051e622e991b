//! Between openraft's types and ours, which are what is sent and written down.

use super::types::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest, VoteResponse,
};
use openraft::{CommittedLeaderId, EmptyNode, EntryPayload};
use proto::NodeId;
use proto::raft as ours;
use std::collections::{BTreeMap, BTreeSet};

pub fn log_id(id: &LogId) -> ours::LogId {
    ours::LogId {
        term: id.leader_id.term,
        leader: NodeId(id.leader_id.node_id),
        index: id.index,
    }
}

pub fn log_id_back(id: &ours::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.leader.0), id.index)
}

pub fn vote(vote: &Vote) -> ours::Vote {
    ours::Vote {
        term: vote.leader_id.term,
        candidate: NodeId(vote.leader_id.node_id),
        standing: match vote.committed {
            true => ours::VoteStanding::Granted,
            false => ours::VoteStanding::Asked,
        },
    }
}

pub fn vote_back(vote: &ours::Vote) -> Vote {
    match vote.standing {
        ours::VoteStanding::Granted => Vote::new_committed(vote.term, vote.candidate.0),
        ours::VoteStanding::Asked => Vote::new(vote.term, vote.candidate.0),
    }
}

pub fn membership(membership: &Membership) -> ours::Membership {
    let ids = |set: &BTreeSet<u64>| set.iter().copied().map(NodeId).collect();
    ours::Membership {
        voters: membership.get_joint_config().iter().map(ids).collect(),
        nodes: membership.nodes().map(|(node, _)| NodeId(*node)).collect(),
    }
}

pub fn membership_back(membership: &ours::Membership) -> Membership {
    let ids = |set: &Vec<NodeId>| set.iter().map(|node| node.0).collect::<BTreeSet<u64>>();
    let nodes: BTreeMap<u64, EmptyNode> = membership
        .nodes
        .iter()
        .map(|node| (node.0, EmptyNode {}))
        .collect();
    Membership::new(membership.voters.iter().map(ids).collect(), nodes)
}

pub fn stored_membership(stored: &StoredMembership) -> ours::StoredMembership {
    ours::StoredMembership {
        at: stored.log_id().as_ref().map(log_id),
        membership: membership(stored.membership()),
    }
}

pub fn stored_membership_back(stored: &ours::StoredMembership) -> StoredMembership {
    StoredMembership::new(
        stored.at.as_ref().map(log_id_back),
        membership_back(&stored.membership),
    )
}

pub fn snapshot_meta(meta: &SnapshotMeta) -> ours::SnapshotMeta {
    ours::SnapshotMeta {
        last: meta.last_log_id.as_ref().map(log_id),
        membership: stored_membership(&meta.last_membership),
        name: meta.snapshot_id.clone(),
    }
}

pub fn snapshot_meta_back(meta: &ours::SnapshotMeta) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: meta.last.as_ref().map(log_id_back),
        last_membership: stored_membership_back(&meta.membership),
        snapshot_id: meta.name.clone(),
    }
}

pub fn entry(entry: &Entry) -> ours::Entry {
    ours::Entry {
        id: log_id(&entry.log_id),
        payload: match &entry.payload {
            EntryPayload::Blank => ours::Payload::Blank,
            EntryPayload::Normal(command) => ours::Payload::Command(Box::new(command.clone())),
            EntryPayload::Membership(members) => ours::Payload::Membership(Box::new(membership(members))),
        },
    }
}

pub fn entry_back(entry: ours::Entry) -> Entry {
    Entry {
        log_id: log_id_back(&entry.id),
        payload: match entry.payload {
            ours::Payload::Blank => EntryPayload::Blank,
            ours::Payload::Command(command) => EntryPayload::Normal(*command),
            ours::Payload::Membership(members) => EntryPayload::Membership(membership_back(&members)),
        },
    }
}

pub fn append(request: &AppendEntriesRequest<TypeConfig>) -> ours::Append {
    ours::Append {
        vote: vote(&request.vote),
        previous: request.prev_log_id.as_ref().map(log_id),
        entries: request.entries.iter().map(entry).collect(),
        committed: request.leader_commit.as_ref().map(log_id),
    }
}

pub fn append_back(request: ours::Append) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: vote_back(&request.vote),
        prev_log_id: request.previous.as_ref().map(log_id_back),
        entries: request.entries.into_iter().map(entry_back).collect(),
        leader_commit: request.committed.as_ref().map(log_id_back),
    }
}

pub fn append_answer(answer: &AppendEntriesResponse<u64>) -> ours::AppendAnswer {
    match answer {
        AppendEntriesResponse::Success => ours::AppendAnswer::Success,
        AppendEntriesResponse::PartialSuccess(matching) => {
            ours::AppendAnswer::Partial(matching.as_ref().map(log_id))
        }
        AppendEntriesResponse::Conflict => ours::AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(higher) => ours::AppendAnswer::HigherVote(vote(higher)),
    }
}

pub fn append_answer_back(answer: &ours::AppendAnswer) -> AppendEntriesResponse<u64> {
    match answer {
        ours::AppendAnswer::Success => AppendEntriesResponse::Success,
        ours::AppendAnswer::Partial(matching) => {
            AppendEntriesResponse::PartialSuccess(matching.as_ref().map(log_id_back))
        }
        ours::AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
        ours::AppendAnswer::HigherVote(higher) => AppendEntriesResponse::HigherVote(vote_back(higher)),
    }
}

pub fn vote_request(request: &VoteRequest<u64>) -> ours::VoteRequest {
    ours::VoteRequest {
        vote: vote(&request.vote),
        last: request.last_log_id.as_ref().map(log_id),
    }
}

pub fn vote_request_back(request: &ours::VoteRequest) -> VoteRequest<u64> {
    VoteRequest::new(vote_back(&request.vote), request.last.as_ref().map(log_id_back))
}

pub fn vote_answer(answer: &VoteResponse<u64>) -> ours::VoteAnswer {
    ours::VoteAnswer {
        vote: vote(&answer.vote),
        verdict: match answer.vote_granted {
            true => ours::Verdict::Granted,
            false => ours::Verdict::Refused,
        },
        last: answer.last_log_id.as_ref().map(log_id),
    }
}

pub fn vote_answer_back(answer: &ours::VoteAnswer) -> VoteResponse<u64> {
    VoteResponse {
        vote: vote_back(&answer.vote),
        vote_granted: answer.verdict == ours::Verdict::Granted,
        last_log_id: answer.last.as_ref().map(log_id_back),
    }
}

pub fn snapshot_part(request: InstallSnapshotRequest<TypeConfig>) -> ours::SnapshotPart {
    ours::SnapshotPart {
        vote: vote(&request.vote),
        meta: snapshot_meta(&request.meta),
        offset: request.offset,
        data: request.data,
        place: match request.done {
            true => ours::PartPlace::Last,
            false => ours::PartPlace::More,
        },
    }
}

pub fn snapshot_part_back(part: ours::SnapshotPart) -> InstallSnapshotRequest<TypeConfig> {
    InstallSnapshotRequest {
        vote: vote_back(&part.vote),
        meta: snapshot_meta_back(&part.meta),
        offset: part.offset,
        data: part.data,
        done: part.place == ours::PartPlace::Last,
    }
}
