//! What this machine allows at most, which benchmarks are held against: how fast memory is read, and how fast the instructions
//! compute that kernels multiply with, on all threads at once. To be run in the same minute as what is held against it: hosts
//! change their pace.
//!
//! `cargo run --release -p kernels --example limits -- [THREADS]`
//!
//! Prints one JSON object, in GB/s and in GOP/s (a multiplication and an addition are two). The best round counts.

mod reading;

use kernels::Team;

fn main() {
    let threads = std::env::args()
        .nth(1)
        .map_or(2, |threads| threads.parse().expect("a number of threads"));
    let read = reading::bandwidth(threads) / 1e9;
    let mut team = Team::new(threads, |_| ()).expect("threads");
    let peaks: String = peaks::all(&mut team)
        .into_iter()
        .map(|(name, operations_per_sec)| format!(", \"{name}\": {:.0}", operations_per_sec / 1e9))
        .collect();
    println!("{{\"threads\": {threads}, \"read_gb_per_sec\": {read:.1}{peaks}}}");
}

#[cfg(not(target_arch = "x86_64"))]
mod peaks {
    pub fn all(_: &mut kernels::Team) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

#[cfg(target_arch = "x86_64")]
mod peaks {
    use kernels::{Cpu, Level, Team};
    use std::arch::asm;
    use std::time::{Duration, Instant};

    const ROUNDS: usize = 50;
    const TURNS: usize = 20_000;
    /// Accumulators of each loop, which is more than any instruction takes cycles on two pipes.
    const SUMS: usize = 12;
    /// Rows of `scaled_blocks`.
    const ROWS: usize = 6;
    /// Four tiles.
    const ROOM_BYTES: usize = 4096;

    #[repr(C, align(64))]
    struct Room([u8; ROOM_BYTES]);

    /// Names, and operations a second.
    pub fn all(team: &mut Team) -> Vec<(&'static str, f64)> {
        let mut peaks = Vec::new();
        let mut add = |is_there: bool, name, operations, turns: fn()| {
            if is_there {
                peaks.push((name, rate(team, operations, turns)));
            }
        };
        let (avx512, vnni) = (
            is_x86_feature_detected!("avx512f"),
            is_x86_feature_detected!("avx512vnni"),
        );
        let bf16 = is_x86_feature_detected!("avx512bf16");
        let tiles = tiles_can_be_used();
        add(
            is_x86_feature_detected!("fma"),
            "fma_ymm_gop_per_sec",
            SUMS * 8 * 2,
            multiply_adds_ymm,
        );
        add(
            is_x86_feature_detected!("avx2"),
            "maddubs_ymm_gop_per_sec",
            SUMS * 32 * 2,
            byte_products_ymm,
        );
        add(avx512, "fma_zmm_gop_per_sec", SUMS * 16 * 2, multiply_adds);
        add(vnni, "int8_gop_per_sec", SUMS * 64 * 2, byte_products);
        add(vnni, "int8_scaled_gop_per_sec", ROWS * 16 * 32 * 2, scaled_blocks);
        add(bf16, "bf16_gop_per_sec", SUMS * 32 * 2, bf16_products);
        add(
            tiles,
            "int8_tiles_gop_per_sec",
            4 * 16 * 16 * 64 * 2,
            tiles_of_bytes,
        );
        add(
            tiles,
            "bf16_tiles_gop_per_sec",
            4 * 16 * 16 * 32 * 2,
            tiles_of_bf16,
        );
        peaks
    }

    /// The operating system has to be asked for the unit, and it is tried.
    fn tiles_can_be_used() -> bool {
        let cpu = Cpu::new(Team::alone(), None);
        cpu.is_ok_and(|cpu| cpu.level() == Level::Amx)
    }

    fn rate(team: &mut Team, operations: usize, turns: fn()) -> f64 {
        let mut fastest = Duration::MAX;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            team.run(|_, _| turns());
            fastest = fastest.min(began.elapsed());
        }
        (team.threads() * TURNS * operations) as f64 / fastest.as_secs_f64()
    }

    /// So many turns of some instructions on registers that were cleared, since numbers of any kind might have been in them.
    macro_rules! turns {
        ($clear:literal, $($instruction:literal),+) => {
            // SAFETY: it computes with registers that are all said to be overwritten; `all` has seen that the CPU has them.
            unsafe {
                asm!(
                    concat!(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13\n", $clear, "\n.endr"),
                    "2:",
                    $($instruction,)+
                    "sub {turns}, 1",
                    "jnz 2b",
                    turns = inout(reg) TURNS => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _,
                    options(nomem, nostack),
                )
            }
        };
    }

    /// One instruction, with each accumulator once a turn.
    macro_rules! in_turn {
        ($clear:literal, $instruction:literal) => {
            turns!(
                $clear,
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
                $instruction,
                ".endr"
            )
        };
    }

    fn multiply_adds_ymm() {
        in_turn!(
            "vxorps ymm\\n, ymm\\n, ymm\\n",
            "vfmadd231ps ymm\\n, ymm12, ymm13"
        );
    }

    fn byte_products_ymm() {
        in_turn!("vxorps ymm\\n, ymm\\n, ymm\\n", "vpmaddubsw ymm\\n, ymm12, ymm13");
    }

    fn multiply_adds() {
        in_turn!(
            "vpxord zmm\\n, zmm\\n, zmm\\n",
            "vfmadd231ps zmm\\n, zmm12, zmm13"
        );
    }

    fn byte_products() {
        in_turn!("vpxord zmm\\n, zmm\\n, zmm\\n", "vpdpbusd zmm\\n, zmm12, zmm13");
    }

    fn bf16_products() {
        in_turn!("vpxord zmm\\n, zmm\\n, zmm\\n", "vdpbf16ps zmm\\n, zmm12, zmm13");
    }

    /// What a block of 32 weights of 16 outputs takes for each row (`kernels::cpu::matmul::quantised`), with nothing loaded: products
    /// in `zmm0` to `zmm5`, which are made floats, multiplied with a scale and added to `zmm6` to `zmm11`.
    fn scaled_blocks() {
        turns!(
            "vpxord zmm\\n, zmm\\n, zmm\\n",
            ".irp n, 0, 1, 2, 3, 4, 5",
            "vpxord zmm\\n, zmm\\n, zmm\\n",
            ".endr",
            ".rept 8",
            ".irp n, 0, 1, 2, 3, 4, 5",
            "vpdpbusd zmm\\n, zmm12, zmm13",
            ".endr",
            ".endr",
            ".irp n, 0, 1, 2, 3, 4, 5",
            "vcvtdq2ps zmm\\n, zmm\\n",
            "vmulps zmm\\n, zmm\\n, zmm12",
            ".endr",
            "vfmadd231ps zmm6, zmm0, zmm13",
            "vfmadd231ps zmm7, zmm1, zmm13",
            "vfmadd231ps zmm8, zmm2, zmm13",
            "vfmadd231ps zmm9, zmm3, zmm13",
            "vfmadd231ps zmm10, zmm4, zmm13",
            "vfmadd231ps zmm11, zmm5, zmm13"
        );
    }

    /// Two tiles of rows by two of weights, from the nearest cache: a load for each product.
    macro_rules! two_by_two {
        ($product:literal) => {
            let tiles = Room([0; ROOM_BYTES]);
            let mut configuration = Room([0; ROOM_BYTES]);
            configuration.0[0] = 1;
            for tile in 0..8 {
                (configuration.0[16 + 2 * tile], configuration.0[48 + tile]) = (64, 16);
            }
            // SAFETY: `all` has seen that the unit may be used; all eight tiles have 16 rows of 64 bytes, four of them are in
            // `tiles`, and nobody uses the unit afterwards.
            unsafe {
                asm!(
                    "ldtilecfg [{configuration}]",
                    "2:",
                    "tileloadd tmm4, [{tiles} + {line}]",
                    "tileloadd tmm6, [{tiles} + {line} + 1024]",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{tiles} + {line} + 2048]",
                    concat!($product, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{tiles} + {line} + 3072]",
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "sub {turns}, 1",
                    "jnz 2b",
                    "tilerelease",
                    configuration = in(reg) &raw const configuration,
                    tiles = in(reg) &raw const tiles,
                    line = in(reg) 64usize,
                    turns = inout(reg) TURNS => _,
                    options(nostack, readonly),
                )
            }
        };
    }

    fn tiles_of_bytes() {
        two_by_two!("tdpbssd");
    }

    fn tiles_of_bf16() {
        two_by_two!("tdpbf16ps");
    }
}
