//! The UDP socket beneath QUIC.
//!
//! It is watched for what comes in alone. The kernel tells of room in the send buffer as often as a packet leaves it: that would
//! wake a thread for each packet that is sent. So room is waited for once there was none ([`super::room`]).

use super::room::Room;
use crate::os::watch;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use rustix::net::sockopt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;

/// Loss on a LAN is mostly an overflow here: a frame of activations arrives at once, at the speed of the wire, while
/// the reader sleeps.
const BUFFER_BYTES: usize = 16 << 20;
/// With less room than this, the largest packets (loopback's) would not fit in numbers.
const BUFFER_BYTES_FOR_LARGE_PACKETS: usize = 4 << 20;
/// Jumbo frames of Ethernet.
const PACKET_BYTES_JUMBO: u16 = 8_952;
/// What the kernel takes in one call, also where it is to be cut into packets there.
const CALL_BYTES_MAX: usize = 65_488;

/// A bound socket, and the largest packet that it makes sense to look for on it.
pub(super) struct Bound {
    pub socket: Arc<dyn AsyncUdpSocket>,
    pub packet_bytes_max: u16,
}

/// Makes it one that does not block, with large buffers. Within a tokio runtime.
pub(super) fn wrap(socket: UdpSocket) -> io::Result<Bound> {
    let buffer_bytes = enlarge(&socket);
    let packet_bytes_max = match buffer_bytes >= BUFFER_BYTES_FOR_LARGE_PACKETS {
        true => super::tuning::PACKET_BYTES_MAX,
        false => {
            tracing::warn!(
                buffer_bytes,
                "the kernel gives QUIC small buffers: set net.core.rmem_max and net.core.wmem_max to {BUFFER_BYTES}"
            );
            PACKET_BYTES_JUMBO
        }
    };
    Ok(Bound {
        socket: Arc::new(Socket::new(socket)?),
        packet_bytes_max,
    })
}

/// Beyond the limit for everybody where the process may; gives what there is for receiving.
fn enlarge(socket: &UdpSocket) -> usize {
    let socket = socket.as_fd();
    let _ = sockopt::set_socket_recv_buffer_size_force(socket, BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, BUFFER_BYTES));
    let _ = sockopt::set_socket_send_buffer_size_force(socket, BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, BUFFER_BYTES));
    sockopt::socket_recv_buffer_size(socket).unwrap_or(0)
}

#[derive(Debug)]
struct Socket {
    incoming: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    room: Arc<Room>,
}

impl Socket {
    fn new(socket: UdpSocket) -> io::Result<Socket> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Socket {
            room: Arc::new(Room::new(socket.as_fd().try_clone_to_owned()?)),
            incoming: watch::incoming(socket)?,
            state,
        })
    }

    /// quinn hands over ten packets at a time, however large they are; the kernel refuses calls beyond 64 KB, and quinn
    /// takes the refusal for a packet lost. So calls are cut here. Where the kernel's buffer fills up half-way, all of it is
    /// sent again later: QUIC drops what it has seen before.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = self.incoming.get_ref();
        let Some(segment) = transmit.segment_size else {
            return self.state.send(socket.into(), transmit);
        };
        let call_bytes = segment * (CALL_BYTES_MAX / segment).max(1);
        for contents in transmit.contents.chunks(call_bytes) {
            let call = Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                src_ip: transmit.src_ip,
            };
            self.state.send(socket.into(), &call)?;
        }
        Ok(())
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(self.room.poller())
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.room.watched(|| self.send(transmit))
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.incoming.poll_read_ready(context))?;
            let received = ready.try_io(|socket| self.state.recv(socket.get_ref().into(), buffers, meta));
            if let Ok(received) = received {
                return Poll::Ready(received);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.incoming.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_comes_wakes_who_waits_for_it() {
        let [here, there] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let address = here.local_addr().unwrap();
        let socket = Socket::new(here).unwrap();
        assert_eq!(socket.local_addr().unwrap(), address);
        let (mut bytes, mut meta) = ([0; 2000], [RecvMeta::default()]);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let mut received = poll_fn(|context| socket.poll_recv(context, &mut buffers, &mut meta));
        assert!(poll!(&mut received).is_pending());
        there.send_to(&[7; 1000], address).unwrap();
        let count = timeout(SOON, received).await.expect("it is woken").unwrap();
        assert_eq!((count, meta[0].len), (1, 1000));
    }
}
