//! How fast each kernel is, beside what the machine can read and multiply.
//!
//! `cargo run --release -p kernels --example twins_bench [-- THREADS [LEVEL]]`

mod reading;

use std::hint::black_box;
use std::time::Duration;

use kernels::{
    AttentionShape, Batch, Cpu, InputPrecision, KvFormat, Level, Ops, SequenceRows, Team, WeightFormat,
};

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args
        .next()
        .map_or(2, |threads| threads.parse().expect("a number of threads"));
    let wish: Option<Level> = args.next().map(|level| level.parse().expect("a level"));
    let mut cpu = Cpu::new(Team::new(threads, |_| ()).unwrap(), wish).unwrap();
    println!("{threads} threads, level {}", cpu.level());
    println!("reading: {:.1} GB/s", reading::bandwidth(threads) / 1e9);
    println!(
        "f32 multiply-adds of this level: {:.0} GOP/s",
        peak(threads, cpu.level()) / 1e9
    );
    for format in [
        WeightFormat::Q4_1,
        WeightFormat::Q4_0,
        WeightFormat::Q8_0,
        WeightFormat::Bf16,
        WeightFormat::F32,
    ] {
        for (outputs, inputs) in [(576, 576), (960, 576), (3072, 576), (576, 1536)] {
            matmul(&mut cpu, format, outputs, inputs, &[1, 8, 32, 512]);
        }
    }
    matmul(&mut cpu, WeightFormat::Q8_0, 49152, 576, &[1, 8, 32]);
    for format in [
        WeightFormat::Q4_0,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
    ] {
        matmul(&mut cpu, format, 8192, 2048, &[1, 8, 32, 512]);
    }
    for (sequences, rows, start) in [
        (1, 1, 100),
        (1, 1, 1000),
        (1, 1, 8000),
        (8, 1, 1000),
        (32, 1, 300),
        (1, 512, 0),
        (1, 512, 1500),
    ] {
        for kv in [KvFormat::Bf16, KvFormat::Int8] {
            attention(&mut cpu, kv, sequences, rows, start);
        }
    }
    for rows in [1, 32, 512] {
        row_operations(&mut cpu, rows);
    }
}

/// Products, each time with other matrices until 600 MB of them were read, so that they come from memory: virtual
/// machines are told of caches of hundreds of megabytes.
fn matmul(cpu: &mut Cpu, format: WeightFormat, outputs: usize, inputs: usize, rows: &[usize]) {
    let bytes = format.row_bytes(inputs).unwrap() * outputs;
    let copies = (600_000_000 / bytes).clamp(1, 64);
    let stored = vec![0x31u8; bytes];
    let weights: Vec<_> = (0..copies)
        .map(|_| cpu.pack(format, &stored, outputs, inputs).unwrap())
        .collect();
    print!("{format:?} {outputs:5} × {inputs:4}:");
    for rows in rows.iter().copied() {
        let x = filled(cpu, rows, inputs);
        let mut out = filled(cpu, rows, outputs);
        let mut next = weights.iter().cycle();
        let seconds = fastest(copies.min(8), || {
            cpu.matmul(&[next.next().unwrap()], &x, InputPrecision::OneTerm, &mut out)
        });
        let operations = 2.0 * (rows * outputs * inputs) as f64;
        print!(
            "  M={rows} {:.0} GOP/s {:.1} GB/s",
            operations / seconds / 1e9,
            bytes as f64 / seconds / 1e9
        );
    }
    println!();
}

fn attention(cpu: &mut Cpu, kv: KvFormat, sequences: usize, rows: usize, start: usize) {
    let shape = AttentionShape {
        heads: 9,
        kv_heads: 3,
        heads_per_kv: 3,
        first_head_in_group: 0,
        head_dim: 64,
        block_tokens: 16,
        scale: 0.125,
        kv,
    };
    let blocks = (start + rows).div_ceil(16);
    let mut pages = cpu.pages(&shape, blocks * sequences).unwrap();
    let batch = Batch {
        sequences: (0..sequences)
            .map(|sequence| SequenceRows {
                first_row: sequence * rows,
                rows,
                start,
                blocks: (0..blocks)
                    .map(|block| (block * sequences + sequence) as u32)
                    .collect(),
            })
            .collect(),
    };
    let qkv = filled(cpu, rows * sequences, 960);
    let mut out = filled(cpu, rows * sequences, 576);
    cpu.append_kv(&shape, &batch, &qkv, 576, 768, &mut pages);
    let seconds = fastest(4, || cpu.attention(&shape, &batch, &qkv, &pages, &mut out));
    let append = fastest(4, || cpu.append_kv(&shape, &batch, &qkv, 576, 768, &mut pages));
    let seen: usize = (0..rows).map(|row| start + row + 1).sum();
    let operations = 4.0 * (seen * sequences * 9 * 64) as f64;
    println!(
        "attention {kv:?} {sequences} × {rows} rows from {start}: {:.1} µs, {:.1} GOP/s; append {:.1} µs",
        seconds * 1e6,
        operations / seconds / 1e9,
        append * 1e6
    );
}

fn row_operations(cpu: &mut Cpu, rows: usize) {
    let (mut x, y) = (filled(cpu, rows, 576), filled(cpu, rows, 576));
    let (gate_up, mut activated) = (filled(cpu, rows, 3072), filled(cpu, rows, 1536));
    let mut out = filled(cpu, rows, 576);
    let norm = fastest(8, || cpu.rms_norm(&y, &[1.0; 576], 1e-5, &mut out));
    let silu = fastest(8, || cpu.silu_mul(&gate_up, &mut activated));
    let add = fastest(8, || cpu.add(&mut x, &y));
    let [norm, silu, add] = [norm, silu, add].map(|seconds| seconds * 1e6);
    println!("{rows} rows: rms_norm {norm:.1} µs, silu_mul {silu:.1} µs, add {add:.1} µs");
}

fn filled(cpu: &Cpu, rows: usize, columns: usize) -> <Cpu as Ops>::Tensor {
    let mut tensor = cpu.tensor(rows, columns).unwrap();
    cpu.set_rows(&mut tensor, rows);
    let values: Vec<f32> = (0..rows * columns)
        .map(|i| ((i * 7919) % 1000) as f32 * 0.002 - 1.0)
        .collect();
    cpu.write(&mut tensor, &values);
    tensor
}

/// Seconds per call, the fastest of several runs of `calls`: of the clock, or of one thread's own time, which a busy machine
/// disturbs less.
fn fastest(calls: usize, mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let start = now();
        (0..calls).for_each(|_| work());
        best = best.min((now() - start).as_secs_f64() / calls as f64);
    }
    best
}

/// Operations per second of nothing but fused multiply-adds.
fn peak(threads: usize, level: Level) -> f64 {
    const ROUNDS: usize = 100_000;
    let work: unsafe fn(usize) -> f32 = match level {
        Level::Scalar => multiply_adds,
        Level::Avx2 => multiply_adds_avx2,
        Level::Avx512 | Level::Avx512Vnni | Level::Avx512Bf16 | Level::Amx => multiply_adds_avx512,
    };
    let mut team = Team::new(threads, |_| ()).unwrap();
    let seconds = fastest(1, || {
        team.run(|_, _| {
            // SAFETY: the CPU has the level.
            black_box(unsafe { work(ROUNDS) });
        });
    });
    (2 * SUMS * 16 * ROUNDS * threads) as f64 / seconds
}

/// Independent sums, enough to keep the multipliers busy.
const SUMS: usize = 10;

#[inline(always)]
fn multiply_adds(rounds: usize) -> f32 {
    let mut sums = [[0.0f32; 16]; SUMS];
    let factor: [f32; 16] = black_box([0.5; 16]);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = std::array::from_fn(|i| sum[i].mul_add(factor[i], factor[i]));
        }
    }
    sums.as_flattened().iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_adds_avx2(rounds: usize) -> f32 {
    multiply_adds(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn multiply_adds_avx512(rounds: usize) -> f32 {
    multiply_adds(rounds)
}

/// The CPU time of this thread where it works alone, else the time of day.
fn now() -> Duration {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const MONOTONIC: i32 = 1;
    const THREAD_CPU: i32 = 3;
    let alone = std::env::args().nth(1).is_some_and(|threads| threads == "1");
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    // SAFETY: the C library fills the structure, which has its layout on 64-bit Linux.
    let failed = unsafe { clock_gettime(if alone { THREAD_CPU } else { MONOTONIC }, &mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.seconds as u64, time.nanoseconds as u32)
}
