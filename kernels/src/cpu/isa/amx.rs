//! AMX: products of int8 tiles, in the same integers that VNNI gives. Everything else is VNNI's and AVX-512's.
//!
//! Its intrinsics are not stable in Rust, so instructions are written out (Intel's Software Developer's Manual, volume 2).

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::cpu::isa::avx512::Zmm;
use crate::cpu::matmul::tiled::{Dots, TileUnit, Weights};

/// The tile unit of the current thread, configured for as long as this lives.
pub struct Amx {
    /// The configuration is a thread's.
    _not_send: PhantomData<*const ()>,
}

/// tmm0, tmm1: products, 16 rows of 16 numbers of 32 bits; tmm2: weights, 8 rows of 16 times 4; tmm3, tmm4: activations,
/// 16 rows of 32.
static CONFIGURATION: Configuration = Configuration::new(&[(16, 64), (16, 64), (8, 64), (16, 32), (16, 32)]);

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
    unsafe fn take() -> Amx {
        // SAFETY: the caller promises AMX; the configuration is valid for palette 1.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly));
        }
        Amx {
            _not_send: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn multiply<const TILES: usize>(
        &self,
        weights: *const Weights,
        q: *const i8,
        dots: *mut [Dots; TILES],
    ) {
        const { assert!(TILES == 1 || TILES == 2) };
        // SAFETY: a unit exists, so the CPU has AMX and is configured; the caller promises weights, activations and room.
        // The compiler itself never touches tiles, so they stay configured.
        unsafe {
            match TILES {
                1 => asm!(
                    "tileloadd tmm2, [{weights} + {row}]",
                    "tileloadd tmm3, [{q} + {half}]",
                    "tilezero tmm0",
                    "tdpbssd tmm0, tmm3, tmm2",
                    "tilestored [{dots} + {row}], tmm0",
                    weights = in(reg) weights,
                    q = in(reg) q,
                    dots = in(reg) dots,
                    row = in(reg) 64usize,
                    half = in(reg) 32usize,
                    out("tmm0") _, out("tmm2") _, out("tmm3") _,
                    options(nostack),
                ),
                _ => asm!(
                    "tileloadd tmm2, [{weights} + {row}]",
                    "tileloadd tmm3, [{q} + {half}]",
                    "tilezero tmm0",
                    "tdpbssd tmm0, tmm3, tmm2",
                    "tileloadd tmm4, [{q} + {half} + 512]",
                    "tilezero tmm1",
                    "tdpbssd tmm1, tmm4, tmm2",
                    "tilestored [{dots} + {row}], tmm0",
                    "tilestored [{dots} + {row} + 1024], tmm1",
                    weights = in(reg) weights,
                    q = in(reg) q,
                    dots = in(reg) dots,
                    row = in(reg) 64usize,
                    half = in(reg) 32usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                    options(nostack),
                ),
            }
        }
    }

    #[inline(always)]
    unsafe fn load(dots: *const [i32; 16]) -> Zmm {
        // SAFETY: the caller promises AVX-512 and 16 readable numbers.
        Zmm(unsafe { _mm512_cvtepi32_ps(_mm512_loadu_si512(dots.cast())) })
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

/// Whether CPU and kernel grant this process the tile unit, and it multiplies right.
pub fn is_available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: looked at only once CPU and kernel have granted it.
    *AVAILABLE.get_or_init(|| is_offered() && is_granted() && unsafe { multiplies_right() })
}

/// By the CPU: AMX-TILE and AMX-INT8 (leaf 7), whose state the kernel has enabled (XCR0, bits 17 and 18).
fn is_offered() -> bool {
    const TILES: u32 = 1 << 24 | 1 << 25;
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
    const TERMS: usize = 32;
    let mut weights = Box::new(Weights([0; 512]));
    let mut q = [0i8; TERMS * 32];
    // All bytes that weights can be, twice, and all that activations can; 37 and 73 have no divisor in common with 256 and 255.
    for (i, byte) in weights.0.iter_mut().enumerate() {
        *byte = (i * 37) as u8 as i8;
    }
    for (i, byte) in q.iter_mut().enumerate() {
        *byte = (((i * 73) % 255) as i16 - 127) as i8;
    }
    let mut dots = Box::new([Dots([[0; 16]; 16]); 2]);
    // SAFETY: the caller's promise; two tiles of 16 terms.
    unsafe { Amx::take().multiply(&raw const *weights, q.as_ptr(), &raw mut *dots) };
    (0..TERMS).all(|term| {
        (0..16).all(|lane| dots[term / 16].0[term % 16][lane] == weights.dot(&q[term * 32..], lane))
    })
}
