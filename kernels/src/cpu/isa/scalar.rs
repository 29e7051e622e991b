//! Sixteen numbers in an array.

use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::quantised::{BlockDot, Origins, PackedBlock};
use crate::scalar::{BLOCK, FINE_STEPS, ROUND, f16_to_f32};

#[derive(Clone, Copy)]
pub struct Scalar([f32; 16]);

impl Scalar {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Scalar(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

// Never inlined: calls keep the kernels small here, where nothing is fast anyway.
impl Lanes for Scalar {
    const COUNT: usize = 16;
    const REGISTERS: usize = 1;

    #[inline(never)]
    unsafe fn splat(value: f32) -> Self {
        Scalar([value; 16])
    }
    #[inline(never)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises 16 readable values.
        Scalar(unsafe { from.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(never)]
    unsafe fn load_low_bf16(from: *const u32) -> Self {
        // SAFETY: the caller promises 16 readable pairs.
        Scalar(unsafe { from.cast::<[u32; 16]>().read_unaligned() }.map(|pair| f32::from_bits(pair << 16)))
    }
    #[inline(never)]
    unsafe fn load_high_bf16(from: *const u32) -> Self {
        // SAFETY: the caller promises 16 readable pairs.
        let pairs = unsafe { from.cast::<[u32; 16]>().read_unaligned() };
        Scalar(pairs.map(|pair| f32::from_bits(pair & 0xffff_0000)))
    }
    #[inline(never)]
    unsafe fn load_int8(from: *const u32, byte: usize) -> Self {
        // SAFETY: the caller promises 16 readable words.
        let words = unsafe { from.cast::<[u32; 16]>().read_unaligned() };
        Scalar(words.map(|word| f32::from(word.to_le_bytes()[byte] as i8)))
    }
    #[inline(never)]
    unsafe fn load_byte(from: *const u16, byte: usize) -> Self {
        // SAFETY: the caller promises 16 readable values.
        let values = unsafe { from.cast::<[u16; 16]>().read_unaligned() };
        Scalar(values.map(|value| f32::from(value.to_le_bytes()[byte])))
    }
    #[inline(never)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller promises 16 readable values.
        Scalar(unsafe { from.cast::<[u16; 16]>().read_unaligned() }.map(f16_to_f32))
    }
    #[inline(never)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut values = [0.0; 16];
        // SAFETY: the caller promises `count` readable values.
        values[..count].copy_from_slice(unsafe { std::slice::from_raw_parts(from, count) });
        Scalar(values)
    }
    #[inline(never)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises room for 16 values.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(never)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller promises room for `count` values; an array of ours does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(self.0[..count].as_ptr(), to, count) }
    }
    #[inline(never)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(never)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(never)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(never)]
    fn fma(self, factor: Self, term: Self) -> Self {
        Scalar(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], term.0[i])))
    }
    #[inline(never)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(never)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(never)]
    fn first(self, count: usize, other: Self) -> Self {
        Scalar(std::array::from_fn(|i| {
            if i < count { self.0[i] } else { other.0[i] }
        }))
    }
    #[inline(never)]
    fn scale_by_power(self, shifted: Self) -> Self {
        self.zip(shifted, |value, shifted| {
            let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
            let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
            value * power(n >> 1) * power(n.wrapping_sub(n >> 1))
        })
    }
}

/// As CPUs that have the instruction, for tests on those that lack it.
#[cfg(test)]
impl crate::cpu::lanes::PairLanes for Scalar {
    type Words = [u32; 16];

    unsafe fn load_words(from: *const u32) -> [u32; 16] {
        // SAFETY: the caller promises 16 readable words.
        unsafe { from.cast::<[u32; 16]>().read_unaligned() }
    }
    unsafe fn splat_word(word: u32) -> [u32; 16] {
        [word; 16]
    }
    unsafe fn and(a: [u32; 16], b: [u32; 16]) -> [u32; 16] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    unsafe fn add_products(self, a: [u32; 16], b: [u32; 16]) -> Self {
        let high = |pair: u32| f32::from_bits(pair & 0xffff_0000);
        let low = |pair: u32| f32::from_bits(pair << 16);
        Scalar(std::array::from_fn(|i| {
            let sum = high(a[i]).mul_add(high(b[i]), self.0[i]);
            low(a[i]).mul_add(low(b[i]), sum)
        }))
    }
}

/// Blocks of `Q8_0`.
pub struct Q8;

impl BlockDot for Q8 {
    type Lanes = Scalar;
    type Block = *const u8;
    const BYTES: usize = 512;
    // As where there are most registers, so that these ways are tested everywhere.
    const GROUPS: usize = 2;

    #[inline(never)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> *const u8 {
        from.quants
    }

    #[inline(never)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &*const u8,
        q: *const i8,
        _origins: Origins,
    ) -> [Scalar; N] {
        // SAFETY: the caller promises a block of 512 bytes and the activations.
        unsafe {
            dots_of::<TERMS, N>(q, |lane, k| {
                i32::from(*block.add(k / 4 * 64 + lane * 4 + k % 4) as i8)
            })
        }
    }
}

/// Blocks of nibbles, of which `ZERO` (0 or 8) stands for 0.
pub struct Q4<const ZERO: i32>;

impl<const ZERO: i32> BlockDot for Q4<ZERO> {
    type Lanes = Scalar;
    type Block = *const u8;
    const BYTES: usize = 256;
    const GROUPS: usize = 2;
    const LEAVES_REGISTERS: bool = ZERO == 0;

    #[inline(never)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> *const u8 {
        from.quants
    }

    #[inline(never)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &*const u8,
        q: *const i8,
        origins: Origins,
    ) -> [Scalar; N] {
        // SAFETY: the caller promises a block of 256 bytes, the activations and their sums.
        std::array::from_fn(|i| unsafe {
            let mut dots = [*origins.whole.add(i) * (ZERO / 8); 16];
            for k in 0..16 {
                let (low, high) = (activation::<TERMS>(q, i, k), activation::<TERMS>(q, i, k + 16));
                for (lane, dot) in dots.iter_mut().enumerate() {
                    let w = *block.add(k / 4 * 64 + lane * 4 + k % 4);
                    *dot += i32::from(w & 15) * low + i32::from(w >> 4) * high;
                }
            }
            Scalar(dots.map(|dot| dot as f32))
        })
    }
}

/// Blocks of `Q5_K`.
pub struct Q5;

impl BlockDot for Q5 {
    type Lanes = Scalar;
    type Block = *const u8;
    const BYTES: usize = 320;
    const GROUPS: usize = 2;
    const LEAVES_REGISTERS: bool = true;

    #[inline(never)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> *const u8 {
        from.quants
    }

    #[inline(never)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &*const u8,
        q: *const i8,
        _origins: Origins,
    ) -> [Scalar; N] {
        // SAFETY: the caller promises a block of 320 bytes and the activations.
        unsafe {
            dots_of::<TERMS, N>(q, |lane, k| {
                let byte = |piece: usize| *block.add(piece * 64 + lane * 4 + k % 4);
                let low = byte(k % 16 / 4) >> (k / 16 * 4) & 15;
                let fifth = byte(4) >> (k / 4) & 1;
                i32::from(fifth << 4 | low)
            })
        }
    }
}

/// Blocks of `Q6_K`.
pub struct Q6;

impl BlockDot for Q6 {
    type Lanes = Scalar;
    type Block = PackedBlock;
    const BYTES: usize = 384;

    #[inline(never)]
    unsafe fn load(from: PackedBlock, _first_lane: usize) -> PackedBlock {
        from
    }

    #[inline(never)]
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &PackedBlock,
        q: *const i8,
        _origins: Origins,
    ) -> [Scalar; N] {
        // SAFETY: the caller promises a block of 384 bytes, its scales and the activations.
        unsafe {
            dots_of::<TERMS, N>(q, |lane, k| {
                let byte = |piece: usize| *block.quants.add(piece * 64 + lane * 4 + k % 4);
                let low = byte(k % 16 / 4) >> (k / 16 * 4) & 15;
                let high = byte(4 + k / 16) >> (k % 16 / 4 * 2) & 3;
                let scale = *block.scales.add(2 * lane + k / 16) as i8;
                i32::from(scale) * (i32::from(high << 4 | low) - 32)
            })
        }
    }
}

/// The products of each lane's weights, of which `weight` is told lane and place, with `N` times 32 activations.
///
/// # Safety
/// As [`BlockDot::dots`] of `q`.
#[inline(always)]
unsafe fn dots_of<const TERMS: usize, const N: usize>(
    q: *const i8,
    weight: impl Fn(usize, usize) -> i32,
) -> [Scalar; N] {
    std::array::from_fn(|i| {
        let mut dots = [0i32; 16];
        for k in 0..BLOCK {
            // SAFETY: passed on to the caller.
            let q = unsafe { activation::<TERMS>(q, i, k) };
            for (lane, dot) in dots.iter_mut().enumerate() {
                *dot += weight(lane, k) * q;
            }
        }
        Scalar(dots.map(|dot| dot as f32))
    })
}

/// Activation `k` of block `block`, in steps of the last term.
///
/// # Safety
/// `q` points to more blocks than `block`, each of 32 in `TERMS` terms.
#[inline(always)]
unsafe fn activation<const TERMS: usize>(q: *const i8, block: usize, k: usize) -> i32 {
    // SAFETY: the caller promises them.
    unsafe {
        let first = q.add(block * TERMS * BLOCK + k);
        match TERMS {
            1 => i32::from(*first),
            _ => FINE_STEPS * i32::from(*first) + i32::from(*first.add(BLOCK)),
        }
    }
}
