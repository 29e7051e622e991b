//! What a handler left unread of a request's body.
//!
//! A client that is answered may still be sending. Closing on it unannounced breaks the next request it sends over the
//! same connection, and closing with its bytes unread becomes a reset that may overtake the answer (RFC 9112, sections 9.3
//! and 9.6). So a short remainder is read before the answer goes out, and otherwise the close is announced and waited for.

use crate::http::limits::Limits;
use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Whether the next request can follow on the same connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remainder {
    Read,
    Unread,
}

/// The body as it is, and what tells of its remainder once its handler let it go.
pub fn lend<B>(body: B) -> (LentBody<B>, Lender<B>) {
    let place = Arc::new(Mutex::new(None));
    let lent = LentBody {
        body: Some(body),
        seen: Seen::Some,
        place: place.clone(),
    };
    (lent, Lender(place))
}

type Place<B> = Arc<Mutex<Option<Returned<B>>>>;

enum Returned<B> {
    Ended,
    Broken,
    Begun(B),
}

/// What came of a body last.
#[derive(Clone, Copy)]
enum Seen {
    Some,
    End,
    /// Where it would have ended nobody knows.
    Error,
}

pub struct LentBody<B> {
    /// `None` only within `drop`.
    body: Option<B>,
    seen: Seen,
    place: Place<B>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for LentBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Err(_))) => self.seen = Seen::Error,
            // After an error this says nothing.
            Poll::Ready(None) if matches!(self.seen, Seen::Some) => self.seen = Seen::End,
            Poll::Ready(Some(Ok(_)) | None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B> Drop for LentBody<B> {
    fn drop(&mut self) {
        let returned = match (self.seen, self.body.take()) {
            (Seen::End, _) | (Seen::Some, None) => Returned::Ended,
            (Seen::Error, _) => Returned::Broken,
            (Seen::Some, Some(body)) => Returned::Begun(body),
        };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(returned);
    }
}

pub struct Lender<B>(Place<B>);

impl<B: Body<Data = Bytes> + Unpin> Lender<B> {
    /// Reads on where it is little and comes soon.
    pub async fn read_on(self, limits: &Limits) -> Remainder {
        match self.returned() {
            Some(Returned::Ended) => Remainder::Read,
            Some(Returned::Begun(body)) => {
                let reading = read_on(body, limits.unread_bytes_max);
                timeout(limits.unread_wait_max, reading)
                    .await
                    .unwrap_or(Remainder::Unread)
            }
            // Without an end in sight, or still in somebody's hands.
            Some(Returned::Broken) | None => Remainder::Unread,
        }
    }

    /// As far as is known without reading on.
    pub fn look(self) -> Remainder {
        match self.returned() {
            Some(Returned::Ended) => Remainder::Read,
            Some(Returned::Begun(body)) if body.is_end_stream() => Remainder::Read,
            Some(Returned::Begun(_) | Returned::Broken) | None => Remainder::Unread,
        }
    }

    fn returned(&self) -> Option<Returned<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn read_on<B: Body<Data = Bytes> + Unpin>(mut body: B, bytes_max: u64) -> Remainder {
    let mut bytes_left = bytes_max;
    while !body.is_end_stream() {
        if body.size_hint().lower() > bytes_left {
            return Remainder::Unread;
        }
        match body.frame().await {
            None => return Remainder::Read,
            Some(Err(_broken_off)) => return Remainder::Unread,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match bytes_left.checked_sub(bytes) {
                    Some(left) => bytes_left = left,
                    None => return Remainder::Unread,
                }
            }
        }
    }
    Remainder::Read
}

/// Closes our side, and takes in what the peer still sends until it closes its own.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, limits: &Limits) {
    let taking = async {
        let mut scratch = vec![0; SCRATCH_BYTES];
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whether the peer closes, breaks off or is too slow, there is no more to be done for it.
    let _ = timeout(limits.linger_max, taking).await;
}

/// Of what nobody reads, at a time.
const SCRATCH_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as AnyBody;
    use futures_util::stream::{iter, pending};

    fn chunks(count: usize) -> AnyBody {
        let chunk = |_| Ok::<_, std::io::Error>(Bytes::from_static(b"1234"));
        AnyBody::from_stream(iter((0..count).map(chunk)))
    }

    fn limits() -> Limits {
        Limits {
            unread_bytes_max: 10,
            unread_wait_max: std::time::Duration::from_secs(60),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn a_short_remainder_is_read_and_a_long_one_is_not() {
        for (count, remainder) in [(0, Remainder::Read), (2, Remainder::Read), (3, Remainder::Unread)] {
            let (lent, lender) = lend(chunks(count));
            drop(lent);
            assert_eq!(lender.read_on(&limits()).await, remainder, "{count} chunks");
        }
        let (lent, lender) = lend(AnyBody::from(vec![0; 11]));
        drop(lent);
        assert_eq!(lender.read_on(&limits()).await, Remainder::Unread);
    }

    #[tokio::test]
    async fn what_the_handler_read_is_no_remainder() {
        let (mut lent, lender) = lend(chunks(5));
        while lent.frame().await.is_some() {}
        drop(lent);
        assert_eq!(lender.read_on(&limits()).await, Remainder::Read);

        let (mut lent, lender) = lend(chunks(5));
        for _ in 0..3 {
            lent.frame().await;
        }
        drop(lent);
        assert_eq!(lender.read_on(&limits()).await, Remainder::Read);
    }

    #[tokio::test]
    async fn a_body_that_broke_off_has_no_end() {
        let broken = std::io::Error::other("broken");
        let frames = [Ok(Bytes::from_static(b"1234")), Err(broken)];
        let (mut lent, lender) = lend(AnyBody::from_stream(iter(frames)));
        while lent.frame().await.is_some() {}
        drop(lent);
        assert_eq!(lender.read_on(&limits()).await, Remainder::Unread);
    }

    #[tokio::test]
    async fn a_body_that_is_not_given_back_or_not_continued_is_unread() {
        let (_kept, lender) = lend(chunks(0));
        assert_eq!(lender.read_on(&limits()).await, Remainder::Unread);

        let limits = Limits {
            unread_wait_max: std::time::Duration::from_millis(1),
            ..limits()
        };
        let silent = pending::<Result<Bytes, std::io::Error>>();
        let (lent, lender) = lend(AnyBody::from_stream(silent));
        drop(lent);
        assert_eq!(lender.read_on(&limits).await, Remainder::Unread);
    }
}
