//! The parts of a model's file that one stage needs.

use super::error::FetchError;
use super::fetch::{DAMAGED_MAX, Fetched, Fetcher, Wanted, Which};
use crate::store::chunks::CHUNK_BYTES;
use crate::store::error::StoreError;
use proto::NodeId;
use shard::gguf::Layout;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use tokio::task::spawn_blocking;

/// A stage whose weights are still to come, but for what it begins with.
pub struct BegunStage {
    /// A file of full length.
    pub fetched: Fetched,
    pub layout: Layout,
    /// All that it needs, in the order in which it is loaded.
    pub wanted: Wanted,
}

impl Fetcher {
    /// As [`Fetcher::fetch`], with what a stage with these layers needs before it can begin to load, of the file that `model`
    /// names; what is wanted there is not looked at. The file's beginning comes first, twice as much each time, until it tells
    /// where everything lies.
    pub async fn begin_stage(
        &self,
        model: &Wanted,
        layers: &Range<u32>,
        candidates: &[NodeId],
    ) -> Result<BegunStage, FetchError> {
        let (mut head_chunks, mut damaged) = (1, 0);
        loop {
            let head = model.only(Which::Head(head_chunks));
            let fetched = self.fetch(&head, candidates, &mut |_, _| {}).await?;
            let path = fetched.path();
            let read = spawn_blocking(move || fetched.head(head_chunks)).await?;
            let Some(prefix) = read? else {
                damaged += 1;
                if damaged > DAMAGED_MAX {
                    return Err(StoreError::Damaged(path).into());
                }
                continue;
            };
            match Layout::of_prefix(&prefix, model.file_bytes)? {
                None => head_chunks *= 2,
                Some(layout) => {
                    let start = model.only(Which::Ranges(layout.ranges_of_start(layers)));
                    let fetched = self.fetch(&start, candidates, &mut |_, _| {}).await?;
                    let wanted = model.only(Which::Ranges(layout.ranges_of_stage(layers)));
                    return Ok(BegunStage {
                        fetched,
                        layout,
                        wanted,
                    });
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

    /// Its first chunks, which were fetched. `None`: the disk has damaged some since, and they are not here any more. Blocks.
    fn head(&self, chunks: u32) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Fetched::Parts(partial) => {
                let head = 0..partial.manifest().place(chunks).start;
                // Told here, where it cannot be given up between being found and being told.
                if partial.weed(&partial.chunks_of(std::slice::from_ref(&head)))? > 0 {
                    let path = partial.path();
                    tracing::warn!(path = %path.display(), "a model's file is damaged on this node's disk: what is damaged is fetched again");
                }
                partial.read(head).map_err(StoreError::io(partial.path()))
            }
            Fetched::Whole(stored) => {
                let bytes = u64::from(CHUNK_BYTES) * u64::from(chunks);
                let mut head = Vec::new();
                let read = File::open(&stored.path).and_then(|file| file.take(bytes).read_to_end(&mut head));
                read.map_err(StoreError::io(&stored.path))?;
                Ok(Some(head))
            }
        }
    }
}
