//! The parts of a model's file that one stage needs.

use super::error::FetchError;
use super::fetch::{Fetched, Fetcher, Progress, Wanted, Which};
use crate::store::chunks::CHUNK_BYTES;
use crate::store::error::StoreError;
use proto::NodeId;
use shard::gguf::Layout;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use tokio::task::spawn_blocking;

/// Where a stage's weights are, in a file of full length.
pub struct FetchedStage {
    pub fetched: Fetched,
    pub layout: Layout,
}

impl Fetcher {
    /// As [`Fetcher::fetch`], with what a stage with these layers needs of the file that `model` names; what is wanted there
    /// is not looked at. The file's beginning comes first, twice as much each time, until it tells where everything lies.
    pub async fn fetch_stage(
        &self,
        model: &Wanted,
        layers: &Range<u32>,
        candidates: &[NodeId],
        progress: &mut dyn Progress,
    ) -> Result<FetchedStage, FetchError> {
        let mut head_chunks = 1;
        loop {
            let head = model.only(Which::Head(head_chunks));
            let fetched = self.fetch(&head, candidates, &mut |_, _| {}).await?;
            let path = fetched.path();
            let read = spawn_blocking(move || fetched.head(head_chunks)).await?;
            let prefix = read.map_err(StoreError::io(path))?;
            match Layout::of_prefix(&prefix, model.file_bytes)? {
                None => head_chunks *= 2,
                Some(layout) => {
                    let parts = model.only(Which::Ranges(layout.ranges_of_stage(layers)));
                    let fetched = self.fetch(&parts, candidates, progress).await?;
                    return Ok(FetchedStage { fetched, layout });
                }
            }
        }
    }
}

impl Wanted {
    fn only(&self, which: Which) -> Wanted {
        Wanted {
            which,
            ..self.clone()
        }
    }
}

impl Fetched {
    /// The file, of full length.
    pub fn path(&self) -> PathBuf {
        match self {
            Fetched::Whole(stored) => stored.path.clone(),
            Fetched::Parts(partial) => partial.path(),
        }
    }

    /// Its first chunks, which were fetched. Blocks.
    fn head(&self, chunks: u32) -> io::Result<Vec<u8>> {
        match self {
            Fetched::Parts(partial) => {
                let read = partial.read(0..partial.manifest().place(chunks).start)?;
                read.ok_or_else(|| io::Error::other("what was fetched is not there"))
            }
            Fetched::Whole(stored) => {
                let bytes = u64::from(CHUNK_BYTES) * u64::from(chunks);
                let mut head = Vec::new();
                File::open(&stored.path)?.take(bytes).read_to_end(&mut head)?;
                Ok(head)
            }
        }
    }
}
