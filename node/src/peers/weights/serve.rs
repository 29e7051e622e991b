//! Giving chunks to a node that wants them, as `proto::weights` says.

use super::shelf::{Readable, Shelf};
use crate::hex;
use crate::transport::{FrameReceiver, FrameSender, LinkError};
use bytes::Bytes;
use proto::NodeId;
use proto::weights::{STILL_WAITING, WANTED_MAX, WantChunks};
use proto::wire::Kind;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Whoever waits hears this often that it is not in vain: well within its patience.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Without any chunk landing here, one that is on its way is not waited for any longer.
const LANDING_MAX: Duration = Duration::from_secs(10);
/// For one chunk to be taken off our hands.
const SENDING_MAX: Duration = Duration::from_secs(30);

impl Shelf {
    /// Until the other has all that it wants, or has gone.
    pub async fn serve(
        &self,
        to: NodeId,
        name: &str,
        sender: FrameSender,
        mut receiver: FrameReceiver,
    ) -> Result<(), LinkError> {
        let Some(digest) = hex::decode(name) else {
            tracing::debug!(node = %to, "a stream for a file without a digest");
            return Ok(());
        };
        let mut giving = Giving {
            shelf: self.clone(),
            to,
            digest,
            from: None,
            sender,
        };
        while let Some(want) = receiver.next_message::<WantChunks>(Kind::WantChunks).await? {
            if want.chunks.len() > WANTED_MAX {
                tracing::warn!(node = %to, "it wants too many chunks at once");
                return Ok(());
            }
            for index in want.chunks {
                giving.give(index).await?;
            }
        }
        giving.sender.finish();
        giving.sender.stopped().await;
        Ok(())
    }
}

struct Giving {
    shelf: Shelf,
    to: NodeId,
    digest: [u8; 32],
    /// Once something of the file has been found here.
    from: Option<Readable>,
    sender: FrameSender,
}

impl Giving {
    async fn give(&mut self, index: u32) -> Result<(), LinkError> {
        self.until_landed(index).await?;
        let giving = self.shelf.giving();
        let permit = self.beating(giving.acquire_owned()).await?;
        let chunk = self.read(index).await.unwrap_or_default();
        let bytes = chunk.len();
        let sent = timeout(SENDING_MAX, self.sender.send_chunk(index.into(), chunk)).await;
        sent.map_err(|_| LinkError::HalfSent { node: self.to })??;
        self.shelf.note_given(bytes);
        drop(permit);
        Ok(())
    }

    /// `None`: not here.
    async fn read(&mut self, index: u32) -> Option<Bytes> {
        let (shelf, digest, from) = (self.shelf.clone(), self.digest, self.from.take());
        let reading = tokio::task::spawn_blocking(move || {
            let from = from.or_else(|| shelf.readable(&digest))?;
            let read = from.read_chunk(index).inspect_err(|error| {
                tracing::warn!(%error, "a chunk of a model could not be read for another node");
            });
            Some((from, read.ok().flatten()))
        });
        let (from, chunk) = reading.await.ok()??;
        // What is not here now may be elsewhere on this host the next time.
        self.from = chunk.is_some().then_some(from);
        chunk.map(Bytes::from)
    }

    /// A chunk that this node is fetching itself is waited for, as long as others land.
    async fn until_landed(&mut self, index: u32) -> Result<(), LinkError> {
        let Some((partial, mut wanted)) = self.shelf.parts(&self.digest) else {
            return Ok(());
        };
        let mut landings = partial.landings();
        let mut landed_at = Instant::now();
        loop {
            let is_coming = wanted.borrow_and_update().contains(index);
            if partial.has(index) || !is_coming || landed_at.elapsed() > LANDING_MAX {
                return Ok(());
            }
            let changing = async {
                tokio::select! {
                    changed = landings.changed() => changed.map(|()| Instant::now()),
                    changed = wanted.changed() => changed.map(|()| landed_at),
                    () = sleep(LANDING_MAX) => Ok(landed_at),
                }
            };
            match self.beating(changing).await? {
                Ok(at) => landed_at = at,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Tells the other, until it is done, that it is not forgotten.
    async fn beating<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T, LinkError> {
        let mut waiting = pin!(waiting);
        loop {
            match timeout(BEAT_EVERY, &mut waiting).await {
                Ok(done) => return Ok(done),
                Err(_) => self.sender.send_chunk(STILL_WAITING, Bytes::new()).await?,
            }
        }
    }
}
