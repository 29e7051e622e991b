//! A model whose file is still coming: a rank reads what has come, and nothing else.

mod common;

use common::{BLOCK_TOKENS, Cuts, Replica, Stream, greedy, prompt};
use kernels::{Cpu, Ops, Team, WeightFormat};
use shard::gguf::Layout;
use shard::testing::TinyLlama;
use shard::{
    ArrivalError, Arrivals, Gguf, LoadError, ModelConfig, NoPackedCache, Output, Rank, Share, Solo, Stage,
    WeightSource,
};
use std::ops::Range;

fn tiny(output: Output) -> Vec<u8> {
    let tiny = TinyLlama {
        layers: 4,
        format: WeightFormat::Q4_1,
        output,
        ..TinyLlama::default()
    };
    tiny.file()
}

fn cpu() -> Cpu {
    Cpu::new(Team::alone(), None).unwrap()
}

fn computed<O: Ops>(mut replica: Replica<O>) -> Stream {
    let sequence = replica.admit(&prompt(6, 40), &greedy());
    replica.prefill(sequence, 32);
    replica.decode(&[sequence], 4);
    replica.stream(sequence)
}

/// Notes what is waited for, and lets only so much of it come.
struct Noted {
    ranges: Vec<Range<u64>>,
    count_max: usize,
}

impl Arrivals for Noted {
    fn wait_for(&mut self, bytes: &Range<u64>) -> Result<(), ArrivalError> {
        self.ranges.push(bytes.clone());
        match self.ranges.len() <= self.count_max {
            true => Ok(()),
            false => Err(ArrivalError::NeverCame { bytes: bytes.clone() }),
        }
    }
}

fn noted(count_max: usize) -> Noted {
    Noted {
        ranges: Vec::new(),
        count_max,
    }
}

/// The file as it is when only these bytes have come: full length, and elsewhere nothing.
fn come(file: &[u8], ranges: &[Range<u64>]) -> Vec<u8> {
    let mut coming = vec![0; file.len()];
    for range in ranges {
        let range = range.start as usize..range.end as usize;
        coming[range.clone()].copy_from_slice(&file[range]);
    }
    coming
}

#[test]
fn what_was_waited_for_is_all_that_is_read_and_gives_the_same_bits() {
    for output in [Output::Embeddings, Output::Own] {
        let file = tiny(output);
        let layout = Layout::of_prefix(&file, file.len() as u64).unwrap().unwrap();
        for cuts in [Cuts { ranks: 1, stages: 1 }, Cuts { ranks: 2, stages: 2 }] {
            let whole = computed(Replica::piped(cpu, &file, cuts));
            assert_eq!(whole.tokens.len(), 5);
            let mut all = noted(usize::MAX);
            Replica::coming(&mut all, cpu, &file, cuts);
            let waited: Vec<Range<u64>> = layout
                .ranges_of_start(&(0..4))
                .into_iter()
                .chain(all.ranges)
                .collect();
            let sparse = come(&file, &waited);
            let coming = Replica::coming(&mut noted(usize::MAX), cpu, &sparse, cuts);
            assert_eq!(computed(coming), whole, "{cuts:?}");
            // Without one of them it is not the same: the bits do show what was read.
            let last = waited.last().unwrap();
            let others: Vec<Range<u64>> = waited.iter().filter(|range| *range != last).cloned().collect();
            let short = come(&file, &others);
            assert_ne!(
                computed(Replica::coming(&mut noted(usize::MAX), cpu, &short, cuts)),
                whole
            );
        }
    }
}

fn load(file: &[u8], arrivals: &mut Noted, layers: Range<usize>) -> Result<(), LoadError> {
    let gguf = Gguf::parse(file).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let mut source = WeightSource {
        gguf: &gguf,
        arrivals,
        packed: &mut NoPackedCache,
        progress: &mut |_| {},
    };
    let share = Share {
        stage: Stage::new(layers, config.layers).unwrap(),
        blocks: 8,
        block_tokens: BLOCK_TOKENS,
        pass_rows_max: 64,
    };
    Rank::load(cpu(), Solo, &mut source, &config, &share).map(drop)
}

/// In the order in which the layout has them, but for the first and the last, whose tensors may come in any.
#[test]
fn a_stage_waits_for_its_layers_in_the_order_in_which_they_are_fetched() {
    let file = tiny(Output::Own);
    let layout = Layout::of_prefix(&file, file.len() as u64).unwrap().unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    let parts = |ranges: &[Range<u64>]| {
        let name = |range: &Range<u64>| gguf.tensors().find(|tensor| tensor.place() == *range);
        let names = ranges.iter().filter_map(name).map(|tensor| tensor.name);
        let mut parts: Vec<String> = names
            .map(|name| match name.strip_prefix("blk.") {
                Some(rest) => rest.split('.').next().unwrap().to_owned(),
                None => name.replace("_norm", ""),
            })
            .collect();
        parts.dedup();
        parts
    };
    for layers in [0..4, 0..2, 1..3, 2..4] {
        let mut all = noted(usize::MAX);
        load(&file, &mut all, layers.clone()).unwrap();
        let fetched = layout.ranges_of_stage(&(layers.start as u32..layers.end as u32));
        assert_eq!(parts(&all.ranges), parts(&fetched), "{layers:?}");
    }
}

#[test]
fn what_never_comes_is_told_with_its_tensor() {
    let file = tiny(Output::Own);
    let mut some = noted(5);
    let error = load(&file, &mut some, 0..4).unwrap_err();
    let bytes = some.ranges.pop().unwrap();
    let words = error.to_string();
    assert!(words.starts_with("tensor blk.0."), "{words}");
    assert!(
        words.contains(&format!("bytes {} to {}", bytes.start, bytes.end)),
        "{words}"
    );
    let expected = matches!(
        &error,
        LoadError::Arrival {
            error: ArrivalError::NeverCame { .. },
            ..
        }
    );
    assert!(expected, "{error}");
}
