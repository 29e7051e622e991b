//! A body that is kept while it passes.

use super::{Claim, KeptAnswer};
use crate::http::idempotency::ledger::Room;
use crate::http::stream::Resumable;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How a stream that ended well ends; one that broke off or failed does not.
const STREAM_END: &[u8] = b"data: [DONE]\n\n";

/// Dropped before the answer was complete, it takes its claim with it, and nothing is kept.
pub struct Recorder {
    body: Body,
    headers: HeaderMap,
    resumable: Option<Resumable>,
    recording: Option<Recording>,
}

struct Recording {
    claim: Claim,
    bytes: Vec<u8>,
    /// The answer has grown too large: it passes, and is not kept.
    is_given_up: bool,
}

impl Recorder {
    pub fn new(claim: Claim, headers: HeaderMap, resumable: Option<Resumable>, body: Body) -> Recorder {
        Recorder {
            body,
            headers,
            resumable,
            recording: Some(Recording {
                claim,
                bytes: Vec::new(),
                is_given_up: false,
            }),
        }
    }

    fn take(&mut self, bytes: &Bytes) {
        if let Some(recording) = &mut self.recording {
            recording.add(bytes);
        }
        if self.is_complete()
            && let Some(recording) = self.recording.take_if(|recording| !recording.is_given_up)
        {
            recording.claim.finish(KeptAnswer {
                headers: self.headers.clone(),
                resumable: self.resumable,
                body: recording.bytes.into(),
            });
        }
    }

    fn is_complete(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE);
        match kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            true => {
                let recorded = self
                    .recording
                    .as_ref()
                    .map_or(&[][..], |recording| &recording.bytes);
                recorded.ends_with(STREAM_END)
            }
            false => hyper::body::Body::is_end_stream(&self.body),
        }
    }
}

impl Recording {
    fn add(&mut self, bytes: &Bytes) {
        if self.is_given_up {
            return;
        }
        match self.claim.grow(bytes.len()) {
            Room::Given => self.bytes.extend_from_slice(bytes),
            Room::Refused => {
                self.is_given_up = true;
                self.bytes = Vec::new();
            }
        }
    }
}

impl hyper::body::Body for Recorder {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            let bytes = bytes.clone();
            self.take(&bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}
