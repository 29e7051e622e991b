//! How fast this machine computes what models are made of, by the kernels that will do it: what placing models is planned with.
//!
//! Products are measured for each format of weights, with one row, with some and with many, since which of two nodes is the
//! faster depends on all of that: matrix units know one format and not the other, and with one row only memory counts.

use crate::config::low::KvCache;
use kernels::cpu::{Level, Team};
use kernels::memory::{Memory, evict};
use kernels::{
    AttentionShape, Batch, Cpu, InputPrecision, KvFormat, Ops, PackedBytes, SequenceRows, WeightFormat,
};
use proto::cluster::{AttentionRates, InputTerms, MatrixFormat, NodeRates, ProductKind, ProductRates};
use serde::{Deserialize, Serialize};
use shard::product_kind;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of weights, whatever the format. No cache holds any of them when they are multiplied: those of a model are read once a step,
/// and between two steps come all the others.
const BYTES: usize = 64 << 20;
const INPUTS: usize = 2048;
const SOME_ROWS: usize = 16;
const MANY_ROWS: usize = 128;
/// Of the matrices that are multiplied with several rows, for each thread, up to so many threads.
const OUTPUTS_EACH: usize = 2048;
const THREADS_MAX: usize = 4;
/// The fastest of so many counts: others take from the machine, and nobody gives.
const ROUNDS: usize = 3;
/// All is measured so many times: cores change their pace for a second or so, and two machines that are equal should look so.
const PASSES: usize = 3;
/// A measurement that takes longer than this is not repeated within a pass.
const LONG: Duration = Duration::from_millis(100);

/// As a Llama of a billion weights has it.
const ATTENTION: AttentionShape = AttentionShape {
    heads: 32,
    kv_heads: 8,
    heads_per_kv: 4,
    first_head_in_group: 0,
    head_dim: 64,
    block_tokens: 16,
    scale: 0.125,
    kv: KvFormat::Bf16,
};
/// What rows see before them, or streams have behind them.
const CONTEXT: usize = 512;

/// As measured; see [`proto::cluster::NodeRates`].
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Rates {
    pub threads: usize,
    products: Vec<Product>,
    attention: Vec<Attention>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Product {
    format: String,
    /// Of the inputs.
    terms: usize,
    with_1_row_per_sec: u64,
    with_16_rows_per_sec: u64,
    with_128_rows_per_sec: u64,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
struct Attention {
    kv_cache: KvCache,
    prompt_per_sec: u64,
    decode_per_sec: u64,
}

/// Takes about two seconds on one core, and some 100 MB.
pub fn measure(threads: usize, level: Option<Level>) -> anyhow::Result<Rates> {
    let mut cpu = Cpu::new(Team::new(threads, |_| ())?, level)?;
    let mut matrices = Matrices::new(&cpu)?;
    let mut rates = pass(&mut cpu, &mut matrices)?;
    for _ in 1..PASSES {
        rates.or_faster(&pass(&mut cpu, &mut matrices)?);
    }
    Ok(rates)
}

fn pass(cpu: &mut Cpu, matrices: &mut Matrices) -> anyhow::Result<Rates> {
    let products = PRODUCTS.map(|(format, precision)| matrices.product(cpu, format, precision));
    let attention = [KvCache::Bf16, KvCache::Int8].map(|kv_cache| attention(cpu, kv_cache));
    Ok(Rates {
        threads: cpu.threads(),
        products: products.into_iter().collect::<Result<_, _>>()?,
        attention: attention.into_iter().collect::<Result<_, _>>()?,
    })
}

impl Rates {
    /// What was faster in another pass is taken from that.
    fn or_faster(&mut self, other: &Rates) {
        let faster = |rate: &mut u64, other: u64| *rate = (*rate).max(other);
        for (product, other) in self.products.iter_mut().zip(&other.products) {
            faster(&mut product.with_1_row_per_sec, other.with_1_row_per_sec);
            faster(&mut product.with_16_rows_per_sec, other.with_16_rows_per_sec);
            faster(&mut product.with_128_rows_per_sec, other.with_128_rows_per_sec);
        }
        for (attention, other) in self.attention.iter_mut().zip(&other.attention) {
            faster(&mut attention.prompt_per_sec, other.prompt_per_sec);
            faster(&mut attention.decode_per_sec, other.decode_per_sec);
        }
    }

    /// As the cluster is told. A format that is not known here is left out.
    pub fn of_node(&self) -> NodeRates {
        let kind = |product: &Product| {
            let format = MatrixFormat::ALL.into_iter();
            let mut named = format.filter(|format| format.to_string() == product.format);
            let inputs = match product.terms {
                2 => InputTerms::Two,
                _ => InputTerms::One,
            };
            named.next().map(|format| ProductKind { format, inputs })
        };
        let products = self.products.iter().filter_map(|product| {
            Some(ProductRates {
                kind: kind(product)?,
                with_1_row_per_sec: product.with_1_row_per_sec,
                with_16_rows_per_sec: product.with_16_rows_per_sec,
                with_128_rows_per_sec: product.with_128_rows_per_sec,
            })
        });
        let attention = self.attention.iter().map(|attention| AttentionRates {
            kv_cache: attention.kv_cache.into(),
            prompt_per_sec: attention.prompt_per_sec,
            decode_per_sec: attention.decode_per_sec,
        });
        NodeRates {
            products: products.collect(),
            attention: attention.collect(),
        }
    }
}

/// All that models are made of. Float weights see their inputs as they are.
const PRODUCTS: [(WeightFormat, InputPrecision); 9] = [
    (WeightFormat::F32, InputPrecision::OneTerm),
    (WeightFormat::F16, InputPrecision::OneTerm),
    (WeightFormat::Bf16, InputPrecision::OneTerm),
    (WeightFormat::Q8_0, InputPrecision::OneTerm),
    (WeightFormat::Q8_0, InputPrecision::TwoTerms),
    (WeightFormat::Q4_0, InputPrecision::OneTerm),
    (WeightFormat::Q4_0, InputPrecision::TwoTerms),
    (WeightFormat::Q4_1, InputPrecision::OneTerm),
    (WeightFormat::Q4_1, InputPrecision::TwoTerms),
];

/// The same bytes, taken for packed matrices of one format after the other.
struct Matrices {
    bytes: Arc<Memory<u8>>,
    x: <Cpu as Ops>::Tensor,
}

impl Matrices {
    fn new(cpu: &Cpu) -> anyhow::Result<Matrices> {
        let mut x = cpu.tensor(MANY_ROWS, INPUTS)?;
        cpu.set_rows(&mut x, MANY_ROWS);
        let values: Vec<f32> = (0..MANY_ROWS * INPUTS)
            .map(|place| (place % 17) as f32 - 8.0)
            .collect();
        cpu.write(&mut x, &values);
        // As packed weights lie.
        let mut bytes = Memory::zeroed_in_huge_pages(BYTES)?;
        // In every format numbers of ordinary size.
        bytes.fill(0x31);
        let bytes = Arc::new(bytes);
        Ok(Matrices { bytes, x })
    }

    fn product(
        &mut self,
        cpu: &mut Cpu,
        format: WeightFormat,
        precision: InputPrecision,
    ) -> anyhow::Result<Product> {
        let row_bytes = format.row_bytes(INPUTS).expect("whole blocks");
        let all = BYTES / row_bytes / OUTPUTS_EACH * OUTPUTS_EACH;
        let some = (OUTPUTS_EACH * cpu.threads().min(THREADS_MAX)).min(all);
        let mut per_sec = |rows, outputs| self.per_sec(cpu, (format, precision), rows, outputs);
        let kind = product_kind(format, precision);
        Ok(Product {
            format: kind.format.to_string(),
            terms: match kind.inputs {
                InputTerms::One => 1,
                InputTerms::Two => 2,
            },
            with_1_row_per_sec: per_sec(1, all)?,
            with_16_rows_per_sec: per_sec(SOME_ROWS, some)?,
            with_128_rows_per_sec: per_sec(MANY_ROWS, some)?,
        })
    }

    /// Weights in a second. Every round takes other bytes as long as there are any.
    fn per_sec(
        &mut self,
        cpu: &mut Cpu,
        (format, precision): (WeightFormat, InputPrecision),
        rows: usize,
        outputs: usize,
    ) -> anyhow::Result<u64> {
        let matrix_bytes = format.row_bytes(INPUTS).expect("whole blocks") * outputs;
        let count = (BYTES / matrix_bytes).min(ROUNDS + 1);
        let range = |place: usize| place * matrix_bytes..(place + 1) * matrix_bytes;
        let matrices = (0..count).map(|place| {
            let bytes = PackedBytes::new(self.bytes.clone(), range(place)).expect("within the bytes");
            cpu.adopt(format, bytes, outputs, INPUTS)
        });
        let matrices: Vec<_> = matrices.collect::<Result<_, _>>()?;
        let before = |round: usize| evict(&self.bytes[range(round % count)]);
        let mut out = cpu.tensor(rows, outputs)?;
        cpu.set_rows(&mut self.x, rows);
        cpu.set_rows(&mut out, rows);
        let elapsed = fastest(before, |round| {
            let matrix = &matrices[round % count];
            cpu.matmul(&[matrix], &self.x, precision, &mut out);
        });
        Ok(per_second(outputs * INPUTS, elapsed))
    }
}

fn attention(cpu: &mut Cpu, kv_cache: KvCache) -> anyhow::Result<Attention> {
    let prompt = [(CONTEXT - MANY_ROWS / 2, MANY_ROWS)];
    let streams = [(CONTEXT, 1); SOME_ROWS];
    Ok(Attention {
        kv_cache,
        prompt_per_sec: attention_per_sec(cpu, kv_cache.format(), &prompt)?,
        decode_per_sec: attention_per_sec(cpu, kv_cache.format(), &streams)?,
    })
}

/// Each sequence has so many positions and then so many rows.
fn attention_per_sec(cpu: &mut Cpu, kv: KvFormat, sequences: &[(usize, usize)]) -> anyhow::Result<u64> {
    let shape = AttentionShape { kv, ..ATTENTION };
    let (mut batch, mut rows, mut blocks, mut seen) = (Batch::default(), 0, 0, 0);
    for (start, count) in sequences.iter().copied() {
        let own = (start + count).div_ceil(shape.block_tokens);
        batch.sequences.push(SequenceRows {
            first_row: rows,
            rows: count,
            start,
            blocks: (blocks..blocks + own as u32).collect(),
        });
        rows += count;
        blocks += own as u32;
        seen += start * count + count * (count + 1) / 2;
    }
    let pages = cpu.pages(&shape, blocks as usize)?;
    let columns = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    let mut qkv = cpu.tensor(rows, columns)?;
    let mut out = cpu.tensor(rows, shape.heads * shape.head_dim)?;
    cpu.set_rows(&mut qkv, rows);
    cpu.set_rows(&mut out, rows);
    let elapsed = fastest(|_| (), |_| cpu.attention(&shape, &batch, &qkv, &pages, &mut out));
    Ok(per_second(2 * seen * shape.heads * shape.head_dim, elapsed))
}

/// Of several rounds, each with something before it that does not count. One ahead of them waits for memory.
fn fastest(before: impl Fn(usize), mut round: impl FnMut(usize)) -> Duration {
    let mut timed = |number| {
        before(number);
        let began = Instant::now();
        round(number);
        began.elapsed()
    };
    let first = timed(0);
    match first > LONG {
        true => first,
        false => (1..=ROUNDS).map(timed).min().unwrap_or(first),
    }
}

fn per_second(amount: usize, elapsed: Duration) -> u64 {
    (amount as f64 / elapsed.as_secs_f64().max(1e-9)) as u64
}

impl fmt::Display for Rates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let giga = |per_sec: u64, rows: usize| per_sec as f64 * rows as f64 / 1e9;
        write!(
            formatter,
            "{} threads multiply, in G products a second:",
            self.threads
        )?;
        for product in &self.products {
            let Product { format, terms, .. } = product;
            write!(
                formatter,
                "\n  {format} with inputs in {terms} term(s): {:.1} with 1 row, {:.1} with 16, {:.1} with 128",
                giga(product.with_1_row_per_sec, 1),
                giga(product.with_16_rows_per_sec, SOME_ROWS),
                giga(product.with_128_rows_per_sec, MANY_ROWS)
            )?;
        }
        for attention in &self.attention {
            write!(
                formatter,
                "\n  attention over {}: {:.1} of prompts, {:.1} of streams",
                attention.kv_cache.format(),
                giga(attention.prompt_per_sec, 1),
                giga(attention.decode_per_sec, 1)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_and_cache_is_measured() {
        let rates = measure(1, None).unwrap().of_node();
        for format in MatrixFormat::ALL {
            let of_format = rates.products.iter().filter(|rates| rates.kind.format == format);
            assert!(of_format.count() >= 1, "{format}");
        }
        for product in &rates.products {
            let rates = [
                product.with_1_row_per_sec,
                product.with_16_rows_per_sec,
                product.with_128_rows_per_sec,
            ];
            assert!(!rates.contains(&0), "{product:?}");
        }
        assert_eq!(rates.attention.len(), 2);
        for attention in &rates.attention {
            assert!(
                attention.prompt_per_sec > 0 && attention.decode_per_sec > 0,
                "{attention:?}"
            );
        }
    }
}
