//! The UDP socket beneath QUIC.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rustix::net::sockopt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

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
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    Ok(Bound {
        socket: Arc::new(Socket { inner }),
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

/// quinn hands over ten packets at a time, however large they are; the kernel refuses calls beyond 64 KB, and quinn
/// takes the refusal for a packet lost. So calls are cut here.
#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    /// Where the kernel's buffer fills up half-way, all of it is sent again later: QUIC drops what it has seen before.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size else {
            return self.inner.try_send(transmit);
        };
        let call_bytes = segment * (CALL_BYTES_MAX / segment).max(1);
        for contents in transmit.contents.chunks(call_bytes) {
            self.inner.try_send(&Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
