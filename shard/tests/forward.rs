//! The forward pass on a tiny random model: the same bits however the work is cut.

mod common;

use common::{Cuts, Replica, greedy, prompt};
use kernels::{Cpu, KvFormat, Ops, PackedBytes, Reference, Team, WeightFormat};
use proto::request::Sampling;
use shard::testing::{GgufWriter, TinyLlama};
use shard::{Gguf, ModelConfig, ModelMemory, PackedCache, numerics_fingerprint};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const FORMATS: [WeightFormat; 10] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8_0,
    WeightFormat::Q4_0,
    WeightFormat::Q4_1,
    WeightFormat::Q5_0,
    WeightFormat::Q4K,
    WeightFormat::Q5K,
    WeightFormat::Q6K,
];

fn tiny(format: WeightFormat) -> Vec<u8> {
    TinyLlama::of(format).file()
}

/// Tokens and scores, bit for bit.
fn alone(file: &[u8], ranks: usize, chunk: usize, prompt: &[u32], sampling: &Sampling) -> common::Stream {
    computed(Replica::new(file, ranks), chunk, prompt, sampling)
}

fn computed<O: Ops>(
    mut replica: Replica<O>,
    chunk: usize,
    prompt: &[u32],
    sampling: &Sampling,
) -> common::Stream {
    let sequence = replica.admit(prompt, sampling);
    replica.prefill(sequence, chunk);
    replica.decode(&[sequence], 5);
    replica.stream(sequence)
}

/// Keeps packed matrices in memory.
#[derive(Default)]
struct Kept {
    matrices: BTreeMap<(String, usize, usize), Arc<Vec<u8>>>,
    packed: usize,
}

impl PackedCache for Kept {
    fn find(&mut self, name: &str, outputs: &Range<usize>) -> Option<PackedBytes> {
        let bytes = self
            .matrices
            .get(&(name.to_owned(), outputs.start, outputs.end))?;
        PackedBytes::new(bytes.clone(), 0..bytes.len())
    }

    fn keep(&mut self, name: &str, outputs: &Range<usize>, packed: &[u8]) {
        self.packed += 1;
        let key = (name.to_owned(), outputs.start, outputs.end);
        self.matrices.insert(key, Arc::new(packed.to_vec()));
    }
}

#[test]
fn weights_that_were_packed_before_give_the_same_bits_and_damaged_ones_are_packed_anew() {
    let formats = [
        WeightFormat::Q4_1,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
    ];
    let files = formats.map(tiny);
    let prompt = prompt(6, 40);
    for (file, ranks) in files.iter().flat_map(|file| [(file, 1), (file, 2)]) {
        let mut kept = Kept::default();
        let run = |kept: &mut Kept| {
            let cpu = || Cpu::new(Team::alone(), None).unwrap();
            let replica = Replica::keeping(kept, cpu, file, ranks);
            computed(replica, 64, &prompt, &greedy())
        };
        let first = run(&mut kept);
        let all = kept.packed;
        assert_eq!(all, kept.matrices.len());
        assert_eq!(run(&mut kept), first);
        assert_eq!(kept.packed, all, "nothing was packed again");
        let mut entries = kept.matrices.values_mut();
        *entries.next().expect("a matrix") = Arc::new(vec![1, 2, 3]);
        assert_eq!(run(&mut kept), first);
        assert_eq!(kept.packed, all + 1);
    }
}

#[test]
fn the_cpu_backend_gives_the_bits_of_the_reference_in_every_format_and_chunk() {
    for format in FORMATS {
        let file = tiny(format);
        let prompt = prompt(6, 150);
        let expected = alone(&file, 1, 512, &prompt, &greedy());
        for (ranks, chunk) in [(1, 1), (1, 7), (1, 64), (1, 512), (2, 64)] {
            let cpu = || Cpu::new(Team::alone(), None).unwrap();
            let found = computed(Replica::on(cpu, &file, ranks), chunk, &prompt, &greedy());
            assert_eq!(
                found, expected,
                "{format:?} in chunks of {chunk} on {ranks} ranks"
            );
        }
    }
}

#[test]
fn a_prompt_gives_the_same_bits_however_it_is_chunked() {
    let file = tiny(WeightFormat::Q4_1);
    let prompt = prompt(1, 150);
    let whole = alone(&file, 1, 512, &prompt, &greedy());
    assert_eq!(whole.tokens.len(), 6);
    for chunk in [1, 7, 64] {
        assert_eq!(
            alone(&file, 1, chunk, &prompt, &greedy()),
            whole,
            "in chunks of {chunk}"
        );
    }
}

#[test]
fn every_format_and_every_number_of_ranks_gives_the_same_bits() {
    for format in FORMATS {
        let file = tiny(format);
        let prompt = prompt(2, 20);
        let one = alone(&file, 1, 20, &prompt, &greedy());
        for ranks in [2, 3] {
            assert_eq!(
                alone(&file, ranks, 20, &prompt, &greedy()),
                one,
                "{format:?} on {ranks} ranks"
            );
        }
    }
}

/// As `llama-quantize` makes them: most matrices in four bits, and in six the embeddings, which make logits too.
#[test]
fn embeddings_of_six_bits_give_the_bits_of_the_reference_however_the_model_is_cut() {
    let name = "token_embd.weight";
    let tiny = TinyLlama {
        format: WeightFormat::Q4_0,
        ..TinyLlama::of(WeightFormat::Q6K)
    };
    let mut writer = GgufWriter::new(3);
    tiny.write(&mut writer);
    let (hidden, vocabulary) = (tiny.heads * tiny.head_dim, tiny.vocabulary);
    let values: Vec<f32> = (0..hidden * vocabulary)
        .map(|place| (place * 7919 % 2003) as f32 / 16_000.0 - 0.0625)
        .collect();
    writer.replace(name, WeightFormat::Q6K, &values);
    let file = writer.finish();

    let cpu = || Cpu::new(Team::alone(), None).unwrap();
    let expected = computed(Replica::on(|| Reference, &file, 1), 16, &prompt(7, 40), &greedy());
    for (ranks, stages) in [(1, 1), (2, 1), (3, 2)] {
        let cut = Replica::piped(cpu, &file, Cuts { ranks, stages });
        let found = computed(cut, 16, &prompt(7, 40), &greedy());
        assert_eq!(found, expected, "{ranks} ranks, {stages} stages");
    }
}

#[test]
fn keys_and_values_in_int8_give_bits_of_their_own_wherever_they_are_computed() {
    let file = tiny(WeightFormat::Q4_1);
    let prompt = prompt(4, 70);
    let run = |kv, ranks, chunk| {
        let cpu = || Cpu::new(Team::alone(), None).unwrap();
        computed(Replica::caching(kv, cpu, &file, ranks), chunk, &prompt, &greedy())
    };
    let reference = Replica::caching(KvFormat::Int8, || Reference, &file, 1);
    let expected = computed(reference, 64, &prompt, &greedy());
    for (ranks, chunk) in [(1, 64), (1, 7), (2, 64), (3, 16)] {
        assert_eq!(
            run(KvFormat::Int8, ranks, chunk),
            expected,
            "{ranks} ranks, chunks of {chunk}"
        );
    }
    assert_ne!(run(KvFormat::Bf16, 1, 64).scores, expected.scores);
}

#[test]
fn the_format_of_keys_and_values_is_part_of_the_numerics_and_of_the_memory() {
    let file = tiny(WeightFormat::Q4_1);
    let gguf = Gguf::parse(&file).unwrap();
    let [bf16, int8] = [KvFormat::Bf16, KvFormat::Int8].map(|kv| ModelConfig {
        kv,
        ..ModelConfig::from_gguf(&gguf).unwrap()
    });
    assert_ne!(
        numerics_fingerprint(&bf16, &gguf),
        numerics_fingerprint(&int8, &gguf)
    );
    let weights = tiny(WeightFormat::Bf16);
    let weights = Gguf::parse(&weights).unwrap();
    assert_ne!(
        numerics_fingerprint(&bf16, &gguf),
        numerics_fingerprint(&bf16, &weights)
    );
    let per_block = |config| {
        let memory = ModelMemory::of(config, &gguf, &config.whole(), 1, 16).unwrap();
        memory.kv_bytes_per_block
    };
    // Heads of 32: 64 bytes in bf16, 32 and a scale in int8.
    assert_eq!(bf16.head_dim, 32);
    assert_eq!(per_block(&int8) * 64, per_block(&bf16) * 36);
}

#[test]
fn more_ranks_than_kv_heads_share_them() {
    let file = tiny(WeightFormat::Q8_0);
    let prompt = prompt(3, 12);
    assert_eq!(
        alone(&file, 5, 12, &prompt, &greedy()),
        alone(&file, 1, 12, &prompt, &greedy())
    );
}

#[test]
fn a_sequence_among_others_gives_the_same_bits_as_alone() {
    let file = tiny(WeightFormat::Q4_0);
    let samplings = |n: u64| Sampling {
        seed: n,
        temperature: 0.9,
        top_p: 0.95,
        logprobs: Some(2),
        ..Sampling::default()
    };
    let prompts: Vec<_> = (0..9).map(|n| prompt(n, 3 + 5 * n as usize)).collect();
    let mut replica = Replica::new(&file, 1);
    let sequences: Vec<_> = (0..9)
        .map(|n| replica.admit(&prompts[n as usize], &samplings(n)))
        .collect();
    replica.prefill_together(&sequences);
    replica.decode(&sequences, 5);
    for (n, sequence) in (0..).zip(sequences) {
        let expected = alone(&file, 1, 100, &prompts[n as usize], &samplings(n));
        assert_eq!(replica.stream(sequence), expected, "sequence {n}");
    }
}

#[test]
fn a_preempted_sequence_goes_on_with_the_same_bits() {
    let file = tiny(WeightFormat::Bf16);
    let prompt = prompt(5, 30);
    let expected = alone(&file, 1, 30, &prompt, &greedy());
    let mut replica = Replica::new(&file, 1);
    let sequence = replica.admit(&prompt, &greedy());
    replica.prefill(sequence, 30);
    replica.decode(&[sequence], 2);
    replica.preempt(sequence);
    // What was sampled before is computed anew together with the prompt, and not sampled again.
    replica.prefill(sequence, 11);
    replica.decode(&[sequence], 2);
    assert_eq!(replica.stream(sequence), expected);
}

#[test]
fn a_step_of_more_rows_than_a_pass_is_computed_in_several() {
    let file = TinyLlama {
        layers: 1,
        heads: 3,
        kv_heads: 1,
        feed_forward: 96,
        ..TinyLlama::default()
    }
    .file();
    let prompt = prompt(6, 600);
    assert_eq!(
        alone(&file, 1, 600, &prompt, &greedy()),
        alone(&file, 1, 64, &prompt, &greedy())
    );
}

#[test]
fn every_prompt_token_is_scored_once_across_chunks_and_preemption() {
    let file = tiny(WeightFormat::Q8_0);
    let prompt = prompt(7, 75);
    let sampling = Sampling {
        prompt_logprobs: Some(3),
        ..greedy()
    };
    let whole = alone(&file, 1, 75, &prompt, &sampling);
    let scored: Vec<u32> = whole.prompt_scores.iter().map(|score| score.token).collect();
    assert_eq!(scored, prompt[1..]);
    assert!(whole.prompt_scores.iter().all(|score| score.top.len() == 3));
    assert_eq!(alone(&file, 2, 7, &prompt, &sampling), whole);

    let mut replica = Replica::new(&file, 1);
    let sequence = replica.admit(&prompt, &sampling);
    replica.compute(sequence, 40);
    replica.preempt(sequence);
    replica.prefill(sequence, 16);
    replica.decode(&[sequence], 5);
    assert_eq!(replica.stream(sequence), whole);
}

#[test]
fn a_prompt_is_scored_by_the_logits_that_would_sample_it() {
    let file = tiny(WeightFormat::F16);
    let whole = alone(&file, 1, 64, &prompt(8, 10), &greedy());
    let mut longer = prompt(8, 10);
    longer.extend(&whole.tokens);
    let sampling = Sampling {
        prompt_logprobs: Some(2),
        ..greedy()
    };
    let scored = alone(&file, 1, 64, &longer, &sampling);
    assert_eq!(&scored.prompt_scores[9..], &whole.scores[..]);
}

#[test]
fn a_zeroed_page_leaves_nothing_of_its_former_owner() {
    let file = tiny(WeightFormat::Q4_1);
    let mut replica = Replica::new(&file, 1);
    let sequence = replica.admit(&prompt(9, 40), &greedy());
    replica.prefill(sequence, 40);
    replica.decode(&[sequence], 1);
    replica.zero_pages_of(sequence);
    replica.decode(&[sequence], 4);
    let disturbed = replica.stream(sequence);
    assert_ne!(
        disturbed.scores,
        alone(&file, 1, 40, &prompt(9, 40), &greedy()).scores
    );
}

#[test]
fn a_rank_that_ends_makes_the_others_say_so() {
    let file = tiny(WeightFormat::Q4_1);
    let mut replica = Replica::new(&file, 3);
    let sequence = replica.admit(&prompt(10, 8), &greedy());
    replica.end_rank(2);
    assert!(replica.try_compute(sequence, 8).is_err());
}
