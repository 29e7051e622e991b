//! How a message looks outside a process: a fixed header, then rkyv bytes that are checked before they are read.
//!
//! ```text
//! offset  0  magic     4 bytes  "CLST"
//!         4  version   u16      WIRE_VERSION
//!         6  kind      u16      which message type, see `Kind`
//!         8  epoch     u64      of the replica spoken about; 0 where there is none
//!        16  length    u32      of the payload
//!        20  checksum  u32      CRC-32 of header bytes 0..20 and the payload
//!        24  payload   rkyv
//! ```
//! All integers are little-endian. A frame of another version, of an unknown kind or with a wrong checksum is an error
//! of the peer: close the connection.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

pub const WIRE_VERSION: u16 = 1;
pub const HEADER_BYTES: usize = 24;
/// A prompt of a million tokens is 4 MiB; nothing that is not a tensor comes near this.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"CLST";

/// The kinds, and the list of them, which so cannot lack one.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// Which type a payload is. Numbers are never reused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            pub const ALL: [Kind; [$($number),*].len()] = [$(Kind::$name),*];
        }
    };
}

kinds! {
    ToEngine = 1,
    FromEngine = 2,
    LogEntry = 3,
    ShardSetup = 4,
    PackedIndex = 5,
    /// A question of one node to another; `PeerAnswer` is due on the same stream.
    PeerRequest = 16,
    PeerAnswer = 17,
    /// What a stream that stays open is for.
    Hello = 18,
    JoinRequest = 19,
    JoinAnswer = 20,
    RenewRequest = 21,
    RenewAnswer = 22,
    /// Raw bytes, not rkyv: a tensor or a part of a file, into a buffer that the receiver has sized.
    Chunk = 23,
    /// Which chunks of a file are to be sent.
    WantChunks = 24,
    /// A pipeline's head to a stage: the beginning of an epoch, and its answer.
    StageBegin = 25,
    StageReady = 26,
    /// A plan for one stage.
    StageStep = 27,
    RaftEntry = 40,
    RaftVote = 41,
    RaftLogId = 42,
    SnapshotMeta = 43,
    ClusterImage = 44,
    NodeIdentity = 45,
    Backup = 46,
    /// What a node has to know of a model whose weights another one holds.
    ModelText = 47,
}

impl Kind {
    fn from_number(number: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u16 == number)
    }

    /// No payload of this kind is longer; a header that says so is refused before anything is read into memory.
    pub fn payload_bytes_max(self) -> usize {
        match self {
            Kind::ToEngine
            | Kind::FromEngine
            | Kind::LogEntry
            | Kind::ShardSetup
            | Kind::PackedIndex
            | Kind::RaftEntry
            | Kind::RaftVote
            | Kind::RaftLogId
            | Kind::SnapshotMeta
            | Kind::ClusterImage
            | Kind::NodeIdentity
            | Kind::Backup
            | Kind::ModelText => PAYLOAD_BYTES_MAX,
            // A part of a snapshot or a batch of log entries; whoever sends more cuts it.
            Kind::PeerRequest => 8 << 20,
            // The largest vocabularies take some 20 MiB.
            Kind::PeerAnswer => PAYLOAD_BYTES_MAX,
            // A plan for a whole batch: every slice with its new pages.
            Kind::StageStep => 8 << 20,
            Kind::Hello | Kind::StageBegin | Kind::StageReady => 4 << 10,
            Kind::WantChunks => 64 << 10,
            // Said by strangers, or to them: two certificates and a list of members.
            Kind::JoinRequest | Kind::JoinAnswer | Kind::RenewRequest | Kind::RenewAnswer => 16 << 10,
            Kind::Chunk => 16 << 20,
        }
    }
}

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum WireError {
    #[error("not a frame of this protocol")]
    BadMagic,
    #[error("wire version {found}; this program speaks {WIRE_VERSION}")]
    WrongVersion { found: u16 },
    #[error("message kind {found} where kind {expected} was due")]
    WrongKind { found: u16, expected: u16 },
    #[error("message kind {found} is not known to this program")]
    UnknownKind { found: u16 },
    #[error("payload of {length} bytes; at most {length_max} are taken")]
    TooLarge { length: u64, length_max: u64 },
    #[error("checksum does not match")]
    BadChecksum,
    #[error("payload is not a valid message")]
    BadPayload,
}

/// What a header says, once magic, version and length have been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    pub epoch: u64,
    pub length: usize,
    checksum: u32,
}

impl Header {
    /// Where only one kind may come.
    pub fn parse(bytes: &[u8; HEADER_BYTES], expected: Kind) -> Result<Header, WireError> {
        let wrong = |found| WireError::WrongKind {
            found,
            expected: expected as u16,
        };
        match Header::parse_any(bytes) {
            Ok(header) if header.kind != expected => Err(wrong(header.kind as u16)),
            Err(WireError::UnknownKind { found }) => Err(wrong(found)),
            parsed => parsed,
        }
    }

    /// Where several kinds may come.
    pub fn parse_any(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        if bytes[..4] != MAGIC {
            return Err(WireError::BadMagic);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != WIRE_VERSION {
            return Err(WireError::WrongVersion { found: version });
        }
        let number = u16::from_le_bytes([bytes[6], bytes[7]]);
        let kind = Kind::from_number(number).ok_or(WireError::UnknownKind { found: number })?;
        let length = le_u32(&bytes[16..20]) as usize;
        if length > kind.payload_bytes_max() {
            return Err(WireError::TooLarge {
                length: length as u64,
                length_max: kind.payload_bytes_max() as u64,
            });
        }
        Ok(Header {
            kind,
            epoch: u64::from(le_u32(&bytes[8..12])) | u64::from(le_u32(&bytes[12..16])) << 32,
            length,
            checksum: le_u32(&bytes[20..24]),
        })
    }

    /// Whether this payload is the one that the header, whose bytes these are, was made for.
    pub fn verify(&self, bytes: &[u8; HEADER_BYTES], payload: &[u8]) -> Result<(), WireError> {
        match payload.len() == self.length && checksum(&bytes[..20], payload) == self.checksum {
            true => Ok(()),
            false => Err(WireError::BadChecksum),
        }
    }

    /// The message of a frame whose header was `bytes`.
    pub fn open<T>(&self, bytes: &[u8; HEADER_BYTES], payload: &[u8]) -> Result<T, WireError>
    where
        T: Archive,
        T::Archived:
            for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
    {
        self.verify(bytes, payload)?;
        open_payload(payload)
    }
}

/// The message of a frame that lies in memory, whole and alone.
pub fn read<T>(kind: Kind, frame: &[u8]) -> Result<T, WireError>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    let (header_bytes, payload) = frame.split_first_chunk().ok_or(WireError::BadMagic)?;
    Header::parse(header_bytes, kind)?.open(header_bytes, payload)
}

/// The message in a payload that has been verified against its header.
pub fn open_payload<T>(payload: &[u8]) -> Result<T, WireError>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    let mut aligned = AlignedVec::<16>::with_capacity(payload.len());
    aligned.extend_from_slice(payload);
    rkyv::from_bytes::<T, RkyvError>(&aligned).map_err(|_| WireError::BadPayload)
}

/// One whole frame: header and payload.
///
/// # Panics
/// When the message is longer than its kind may be: whoever makes messages of that size cuts them, or asks
/// [`try_frame`].
pub fn frame<T>(kind: Kind, epoch: u64, message: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    match try_frame(kind, epoch, message) {
        Ok(frame) => frame,
        Err(error) => panic!("a message of kind {kind:?}: {error}"),
    }
}

/// One whole frame, or [`WireError::TooLarge`].
pub fn try_frame<T>(kind: Kind, epoch: u64, message: &T) -> Result<Vec<u8>, WireError>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    let payload = rkyv::to_bytes::<RkyvError>(message).expect("serialising into memory cannot fail");
    let header = try_header_bytes(kind, epoch, &payload)?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// The header that belongs before `payload`, or [`WireError::TooLarge`].
pub fn try_header_bytes(kind: Kind, epoch: u64, payload: &[u8]) -> Result<[u8; HEADER_BYTES], WireError> {
    if payload.len() > kind.payload_bytes_max() {
        return Err(WireError::TooLarge {
            length: payload.len() as u64,
            length_max: kind.payload_bytes_max() as u64,
        });
    }
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&WIRE_VERSION.to_le_bytes());
    header[6..8].copy_from_slice(&(kind as u16).to_le_bytes());
    header[8..16].copy_from_slice(&epoch.to_le_bytes());
    header[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = checksum(&header[..20], payload);
    header[20..].copy_from_slice(&checksum.to_le_bytes());
    Ok(header)
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterCommand, NewTenant};
    use crate::engine::ToEngine;
    use crate::{Attempt, RequestId, StreamId};

    fn cancel() -> ToEngine {
        ToEngine::Cancel {
            stream: StreamId {
                request: RequestId(7),
                choice: 1,
            },
            attempt: Attempt(2),
        }
    }

    fn open(frame: &[u8]) -> Result<ToEngine, WireError> {
        let header_bytes: &[u8; HEADER_BYTES] = frame[..HEADER_BYTES].try_into().unwrap();
        Header::parse(header_bytes, Kind::ToEngine)?.open(header_bytes, &frame[HEADER_BYTES..])
    }

    #[test]
    fn what_goes_in_comes_out() {
        assert_eq!(open(&frame(Kind::ToEngine, 9, &cancel())), Ok(cancel()));
    }

    #[test]
    fn any_flipped_bit_is_an_error() {
        let good = frame(Kind::ToEngine, 9, &cancel());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_kind_is_refused() {
        let tenant = NewTenant {
            name: "a".into(),
            salt: [0; 32],
        };
        let other = frame(Kind::LogEntry, 0, &ClusterCommand::AddTenant(Box::new(tenant)));
        assert_eq!(
            open(&other),
            Err(WireError::WrongKind {
                found: 3,
                expected: 1
            })
        );
    }

    /// N and N−1 must work together: these bytes may only change together with `WIRE_VERSION`.
    #[test]
    fn golden_bytes() {
        let hex: String = frame(Kind::ToEngine, 9, &cancel())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, GOLDEN_CANCEL);
    }

    const GOLDEN_CANCEL: &str = "434c535401000100090000000000000040000000c3de5de301000000000000000000000000000000070000000000000000000000000000000100000000000000000000000000000002000000000000000000000000000000";
}
