//! Products with weights in Q8_0 for many rows, on a unit that multiplies a tile of 16 terms at a time. The same numbers
//! in the same order as in [`quantised`]: what is exact is the integer product, wherever it is made.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::InputPrecision;
use crate::cpu::activations::{TILE, Tile};
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::quantised::{self, BlockDot, Group, Task};
use crate::scalar::BLOCK;

/// A block of 16 rows of weights, as tile units want it: `[k / 4][row][k mod 4]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Weights(pub [i8; BLOCK * 16]);

/// The integer products of 16 terms with 16 rows of weights: `[term][row]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Dots(pub [[i32; 16]; TERMS_MAX]);

/// Rows of a tile of activations.
const TERMS_MAX: usize = 16;

/// What multiplies.
pub trait TileUnit {
    /// 16 of them.
    type Lanes: Lanes;

    /// # Safety
    /// The CPU must have the unit, the kernel have granted it, and this thread not hold it already.
    unsafe fn take() -> Self;

    /// `TILES` (1 or 2) times 16 terms.
    ///
    /// # Safety
    /// `q` points to `TILES · 16` terms of 32 activations; weights and dots are there.
    unsafe fn multiply<const TILES: usize>(
        &self,
        weights: *const Weights,
        q: *const i8,
        dots: *mut [Dots; TILES],
    );

    /// As floats, which they all fit.
    ///
    /// # Safety
    /// The CPU must have the instructions of the lanes.
    unsafe fn load(dots: *const [i32; 16]) -> Self::Lanes;
}

/// Of a packed block of 16 rows in Q8_0, which lies as the unit wants it.
const BLOCK_BYTES: usize = size_of::<Weights>();

/// The products of `rows` (whole tiles, or up to the last row) with `groups` of output rows. Tiles of fewer than 16 rows
/// are left to `D`.
///
/// # Safety
/// As [`quantised::multiply`], and the CPU must have the unit `U`, which this thread does not hold.
#[inline(always)]
pub unsafe fn multiply<U: TileUnit, D: BlockDot<Lanes = U::Lanes>>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    let full = rows.start..rows.start + rows.len() / TILE * TILE;
    // SAFETY: passed on to the caller.
    unsafe {
        if !full.is_empty() {
            let unit = U::take();
            match task.x.precision() {
                InputPrecision::OneTerm => multiply_terms::<U, 1>(&unit, task, groups.clone(), full.clone()),
                InputPrecision::TwoTerms => multiply_terms::<U, 2>(&unit, task, groups.clone(), full.clone()),
            }
        }
        if full.end < rows.end {
            quantised::multiply::<D, 1>(task, groups, full.end..rows.end);
        }
    }
}

#[inline(always)]
unsafe fn multiply_terms<U: TileUnit, const TERMS: usize>(
    unit: &U,
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    for group in groups {
        let group = Group::<1>::new(task.weights, group, BLOCK_BYTES);
        for row in rows.clone().step_by(TILE) {
            let tile = task.x.tile(row..row + TILE);
            assert_eq!(
                tile.d.len(),
                group.blocks * TILE * TERMS,
                "activations of these inputs"
            );
            // SAFETY: passed on to the caller; the tile has all blocks of the group.
            unsafe { multiply_tile::<U, TERMS>(unit, &group, &tile, task, row) };
        }
    }
}

/// The unit works on the next block while this one's products are scaled.
///
/// # Safety
/// As [`multiply`]; the tile has 16 rows and all blocks of the group, in `TERMS`.
#[inline(always)]
unsafe fn multiply_tile<U: TileUnit, const TERMS: usize>(
    unit: &U,
    group: &Group<1>,
    tile: &Tile<'_>,
    task: &Task<'_>,
    row: usize,
) {
    // Written before it is read, block by block: filling it first would take as long as scaling a block.
    let mut dots = [const { MaybeUninit::<[Dots; TERMS]>::uninit() }; 2];
    // SAFETY: the caller promises the unit; blocks and rows are within the matrix and the tile; the products of a block
    // are written one turn before they are scaled.
    unsafe {
        let mut acc = [U::Lanes::splat(0.0); TILE];
        for block in 0..=group.blocks {
            if block < group.blocks {
                let weights = group.quants(block, BLOCK_BYTES).cast();
                let q = tile.q.as_ptr().add(block * TILE * TERMS * BLOCK);
                unit.multiply(weights, q, dots[block % 2].as_mut_ptr());
            }
            if let Some(last) = block.checked_sub(1) {
                let dots = dots[last % 2].as_ptr().cast();
                scale::<U, TERMS>(group, tile, last, dots, &mut acc);
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            task.out
                .store(*acc, row + r, group.first_output, task.weights.outputs);
        }
    }
}

/// Adds a block's products to the sums of each row, term by term.
///
/// # Safety
/// The CPU must have the instructions of `U`; the tile has the block, and `dots` points to a product of each term.
#[inline(always)]
unsafe fn scale<U: TileUnit, const TERMS: usize>(
    group: &Group<1>,
    tile: &Tile<'_>,
    block: usize,
    dots: *const [i32; 16],
    acc: &mut [U::Lanes; TILE],
) {
    let d = &tile.d[block * TILE * TERMS..][..TILE * TERMS];
    // SAFETY: passed on to the caller.
    unsafe {
        // Q8_0 has no minima.
        let (scale, _) = group.scales::<U::Lanes>(block, 0);
        for (r, acc) in acc.iter_mut().enumerate() {
            for (term, d) in d[r * TERMS..][..TERMS].iter().enumerate() {
                let dot = U::load(dots.add(r * TERMS + term));
                *acc = dot.fma(scale.mul(U::Lanes::splat(*d)), *acc);
            }
        }
    }
}

impl Weights {
    /// One term's product with one row, for whoever doubts a unit.
    pub fn dot(&self, q: &[i8], lane: usize) -> i32 {
        let weight = |k: usize| i32::from(self.0[k / 4 * 64 + lane * 4 + k % 4]);
        (0..BLOCK).map(|k| weight(k) * i32::from(q[k])).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightFormat;
    use crate::cpu::activations::{Activations, quantise_row};
    use crate::cpu::isa::scalar;
    use crate::cpu::matmul::Out;
    use crate::cpu::weights::Weights as Matrix;
    use crate::tensor::Tensor;

    /// A tile unit in plain loops.
    struct Loops;

    impl TileUnit for Loops {
        type Lanes = scalar::Scalar;

        unsafe fn take() -> Loops {
            Loops
        }

        unsafe fn multiply<const TILES: usize>(
            &self,
            weights: *const Weights,
            q: *const i8,
            dots: *mut [Dots; TILES],
        ) {
            // SAFETY: the caller promises all three.
            unsafe {
                let q = std::slice::from_raw_parts(q, TILES * TERMS_MAX * BLOCK);
                for (term, q) in q.chunks_exact(BLOCK).enumerate() {
                    let products = std::array::from_fn(|lane| (*weights).dot(q, lane));
                    dots.cast::<[i32; 16]>().add(term).write(products);
                }
            }
        }

        unsafe fn load(dots: *const [i32; 16]) -> scalar::Scalar {
            // SAFETY: the caller promises 16 numbers.
            let dots = unsafe { *dots }.map(|dot| dot as f32);
            // SAFETY: scalar lanes need nothing; 16 values.
            unsafe { scalar::Scalar::load(dots.as_ptr()) }
        }
    }

    type Kernel = unsafe fn(&Task<'_>, Range<usize>, Range<usize>);

    fn product(kernel: Kernel, matrix: &Matrix, precision: InputPrecision, rows: usize) -> Vec<u32> {
        let mut activations = Activations::new().unwrap();
        activations.resize(rows, matrix.inputs, precision).unwrap();
        for row in 0..rows {
            let x: Vec<f32> = (0..matrix.inputs)
                .map(|i| ((row * 31 + i * 7) % 101) as f32 / 13.0 - 3.0)
                .collect();
            // SAFETY: one thread; compiled for every CPU.
            unsafe { quantise_row(&activations.writer(), row, &x) };
        }
        let mut out = Tensor::new(rows, matrix.outputs).unwrap();
        out.set_rows(rows);
        let task = Task {
            weights: matrix,
            x: &activations,
            out: Out::whole(&mut out),
        };
        // SAFETY: one thread; scalar lanes need nothing; the matrix has the kernel's format.
        unsafe { kernel(&task, 0..matrix.groups(), 0..rows) };
        out.values().iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn tiles_have_the_bits_of_single_rows() {
        let format = WeightFormat::Q8_0;
        let single: Kernel = quantised::multiply::<scalar::Q8, 1>;
        let tiled: Kernel = multiply::<Loops, scalar::Q8>;
        for (outputs, inputs) in [(1, 32), (16, 64), (37, 160)] {
            let bytes: Vec<u8> = (0..format.row_bytes(inputs).unwrap() * outputs)
                // Scales and minima stay finite: no byte is one of a great exponent.
                .map(|i| ((i * 89 + i / 7) % 256) as u8 & 0xbf)
                .collect();
            let matrix = Matrix::pack(format, &bytes, outputs, inputs).unwrap();
            for rows in [1, 15, 16, 17, 48, 50] {
                for precision in [InputPrecision::OneTerm, InputPrecision::TwoTerms] {
                    assert_eq!(
                        product(tiled, &matrix, precision, rows),
                        product(single, &matrix, precision, rows),
                        "{format:?} {outputs} × {inputs}, {rows} rows, {precision:?}"
                    );
                }
            }
        }
    }
}
