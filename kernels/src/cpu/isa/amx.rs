//! AMX: products of int8 tiles, in the same integers that VNNI gives, and of bf16 tiles, whose order of adding every other level
//! follows. Everything else is VNNI's and AVX-512's.
//!
//! Its intrinsics are not stable in Rust, so instructions are written out (Intel's Software Developer's Manual, volume 2).

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::cpu::activations::TILE;
use crate::cpu::isa::avx512::Zmm;
use crate::cpu::matmul::pair_tiles::{PairUnit, PlaceSums, Sums};
use crate::cpu::matmul::tiled::{Depth, Dots, GROUPS, TileUnit, Weights};
use crate::cpu::rounded::PAIRS;
use crate::scalar::{BLOCK, FINE_BITS, bf16_to_f32};

/// The tile unit of the current thread, configured for as long as this lives.
pub struct Amx {
    /// The configuration is a thread's.
    _not_send: PhantomData<*const ()>,
}

/// tmm0, tmm1: the products of each group, 16 rows of 16 numbers of 32 bits; tmm2, tmm3: its weights, 8 rows of 16 times 4;
/// tmm4: activations, 16 rows of 32.
static DEPTH_ONE: Configuration = Configuration::new(&[(16, 64), (16, 64), (8, 64), (8, 64), (16, 32)]);
/// The same for twice the weights and activations.
static DEPTH_TWO: Configuration = Configuration::new(&[(16, 64), (16, 64), (16, 64), (16, 64), (16, 64)]);

/// What `ldtilecfg` reads, of palette 1.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Tiles by their rows and the bytes of each.
    const fn new(tiles: &[(u8, u16)]) -> Configuration {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        let mut tile = 0;
        while tile < tiles.len() {
            (configuration.rows[tile], configuration.row_bytes[tile]) = tiles[tile];
            tile += 1;
        }
        configuration
    }
}

impl TileUnit for Amx {
    type Lanes = Zmm;

    #[inline(always)]
    unsafe fn take(depth: Depth) -> Amx {
        let configuration = match depth {
            Depth::One => &DEPTH_ONE,
            Depth::Two => &DEPTH_TWO,
        };
        // SAFETY: the caller promises AMX; the configuration is valid for palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) configuration, options(nostack, readonly));
        }
        Amx {
            _not_send: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn begin(&mut self, q: *const i8, row_bytes: usize, weights: [*const Weights; GROUPS]) {
        // SAFETY: a unit exists, so the CPU has AMX and is configured; the caller promises activations and weights. The
        // compiler itself never touches tiles.
        unsafe {
            asm!(
                "tileloadd tmm4, [{q} + {row_bytes}]",
                "tileloadd tmm2, [{first} + {line}]",
                "tilezero tmm0",
                "tdpbssd tmm0, tmm4, tmm2",
                "tileloadd tmm3, [{second} + {line}]",
                "tilezero tmm1",
                "tdpbssd tmm1, tmm4, tmm3",
                q = in(reg) q,
                row_bytes = in(reg) row_bytes,
                first = in(reg) weights[0],
                second = in(reg) weights[1],
                line = in(reg) 64usize,
                options(nostack, readonly),
            );
        }
    }

    #[inline(always)]
    unsafe fn go_on(
        &mut self,
        q: *const i8,
        row_bytes: usize,
        weights: [*const Weights; GROUPS],
        last: [*mut Dots; GROUPS],
    ) {
        // SAFETY: as in `begin`; the caller promises room too.
        unsafe {
            asm!(
                "tileloadd tmm4, [{q} + {row_bytes}]",
                "tileloadd tmm2, [{first} + {line}]",
                "tilestored [{first_dots} + {line}], tmm0",
                "tilezero tmm0",
                "tdpbssd tmm0, tmm4, tmm2",
                "tileloadd tmm3, [{second} + {line}]",
                "tilestored [{second_dots} + {line}], tmm1",
                "tilezero tmm1",
                "tdpbssd tmm1, tmm4, tmm3",
                q = in(reg) q,
                row_bytes = in(reg) row_bytes,
                first = in(reg) weights[0],
                second = in(reg) weights[1],
                first_dots = in(reg) last[0],
                second_dots = in(reg) last[1],
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    }

    #[inline(always)]
    unsafe fn end(&mut self, last: [*mut Dots; GROUPS]) {
        // SAFETY: as in `go_on`.
        unsafe {
            asm!(
                "tilestored [{first_dots} + {line}], tmm0",
                "tilestored [{second_dots} + {line}], tmm1",
                first_dots = in(reg) last[0],
                second_dots = in(reg) last[1],
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    }

    #[inline(always)]
    unsafe fn load(dots: *const [i32; 16]) -> Zmm {
        // SAFETY: the caller promises AVX-512 and 16 readable numbers.
        Zmm(unsafe { _mm512_cvtepi32_ps(_mm512_loadu_si512(dots.cast())) })
    }

    #[inline(always)]
    unsafe fn load_terms(coarse: *const [i32; 16], fine: *const [i32; 16]) -> Zmm {
        // SAFETY: the caller promises AVX-512 and 16 readable numbers of each.
        unsafe {
            let coarse = _mm512_slli_epi32::<FINE_BITS>(_mm512_loadu_si512(coarse.cast()));
            let dots = _mm512_add_epi32(coarse, _mm512_loadu_si512(fine.cast()));
            Zmm(_mm512_cvtepi32_ps(dots))
        }
    }
}

impl Drop for Amx {
    #[inline(always)]
    fn drop(&mut self) {
        // Without it every switch of threads would save eight kilobytes.
        // SAFETY: a unit exists, so the CPU has AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// The tile unit of the current thread, configured for products of bf16 for as long as this lives.
///
/// tmm0 to tmm3: sums, of which those of the second tile of rows are tmm2 and tmm3; tmm4, tmm5: weights of a group each; tmm6,
/// tmm7: tiles of rows.
pub struct AmxPairs {
    /// The configuration is a thread's.
    _not_send: PhantomData<*const ()>,
}

impl PairUnit for AmxPairs {
    type Lanes = Zmm;

    #[inline(always)]
    unsafe fn take(rows: usize) -> AmxPairs {
        assert!((1..=16).contains(&rows), "a tile of {rows} rows");
        let (sums, weights) = ((rows as u8, 64), (16, 64));
        let configuration = Configuration::new(&[sums, sums, sums, sums, weights, weights, sums, sums]);
        // SAFETY: the caller promises AMX; the configuration is valid for palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly));
        }
        AmxPairs {
            _not_send: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn clear(&mut self) {
        // SAFETY: a unit exists, so the CPU has AMX and is configured. The compiler itself never touches tiles.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem),
            );
        }
    }

    #[inline(always)]
    unsafe fn multiply<const TILES: usize>(&mut self, x: [*const u32; TILES], weights: [*const u32; GROUPS]) {
        const { assert!(TILES == 1 || TILES == 2) };
        // SAFETY: as in `clear`; the caller promises rows and weights.
        unsafe {
            match TILES {
                1 => asm!(
                    "tileloadd tmm6, [{x} + {row}]",
                    "tileloadd tmm4, [{first} + {row}]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tileloadd tmm5, [{second} + {row}]",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    x = in(reg) x[0],
                    first = in(reg) weights[0],
                    second = in(reg) weights[1],
                    row = in(reg) 64usize,
                    options(nostack, readonly),
                ),
                _ => asm!(
                    "tileloadd tmm6, [{x} + {row}]",
                    "tileloadd tmm4, [{first} + {row}]",
                    "tdpbf16ps tmm0, tmm6, tmm4",
                    "tileloadd tmm5, [{second} + {row}]",
                    "tdpbf16ps tmm1, tmm6, tmm5",
                    "tileloadd tmm7, [{y} + {row}]",
                    "tdpbf16ps tmm2, tmm7, tmm4",
                    "tdpbf16ps tmm3, tmm7, tmm5",
                    x = in(reg) x[0],
                    y = in(reg) x[TILES - 1],
                    first = in(reg) weights[0],
                    second = in(reg) weights[1],
                    row = in(reg) 64usize,
                    options(nostack, readonly),
                ),
            }
        }
    }

    #[inline(always)]
    unsafe fn load<const TILES: usize>(&mut self, sums: *const PlaceSums) {
        // SAFETY: as in `clear`; the caller promises sums.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {row}]",
                "tileloadd tmm1, [{sums} + {row} + 1024]",
                sums = in(reg) sums, row = in(reg) 64usize, options(nostack, readonly),
            );
            if TILES == 2 {
                asm!(
                    "tileloadd tmm2, [{sums} + {row} + 2048]",
                    "tileloadd tmm3, [{sums} + {row} + 3072]",
                    sums = in(reg) sums, row = in(reg) 64usize, options(nostack, readonly),
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn store<const TILES: usize>(&self, sums: *mut PlaceSums) {
        // SAFETY: as in `clear`; the caller promises room.
        unsafe {
            asm!(
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 1024], tmm1",
                sums = in(reg) sums, row = in(reg) 64usize, options(nostack),
            );
            if TILES == 2 {
                asm!(
                    "tilestored [{sums} + {row} + 2048], tmm2",
                    "tilestored [{sums} + {row} + 3072], tmm3",
                    sums = in(reg) sums, row = in(reg) 64usize, options(nostack),
                );
            }
        }
    }
}

impl Drop for AmxPairs {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as for the other unit.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// Whether CPU and kernel grant this process the tile unit, and it multiplies right.
pub fn is_available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: looked at only once CPU and kernel have granted it.
    *AVAILABLE
        .get_or_init(|| is_offered() && is_granted() && unsafe { multiplies_right() && adds_in_order() })
}

/// By the CPU: AMX-TILE, AMX-INT8 and AMX-BF16 (leaf 7), whose state the kernel has enabled (XCR0, bits 17 and 18).
fn is_offered() -> bool {
    const TILES: u32 = 1 << 24 | 1 << 25 | 1 << 22;
    const STATE: u64 = 1 << 17 | 1 << 18;
    let has_state = is_x86_feature_detected!("xsave") && {
        // SAFETY: XSAVE was detected, and with it that the operating system uses it.
        unsafe { _xgetbv(0) & STATE == STATE }
    };
    has_state && __cpuid_count(7, 0).edx & TILES == TILES
}

/// By the kernel, which wants to be asked, once for all threads of the process (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn is_granted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: a system call that touches no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn is_granted() -> bool {
    false
}

/// A tile unit that gave other integers would change tokens without a word, so it is tried before it is used.
///
/// # Safety
/// The CPU must have AMX, and the kernel have granted it.
unsafe fn multiplies_right() -> bool {
    // SAFETY: passed on to the caller.
    [Depth::One, Depth::Two]
        .into_iter()
        .all(|depth| unsafe { multiplies_right_at(depth) })
}

/// # Safety
/// As [`multiplies_right`].
unsafe fn multiplies_right_at(depth: Depth) -> bool {
    let (blocks, row_bytes) = (depth.blocks(), depth.blocks() * BLOCK);
    let mut weights = Box::new([Weights([0; 512]); 2 * 2 * GROUPS]);
    let mut q = [0i8; 2 * TILE * 2 * BLOCK];
    // All bytes that weights can be, many times, and all that activations can; 37 and 73 have no divisor in common with 256 and
    // 255.
    for (i, byte) in weights.iter_mut().flat_map(|weights| &mut weights.0).enumerate() {
        *byte = (i * 37 + i / 512) as u8 as i8;
    }
    for (i, byte) in q.iter_mut().enumerate() {
        *byte = (((i * 73) % 255) as i16 - 127) as i8;
    }
    let turn = |turn: usize| {
        let q = &q[turn * TILE * row_bytes..][..TILE * row_bytes];
        (
            q,
            [0, 1].map(|group| &weights[(turn * GROUPS + group) * blocks..][..blocks]),
        )
    };
    let mut dots = Box::new([[Dots([[0; 16]; TILE]); GROUPS]; 2]);
    let to = dots
        .each_mut()
        .map(|dots| dots.each_mut().map(|dots| &raw mut *dots));
    // SAFETY: the caller's promise; two turns of rows, weights and dots.
    unsafe {
        let mut unit = Amx::take(depth);
        let [first, second] =
            [0, 1].map(|of| (turn(of).0.as_ptr(), turn(of).1.map(|weights| weights.as_ptr())));
        unit.begin(first.0, row_bytes, first.1);
        unit.go_on(second.0, row_bytes, second.1, to[0]);
        unit.end(to[1]);
    }
    let dot = |q: &[i8], weights: &[Weights], lane: usize| {
        let of_block = weights.iter().zip(q.chunks_exact(BLOCK));
        of_block.map(|(weights, q)| weights.dot(q, lane)).sum::<i32>()
    };
    dots.iter().enumerate().all(|(of, dots)| {
        let (q, weights) = turn(of);
        dots.iter().zip(weights).all(|(dots, weights)| {
            let mut rows = dots.0.iter().zip(q.chunks_exact(row_bytes));
            rows.all(|(dots, q)| (0..16).all(|lane| dots[lane] == dot(q, weights, lane)))
        })
    })
}

/// Sums of bf16 products have the bits that adding in the order of the manual gives, where another order would give others.
///
/// # Safety
/// As [`multiplies_right`].
unsafe fn adds_in_order() -> bool {
    const BLOCKS: usize = 2;
    let mut state = 1u32;
    // Of either sign, with exponents from 2⁻¹⁶ to 2¹⁵.
    let mut pair = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state & 0x8fff_8fff) + 0x3780_3780
    };
    let x: [[[u32; PAIRS]; 16]; BLOCKS] =
        std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| pair())));
    let weights: [[[u32; 16]; PAIRS]; BLOCKS] =
        std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| pair())));
    let mut sums = Box::new([[Sums([[0.0; 16]; 16]); GROUPS]; 2]);
    // SAFETY: the caller's promise; a block is 16 rows, and as many pairs of 16 outputs.
    unsafe {
        let mut unit = AmxPairs::take(16);
        unit.clear();
        for block in 0..BLOCKS {
            let weights = weights[block].as_ptr().cast();
            unit.multiply([x[block].as_ptr().cast()], [weights; GROUPS]);
        }
        unit.store::<1>(&raw mut *sums);
    }
    let half = |pair: u32, high: usize| bf16_to_f32((pair >> (16 * high)) as u16);
    (0..16 * 16).all(|at| {
        let (row, output) = (at / 16, at % 16);
        let mut acc = 0.0;
        for block in 0..BLOCKS {
            let mut sums = [0.0f32; 2];
            for pair in 0..PAIRS {
                let (x, w) = (x[block][row][pair], weights[block][pair][output]);
                for (high, sum) in sums.iter_mut().enumerate() {
                    *sum = half(x, high).mul_add(half(w, high), *sum);
                }
            }
            acc += sums[0] + sums[1];
        }
        sums[0]
            .iter()
            .all(|group| group.0[row][output].to_bits() == acc.to_bits())
    })
}
