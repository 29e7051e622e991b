//! How fast a link is: some megabytes of nothing, timed by who asked for them.

use crate::transport::{Class, FrameSender, LinkError, PeerError, Peers};
use bytes::Bytes;
use proto::NodeId;
use proto::peer::{Hello, Probe};
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 256 << 10;
/// What one question may ask for.
const BYTES_MAX: u64 = 32 << 20;
/// Long enough to fill a window at 10 Gb/s.
const BYTES: u64 = 8 << 20;
/// At first, a connection is made and its window grows.
const BYTES_UNCOUNTED: u64 = 1 << 20;
/// Weights that others wait for come first, for so long at most.
pub const DEFERRED_MAX: Duration = Duration::from_secs(5);
/// A link that takes longer, after that, is as slow as that.
const WAIT_MAX: Duration = Duration::from_secs(10).saturating_add(DEFERRED_MAX);

/// Bytes a second from that node to this one.
pub async fn measure(peers: &Peers, node: NodeId) -> Result<u64, PeerError> {
    let after = WAIT_MAX;
    let measured = tokio::time::timeout(after, timed(peers, node)).await;
    measured.unwrap_or(Err(PeerError::Deadline { node, after }))
}

async fn timed(peers: &Peers, node: NodeId) -> Result<u64, PeerError> {
    let bytes = BYTES_UNCOUNTED + BYTES;
    let hello = Hello::Probe(Box::new(Probe { bytes }));
    let (mut sender, mut receiver) = peers.open(node, Class::Bulk, hello).await?;
    sender.finish();
    let (mut received, mut began) = (0, None);
    while let Some(frame) = receiver.next().await? {
        received += frame.payload.len() as u64;
        if received >= BYTES_UNCOUNTED {
            began.get_or_insert_with(|| (Instant::now(), received));
        }
    }
    let (began, before) = began.unwrap_or_else(|| (Instant::now(), received));
    let secs = began.elapsed().as_secs_f64().max(1e-6);
    Ok(((received - before) as f64 / secs) as u64)
}

/// The other side.
pub async fn serve(asked: Probe, mut sender: FrameSender) -> Result<(), LinkError> {
    let nothing = Bytes::from(vec![0; CHUNK_BYTES]);
    let mut left = asked.bytes.min(BYTES_MAX);
    while left > 0 {
        let chunk = left.min(CHUNK_BYTES as u64);
        sender.send_chunk(0, nothing.slice(..chunk as usize)).await?;
        left -= chunk;
    }
    sender.finish();
    sender.stopped().await;
    Ok(())
}
