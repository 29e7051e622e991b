//! The HTTP front of a node: where it listens, with which bounds.

use crate::config::Config;
use crate::config::high::CONNECTIONS_PER_ADDRESS_MAX;
use crate::http::{Limits, MetricsAccess, SeatsMax, Transport};
use crate::os::{files, port};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

/// Open files that connections leave to the rest: the state's log, models, pipes to the shard hosts.
const FILES_KEPT: u64 = 256;

pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    port::once_free(async || TcpListener::bind(address).await)
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
