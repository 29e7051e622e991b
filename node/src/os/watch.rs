//! Descriptors whose readiness a tokio runtime watches for. Outside of one these functions panic.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// For what comes in, and not for room for what goes out. The socket must not block.
pub fn incoming(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: a socket owns its one descriptor, which is taken off the watch before it is closed; nobody exchanges it (`get_mut`).
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// For room for what goes out alone.
pub fn room(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it owns its one descriptor, which is taken off the watch before it is closed; nobody exchanges it (`get_mut`).
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::WRITABLE) }?)
}
