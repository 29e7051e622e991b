//! Frames on blocking pipes.

use proto::wire::{HEADER_BYTES, Header, Kind, WireError};
use rkyv::Archive;
use rkyv::Deserialize;
use rkyv::api::high::{HighDeserializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use std::io::{self, Read};

#[derive(thiserror::Error, Debug)]
pub enum FrameError {
    #[error("the pipe broke: {0}")]
    Io(#[from] io::Error),
    #[error("the other side speaks wrongly: {0}")]
    Wire(#[from] WireError),
}

/// `None`: the pipe ended between two frames.
pub fn read<T>(pipe: &mut impl Read, kind: Kind) -> Result<Option<T>, FrameError>
where
    T: Archive,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
{
    let mut header_bytes = [0; HEADER_BYTES];
    if let Err(error) = pipe.read_exact(&mut header_bytes) {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error.into()),
        };
    }
    let header = Header::parse(&header_bytes, kind)?;
    let mut payload = vec![0; header.length];
    pipe.read_exact(&mut payload)?;
    Ok(Some(header.open(&header_bytes, &payload)?))
}
