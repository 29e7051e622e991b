//! A model cut into stages: the same bits as in one piece, whatever the cut.

mod common;

use common::{Cuts, Replica, Stream, greedy, prompt};
use kernels::{Cpu, Ops, Reference, Team, WeightFormat};
use proto::cluster::{InputTerms, MatrixFormat};
use proto::request::Sampling;
use proto::step::{Slice, SliceOutput, StepPlan};
use proto::{AdapterId, BlockId, GroupId, SequenceId};
use shard::testing::{GgufWriter, TinyLlama};
use shard::{Gguf, ModelConfig, ModelMemory, Output, PlanBounds, Stage, StageTable, UnfitPlan, model_shape};

const CUTS: [Cuts; 7] = [
    Cuts { ranks: 2, stages: 1 },
    Cuts { ranks: 4, stages: 1 },
    Cuts { ranks: 1, stages: 2 },
    Cuts { ranks: 1, stages: 3 },
    Cuts { ranks: 1, stages: 4 },
    Cuts { ranks: 2, stages: 2 },
    Cuts { ranks: 3, stages: 4 },
];

/// Nine heads and three of keys and values, as in SmolLM2: no number of ranks but three divides them.
fn odd(output: Output) -> Vec<u8> {
    odd_model(output).file()
}

fn odd_model(output: Output) -> TinyLlama {
    TinyLlama {
        layers: 5,
        heads: 9,
        kv_heads: 3,
        format: WeightFormat::Q4_1,
        output,
        ..TinyLlama::default()
    }
}

fn computed<O: Ops>(mut replica: Replica<O>, sampling: &Sampling) -> Stream {
    let sequence = replica.admit(&prompt(6, 70), sampling);
    replica.prefill(sequence, 40);
    replica.decode(&[sequence], 3);
    replica.preempt(sequence);
    replica.prefill(sequence, 48);
    replica.decode(&[sequence], 3);
    replica.stream(sequence)
}

#[test]
fn every_cut_into_stages_and_ranks_gives_the_same_bits() {
    for output in [Output::Embeddings, Output::Own] {
        let file = odd(output);
        let whole = computed(Replica::new(&file, 1), &greedy());
        assert_eq!(whole.tokens.len(), 8);
        for cuts in CUTS {
            let cpu = || Cpu::new(Team::alone(), None).unwrap();
            let cut = Replica::piped(cpu, &file, cuts);
            assert_eq!(computed(cut, &greedy()), whole, "{cuts:?}");
        }
    }
}

#[test]
fn seeded_sampling_and_scores_of_a_prompt_survive_a_cut() {
    let file = odd(Output::Embeddings);
    let sampling = Sampling {
        seed: 7,
        temperature: 0.9,
        prompt_logprobs: Some(1),
        ..greedy()
    };
    let whole = computed(Replica::new(&file, 1), &sampling);
    let cuts = Cuts { ranks: 2, stages: 3 };
    let cut = Replica::piped(|| Reference, &file, cuts);
    assert_eq!(computed(cut, &sampling), whole);
}

#[test]
fn stages_together_hold_what_the_model_has_and_a_tied_table_twice() {
    for output in [Output::Embeddings, Output::Own] {
        let file = odd(output);
        let gguf = Gguf::parse(&file).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        let memory = |stage: &Stage| ModelMemory::of(&config, &gguf, stage, 1, 16).unwrap();
        let whole = memory(&config.whole());
        let parts = [0..2, 2..3, 3..5].map(|layers| memory(&Stage::new(layers, config.layers).unwrap()));
        let weights: u64 = parts.iter().map(|part| part.weight_bytes).sum();
        let kv: u64 = parts.iter().map(|part| part.kv_bytes_per_block).sum();
        let table = gguf.tensor("token_embd.weight").unwrap().bytes().len() as u64;
        let twice = match output {
            Output::Embeddings => table,
            Output::Own => 0,
        };
        assert_eq!(weights, whole.weight_bytes + twice);
        assert_eq!(kv, whole.kv_bytes_per_block);
    }
}

fn plan(start: u32, count: u32, block: u32) -> StepPlan {
    StepPlan {
        slices: vec![Slice {
            sequence: SequenceId(3),
            adapter: AdapterId(0),
            start,
            count,
            new_blocks: vec![(GroupId(0), BlockId(block))],
            output: SliceOutput::Nothing,
        }],
        ..StepPlan::default()
    }
}

/// A placement is made by the shape, and what a stage takes is held against it.
#[test]
fn what_a_stage_takes_is_what_the_shape_says() {
    for output in [Output::Embeddings, Output::Own] {
        let mut writer = GgufWriter::new(3);
        odd_model(output).write(&mut writer);
        // As Llama 3 has it.
        writer.tensor("rope_freqs.weight", &[16], WeightFormat::F32, &[1.0; 16]);
        let file = writer.finish();
        let gguf = Gguf::parse(&file).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        let shape = model_shape(&config, &gguf, 16).unwrap();
        for layers in [0..2, 2..4, 4..5] {
            let neighbours = u64::from(layers.start > 0) + u64::from(layers.end < 5);
            let of_layers: u64 = shape.layer_weight_bytes[layers.clone()].iter().sum();
            let ends = if layers.start == 0 {
                shape.embedding_bytes
            } else {
                0
            } + if layers.end == 5 { shape.head_bytes } else { 0 };
            let stage = Stage::new(layers.clone(), config.layers).unwrap();
            let memory = ModelMemory::of(&config, &gguf, &stage, 1, 16).unwrap();
            assert_eq!(
                memory.weight_bytes,
                of_layers + ends + shape.common_bytes,
                "{layers:?}"
            );
            let (row, logit_row) = (&shape.workspace.row, &shape.workspace.logit_row);
            let moved = neighbours * u64::from(shape.hidden) * 4;
            assert_eq!(memory.bytes_per_row, row.on(1) + moved, "{layers:?}");
            assert_eq!(memory.bytes_per_position, shape.position_bytes);
            let logits = match layers.end {
                5 => logit_row.on(1) * u64::from(shape.workspace.logit_rows_max),
                _ => 0,
            };
            assert_eq!(memory.logit_bytes, logits, "{layers:?}");
            let kv = shape.kv_bytes_per_token_layer * 16 * layers.len() as u64;
            assert_eq!(memory.kv_bytes_per_block, kv);
        }
    }
}

#[test]
fn weights_are_foreseen_as_they_are_kept() {
    let stages = [0..2, 0..1, 1..2];
    let foreseen = |format, output| {
        let file = TinyLlama {
            format,
            output,
            ..TinyLlama::of(WeightFormat::Q6K)
        }
        .file();
        let gguf = Gguf::parse(&file).unwrap();
        let config = ModelConfig::from_gguf(&gguf).unwrap();
        let memory = stages.clone().map(|layers| {
            let stage = Stage::new(layers, config.layers).unwrap();
            [1, 2].map(|ranks| ModelMemory::of(&config, &gguf, &stage, ranks, 16).unwrap())
        });
        (model_shape(&config, &gguf, 16).unwrap(), memory)
    };
    for output in [Output::Embeddings, Output::Own] {
        // Bytes of 256 weights.
        let kept = [
            (WeightFormat::Q8_0, 256 / 32 * 34),
            (WeightFormat::Q6K, 210),
            (WeightFormat::Q5K, 176 + 4),
            (WeightFormat::Q4K, 144 + 4),
        ];
        let [eight, six, five, four] = kept.map(|(format, bytes)| {
            let (shape, memory) = foreseen(format, output);
            assert_eq!(shape.embedding_bytes, bytes * 515, "{format:?}");
            (memory.map(|ranks| ranks.map(|memory| memory.weight_bytes)), bytes)
        });
        // What is not a matrix is the same, so that differences are of matrices.
        for (stage, ranks) in (0..stages.len()).flat_map(|stage| [(stage, 0), (stage, 1)]) {
            let spared = [six, five, four]
                .map(|other| (eight.0[stage][ranks] - other.0[stage][ranks]) / (eight.1 - other.1));
            assert!(spared[0] > 0, "some matrices");
            assert_eq!(spared, [spared[0]; 3], "stage {stage}, {} ranks", ranks + 1);
        }
        assert_eq!(
            foreseen(WeightFormat::Q5_0, output),
            foreseen(WeightFormat::Q8_0, output)
        );
    }
}

/// Hidden 288, keys 96, feed-forward 384.
#[test]
fn a_shape_says_what_every_layer_is_multiplied_with_and_how_finely() {
    let products = |format| {
        let model = TinyLlama {
            format,
            ..odd_model(Output::Own)
        };
        let file = model.file();
        let gguf = Gguf::parse(&file).unwrap();
        let shape = model_shape(&ModelConfig::from_gguf(&gguf).unwrap(), &gguf, 16).unwrap();
        assert_eq!(shape.layer_products.len(), 5);
        assert_eq!(shape.head_products.weights, 288 * 515);
        let of_layer = shape.layer_products[4].iter();
        let listed: Vec<_> = of_layer
            .map(|products| (products.kind.format, products.kind.inputs, products.weights))
            .collect();
        (listed, shape.head_products.kind)
    };
    // Query, key, value and down in two terms; the others in one.
    let (two, one) = (288 * (288 + 96 + 96) + 384 * 288, 288 * 288 + 2 * 288 * 384);
    let (of_layer, head) = products(WeightFormat::Q4_1);
    let q4_1 = MatrixFormat::Q4_1;
    assert_eq!(
        of_layer,
        [(q4_1, InputTerms::One, one), (q4_1, InputTerms::Two, two)]
    );
    assert_eq!((head.format, head.inputs), (q4_1, InputTerms::One));
    let (of_layer, _) = products(WeightFormat::Bf16);
    assert_eq!(of_layer, [(MatrixFormat::Bf16, InputTerms::One, one + two)]);
}

#[test]
fn a_stage_refuses_a_plan_that_it_cannot_compute() {
    let bounds = PlanBounds {
        block_tokens: 16,
        blocks: 10,
        vocabulary: 100,
        pass_rows_max: 512,
    };
    let table = |layers| StageTable::new(Stage::new(layers, 4).unwrap(), bounds);
    let five = plan(0, 5, 9);
    let input = table(0..2).input(&five, &[1, 2, 3, 4, 5]).unwrap();
    assert_eq!((input.tokens(), input.rows()), (vec![1, 2, 3, 4, 5], 5));
    assert_eq!(input.passes[0].batch.sequences[0].blocks, [9]);
    assert_eq!(table(2..4).input(&five, &[]).unwrap().rows(), 5);
    let refused = |layers, plan: &StepPlan, tokens: &[u32]| table(layers).input(plan, tokens).unwrap_err();
    let tokens = |rows, tokens| UnfitPlan::Tokens { rows, tokens };
    assert_eq!(refused(0..2, &five, &[1, 2, 3, 4]), tokens(5, 4));
    assert_eq!(refused(0..2, &five, &[]), tokens(5, 0));
    assert_eq!(refused(2..4, &five, &[1]), tokens(0, 1));
    let token = UnfitPlan::Vocabulary { token: 100 };
    assert_eq!(refused(0..2, &five, &[1, 2, 100, 4, 5]), token);
    assert_eq!(
        refused(2..4, &plan(0, 5, 10), &[]),
        UnfitPlan::Block { block: 10 }
    );
    let too_few = |end| UnfitPlan::TooFewBlocks { blocks: 1, end };
    assert_eq!(refused(2..4, &plan(10, 7, 9), &[]), too_few(17));
    assert_eq!(
        refused(2..4, &plan(u32::MAX, 2, 9), &[]),
        too_few(u64::from(u32::MAX) + 2)
    );
}
