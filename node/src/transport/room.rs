//! Room for what is to be sent, waited for by those who found none.

use crate::os::watch;
use quinn::UdpPoller;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;

/// Of one socket.
#[derive(Debug)]
pub(super) struct Room {
    descriptor: OwnedFd,
    /// How often there was none.
    refusals: AtomicU64,
}

impl Room {
    pub fn new(descriptor: OwnedFd) -> Room {
        Room {
            descriptor,
            refusals: AtomicU64::new(0),
        }
    }

    pub fn was_refused(&self) {
        self.refusals.fetch_add(1, Ordering::Release);
    }

    /// For one who sends.
    pub fn poller(self: &Arc<Room>) -> RoomPoller {
        RoomPoller {
            room: Arc::clone(self),
            refusals_seen: self.refusals.load(Ordering::Acquire),
            waiting: None,
        }
    }
}

/// Takes it that there is room until somebody is refused, and then waits until there is some.
#[derive(Debug)]
pub(super) struct RoomPoller {
    room: Arc<Room>,
    /// There has been room since so many.
    refusals_seen: u64,
    /// While it waits: a descriptor of its own, since others may wait too.
    waiting: Option<AsyncFd<OwnedFd>>,
}

impl UdpPoller for RoomPoller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poller = self.get_mut();
        let refusals = poller.room.refusals.load(Ordering::Acquire);
        if refusals == poller.refusals_seen {
            return Poll::Ready(Ok(()));
        }
        let waiting = match &mut poller.waiting {
            Some(waiting) => waiting,
            none => none.insert(watch::room(poller.room.descriptor.try_clone()?)?),
        };
        ready!(waiting.poll_write_ready(context))?.retain_ready();
        poller.waiting = None;
        poller.refusals_seen = refusals;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn is_writable(poller: &mut RoomPoller) -> bool {
        match poll!(poll_fn(|context| Pin::new(&mut *poller).poll_writable(context))) {
            Poll::Ready(room) => room.is_ok(),
            Poll::Pending => false,
        }
    }

    /// A stream instead of datagrams, which loopback never holds back.
    #[tokio::test]
    async fn all_wait_from_a_refusal_until_there_is_room() {
        let (mut sender, mut receiver) = UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        let room = Arc::new(Room::new(sender.try_clone().unwrap().into()));
        let mut pollers = [0, 1].map(|_| room.poller());
        let mut sent = 0;
        while let Ok(count) = sender.write(&[7; 4096]) {
            sent += count;
        }
        for poller in &mut pollers {
            assert!(is_writable(poller).await, "nobody was refused yet");
        }
        room.was_refused();
        for poller in &mut pollers {
            assert!(!is_writable(poller).await);
        }
        receiver.read_exact(&mut vec![0; sent]).unwrap();
        for poller in &mut pollers {
            let writable = poll_fn(|context| Pin::new(&mut *poller).poll_writable(context));
            timeout(Duration::from_secs(20), writable)
                .await
                .expect("it is woken")
                .unwrap();
            assert!(is_writable(poller).await);
        }
    }
}
