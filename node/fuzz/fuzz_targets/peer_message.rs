//! What may come in over a node's port or lie on its disk: a frame of any kind, and its payload alone, behind a checksum
//! that fits; join tokens and requests for certificates as well. Read, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::text::TokenizerSource;
use node::trust::{JoinToken, authority, spki_of};
use node_fuzz::promises;
use proto::cluster::ClusterImage;
use proto::engine::{FromEngine, ToEngine};
use proto::join::{JoinAnswer, JoinRequest, NodeIdentity, RenewAnswer, RenewRequest};
use proto::peer::{Hello, PeerAnswer, PeerRequest};
use proto::raft::{Entry, LogId, SnapshotMeta, Vote};
use proto::stage::{StageBegin, StageReady, StageStep};
use proto::weights::WantChunks;
use proto::wire::{self, HEADER_BYTES, Header, Kind};

/// The copy that is aligned for reading, and what a message of small things needs for their boxes.
const MEMORY_CONSTANT: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, payload)) = bytes.split_first() else {
        return;
    };
    promises::keep(bytes.len(), MEMORY_CONSTANT, || {
        frame(bytes);
        of_kind(Kind::ALL[usize::from(*choice) % Kind::ALL.len()], payload);
        if let Ok(text) = std::str::from_utf8(payload) {
            token(text);
        }
        let _ = authority::requested_spki(payload);
        let _ = spki_of(payload);
    });
});

fn frame(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<HEADER_BYTES>()
        && let Ok(parsed) = Header::parse_any(header)
    {
        assert!(parsed.length <= parsed.kind.payload_bytes_max());
        let _ = parsed.verify(header, &bytes[HEADER_BYTES..]);
    }
}

/// As a node reads it once the checksum has been found to fit: what reads is written again as something that reads.
fn of_kind(kind: Kind, payload: &[u8]) {
    match kind {
        Kind::ToEngine => drop(wire::open_payload::<ToEngine>(payload)),
        Kind::FromEngine => drop(wire::open_payload::<FromEngine>(payload)),
        Kind::PeerRequest => drop(wire::open_payload::<PeerRequest>(payload)),
        Kind::PeerAnswer => drop(wire::open_payload::<PeerAnswer>(payload)),
        Kind::Hello => drop(wire::open_payload::<Hello>(payload)),
        Kind::JoinRequest => drop(wire::open_payload::<JoinRequest>(payload)),
        Kind::JoinAnswer => drop(wire::open_payload::<JoinAnswer>(payload)),
        Kind::RenewRequest => drop(wire::open_payload::<RenewRequest>(payload)),
        Kind::RenewAnswer => drop(wire::open_payload::<RenewAnswer>(payload)),
        Kind::RaftEntry => drop(wire::open_payload::<Entry>(payload)),
        Kind::RaftVote => drop(wire::open_payload::<Vote>(payload)),
        Kind::RaftLogId => drop(wire::open_payload::<LogId>(payload)),
        Kind::SnapshotMeta => drop(wire::open_payload::<SnapshotMeta>(payload)),
        Kind::ClusterImage | Kind::Backup => drop(wire::open_payload::<ClusterImage>(payload)),
        Kind::NodeIdentity => drop(wire::open_payload::<NodeIdentity>(payload)),
        Kind::ModelText => drop(wire::open_payload::<TokenizerSource>(payload)),
        Kind::WantChunks => drop(wire::open_payload::<WantChunks>(payload)),
        Kind::StageBegin => drop(wire::open_payload::<StageBegin>(payload)),
        Kind::StageReady => drop(wire::open_payload::<StageReady>(payload)),
        Kind::StageStep => drop(wire::open_payload::<StageStep>(payload)),
        // Raw bytes, or of the process itself.
        Kind::Chunk | Kind::LogEntry | Kind::ShardSetup | Kind::PackedIndex => {}
    }
}

fn token(text: &str) {
    if let Ok(token) = text.parse::<JoinToken>() {
        let again: JoinToken = token.to_string().parse().expect("what is written reads");
        assert!(again == token, "{again:?} and {token:?}");
    }
}
