//! What one token of one stream takes in kernels alone, and where that goes: the operations of a Llama in their order, token after token,
//! so that weights come from as far away as they do in an engine. Inputs are as finely seen as `shard` has it.
//!
//! `cargo run --release -p kernels --example token_bench -- [THREADS [smol|smol-bf16|1b|1b-q8_0|1b-bf16 [LEVEL]]]`

mod reading;

use kernels::{
    AttentionShape, Batch, Cpu, InputPrecision, KvFormat, Level, Ops, RopePairing, RopeTable, SequenceRows,
    Team, WeightFormat,
};
use std::time::Instant;

const CONTEXT: usize = 256;
const TOKENS: usize = 48;
const BLOCK: usize = 16;

/// Of a model.
struct Sizes {
    format: WeightFormat,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    feed_forward: usize,
    output: WeightFormat,
    vocabulary: usize,
}

impl Sizes {
    /// The same with other weights, also those of the output.
    fn in_format(self, format: WeightFormat) -> Sizes {
        Sizes {
            format,
            output: format,
            ..self
        }
    }

    fn queries(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Of keys, and as many of values.
    fn keys(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

const SMOL: Sizes = Sizes {
    format: WeightFormat::Q4_1,
    layers: 30,
    hidden: 576,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    feed_forward: 1536,
    output: WeightFormat::Q8_0,
    vocabulary: 49152,
};

const ONE_BILLION: Sizes = Sizes {
    format: WeightFormat::Q4_0,
    layers: 16,
    hidden: 2048,
    heads: 32,
    kv_heads: 8,
    head_dim: 64,
    feed_forward: 8192,
    output: WeightFormat::Q4_0,
    vocabulary: 49152,
};

type Tensor = <Cpu as Ops>::Tensor;
type Weights = <Cpu as Ops>::Weights;
type Pages = <Cpu as Ops>::Pages;

struct Layer {
    qkv: [Weights; 3],
    attended: Weights,
    gate_up: [Weights; 2],
    down: Weights,
    pages: Pages,
}

struct Room {
    residual: Tensor,
    normed: Tensor,
    qkv: Tensor,
    attended: Tensor,
    projected: Tensor,
    gate_up: Tensor,
    activated: Tensor,
    logits: Tensor,
}

/// Seconds of each kind of operation.
#[derive(Default)]
struct Times {
    products: f64,
    attention: f64,
    rest: f64,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args
        .next()
        .map_or(2, |threads| threads.parse().expect("a number of threads"));
    let sizes = match args.next().as_deref() {
        None | Some("smol") => SMOL,
        Some("smol-bf16") => SMOL.in_format(WeightFormat::Bf16),
        Some("1b") => ONE_BILLION,
        Some("1b-q8_0") => ONE_BILLION.in_format(WeightFormat::Q8_0),
        Some("1b-bf16") => ONE_BILLION.in_format(WeightFormat::Bf16),
        Some(other) => panic!("smol, smol-bf16, 1b, 1b-q8_0 or 1b-bf16, not {other}"),
    };
    let wish: Option<Level> = args.next().map(|level| level.parse().expect("a level"));
    let mut cpu = Cpu::new(Team::new(threads, |_| ()).unwrap(), wish).unwrap();
    let shape = AttentionShape {
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        heads_per_kv: sizes.heads / sizes.kv_heads,
        first_head_in_group: 0,
        head_dim: sizes.head_dim,
        block_tokens: BLOCK,
        scale: 0.125,
        kv: KvFormat::Bf16,
    };
    let mut layers: Vec<Layer> = (0..sizes.layers)
        .map(|_| layer(&mut cpu, &sizes, &shape))
        .collect();
    let output = matrix(&cpu, sizes.output, sizes.vocabulary, sizes.hidden);
    let mut room = room(&cpu, &sizes);
    let mut totals = Vec::new();
    let mut times = Times::default();
    for token in 0..TOKENS {
        let began = Instant::now();
        times = Times::default();
        for layer in &mut layers {
            compute(&mut cpu, layer, &shape, &sizes, token, &mut room, &mut times);
        }
        timed(&mut times.products, || {
            cpu.matmul(
                &[&output],
                &room.normed,
                InputPrecision::OneTerm,
                &mut room.logits,
            )
        });
        totals.push(began.elapsed().as_secs_f64());
    }
    let bytes = bytes(&sizes);
    totals.sort_by(f64::total_cmp);
    let middle = totals[TOKENS / 2];
    println!(
        "{threads} threads, {}: {:.2} ms at best, {:.2} in the middle: {:.0} tokens/s, {:.1} GB/s of weights",
        cpu.level(),
        totals[0] * 1e3,
        middle * 1e3,
        1.0 / middle,
        bytes / middle / 1e9
    );
    let Times {
        products,
        attention,
        rest,
    } = times;
    println!(
        "the last: products {:.2} ms ({:.1} GB/s), attention {:.2}, the rest {:.2}",
        products * 1e3,
        bytes / products / 1e9,
        attention * 1e3,
        rest * 1e3
    );
    let limit = reading::bandwidth(threads);
    println!(
        "this machine reads {:.1} GB/s in this minute, of which the token in the middle is {:.2}",
        limit / 1e9,
        bytes / middle / limit
    );
}

fn layer(cpu: &mut Cpu, sizes: &Sizes, shape: &AttentionShape) -> Layer {
    let (hidden, feed_forward) = (sizes.hidden, sizes.feed_forward);
    let (queries, keys) = (sizes.queries(), sizes.keys());
    let pages = filled_pages(cpu, sizes, shape);
    let matrix = |outputs, inputs| matrix(cpu, sizes.format, outputs, inputs);
    Layer {
        qkv: [
            matrix(queries, hidden),
            matrix(keys, hidden),
            matrix(keys, hidden),
        ],
        attended: matrix(hidden, queries),
        gate_up: [matrix(feed_forward, hidden), matrix(feed_forward, hidden)],
        down: matrix(hidden, feed_forward),
        pages,
    }
}

/// With keys and values of the positions before the first token: pages that were never written would all be one.
fn filled_pages(cpu: &mut Cpu, sizes: &Sizes, shape: &AttentionShape) -> Pages {
    let blocks = (CONTEXT + TOKENS).div_ceil(BLOCK);
    let mut pages = cpu.pages(shape, blocks).unwrap();
    let (queries, keys) = (sizes.queries(), sizes.keys());
    let mut qkv = cpu.tensor(CONTEXT, queries + 2 * keys).unwrap();
    cpu.set_rows(&mut qkv, CONTEXT);
    let batch = Batch {
        sequences: vec![SequenceRows {
            first_row: 0,
            rows: CONTEXT,
            start: 0,
            blocks: (0..blocks as u32).collect(),
        }],
    };
    cpu.append_kv(shape, &batch, &qkv, queries, queries + keys, &mut pages);
    pages
}

fn matrix(cpu: &Cpu, format: WeightFormat, outputs: usize, inputs: usize) -> Weights {
    let bytes = vec![0x31; format.row_bytes(inputs).unwrap() * outputs];
    cpu.pack(format, &bytes, outputs, inputs).unwrap()
}

fn room(cpu: &Cpu, sizes: &Sizes) -> Room {
    let row = |columns| {
        let mut tensor = cpu.tensor(1, columns).unwrap();
        cpu.set_rows(&mut tensor, 1);
        let values: Vec<f32> = (0..columns)
            .map(|i| ((i * 7919) % 1000) as f32 * 0.002 - 1.0)
            .collect();
        cpu.write(&mut tensor, &values);
        tensor
    };
    let (queries, keys) = (sizes.queries(), sizes.keys());
    Room {
        residual: row(sizes.hidden),
        normed: row(sizes.hidden),
        qkv: row(queries + 2 * keys),
        attended: row(queries),
        projected: row(sizes.hidden),
        gate_up: row(2 * sizes.feed_forward),
        activated: row(sizes.feed_forward),
        logits: row(sizes.vocabulary),
    }
}

fn compute(
    cpu: &mut Cpu,
    layer: &mut Layer,
    shape: &AttentionShape,
    sizes: &Sizes,
    token: usize,
    room: &mut Room,
    times: &mut Times,
) {
    let norm = vec![1.0; sizes.hidden];
    let (queries, keys) = (sizes.queries(), sizes.keys());
    let position = CONTEXT + token;
    let batch = Batch {
        sequences: vec![SequenceRows {
            first_row: 0,
            rows: 1,
            start: position,
            blocks: (0..position as u32 / BLOCK as u32 + 1).collect(),
        }],
    };
    let rope = RopeTable {
        rotated: sizes.head_dim,
        pairing: RopePairing::Interleaved,
        cos: vec![0.6; sizes.head_dim / 2],
        sin: vec![0.8; sizes.head_dim / 2],
    };
    timed(&mut times.rest, || {
        cpu.rms_norm(&room.residual, &norm, 1e-5, &mut room.normed)
    });
    let [q, k, v] = &layer.qkv;
    timed(&mut times.products, || {
        cpu.matmul(&[q, k, v], &room.normed, InputPrecision::TwoTerms, &mut room.qkv)
    });
    timed(&mut times.rest, || {
        let heads = sizes.heads + sizes.kv_heads;
        cpu.rope(&rope, &[0], &mut room.qkv, 0, heads, sizes.head_dim);
        cpu.append_kv(
            shape,
            &batch,
            &room.qkv,
            queries,
            queries + keys,
            &mut layer.pages,
        );
    });
    timed(&mut times.attention, || {
        cpu.attention(shape, &batch, &room.qkv, &layer.pages, &mut room.attended)
    });
    timed(&mut times.products, || {
        cpu.matmul(
            &[&layer.attended],
            &room.attended,
            InputPrecision::OneTerm,
            &mut room.projected,
        )
    });
    timed(&mut times.rest, || {
        cpu.add(&mut room.residual, &room.projected);
        cpu.rms_norm(&room.residual, &norm, 1e-5, &mut room.normed);
    });
    let [gate, up] = &layer.gate_up;
    timed(&mut times.products, || {
        cpu.matmul(
            &[gate, up],
            &room.normed,
            InputPrecision::OneTerm,
            &mut room.gate_up,
        )
    });
    timed(&mut times.rest, || {
        cpu.silu_mul(&room.gate_up, &mut room.activated)
    });
    timed(&mut times.products, || {
        cpu.matmul(
            &[&layer.down],
            &room.activated,
            InputPrecision::TwoTerms,
            &mut room.projected,
        )
    });
    timed(&mut times.rest, || cpu.add(&mut room.residual, &room.projected));
}

fn timed(seconds: &mut f64, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    *seconds += began.elapsed().as_secs_f64();
}

/// Of the weights as they are stored; packed ones are as large.
fn bytes(sizes: &Sizes) -> f64 {
    let hidden = sizes.hidden;
    let weights = hidden * (2 * sizes.queries() + 2 * sizes.keys() + 3 * sizes.feed_forward);
    let layer = sizes.format.row_bytes(weights).unwrap();
    let output = sizes.output.row_bytes(hidden).unwrap() * sizes.vocabulary;
    (layer * sizes.layers + output) as f64
}
