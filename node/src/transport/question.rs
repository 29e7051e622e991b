//! One question and its answer on a connection between strangers, or almost: joining and renewing.
//!
//! Not [`super::FrameReceiver`]: nobody here is a member, so there is no membership to ask.

use proto::wire::{self, HEADER_BYTES, Header, Kind};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Reads the one message of a stream; it is at most as long as its kind may be.
pub(super) async fn read<T>(stream: &mut quinn::RecvStream, kind: Kind) -> Result<T, String>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    let mut header_bytes = [0; HEADER_BYTES];
    let read = stream.read_exact(&mut header_bytes).await;
    read.map_err(|error| error.to_string())?;
    let header = Header::parse(&header_bytes, kind).map_err(|error| error.to_string())?;
    let mut payload = vec![0; header.length];
    let read = stream.read_exact(&mut payload).await;
    read.map_err(|error| error.to_string())?;
    header
        .open(&header_bytes, &payload)
        .map_err(|error| error.to_string())
}

/// Writes the one message of a stream, and ends it.
pub(super) async fn write<T>(stream: &mut quinn::SendStream, kind: Kind, message: &T) -> Result<(), String>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    let frame = wire::try_frame(kind, 0, message).map_err(|error| error.to_string())?;
    let written = stream.write_all(&frame).await;
    written.map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())
}
