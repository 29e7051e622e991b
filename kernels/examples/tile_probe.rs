//! What a tile unit and the vector units of one core do alone and beside each other, which bounds `kernels::cpu::matmul::tiled`.
//! How fast tiles are multiplied at most, prints `limits`.
//!
//! `cargo run --release -p kernels --example tile_probe`
//!
//! Everything lies in the nearest cache. Cycles are those of a loop of dependent multiplications just before, of which the fastest
//! round counts: hosts change their pace.

#[cfg(target_arch = "x86_64")]
fn main() {
    use kernels::{Cpu, Level, Team};
    // Asks the kernel for the unit, and tries it.
    let cpu = Cpu::new(Team::new(1, |_| ()).expect("one thread"), None).expect("every CPU has a level");
    match cpu.level() {
        Level::Amx => probe::all(),
        level => println!("this CPU has no tile unit that can be used (its best level is {level})"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("tile units are x86-64's");
}

#[cfg(target_arch = "x86_64")]
mod probe {
    use std::arch::asm;
    use std::time::Instant;

    const ROUNDS: usize = 100;
    const TURNS: usize = 2000;

    #[repr(C, align(64))]
    struct Room([u8; 16 * 1024]);

    #[repr(C, align(64))]
    struct Configuration([u8; 64]);

    pub fn all() {
        let mut room = Box::new(Room([0; 16 * 1024]));
        let room = room.0.as_mut_ptr();
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            (configuration.0[16 + 2 * tile], configuration.0[48 + tile]) = (64, 16);
        }
        // SAFETY: `main` has seen that the unit may be used; all eight tiles have 16 rows of 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
        println!("48 instructions (cycles)  alone  with a tile load  with a store  with a product");
        beside(room);
        // SAFETY: nobody uses tiles any more.
        unsafe { asm!("tilerelease", options(nostack)) };
    }

    /// The unit is configured, so the CPU has AVX-512 too; what is loaded and stored lies in the room.
    macro_rules! row {
        ($room:expr, $name:literal, $instruction:literal) => {
            let alone = cycles(|| vectors!($room, "", $instruction));
            let load = cycles(|| vectors!($room, "tileloadd tmm4, [{a} + {line}]", $instruction));
            let store = cycles(|| {
                vectors!(
                    $room,
                    "tilestored [{a} + {line} + 1024], tmm0",
                    $instruction
                )
            });
            let product = cycles(|| vectors!($room, "tdpbssd tmm0, tmm6, tmm7", $instruction));
            println!(
                "{:24}  {alone:5.0}  {load:16.0}  {store:12.0}  {product:14.0}",
                $name
            );
        };
    }

    /// Twelve registers in turn, four times.
    macro_rules! vectors {
        ($room:expr, $tile:literal, $instruction:literal) => {
            // SAFETY: `row!` says it.
            unsafe { asm!(
                "# {a} {line}",
                $tile,
                ".rept 4",
                ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11",
                $instruction,
                ".endr",
                ".endr",
                a = in(reg) $room, line = in(reg) 64usize,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                options(nostack),
            ) }
        };
    }

    fn beside(room: *mut u8) {
        row!(room, "vmulps zmm", "vmulps zmm\\n, zmm12, zmm13");
        row!(room, "vfmadd231ps zmm", "vfmadd231ps zmm\\n, zmm12, zmm13");
        row!(room, "vcvtdq2ps zmm", "vcvtdq2ps zmm\\n, zmm13");
        row!(room, "vaddps zmm", "vaddps zmm\\n, zmm12, zmm13");
        row!(room, "vpaddd zmm", "vpaddd zmm\\n, zmm12, zmm13");
        row!(room, "vmulps ymm", "vmulps ymm\\n, ymm12, ymm13");
    }

    fn cycles(turn: impl Fn()) -> f64 {
        let (seconds, hertz) = fastest(turn);
        seconds * hertz
    }

    /// Seconds of a turn, and the pace that the core had then.
    fn fastest(turn: impl Fn()) -> (f64, f64) {
        let rounds = (0..ROUNDS).map(|_| {
            let hertz = pace();
            let begun = Instant::now();
            for _ in 0..TURNS {
                turn();
            }
            (begun.elapsed().as_secs_f64() / TURNS as f64, hertz)
        });
        rounds.min_by(|a, b| a.0.total_cmp(&b.0)).expect("some rounds")
    }

    /// By multiplications that wait for each other: additions of constants do not.
    fn pace() -> f64 {
        const MULTIPLICATIONS: u64 = 300_000;
        const CYCLES: u64 = 3;
        let begun = Instant::now();
        let mut product = 3u64;
        for _ in 0..MULTIPLICATIONS / 10 {
            // SAFETY: it multiplies.
            unsafe {
                asm!(".rept 10", "imul {0}, {0}", ".endr", inout(reg) product, options(nomem, nostack))
            };
        }
        std::hint::black_box(product);
        (CYCLES * MULTIPLICATIONS) as f64 / begun.elapsed().as_secs_f64()
    }
}
