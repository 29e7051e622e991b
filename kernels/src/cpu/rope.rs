//! Rotary position embedding.

use crate::RopeTable;
use crate::ops::RopePairing;

/// Which heads of a row are rotated.
#[derive(Clone, Copy)]
pub struct Heads {
    pub first_column: usize,
    pub heads: usize,
    pub head_dim: usize,
}

/// One row. Plain loops: compiled for an instruction set they become vectors, with the same roundings.
///
/// # Safety
/// The CPU must have what the function is compiled for.
#[inline(always)]
pub unsafe fn rope_row(table: &RopeTable, position: usize, row: &mut [f32], heads: Heads) {
    let pairs = table.rotated / 2;
    let cos = &table.cos[position * pairs..][..pairs];
    let sin = &table.sin[position * pairs..][..pairs];
    let columns = &mut row[heads.first_column..][..heads.heads * heads.head_dim];
    for head in columns.chunks_exact_mut(heads.head_dim) {
        let rotated = &mut head[..table.rotated];
        match table.pairing {
            RopePairing::Interleaved => rotate_interleaved(rotated, cos, sin),
            RopePairing::Halves => rotate_halves(rotated, cos, sin),
        }
    }
}

#[inline(always)]
fn rotate_interleaved(rotated: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, cos), sin) in rotated.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        *pair = rotate(*pair, *cos, *sin);
    }
}

#[inline(always)]
fn rotate_halves(rotated: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = rotated.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        [*a, *b] = rotate([*a, *b], *cos, *sin);
    }
}

#[inline(always)]
fn rotate([a, b]: [f32; 2], cos: f32, sin: f32) -> [f32; 2] {
    [a.mul_add(cos, -(b * sin)), b.mul_add(cos, a * sin)]
}
