//! The HTTP front of a node: where it listens, with which bounds.

use crate::config::Config;
use crate::config::high::CONNECTIONS_PER_ADDRESS_MAX;
use crate::http::{Limits, MetricsAccess, SeatsMax, Transport};
use crate::os::{files, port};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

/// Open files that connections leave to the rest: the state's log, models, pipes to the shard hosts.
const FILES_KEPT: u64 = 256;

/// Connections that wait to be accepted. The kernel allows fewer where `net.core.somaxconn` says so; who finds no room is not
/// refused but asks again after a second, which a burst of clients would see as their time to first token.
const BACKLOG: u32 = 4096;

pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    port::once_free(async || listen(address))
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow::anyhow!(
                    "{address} is in use by another program: stop it, or choose another address with --http"
                )
            }
            io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!(
                    "{address} may not be used by this user: choose a port above 1023 with --http"
                )
            }
            _ => anyhow::anyhow!(
                "{address} cannot be listened on ({error}): choose another address with --http"
            ),
        })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A node that starts again finds connections of its last run, which are closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub fn transport(config: &Config) -> anyhow::Result<Transport> {
    Ok(match config.tls()? {
        Some((certificate, key)) => Transport::tls(certificate, key)?,
        None => Transport::Plain,
    })
}

pub fn limits(config: &Config, address: SocketAddr, drain_max: Duration) -> Limits {
    let metrics = if address.ip().is_loopback() {
        MetricsAccess::Everyone
    } else {
        MetricsAccess::WithKey
    };
    Limits {
        drain_max,
        metrics,
        seats: seats_max(config, files::raise_open_files_max()),
        ..Limits::default()
    }
}

fn seats_max(config: &Config, open_files_max: Option<u64>) -> SeatsMax {
    let asked = config.connections_max.value;
    let possible = open_files_max.map_or(asked as u64, |files| files.saturating_sub(FILES_KEPT).max(1));
    let total = asked.min(possible as usize);
    if total < asked {
        tracing::warn!(
            connections_max = total,
            "fewer connections than asked for: the hard limit on open files (ulimit -Hn) allows no more"
        );
    }
    let per_address = config.connections_per_address_max.value;
    SeatsMax {
        total,
        per_neighbourhood: per_address.unwrap_or(CONNECTIONS_PER_ADDRESS_MAX),
        // A number that was given holds for every address.
        per_loopback: per_address.unwrap_or(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[tokio::test]
    async fn a_burst_of_clients_waits_at_the_door_and_is_not_sent_away() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let kernel_max = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let kernel_max = kernel_max.ok().and_then(|max| max.trim().parse().ok());
        // Nobody accepts any: one for which there is no room would not be answered at all.
        let waiting: Vec<TcpStream> = (0..kernel_max.unwrap_or(usize::MAX).min(400))
            .map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(3)).expect("room"))
            .collect();
        drop((waiting, listener));
    }
}
