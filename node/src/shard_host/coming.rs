//! A model file that a process reads while this node is still fetching it.

use super::landed::LandedParts;
use crate::store::chunk_set::ChunkSet;
use crate::store::partial::Partial;
use proto::engine::ToEngine;
use proto::weights::{FilePart, Landed};
use proto::wire::{self, Kind};
use tokio::sync::{mpsc, watch};

/// Cheap to copy.
#[derive(Clone)]
pub struct ComingFile {
    partial: Partial,
    progress: watch::Receiver<Fetch>,
}

/// How far the fetch of all that is needed has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    UnderWay,
    /// All is there and noted.
    Done,
}

impl ComingFile {
    /// `progress` says that the fetch is done, once what has come was settled.
    pub fn new(partial: Partial, progress: watch::Receiver<Fetch>) -> ComingFile {
        ComingFile { partial, progress }
    }

    /// What is there now, for whoever waits for nothing more.
    pub fn landed_now(&self) -> LandedParts {
        let landed = LandedParts::default();
        landed.take(Landed::Parts(self.parts(&self.partial.here())));
        landed.take(Landed::All);
        landed
    }

    /// Tells a process that runs what it may read: first all that is there, then what lands. Never ends.
    pub async fn keep_told(mut self, to_process: mpsc::UnboundedSender<Vec<u8>>) {
        let tell = |landed: Landed| {
            let message = ToEngine::Landed(Box::new(landed));
            // A process that has ended is seen to by somebody else.
            let _ = to_process.send(wire::frame(Kind::ToEngine, 0, &message));
        };
        let mut landings = self.partial.landings();
        let mut told = ChunkSet::none(self.partial.manifest().chunks());
        loop {
            // In this order: what is there when the fetch is done is all.
            let fetch = *self.progress.borrow_and_update();
            landings.borrow_and_update();
            let here = self.partial.here();
            let new = here.minus(&told);
            if !new.is_empty() {
                tell(Landed::Parts(self.parts(&new)));
                told = here;
            }
            if fetch == Fetch::Done {
                tell(Landed::All);
                std::future::pending::<()>().await;
            }
            tokio::select! {
                Ok(()) = landings.changed() => {}
                Ok(()) = self.progress.changed() => {}
                // Given up: whoever did it ends the process too.
                else => std::future::pending().await,
            }
        }
    }

    /// Chunks that follow each other are one part.
    fn parts(&self, chunks: &ChunkSet) -> Vec<FilePart> {
        let mut parts: Vec<FilePart> = Vec::new();
        for chunk in chunks.iter() {
            let place = self.partial.manifest().place(chunk);
            match parts.last_mut() {
                Some(last) if last.end == place.start => last.end = place.end,
                Some(_) | None => parts.push(FilePart {
                    start: place.start,
                    end: place.end,
                }),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests;
