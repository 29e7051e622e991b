//! What is looked at of every message, here and in `node`, which has messages to itself.

use proto::wire::{self, HEADER_BYTES, Header, Kind, WireError};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// What a frame can carry.
pub trait Message:
    Sized
    + Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
                      + Deserialize<Self, HighDeserializer<RkyvError>>,
    > + PartialEq
    + Debug
    + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>
{
}

impl<T> Message for T where
    T: Archive<
            Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
                          + Deserialize<T, HighDeserializer<RkyvError>>,
        > + PartialEq
        + Debug
        + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>
{
}

/// Is shown one message after another.
pub trait Check {
    fn check<T: Message>(&mut self, name: &str, kind: Kind, message: T);
}

/// Every damaged bit and every cut is an error.
pub struct Damage;

impl Check for Damage {
    fn check<T: Message>(&mut self, name: &str, kind: Kind, message: T) {
        let good = wire::frame(kind, 6, &message);
        assert_eq!(open(&good, kind), Ok(message), "{name}");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<T>(&bad, kind).is_err(), "{name}, bit {bit}");
        }
        for end in 0..good.len() {
            assert!(open::<T>(&good[..end], kind).is_err(), "{name}, cut at {end}");
        }
        // Behind a checksum that fits, nothing but bytecheck stands: it may accept other values, and must not crash.
        for bit in 0..(good.len() - HEADER_BYTES) * 8 {
            let mut payload = good[HEADER_BYTES..].to_vec();
            payload[bit / 8] ^= 1 << (bit % 8);
            let _ = wire::open_payload::<T>(&payload);
        }
        for end in HEADER_BYTES..good.len() {
            let _ = wire::open_payload::<T>(&good[HEADER_BYTES..end]);
        }
    }
}

fn open<T: Message>(frame: &[u8], kind: Kind) -> Result<T, WireError> {
    let header_bytes = frame
        .first_chunk::<HEADER_BYTES>()
        .ok_or(WireError::BadChecksum)?;
    Header::parse(header_bytes, kind)?.open(header_bytes, &frame[HEADER_BYTES..])
}

/// A line for each message: its name, and its bytes.
#[derive(Default)]
pub struct Golden(Vec<String>);

impl Check for Golden {
    fn check<T: Message>(&mut self, name: &str, kind: Kind, message: T) {
        let frame = wire::frame(kind, 6, &message);
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push(format!("{name} {hex}"));
    }
}

impl Golden {
    pub fn assert_same(&self, golden: &str) {
        let golden: Vec<&str> = golden.lines().collect();
        assert_eq!(self.0, golden, "as they are now:\n{}", self.0.join("\n"));
    }
}

/// The kinds that were shown, by their numbers.
#[derive(Default)]
pub struct Kinds(pub BTreeMap<u16, Kind>);

impl Check for Kinds {
    fn check<T: Message>(&mut self, _name: &str, kind: Kind, _message: T) {
        self.0.insert(kind as u16, kind);
    }
}

/// Whose tests show the messages of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    Proto,
    Node,
    /// Nobody's: it is bytes without a form.
    Nowhere,
}

/// All of one home.
pub fn kinds_at(wanted: Home) -> BTreeMap<u16, Kind> {
    let kinds = Kind::ALL.into_iter().filter(|kind| home(*kind) == wanted);
    kinds.map(|kind| (kind as u16, kind)).collect()
}

fn home(kind: Kind) -> Home {
    match kind {
        Kind::ToEngine
        | Kind::FromEngine
        | Kind::PeerRequest
        | Kind::PeerAnswer
        | Kind::Hello
        | Kind::JoinRequest
        | Kind::JoinAnswer
        | Kind::RenewRequest
        | Kind::RenewAnswer
        | Kind::WantChunks
        | Kind::StageBegin
        | Kind::StageReady
        | Kind::StageStep
        | Kind::RaftEntry
        | Kind::RaftVote
        | Kind::RaftLogId
        | Kind::SnapshotMeta
        | Kind::ClusterImage
        | Kind::NodeIdentity
        | Kind::Backup => Home::Proto,
        Kind::LogEntry | Kind::ShardSetup | Kind::PackedIndex | Kind::ModelText => Home::Node,
        Kind::Chunk => Home::Nowhere,
    }
}
