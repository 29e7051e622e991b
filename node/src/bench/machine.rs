//! What this machine can read and multiply, by the kernels that will do it: what placing models is planned with.

use kernels::cpu::{Level, Team};
use kernels::{Cpu, InputPrecision, Ops, WeightFormat};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};

/// Larger than any cache: what is read comes from memory.
const INPUTS: usize = 4096;
const OUTPUTS: usize = 16_384;
/// As many rows as computing prompts likes.
const ROWS: usize = 64;
const READINGS: usize = 5;
const PRODUCTS: usize = 1;
/// Of a Llama's weights, those whose inputs are taken in two terms (decision 0006): queries, keys, values, down.
const TWO_TERMS_SHARE: f64 = 0.4;

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    pub threads: usize,
    /// Of weights, while they are multiplied with one row.
    pub read_bytes_per_sec: f64,
    /// Of int8 weights, with many rows, as a model mixes them.
    pub multiply_adds_per_sec: f64,
}

/// Takes some tenths of a second and some 150 MB.
pub fn measure(threads: usize, level: Option<Level>) -> anyhow::Result<Rates> {
    let mut cpu = Cpu::new(Team::new(threads, |_| ())?, level)?;
    let format = WeightFormat::Q8_0;
    let row_bytes = format.row_bytes(INPUTS).expect("whole blocks");
    let stored = vec![0x31_u8; row_bytes * OUTPUTS];
    let weights = cpu.pack(format, &stored, OUTPUTS, INPUTS)?;
    drop(stored);
    let packed_bytes = cpu.packed(&weights).len() as f64;
    let mut product = Product::new(&cpu, weights)?;
    let reading = product.fastest(&mut cpu, InputPrecision::OneTerm, 1, READINGS);
    let mut multiplying = |precision| product.fastest(&mut cpu, precision, ROWS, PRODUCTS).as_secs_f64();
    let one_term = multiplying(InputPrecision::OneTerm);
    let two_terms = multiplying(InputPrecision::TwoTerms);
    let mixed = one_term * (1.0 - TWO_TERMS_SHARE) + two_terms * TWO_TERMS_SHARE;
    Ok(Rates {
        threads,
        read_bytes_per_sec: packed_bytes / reading.as_secs_f64(),
        multiply_adds_per_sec: (ROWS * INPUTS * OUTPUTS) as f64 / mixed,
    })
}

struct Product {
    weights: <Cpu as Ops>::Weights,
    x: <Cpu as Ops>::Tensor,
    out: <Cpu as Ops>::Tensor,
}

impl Product {
    fn new(cpu: &Cpu, weights: <Cpu as Ops>::Weights) -> anyhow::Result<Product> {
        let mut x = cpu.tensor(ROWS, INPUTS)?;
        cpu.set_rows(&mut x, ROWS);
        let values: Vec<f32> = (0..ROWS * INPUTS)
            .map(|place| (place % 17) as f32 - 8.0)
            .collect();
        cpu.write(&mut x, &values);
        Ok(Product {
            weights,
            x,
            out: cpu.tensor(ROWS, OUTPUTS)?,
        })
    }

    /// Once more than asked for: the first waits for memory.
    fn fastest(&mut self, cpu: &mut Cpu, precision: InputPrecision, rows: usize, rounds: usize) -> Duration {
        cpu.set_rows(&mut self.x, rows);
        cpu.set_rows(&mut self.out, rows);
        let mut round = || {
            let began = Instant::now();
            cpu.matmul(&[&self.weights], &self.x, precision, &mut self.out);
            began.elapsed()
        };
        round();
        (0..rounds).map(|_| round()).min().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} threads read {:.1} GB/s of weights and multiply {:.0} G int8 pairs a second",
            self.threads,
            self.read_bytes_per_sec / 1e9,
            self.multiply_adds_per_sec / 1e9
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_rows_make_more_of_what_is_read() {
        let rates = measure(1, None).unwrap();
        assert!(rates.read_bytes_per_sec > 0.0);
        assert!(rates.multiply_adds_per_sec > rates.read_bytes_per_sec, "{rates}");
    }
}
