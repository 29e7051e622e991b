//! A stage that is loaded while its file comes, by the same parts as in a node and its shard host, but in one process.

use super::{ComingFile, Fetch};
use crate::shard_host::exercise::{Exercise, Shape};
use crate::shard_host::landed::LandedParts;
use crate::shard_host::prepare::{BLOCK_TOKENS, MemoryPlan, ModelFile};
use crate::shard_host::ranks::{RankPlan, Ranks};
use crate::store::Opening;
use crate::store::chunks::Manifest;
use crate::store::partial::Partial;
use crate::store::testing::store_without_sources;
use coordinator::placer::layout::Room;
use kernels::KvFormat;
use proto::engine::ToEngine;
use proto::step::Verdict;
use proto::wire::{self, Kind};
use sha2::{Digest, Sha256};
use shard::gguf::Layout;
use shard::testing::TinyLlama;
use shard::{SampledToken, Stage, StepInput};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

const CHUNK: u32 = 4096;
const LAYERS: usize = 3;
/// Of the stage, which is the first of two.
const STAGE: std::ops::Range<u32> = 0..2;

/// A folder that goes away with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("cluster-coming-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn partial(&self, digest: [u8; 32], manifest: &Manifest) -> Partial {
        let store = store_without_sources(&self.0.join("store"));
        match store.open_partial(&digest, manifest).unwrap() {
            Opening::Parts(partial) => partial,
            Opening::Whole(_) | Opening::Elsewhere => panic!("it is new"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tiny() -> Vec<u8> {
    let tiny = TinyLlama {
        layers: LAYERS,
        ..TinyLlama::default()
    };
    tiny.file()
}

fn manifest_of(bytes: &[u8]) -> Manifest {
    let digests = bytes
        .chunks(CHUNK as usize)
        .map(|chunk| Sha256::digest(chunk).into());
    Manifest {
        file_bytes: bytes.len() as u64,
        chunk_bytes: CHUNK,
        digests: digests.collect(),
    }
}

const ROOM: Room = Room {
    blocks: 8,
    step_tokens_max: 16,
};

/// Two ranks, which keep what they have packed.
fn load(file: ModelFile, packed: &Path, progress: &mut dyn FnMut(u64)) -> Result<Ranks, String> {
    let gguf = file.parse().map_err(|error| error.to_string())?;
    let config = file.config(&gguf).map_err(|error| error.to_string())?;
    let stage = Stage::new(STAGE.start as usize..STAGE.end as usize, config.layers).unwrap();
    let need = file.memory(&gguf, &config, &stage, 2).unwrap();
    let plan = RankPlan {
        ranks: 2,
        threads: 2,
        level: None,
        stage,
        memory: MemoryPlan::with_room(&need, ROOM, config.context_tokens_max, u64::MAX).unwrap(),
        packed: Some(packed.to_owned()),
    };
    drop(gguf);
    Ranks::load(&Arc::new(file), &plan, progress).map_err(|error| error.to_string())
}

/// What the stage hands on, bit for bit.
fn computed(mut ranks: Ranks) -> Vec<u32> {
    let mut bits = Vec::new();
    let compute = |input: StepInput| {
        let wanted: Vec<_> = input
            .passes
            .iter()
            .flat_map(|pass| &pass.logits)
            .cloned()
            .collect();
        let mut output = ranks.step(input)?;
        bits.extend(output.residual.iter().map(|value| value.to_bits()));
        let token = |_| SampledToken {
            id: 7,
            score: None,
            verdict: Verdict::Continue,
        };
        let tokens = wanted.iter().map(|row| (row.sequence, token(())));
        output.sampled.extend(tokens);
        Ok(output)
    };
    let shape = Shape {
        sequences: 2,
        prompt_tokens: BLOCK_TOKENS + 3,
        output_tokens: 4,
        temperature: 0.0,
    };
    let mut exercise = Exercise::new(compute, 500, ROOM.step_tokens_max);
    let mut batch = exercise.admit(shape);
    exercise.advance(&mut batch, shape.prompt_tokens).unwrap();
    exercise.advance(&mut batch, 1).unwrap();
    drop(exercise);
    bits
}

/// The node's words, as a shard host takes them.
fn told(coming: ComingFile) -> Arc<LandedParts> {
    let landed = Arc::new(LandedParts::default());
    let (to_process, mut frames) = mpsc::unbounded_channel();
    tokio::spawn(coming.keep_told(to_process));
    let parts = Arc::clone(&landed);
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            match wire::read(Kind::ToEngine, &frame).unwrap() {
                ToEngine::Landed(landed) => parts.take(*landed),
                other => panic!("{other:?}"),
            }
        }
    });
    landed
}

fn map(path: &Path) -> ModelFile {
    ModelFile::map(path, KvFormat::default()).unwrap()
}

/// Takes a chunk in, after one with a wrong bit, which is refused.
fn land(partial: &Partial, bytes: &[u8], chunk: u32) {
    let place = partial.manifest().place(chunk);
    let mut right = bytes[place.start as usize..place.end as usize].to_vec();
    right[0] ^= 1;
    assert!(!partial.write_chunk(chunk, &right).unwrap(), "it is damaged");
    right[0] ^= 1;
    assert!(partial.write_chunk(chunk, &right).unwrap());
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.ends_with(".part")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_is_loaded_while_its_file_comes_computes_the_same_bits() {
    let folder = Folder::new("same");
    let bytes = tiny();
    fs::write(folder.0.join("whole"), &bytes).unwrap();
    let (whole, mut all) = (map(&folder.0.join("whole")), 0);
    let whole = load(whole, &folder.0.join("a/packed"), &mut |bytes| all = bytes).unwrap();
    let expected = computed(whole);
    let partial = folder.partial(Sha256::digest(&bytes).into(), &manifest_of(&bytes));
    let layout = Layout::of_prefix(&bytes, bytes.len() as u64).unwrap().unwrap();
    let start = partial.chunks_of(&layout.ranges_of_start(&STAGE));
    start.iter().for_each(|chunk| land(&partial, &bytes, chunk));
    let (progress, watched) = watch::channel(Fetch::UnderWay);
    let file = map(&partial.path()).coming(told(ComingFile::new(partial.clone(), watched)));
    let (read, mut reads) = mpsc::unbounded_channel();
    let packed = folder.0.join("b/packed");
    let of_loader = packed.clone();
    let mut loading =
        spawn_blocking(move || load(file, &of_loader, &mut |bytes| read.send(bytes).unwrap_or(())));
    // Not in the order in which they are needed; the last one does not come yet.
    let wanted = partial
        .chunks_of(&layout.ranges_of_stage(&STAGE))
        .minus(&partial.here());
    let mut chunks: Vec<u32> = wanted.iter().collect();
    let last = chunks.pop().unwrap();
    for chunk in chunks.iter().rev() {
        land(&partial, &bytes, *chunk);
    }
    assert!(
        reads.recv().await.is_some_and(|bytes| bytes > 0),
        "it has begun, and not all is here"
    );
    assert!(!loading.is_finished());
    land(&partial, &bytes, last);
    // All is here; but it is not known yet whether the disk has it.
    while reads.recv().await.expect("it goes on loading") != all {}
    assert_eq!(
        names(packed.parent().unwrap()),
        [""; 0],
        "nothing is kept of it before"
    );
    partial.settle().unwrap();
    progress.send(Fetch::Done).unwrap();
    let coming = (&mut loading).await.unwrap().unwrap();
    assert_eq!(computed(coming), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_was_forgotten_ends_the_loading_with_its_name() {
    let folder = Folder::new("forgotten");
    let bytes = tiny();
    let partial = folder.partial(Sha256::digest(&bytes).into(), &manifest_of(&bytes));
    let layout = Layout::of_prefix(&bytes, bytes.len() as u64).unwrap().unwrap();
    let mut ranges = layout.ranges_of_stage(&STAGE);
    ranges.pop();
    let chunks = partial.chunks_of(&ranges);
    chunks.iter().for_each(|chunk| land(&partial, &bytes, chunk));
    let (progress, watched) = watch::channel(Fetch::UnderWay);
    progress.send(Fetch::Done).unwrap();
    let file = map(&partial.path()).coming(told(ComingFile::new(partial.clone(), watched)));
    let loaded = spawn_blocking(move || load(file, &folder.0.join("packed"), &mut |_| {}));
    let error = loaded.await.unwrap().err().expect("a part is missing");
    assert!(
        error.contains("tensor blk.1.") && error.contains("did not come"),
        "{error}"
    );
}
