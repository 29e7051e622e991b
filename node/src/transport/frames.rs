//! Frames on a QUIC stream between members.
//!
//! Whatever is not allowed, too long, damaged or of another version closes the connection. Memory is taken as bytes
//! arrive, not as a header promises them.

use super::acl::{self, Place};
use super::error::LinkError;
use super::guard::Guard;
use bytes::Bytes;
use proto::wire::{self, HEADER_BYTES, Header, Kind, WireError};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::mem;

/// How far memory is reserved ahead of what has come.
const AHEAD_BYTES_MAX: usize = 1 << 20;

/// The sending half of a stream that stays open.
pub struct FrameSender {
    stream: quinn::SendStream,
    guard: Guard,
    place: Place,
    state: Sending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    BetweenFrames,
    InsideFrame,
}

impl FrameSender {
    pub(super) fn new(stream: quinn::SendStream, guard: Guard, place: Place) -> FrameSender {
        FrameSender {
            stream,
            guard,
            place,
            state: Sending::BetweenFrames,
        }
    }

    /// Sends a message. Waits while the other side reads more slowly than is written.
    ///
    /// Not to be given up half-way (`select!`): the stream could carry nothing more then.
    pub async fn send<T>(&mut self, kind: Kind, epoch: u64, message: &T) -> Result<(), LinkError>
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
    {
        let frame = wire::try_frame(kind, epoch, message).map_err(|error| self.wire_error(error))?;
        self.send_parts(kind, &mut [Bytes::from(frame)]).await
    }

    /// Sends a frame that `wire::frame` has made, of this kind. As [`FrameSender::send`].
    pub async fn send_framed(&mut self, kind: Kind, frame: Vec<u8>) -> Result<(), LinkError> {
        self.send_parts(kind, &mut [Bytes::from(frame)]).await
    }

    /// Sends raw bytes as one [`Kind::Chunk`]; they are not copied. As [`FrameSender::send`].
    pub async fn send_chunk(&mut self, epoch: u64, payload: Bytes) -> Result<(), LinkError> {
        self.send_chunks(epoch, [payload]).await
    }

    /// Several as [`FrameSender::send_chunk`], handed over together: the first does not leave alone in a packet, and wakes
    /// nobody who then waits for the second.
    pub async fn send_chunks(
        &mut self,
        epoch: u64,
        payloads: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), LinkError> {
        let mut parts = Vec::new();
        for payload in payloads {
            let header = wire::try_header_bytes(Kind::Chunk, epoch, &payload)
                .map_err(|error| self.wire_error(error))?;
            parts.extend([Bytes::copy_from_slice(&header), payload]);
        }
        self.send_parts(Kind::Chunk, &mut parts).await
    }

    pub(super) fn go_on(&mut self, place: Place) {
        self.place = place;
    }

    /// Nothing more will come. What was sent is delivered, as long as the connection lives.
    pub fn finish(&mut self) {
        // Only fails where the stream has ended already.
        let _ = self.stream.finish();
    }

    /// Ends when the other side wants no more, or has everything after [`FrameSender::finish`].
    pub async fn stopped(&self) {
        let _ = self.stream.stopped().await;
    }

    /// Streams of a higher priority go first on a connection; 0 is the usual one.
    pub fn set_priority(&self, priority: i32) {
        let _ = self.stream.set_priority(priority);
    }

    async fn send_parts(&mut self, kind: Kind, parts: &mut [Bytes]) -> Result<(), LinkError> {
        let node = self.guard.node;
        if !acl::kind_may_stand(kind, self.place) {
            return Err(LinkError::NotAllowed { node, kind });
        }
        if self.state == Sending::InsideFrame {
            return Err(LinkError::HalfSent { node });
        }
        self.guard.check()?;
        self.state = Sending::InsideFrame;
        let written = self.stream.write_all_chunks(parts).await;
        written.map_err(|error| self.guard.closed(error))?;
        self.state = Sending::BetweenFrames;
        Ok(())
    }

    fn wire_error(&self, error: WireError) -> LinkError {
        let node = self.guard.node;
        LinkError::Wire { node, error }
    }
}

/// The receiving half of a stream.
pub struct FrameReceiver {
    stream: quinn::RecvStream,
    guard: Guard,
    place: Place,
    header_bytes: [u8; HEADER_BYTES],
    header_filled: usize,
    /// Once its bytes are there.
    header: Option<Header>,
    payload: Vec<u8>,
    state: Receiving,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Collecting,
    /// `payload` has been handed out, and makes room for the next.
    HandedOut,
}

/// One message, as it came.
#[derive(Debug)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub epoch: u64,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The message in it; its kind says of which type.
    pub fn open<T>(&self) -> Result<T, WireError>
    where
        T: Archive,
        T::Archived:
            for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
    {
        wire::open_payload(self.payload)
    }
}

impl FrameReceiver {
    pub(super) fn new(stream: quinn::RecvStream, guard: Guard, place: Place) -> FrameReceiver {
        FrameReceiver {
            stream,
            guard,
            place,
            header_bytes: [0; HEADER_BYTES],
            header_filled: 0,
            header: None,
            payload: Vec::new(),
            state: Receiving::Collecting,
        }
    }

    pub(super) fn go_on(&mut self, place: Place) {
        self.place = place;
    }

    /// The next message; `None`: the other side has finished between two. May be given up and asked again (`select!`).
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>, LinkError> {
        if self.state == Receiving::HandedOut {
            self.payload.clear();
            self.state = Receiving::Collecting;
        }
        let Some(header) = self.header().await? else {
            return Ok(None);
        };
        while self.payload.len() < header.length {
            let missing = header.length - self.payload.len();
            let chunk = self.stream.read_chunk(missing, true).await;
            let Some(chunk) = chunk.map_err(|error| self.guard.closed(error))? else {
                return Err(self.broken_off());
            };
            if self.payload.capacity() - self.payload.len() < chunk.bytes.len() {
                self.payload.reserve(missing.min(AHEAD_BYTES_MAX));
            }
            self.payload.extend_from_slice(&chunk.bytes);
        }
        self.finish_frame(&header, None)?;
        self.state = Receiving::HandedOut;
        Ok(Some(Frame {
            kind: header.kind,
            epoch: header.epoch,
            payload: &self.payload,
        }))
    }

    /// How much of the next message has come: whether a slow sender still sends.
    pub fn begun_bytes(&self) -> usize {
        match self.state {
            Receiving::Collecting => self.header_filled + self.payload.len(),
            Receiving::HandedOut => 0,
        }
    }

    /// The next message, which must be of this kind, opened. As [`FrameReceiver::next`].
    pub async fn next_message<T>(&mut self, kind: Kind) -> Result<Option<T>, LinkError>
    where
        T: Archive,
        T::Archived:
            for<'a> CheckBytes<HighValidator<'a, RkyvError>> + Deserialize<T, HighDeserializer<RkyvError>>,
    {
        let Some(frame) = self.next().await? else {
            return Ok(None);
        };
        let (found, opened) = (frame.kind, frame.open());
        if found != kind {
            return Err(self.not_allowed(found));
        }
        match opened {
            Ok(message) => Ok(Some(message)),
            Err(error) => Err(self.wrong(error)),
        }
    }

    /// The next message, which must be a [`Kind::Chunk`]: its epoch and its payload, for good. As [`FrameReceiver::next`].
    pub async fn next_chunk(&mut self) -> Result<Option<(u64, Vec<u8>)>, LinkError> {
        let Some(frame) = self.next().await? else {
            return Ok(None);
        };
        let (kind, epoch) = (frame.kind, frame.epoch);
        if kind != Kind::Chunk {
            return Err(self.not_allowed(kind));
        }
        Ok(Some((epoch, mem::take(&mut self.payload))))
    }

    /// Fills `buffer` with the next [`Kind::Chunk`], which must have its length, and gives its epoch. Not to be given
    /// up half-way. `None` as in [`FrameReceiver::next`].
    pub async fn next_into(&mut self, buffer: &mut [u8]) -> Result<Option<u64>, LinkError> {
        if self.state == Receiving::HandedOut {
            self.payload.clear();
            self.state = Receiving::Collecting;
        }
        let Some(header) = self.header().await? else {
            return Ok(None);
        };
        if header.kind != Kind::Chunk {
            return Err(self.not_allowed(header.kind));
        }
        if header.length != buffer.len() || !self.payload.is_empty() {
            return Err(self.guard.wrong(LinkError::Length {
                node: self.guard.node,
                found: header.length,
                expected: buffer.len(),
            }));
        }
        let mut filled = 0;
        while filled < buffer.len() {
            let read = self.stream.read(&mut buffer[filled..]).await;
            match read.map_err(|error| self.guard.closed(error))? {
                Some(length) => filled += length,
                None => return Err(self.broken_off()),
            }
        }
        self.finish_frame(&header, Some(buffer))?;
        Ok(Some(header.epoch))
    }

    async fn header(&mut self) -> Result<Option<Header>, LinkError> {
        if let Some(header) = self.header {
            return Ok(Some(header));
        }
        while self.header_filled < HEADER_BYTES {
            let read = self
                .stream
                .read(&mut self.header_bytes[self.header_filled..])
                .await;
            match read.map_err(|error| self.guard.closed(error))? {
                Some(length) => self.header_filled += length,
                None if self.header_filled == 0 => return Ok(None),
                None => return Err(self.broken_off()),
            }
        }
        let header = Header::parse_any(&self.header_bytes).map_err(|error| self.wrong(error))?;
        if !acl::kind_may_stand(header.kind, self.place) {
            return Err(self.not_allowed(header.kind));
        }
        self.header = Some(header);
        Ok(Some(header))
    }

    /// `elsewhere`: where the payload was put, if not into `self.payload`.
    fn finish_frame(&mut self, header: &Header, elsewhere: Option<&[u8]>) -> Result<(), LinkError> {
        let payload = elsewhere.unwrap_or(&self.payload);
        let verified = header.verify(&self.header_bytes, payload);
        verified.map_err(|error| self.wrong(error))?;
        self.guard.check()?;
        self.header = None;
        self.header_filled = 0;
        Ok(())
    }

    fn broken_off(&self) -> LinkError {
        self.guard.closed("it broke off within a message")
    }

    fn not_allowed(&self, kind: Kind) -> LinkError {
        let node = self.guard.node;
        self.guard.wrong(LinkError::NotAllowed { node, kind })
    }

    fn wrong(&self, error: WireError) -> LinkError {
        let node = self.guard.node;
        self.guard.wrong(LinkError::Wire { node, error })
    }
}
