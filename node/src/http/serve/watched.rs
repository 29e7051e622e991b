//! A connection under watch: what it reads and writes moves its pace, and its pace ends it.

use super::pace::{Pace, TooSlow};
use super::remainder::Remainder;
use super::seats::{SeatId, Seats};
use crate::http::limits::Limits;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep_until};

/// What the parts of one connection share. They run in one task, so the lock is never waited for.
pub struct Watch {
    pace: Mutex<Pace>,
    /// What the last request's body left to read, which decides how the connection closes.
    remainder: Mutex<Remainder>,
    first_request: Notify,
    limits: Arc<Limits>,
    seats: Arc<Mutex<Seats>>,
    seat: SeatId,
}

impl Watch {
    /// Of a connection that has just been given its seat, or was idle until now.
    pub fn new(limits: Arc<Limits>, seats: Arc<Mutex<Seats>>, seat: SeatId) -> Arc<Watch> {
        Arc::new(Watch {
            pace: Mutex::new(Pace::idle(Instant::now())),
            remainder: Mutex::new(Remainder::Read),
            first_request: Notify::new(),
            limits,
            seats,
            seat,
        })
    }

    /// A request begins; `None`: the seat is lost, and the connection has to end.
    pub fn begin(self: &Arc<Watch>) -> Option<Serving> {
        let seated = lock(&self.seats).begin(self.seat);
        seated.then(|| {
            self.pace().serve();
            self.first_request.notify_one();
            Serving(self.clone())
        })
    }

    /// Until a request has begun; at once where one has. To be waited for once.
    pub async fn first_request(&self) {
        self.first_request.notified().await;
    }

    /// The request has been answered, with this left of its body.
    pub fn leave(&self, remainder: Remainder) {
        *lock(&self.remainder) = remainder;
    }

    pub fn remainder(&self) -> Remainder {
        *lock(&self.remainder)
    }

    fn flushed(&self) {
        if self.pace().flushed(Instant::now()) {
            lock(&self.seats).wait(self.seat);
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        lock(&self.pace)
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From the head of a request to the last byte of its answer.
pub struct Serving(Arc<Watch>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.pace().served();
    }
}

/// A stream that tells its watch what passes, and holds back what is written while no request is being answered: hyper's
/// own words about a head that it cannot read.
pub struct Watched<S> {
    pub stream: S,
    watch: Arc<Watch>,
    unasked: Unasked,
}

/// What was written without a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unasked {
    Nothing,
    HeldBack,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.watch.pace().heard(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Watched<S> {
    pub fn new(stream: S, watch: Arc<Watch>) -> Watched<S> {
        Watched {
            stream,
            watch,
            unasked: Unasked::Nothing,
        }
    }

    /// An answer was held back that no request had asked for.
    pub fn answered_unasked(&self) -> bool {
        self.unasked == Unasked::HeldBack
    }

    fn hold_back(&mut self) -> bool {
        let unasked = self.watch.pace().awaits_request();
        if unasked {
            self.unasked = Unasked::HeldBack;
        }
        unasked
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut pace = self.watch.pace();
        match &written {
            Poll::Ready(Ok(bytes)) => pace.wrote(*bytes, Instant::now(), &self.watch.limits),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => pace.block(Instant::now(), &self.watch.limits),
        }
        written
    }

    fn flushed(&self, flushed: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match &flushed {
            Poll::Ready(_) => self.watch.flushed(),
            Poll::Pending => self.watch.pace().block(Instant::now(), &self.watch.limits),
        }
        flushed
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hold_back() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.hold_back() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.flushed(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unasked {
            Unasked::Nothing => {}
            // The answer in its place has yet to be written.
            Unasked::HeldBack => return Poll::Ready(Ok(())),
        }
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.flushed(shut)
    }
}

/// A connection with an end: `Err` when its peer was too slow.
pub struct Paced<C> {
    connection: Pin<Box<C>>,
    watch: Arc<Watch>,
    alarm: Pin<Box<Sleep>>,
}

impl<C> Paced<C> {
    pub fn new(connection: C, watch: Arc<Watch>) -> Paced<C> {
        Paced {
            connection: Box::pin(connection),
            watch,
            // Set before it is first looked at.
            alarm: Box::pin(sleep_until(tokio::time::Instant::now())),
        }
    }

    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }

    pub fn into_connection(self) -> C
    where
        C: Unpin,
    {
        *Pin::into_inner(self.connection)
    }
}

impl<C: Future> Future for Paced<C> {
    type Output = Result<C::Output, TooSlow>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(ended) = self.connection.as_mut().poll(context) {
            return Poll::Ready(Ok(ended));
        }
        // Only a poll of the connection changes its pace, so the alarm is right until the next one.
        let due = self.watch.pace().due(&self.watch.limits);
        let Some((due, why)) = due else {
            return Poll::Pending;
        };
        if self.alarm.deadline() != due.into() {
            self.alarm.as_mut().reset(due.into());
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(why))
    }
}
