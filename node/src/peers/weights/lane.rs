//! One stream to one node: chunks are asked for, verified as they come, and put where they belong.

use super::fetch::Patience;
use super::sources::{Blame, View};
use crate::hex;
use crate::store::error::StoreError;
use crate::store::partial::Partial;
use crate::transport::{Class, FrameReceiver, FrameSender, Peers};
use proto::NodeId;
use proto::peer::{Blob, Hello};
use proto::weights::{STILL_WAITING, WantChunks};
use proto::wire::Kind;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Enough that the other never waits for us, and little enough that not much is lost with it.
pub(super) const ASKED_MAX: usize = 4;

/// What is heard of a node.
#[derive(Debug)]
pub(super) enum News {
    Landed,
    NotThere {
        index: u32,
    },
    /// What the node has, as it says; or why it says nothing.
    Seen(Result<View, String>),
    /// The last word. What was asked and did not come is to be asked of others.
    Ended(End),
}

#[derive(Debug)]
pub(super) enum End {
    Blamed(Blame, String),
    /// Of this node's own making.
    Store(StoreError),
}

/// What has been asked and not answered, oldest first.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<VecDeque<(u32, Instant)>>>);

impl Asked {
    pub fn push(&self, index: u32) {
        self.lock().push_back((index, Instant::now()));
    }

    fn pop(&self) -> Option<u32> {
        Some(self.lock().pop_front()?.0)
    }

    /// What is due next, and since when.
    fn due(&self) -> Option<(u32, Instant)> {
        self.lock().front().copied()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn take_all(&self) -> Vec<u32> {
        self.lock().drain(..).map(|(index, _)| index).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Lane {
    pub node: NodeId,
    pub peers: Peers,
    pub partial: Partial,
    pub asked: Asked,
    pub patience: Patience,
    pub news: mpsc::Sender<(NodeId, News)>,
}

impl Lane {
    /// Asks for what comes over `wishes`, until the end of it or of the other's patience.
    pub async fn run(self, wishes: mpsc::Receiver<u32>) {
        let hello = Hello::Blob(Box::new(Blob {
            name: hex::encode(&self.partial.digest()),
        }));
        let end = match self.peers.open(self.node, Class::Bulk, hello).await {
            Err(error) => End::Blamed(Blame::Failed, error.to_string()),
            Ok((sender, receiver)) => tokio::select! {
                end = ask(sender, wishes) => end,
                end = self.receive(receiver) => end,
            },
        };
        let _ = self.news.send((self.node, News::Ended(end))).await;
    }

    async fn receive(&self, mut receiver: FrameReceiver) -> End {
        let failed = |reason: String| End::Blamed(Blame::Failed, reason);
        loop {
            let begun_bytes = receiver.begun_bytes();
            let (epoch, payload) = match timeout(self.patience.stall, receiver.next_chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return failed("it ended the stream".to_owned()),
                Ok(Err(error)) => return failed(error.to_string()),
                Err(_) if receiver.begun_bytes() == begun_bytes && self.has_waited() => {
                    return failed(format!("it sent nothing for {:?}", self.patience.stall));
                }
                Err(_) => continue,
            };
            if epoch == STILL_WAITING {
                continue;
            }
            if let Err(end) = self.take(epoch, payload).await {
                return end;
            }
        }
    }

    fn has_waited(&self) -> bool {
        let due = self.asked.due();
        due.is_some_and(|(_, since)| since.elapsed() >= self.patience.stall)
    }

    async fn take(&self, epoch: u64, payload: Vec<u8>) -> Result<(), End> {
        let lied = |reason: String| End::Blamed(Blame::Lied, reason);
        let index = match self.asked.due() {
            Some((index, _)) if u64::from(index) == epoch => index,
            Some((index, _)) => return Err(lied(format!("it sent chunk {epoch} where {index} was due"))),
            None => return Err(lied(format!("it sent chunk {epoch} unasked"))),
        };
        if payload.is_empty() {
            self.asked.pop();
            return self.tell(News::NotThere { index }).await;
        }
        let partial = self.partial.clone();
        let writing = tokio::task::spawn_blocking(move || partial.write_chunk(index, &payload));
        let written = writing
            .await
            .map_err(|error| End::Blamed(Blame::Failed, error.to_string()))?;
        match written {
            Ok(true) => {
                self.asked.pop();
                self.tell(News::Landed).await
            }
            Ok(false) => Err(lied(format!("chunk {index} has the wrong digest"))),
            Err(error) => Err(End::Store(error)),
        }
    }

    async fn tell(&self, news: News) -> Result<(), End> {
        let sent = self.news.send((self.node, news)).await;
        sent.map_err(|_| End::Blamed(Blame::Failed, "nobody listens".to_owned()))
    }
}

async fn ask(mut sender: FrameSender, mut wishes: mpsc::Receiver<u32>) -> End {
    while let Some(first) = wishes.recv().await {
        let mut chunks = vec![first];
        while let Ok(another) = wishes.try_recv() {
            chunks.push(another);
        }
        let sent = sender.send(Kind::WantChunks, 0, &WantChunks { chunks }).await;
        if let Err(error) = sent {
            return End::Blamed(Blame::Failed, error.to_string());
        }
    }
    // Whoever asked has gone; so does this lane.
    End::Blamed(Blame::Failed, "it is not needed any more".to_owned())
}
