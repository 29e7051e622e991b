//! Sending queued streams, and what becomes of those that wait too long.

use super::affinity::{Candidate, choose};
use super::replica::{Intake, Replica};
use super::stream::{Answer, Place, Stream};
use super::{RETRY_AFTER_LOSS, Router, RouterAction};
use proto::request::{Finish, Refusal};
use proto::{BlockHash, ReplicaId, StreamId, Time};
use std::collections::BTreeSet;

impl Router {
    /// Sends queued streams while replicas have credits: resumed ones first, somebody is reading along; then whose
    /// tenant was served least; then by age.
    pub(super) fn dispatch(&mut self, out: &mut Vec<RouterAction>) {
        let mut stuck = BTreeSet::new();
        while let Some(id) = self.next_queued(&stuck) {
            match self.replica_for(&self.streams[&id]) {
                Some(replica) => self.send(id, replica, out),
                None => drop(stuck.insert(self.streams[&id].model.clone())),
            }
        }
    }

    /// `stuck`: models without a replica that could take one.
    fn next_queued(&self, stuck: &BTreeSet<String>) -> Option<StreamId> {
        self.streams
            .values()
            .filter_map(|stream| match stream.place {
                Place::Queued { since } => Some((stream, since)),
                Place::Sent { .. } => None,
            })
            .filter(|(stream, _)| !stuck.contains(&stream.model))
            .min_by_key(|(stream, since)| {
                (
                    !stream.is_resumed(),
                    self.clocks.time(stream.tenant()),
                    *since,
                    stream.id(),
                )
            })
            .map(|(stream, _)| stream.id())
    }

    /// Prefers the arithmetic that began the stream, then the replica where it costs least time.
    fn replica_for(&self, stream: &Stream) -> Option<ReplicaId> {
        let able: Vec<&Replica> = self
            .serving(&stream.model)
            .filter(|replica| replica.intake == Intake::Open && replica.rests_until.is_none())
            .filter(|replica| replica.outstanding < self.config.credits)
            .collect();
        let same: Vec<&Replica> = able
            .iter()
            .copied()
            .filter(|replica| {
                stream
                    .numerics
                    .is_none_or(|numerics| numerics == replica.info.numerics)
            })
            .collect();
        let chosen_from = if same.is_empty() { able } else { same };
        let candidates: Vec<Candidate> = chosen_from
            .iter()
            .map(|replica| candidate(replica, stream))
            .collect();
        let known = chosen_from
            .iter()
            .map(|replica| replica.memory.known(stream.chain()));
        choose(&candidates, key(stream, known.max().unwrap_or(0)))
    }

    /// A replica cannot hold more than its pool; what may be remembered is divided equally.
    pub(super) fn remembered_blocks_max(&self, replica: ReplicaId) -> usize {
        let part = self.config.remembered_blocks_max / self.replicas.len().max(1) as u32;
        self.replicas[&replica].info.blocks.min(part) as usize
    }

    fn send(&mut self, id: StreamId, replica: ReplicaId, out: &mut Vec<RouterAction>) {
        let blocks_max = self.remembered_blocks_max(replica);
        let known = self
            .replicas
            .get_mut(&replica)
            .expect("a replica that was chosen");
        let epoch = known.epoch();
        let stream = self.streams.get_mut(&id).expect("a stream that was queued");
        stream.place = Place::Sent {
            replica,
            epoch,
            answer: Answer::Outstanding,
            expected: known.sent(stream, blocks_max),
        };
        self.clocks
            .charge(stream.tenant(), u64::from(stream.prompt_tokens()));
        out.push(RouterAction::Send {
            replica,
            epoch,
            ticket: stream.ticket(),
        });
    }

    /// When a queued stream is worth looking at again. Streams that were sent expire at their engine.
    pub(super) fn stream_due(&self, stream: &Stream) -> Option<Time> {
        let Place::Queued { since } = stream.place else {
            return None;
        };
        let rests = self
            .serving(&stream.model)
            .filter_map(|replica| replica.rests_until);
        rests
            .chain(self.abandoned_at(stream, since))
            .chain(stream.deadline())
            .min()
    }

    /// Without any replica of its model a stream waits for one, but not for ever.
    fn abandoned_at(&self, stream: &Stream, since: Time) -> Option<Time> {
        self.bereft
            .get(&stream.model)
            .map(|lost_at| since.max(*lost_at) + self.config.replica_wait_max)
    }

    pub(super) fn end_rests(&mut self, now: Time) {
        for replica in self.replicas.values_mut() {
            replica.rests_until = replica.rests_until.filter(|until| *until > now);
        }
    }

    /// Ends queued streams whose time is over.
    pub(super) fn expire(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        let queued: Vec<StreamId> = self
            .streams
            .values()
            .filter(|stream| matches!(stream.place, Place::Queued { .. }))
            .map(Stream::id)
            .collect();
        for id in queued {
            self.expire_queued(now, id, out);
        }
    }

    fn expire_queued(&mut self, now: Time, id: StreamId, out: &mut Vec<RouterAction>) {
        let stream = &self.streams[&id];
        let Place::Queued { since } = stream.place else {
            return;
        };
        if stream.deadline().is_some_and(|deadline| deadline <= now) {
            out.push(RouterAction::Release {
                stream: id,
                position: None,
                finish: Some(Finish::Expired),
            });
            self.forget(id);
        } else if self.abandoned_at(stream, since).is_some_and(|time| time <= now) {
            self.abandon(
                id,
                Refusal::Unavailable {
                    retry_after: RETRY_AFTER_LOSS,
                },
                out,
            );
        }
    }
}

fn candidate(replica: &Replica, stream: &Stream) -> Candidate {
    let cached_tokens = replica.cached_tokens(stream);
    Candidate {
        replica: replica.info.replica,
        cached_tokens,
        own_secs: replica.prompt_secs(stream, cached_tokens),
        busy_secs: replica.busy_secs(),
    }
}

/// By what gateways that cannot ask each other find the same replica: the first block that this one has not sent
/// anywhere. What comes before it is shared, such as a system prompt, and must not draw everything to one replica; what
/// comes after it will be longer at the next turn of a conversation. Where nothing is new, there is nothing to agree on.
fn key(stream: &Stream, known_blocks: u32) -> u128 {
    match stream.chain().get(known_blocks as usize) {
        Some(BlockHash(hash)) => *hash,
        None => stream.id().request.0.wrapping_add(u128::from(stream.id().choice)),
    }
}
