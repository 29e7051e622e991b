//! Room for what is to be sent, waited for by those who found none.

use crate::os::watch;
use quinn::UdpPoller;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Sleep, sleep};

/// Between two tries of one who cannot be told when there is room.
const MOMENT: Duration = Duration::from_millis(1);

/// Of one socket.
#[derive(Debug)]
pub(super) struct Room {
    descriptor: OwnedFd,
    /// How often there was none. A count, so that each who sends sees each of them once.
    refusals: AtomicU64,
}

impl Room {
    /// Of the socket of which this is another descriptor; both are open as long as somebody sends.
    pub fn new(descriptor: OwnedFd) -> Room {
        Room {
            descriptor,
            refusals: AtomicU64::new(0),
        }
    }

    /// Remembers where there was no room: quinn tries again at once unless its poller says otherwise.
    pub fn watched(&self, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let sent = send();
        if matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            self.refusals.fetch_add(1, Ordering::Release);
        }
        sent
    }

    /// For one who sends.
    pub fn poller(self: &Arc<Room>) -> RoomPoller {
        RoomPoller {
            room: Arc::clone(self),
            refusals_seen: self.refusals.load(Ordering::Acquire),
            waiting: None,
        }
    }

    fn wait(&self) -> Waiting {
        let watched = self.descriptor.try_clone().and_then(watch::room);
        match watched {
            Ok(descriptor) => Waiting::ForRoom(descriptor),
            Err(_) => Waiting::ForAMoment(Box::pin(sleep(MOMENT))),
        }
    }
}

/// Takes it that there is room until somebody is refused, and then waits until there is some. To be polled within a tokio
/// runtime.
#[derive(Debug)]
pub(super) struct RoomPoller {
    room: Arc<Room>,
    /// There has been room since so many.
    refusals_seen: u64,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    /// By a descriptor of its own, since others may wait too.
    ForRoom(AsyncFd<OwnedFd>),
    /// Where no descriptor is to be had. An error would end the driver of the connection, and nobody who waits for the
    /// connection would hear of it.
    ForAMoment(Pin<Box<Sleep>>),
}

impl UdpPoller for RoomPoller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poller = self.get_mut();
        let refusals = poller.room.refusals.load(Ordering::Acquire);
        if refusals == poller.refusals_seen {
            return Poll::Ready(Ok(()));
        }
        let room = &poller.room;
        match poller.waiting.get_or_insert_with(|| room.wait()) {
            Waiting::ForRoom(descriptor) => ready!(descriptor.poll_write_ready(context))?.retain_ready(),
            Waiting::ForAMoment(moment) => ready!(moment.as_mut().poll(context)),
        }
        poller.waiting = None;
        poller.refusals_seen = refusals;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(20);

    fn refused() -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }

    /// A stream instead of datagrams, which loopback never holds back: one that is full, how many bytes are in it, and its other
    /// end.
    fn full() -> (UnixStream, usize, UnixStream) {
        let (mut sender, receiver) = UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let end = loop {
            match sender.write(&[7; 4096]) {
                Ok(count) => sent += count,
                Err(end) => break end,
            }
        };
        assert_eq!(end.kind(), ErrorKind::WouldBlock);
        (sender, sent, receiver)
    }

    async fn writable(mut poller: RoomPoller) {
        let room = poll_fn(|context| Pin::new(&mut poller).poll_writable(context));
        timeout(SOON, room).await.expect("it is woken").unwrap();
    }

    #[tokio::test]
    async fn all_wait_from_a_refusal_until_there_is_room() {
        let (sender, sent, mut receiver) = full();
        let room = Arc::new(Room::new(sender.into()));
        writable(room.poller()).await;
        let pollers = [0, 1].map(|_| room.poller());
        room.watched(refused).unwrap_err();
        let mut waiting = JoinSet::new();
        for poller in pollers {
            waiting.spawn(writable(poller));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(waiting.try_join_next().is_none(), "there is no room yet");
        receiver.read_exact(&mut vec![0; sent]).unwrap();
        while let Some(woken) = waiting.join_next().await {
            woken.unwrap();
        }
    }

    #[tokio::test]
    async fn only_who_found_no_room_waits() {
        let (sender, _, _receiver) = full();
        let room = Arc::new(Room::new(sender.into()));
        let poller = room.poller();
        room.watched(|| Ok(())).unwrap();
        room.watched(|| Err(ErrorKind::ConnectionRefused.into()))
            .unwrap_err();
        writable(poller).await;
    }

    #[tokio::test]
    async fn who_cannot_be_told_tries_again_after_a_moment() {
        // A file, for which there is no readiness to watch.
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let room = Arc::new(Room::new(file.into()));
        let poller = room.poller();
        room.watched(refused).unwrap_err();
        assert!(matches!(room.wait(), Waiting::ForAMoment(_)));
        writable(poller).await;
    }
}
