//! From a model file to a checked plan of memory, before anything large is allocated.

use super::landed::LandedParts;
use super::verifier::Verifier;
use crate::os;
use crate::store::chunks::Manifest;
use coordinator::placer::layout::Room;
use kernels::KvFormat;
use memmap2::Mmap;
use shard::{
    ArrivalError, ConfigError, Gguf, GgufError, LoadError, ModelConfig, ModelMemory, PASS_ROWS_MAX, Stage,
};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens in a block of KV cache.
pub const BLOCK_TOKENS: u32 = 16;
/// What the process of a stage takes whatever it computes: its program (13 MiB are read of it, which it shares with its node),
/// its heap and what it says to other stages. The first grammar brings more, which is not reckoned with.
pub const PROCESS_BYTES: u64 = 8 << 20;
/// Beyond this much KV cache a replica is not made richer by default: 64 sequences of 2,048 tokens.
const CACHE_TOKENS_WANTED: u64 = 64 * 2048;
/// No model's metadata is larger.
const HEAD_BYTES_MAX: u64 = 64 << 20;
/// Of the memory that is left after weights and workspace, the cache takes at most one part in this many.
const CACHE_SHARE: u64 = 4;

#[derive(thiserror::Error, Debug)]
pub enum PrepareError {
    #[error("model file {path}: {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error("model file {path}: {error}")]
    Format { path: PathBuf, error: GgufError },
    #[error("model file {path}: {error}")]
    Config { path: PathBuf, error: ConfigError },
    #[error(
        "model file {path} is damaged: bytes {} to {} are not what they were when it came, so the disk lies or somebody has \
         changed them: `cluster pull MODEL` fetches a file of the store again; put one of your own back as it was",
        .bytes.start, .bytes.end
    )]
    Damaged { path: PathBuf, bytes: Range<u64> },
    #[error("model file {path}: {error}")]
    Load { path: PathBuf, error: LoadError },
    #[error(
        "the model needs {needed} MiB ({weights} MiB of weights, the rest for computing and KV cache), but only \
         {available} MiB are free: stop other programs, raise --memory where it was given, or choose a smaller model"
    )]
    TooBig {
        needed: u64,
        weights: u64,
        available: u64,
    },
}

impl PrepareError {
    /// Is the file not what it must be, or has it gone since?
    pub fn is_damage(&self) -> bool {
        match self {
            PrepareError::Damaged { .. } => true,
            PrepareError::Open { error, .. } => error.kind() == io::ErrorKind::NotFound,
            PrepareError::Format { .. }
            | PrepareError::Config { .. }
            | PrepareError::Load { .. }
            | PrepareError::TooBig { .. } => false,
        }
    }
}

/// A mapped model file that can be parsed again and again.
pub struct ModelFile {
    path: PathBuf,
    bytes: Mmap,
    kv: KvFormat,
    landed: Option<Arc<LandedParts>>,
    verifier: Option<Verifier>,
}

impl ModelFile {
    /// A file, and how keys and values are to be kept.
    pub fn map(path: &Path, kv: KvFormat) -> Result<ModelFile, PrepareError> {
        let bytes = os::map::read_only(path).map_err(|error| PrepareError::Open {
            path: path.to_owned(),
            error,
        })?;
        Ok(ModelFile {
            path: path.to_owned(),
            bytes,
            kv,
            landed: None,
            verifier: None,
        })
    }

    /// One of which nothing is used that is not what the manifest says. Without it the disk is believed.
    pub fn verified(self, manifest: Manifest) -> ModelFile {
        ModelFile {
            verifier: Some(Verifier::new(manifest)),
            ..self
        }
    }

    /// One of full length that is still coming. Its metadata must be there, and what belongs to no layer.
    pub fn coming(self, landed: Arc<LandedParts>) -> ModelFile {
        ModelFile {
            landed: Some(landed),
            ..self
        }
    }

    /// Returns once these bytes can be read and are what they must be; hashes with up to so many threads, and calls `beat` now
    /// and then while they are coming.
    pub fn wait_for(
        &self,
        bytes: &Range<u64>,
        threads: usize,
        beat: &mut dyn FnMut(),
    ) -> Result<(), ArrivalError> {
        if let Some(landed) = &self.landed {
            landed.wait_for(bytes, beat)?;
        }
        match &self.verifier {
            Some(verifier) => verifier
                .verify(&self.bytes, bytes, threads)
                .map_err(|bytes| ArrivalError::Damaged { bytes }),
            None => Ok(()),
        }
    }

    /// Until all of it has come and survives a crash. Nothing that was made of it may leave the process before: what the disk
    /// could not take might have been read as something else.
    pub fn wait_for_all(&self, beat: &mut dyn FnMut()) {
        if let Some(landed) = &self.landed {
            landed.wait_for_all(beat);
        }
    }

    pub fn parse(&self) -> Result<Gguf<'_>, PrepareError> {
        let parsed = Gguf::parse(&self.bytes);
        let head_bytes = match (&parsed, &self.landed) {
            (Ok(gguf), _) => gguf.head_bytes(),
            // Where it ends cannot be told.
            (Err(_), None) => HEAD_BYTES_MAX,
            (Err(_), Some(landed)) => HEAD_BYTES_MAX.min(landed.beginning_bytes()),
        };
        self.verify_head(0..head_bytes.min(self.bytes.len() as u64))?;
        parsed.map_err(|error| PrepareError::Format {
            path: self.path.clone(),
            error,
        })
    }

    /// Of a file that is coming it is there.
    fn verify_head(&self, bytes: Range<u64>) -> Result<(), PrepareError> {
        let verify = |verifier: &Verifier| verifier.verify(&self.bytes, &bytes, 1);
        let verified = self.verifier.as_ref().map_or(Ok(()), verify);
        verified.map_err(|bytes| PrepareError::Damaged {
            path: self.path.clone(),
            bytes,
        })
    }

    pub fn config(&self, gguf: &Gguf<'_>) -> Result<ModelConfig, PrepareError> {
        let config = ModelConfig::from_gguf(gguf).map_err(|error| match error {
            ConfigError::Gguf(error) => PrepareError::Format {
                path: self.path.clone(),
                error,
            },
            error => PrepareError::Config {
                path: self.path.clone(),
                error,
            },
        })?;
        Ok(ModelConfig {
            kv: self.kv,
            ..config
        })
    }

    pub fn memory(
        &self,
        gguf: &Gguf<'_>,
        config: &ModelConfig,
        stage: &Stage,
        ranks: usize,
    ) -> Result<ModelMemory, PrepareError> {
        ModelMemory::of(config, gguf, stage, ranks, BLOCK_TOKENS).map_err(|error| self.load_error(error))
    }

    /// What was read of it need no longer stay in memory: weights have been packed.
    pub fn forget_pages(&self) {
        os::map::forget(&self.bytes);
    }

    pub fn load_error(&self, error: LoadError) -> PrepareError {
        let path = self.path.clone();
        match error {
            LoadError::Arrival {
                error: ArrivalError::Damaged { bytes },
                ..
            } => PrepareError::Damaged { path, bytes },
            error => PrepareError::Load { path, error },
        }
    }
}

/// How memory is split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    pub weight_bytes: u64,
    pub workspace_bytes: u64,
    pub cache_bytes: u64,
    pub room: Room,
    /// The longest sequence that fits model and cache.
    pub context_tokens_max: u32,
}

impl MemoryPlan {
    /// For steps as long as they are of use. The cache gets a quarter of what is left, at least one full context, at most what 64 sequences of 2,048 tokens
    /// need. An error when not even the least fits in `available` bytes.
    pub fn new(
        memory: &ModelMemory,
        context_tokens_max: u32,
        available: u64,
    ) -> Result<MemoryPlan, PrepareError> {
        let per_block = memory.kv_bytes_per_block.max(1);
        let full_context = u64::from(context_tokens_max).div_ceil(u64::from(BLOCK_TOKENS));
        let wanted = full_context.max(CACHE_TOKENS_WANTED / u64::from(BLOCK_TOKENS));
        let workspace_bytes = memory.workspace_bytes(PASS_ROWS_MAX, context_tokens_max);
        let fixed = memory.weight_bytes.saturating_add(workspace_bytes);
        let needed = fixed.saturating_add(full_context.saturating_mul(per_block));
        if needed > available {
            return Err(too_big(needed, memory.weight_bytes, available));
        }
        let affordable = (available - fixed) / CACHE_SHARE / per_block;
        let blocks = u32::try_from(wanted.min(affordable).max(full_context)).unwrap_or(u32::MAX);
        Ok(MemoryPlan {
            weight_bytes: memory.weight_bytes,
            workspace_bytes,
            cache_bytes: u64::from(blocks) * per_block,
            room: Room {
                blocks,
                step_tokens_max: PASS_ROWS_MAX,
            },
            context_tokens_max,
        })
    }
}

impl MemoryPlan {
    /// What [`MemoryPlan::new`] takes at most for a file of so many bytes that was not read yet, if its weights take no more once
    /// packed: those of Q5_0, Q4_K and Q5_K do, which shows when it is read. `None`: it does not fit.
    pub fn foreseen_bytes(file_bytes: u64, available: u64) -> Option<u64> {
        let rest = available.checked_sub(file_bytes)?;
        Some(file_bytes + rest / CACHE_SHARE)
    }

    /// Exactly so. An error when it does not fit in `available` bytes.
    pub fn with_room(
        memory: &ModelMemory,
        room: Room,
        context_tokens_max: u32,
        available: u64,
    ) -> Result<MemoryPlan, PrepareError> {
        let context_tokens_max = context_tokens_max.min(room.blocks.saturating_mul(BLOCK_TOKENS));
        let workspace_bytes = memory.workspace_bytes(room.step_tokens_max, context_tokens_max);
        let cache_bytes = u64::from(room.blocks).saturating_mul(memory.kv_bytes_per_block);
        let needed = memory
            .weight_bytes
            .saturating_add(workspace_bytes)
            .saturating_add(cache_bytes);
        if needed > available {
            return Err(too_big(needed, memory.weight_bytes, available));
        }
        Ok(MemoryPlan {
            weight_bytes: memory.weight_bytes,
            workspace_bytes,
            cache_bytes,
            room,
            context_tokens_max,
        })
    }
}

fn too_big(needed: u64, weights: u64, available: u64) -> PrepareError {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    PrepareError::TooBig {
        needed: mebibytes(needed),
        weights: mebibytes(weights),
        available: available >> 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator::placer::layout::{Device, NoFit, Wishes, fit};
    use proto::NodeId;
    use proto::cluster::{ModelShape, NodeRates, ProductKind, ProductRates, StagePlace};
    use proto::weights::{FilePart, Landed};
    use shard::testing::TinyLlama;

    const MODEL: ModelMemory = ModelMemory {
        weight_bytes: 1000,
        kv_bytes_per_block: 10,
        bytes_per_row: 0,
        bytes_per_position: 0,
        logit_bytes: 100,
    };

    #[test]
    fn the_cache_takes_a_quarter_of_the_rest_between_one_context_and_enough() {
        // 320 tokens are 20 blocks.
        let blocks = |available| MemoryPlan::new(&MODEL, 320, available).unwrap().room.blocks;
        assert_eq!(blocks(1100 + 200), 20, "one context always fits");
        assert_eq!(blocks(1100 + 4 * 500), 50);
        assert_eq!(
            blocks(u64::MAX / 2),
            (CACHE_TOKENS_WANTED / u64::from(BLOCK_TOKENS)) as u32
        );
    }

    fn device(node: u64, memory_bytes: u64) -> Device {
        Device {
            node: NodeId(node),
            memory_bytes,
            threads: 4,
            rates: NodeRates {
                products: vec![ProductRates {
                    kind: ProductKind::default(),
                    with_1_row_per_sec: 1_000_000_000,
                    with_16_rows_per_sec: 1_000_000_000,
                    with_128_rows_per_sec: 100_000_000,
                }],
                attention: vec![],
            },
            links: vec![],
        }
    }

    /// Whole, and over two nodes of which none holds it whole.
    fn planned(shape: &ModelShape, ranks: u32) -> [(Room, Vec<StagePlace>); 2] {
        let Err(NoFit::NoRoom(lacking)) = fit(shape, &[device(1, 0)], Wishes { ranks }) else {
            panic!("nothing fits into nothing");
        };
        let enough = fit(shape, &[device(1, lacking.needed_bytes)], Wishes { ranks }).unwrap();
        let tight = lacking.needed_bytes - 1;
        let devices = [device(1, tight), device(2, tight)];
        let cut = fit(shape, &devices, Wishes { ranks }).unwrap();
        [enough, cut].map(|layout| (layout.room, layout.stages))
    }

    #[test]
    fn what_is_planned_for_a_stage_is_what_it_reckons_with_itself() {
        for output in [shard::Output::Embeddings, shard::Output::Own] {
            let bytes = TinyLlama {
                layers: 6,
                heads: 9,
                kv_heads: 3,
                output,
                ..TinyLlama::default()
            }
            .file();
            let gguf = Gguf::parse(&bytes).unwrap();
            let config = ModelConfig::from_gguf(&gguf).unwrap();
            let shape = shard::model_shape(&config, &gguf, BLOCK_TOKENS).unwrap();
            for ranks in 1..=4 {
                let [whole, cut] = planned(&shape, ranks);
                assert_eq!((whole.1.len(), cut.1.len()), (1, 2));
                for (room, stage) in [whole, cut]
                    .iter()
                    .flat_map(|(room, stages)| stages.iter().map(move |stage| (*room, stage)))
                {
                    let layers = stage.layer_first as usize..stage.layer_end as usize;
                    let part = Stage::new(layers, config.layers).unwrap();
                    let need = ModelMemory::of(&config, &gguf, &part, ranks as usize, BLOCK_TOKENS).unwrap();
                    let context = config.context_tokens_max;
                    let plan = MemoryPlan::with_room(&need, room, context, stage.memory_bytes).unwrap();
                    let bytes = plan.weight_bytes + plan.workspace_bytes + plan.cache_bytes;
                    assert_eq!(bytes, stage.memory_bytes, "{ranks} ranks, {stage:?}");
                }
            }
        }
    }

    #[test]
    fn a_beginning_that_cannot_be_read_is_damage_also_while_the_file_is_coming() {
        use sha2::{Digest, Sha256};
        const CHUNK: usize = 1024;
        let path = std::env::temp_dir().join(format!("cluster-head-{}", std::process::id()));
        let bytes = TinyLlama::default().file();
        let head = Gguf::parse(&bytes).unwrap().head_bytes() as usize;
        let digests = bytes.chunks(CHUNK).map(|chunk| Sha256::digest(chunk).into());
        let manifest = Manifest {
            file_bytes: bytes.len() as u64,
            chunk_bytes: CHUNK as u32,
            digests: digests.collect(),
        };
        let damaged_at = |at: usize| {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            damaged
        };
        let is_beyond_reading = |at: &usize| Gguf::parse(&damaged_at(*at)).is_err();
        let later = (CHUNK..head).find(is_beyond_reading).expect("a second chunk");
        for at in [0, 30, later] {
            std::fs::write(&path, damaged_at(at)).unwrap();
            let map = || {
                let file = ModelFile::map(&path, KvFormat::Bf16).unwrap();
                file.verified(manifest.clone())
            };
            let landed = LandedParts::default();
            let end = head.next_multiple_of(CHUNK) as u64;
            landed.take(Landed::Parts(vec![FilePart { start: 0, end }]));
            for file in [map(), map().coming(Arc::new(landed))] {
                let error = file.parse().expect_err("it is damaged");
                assert!(error.is_damage(), "{error}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_before_it_is_loaded() {
        let error = MemoryPlan::new(&MODEL, 320, 1100 + 199).unwrap_err();
        assert!(matches!(error, PrepareError::TooBig { .. }), "{error}");
    }
}
