//! Products with bf16 weights on a unit that multiplies tiles of 16 rows and 32 inputs: the same numbers in the same order as in
//! [`pairs`](super::pairs), which is the order of Intel's unit. Any number of rows is computed by the same instruction.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::cpu::activations::TILE;
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::pairs::{BLOCK_BYTES, Task};
use crate::cpu::matmul::tiled::GROUPS;
use crate::cpu::pairing::Pairing;
use crate::cpu::prefetch;
use crate::cpu::rounded::PAIRS;
use crate::cpu::weights::GROUP;

/// The sums of a tile of rows and the outputs of a group: `[row][output]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Sums(pub [[f32; GROUP]; TILE]);

/// Rows that go past weights together: 2,048 of their inputs fill half of the second cache.
pub const SLAB_ROWS: usize = 256;

/// Blocks of inputs for which a slab stays in the second cache, while the weights of all groups go by.
const DEPTH_BLOCKS: usize = 64;

/// Of rows, asked for before they are loaded: what the second cache gives, it gives late.
const NEAR_BLOCKS: usize = 2;

/// The sums of two tiles of rows.
pub type PlaceSums = [[Sums; GROUPS]; 2];

/// What multiplies.
pub trait PairUnit {
    type Lanes: Lanes;

    /// For tiles of so many rows, 1 to 16.
    ///
    /// # Safety
    /// The CPU must have the unit, the kernel have granted it, and this thread not hold it already.
    unsafe fn take(rows: usize) -> Self;

    /// Begins with sums of nothing.
    ///
    /// # Safety
    /// This thread holds the unit.
    unsafe fn clear(&mut self);

    /// Goes on with sums of `TILES` (1 or 2) tiles.
    ///
    /// # Safety
    /// They are there.
    unsafe fn load<const TILES: usize>(&mut self, sums: *const PlaceSums);

    /// Adds the products of a block of `TILES` tiles of rows with one of each group.
    ///
    /// # Safety
    /// `x` points to the rows' pairs, `weights` to those of 16 outputs.
    unsafe fn multiply<const TILES: usize>(&mut self, x: [*const u32; TILES], weights: [*const u32; GROUPS]);

    /// The sums; of each tile as many rows as it has.
    ///
    /// # Safety
    /// There is room.
    unsafe fn store<const TILES: usize>(&self, sums: *mut PlaceSums);
}

/// The products of `rows` (whole tiles, or up to the last row; at most a slab) with `groups` of output rows.
///
/// # Safety
/// As [`pairs::multiply`](super::pairs::multiply) but for the inputs, which are in tiles; and the CPU must have the unit `U`, which this
/// thread does not hold.
#[inline(always)]
pub unsafe fn multiply<U: PairUnit>(task: &Task<'_>, groups: Range<usize>, rows: Range<usize>) {
    assert_eq!(task.weights.pairing, Pairing::Neighbours, "the words of weights");
    assert!(rows.len() <= SLAB_ROWS, "{} rows are no slab", rows.len());
    let whole = rows.start..rows.start + rows.len() / TILE * TILE;
    // SAFETY: passed on to the caller.
    unsafe {
        if !whole.is_empty() {
            let slab = Slab {
                row: whole.start,
                tiles: whole.len() / TILE,
                tile_rows: TILE,
            };
            multiply_slab(&mut U::take(TILE), task, groups.clone(), &slab);
        }
        if whole.end < rows.end {
            let slab = Slab {
                row: whole.end,
                tiles: 1,
                tile_rows: rows.end - whole.end,
            };
            multiply_slab(&mut U::take(slab.tile_rows), task, groups, &slab);
        }
    }
}

/// Tiles of rows of one size, which go by in places of two.
struct Slab {
    row: usize,
    tiles: usize,
    tile_rows: usize,
}

impl Slab {
    fn places(&self) -> usize {
        self.tiles.div_ceil(2)
    }
}

/// Two groups and the blocks of their inputs that are multiplied now.
struct Pair {
    /// A group without a neighbour is its own.
    groups: [usize; GROUPS],
    weights: [*const u32; GROUPS],
    blocks: Range<usize>,
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_slab<U: PairUnit>(unit: &mut U, task: &Task<'_>, groups: Range<usize>, slab: &Slab) {
    let blocks = task.x.blocks();
    // Rows that go by once need not stay.
    let depth = match slab.places() {
        1 => blocks.max(1),
        _ => DEPTH_BLOCKS,
    };
    for first in (0..blocks.max(1)).step_by(depth) {
        for group in groups.clone().step_by(GROUPS) {
            let groups = [group, (group + 1).min(groups.end - 1)];
            let pair = Pair {
                groups,
                weights: groups.map(|group| task.group(group)),
                blocks: first..blocks.min(first + depth),
            };
            for place in 0..slab.places() {
                // SAFETY: passed on to the caller.
                unsafe {
                    match slab.tiles - 2 * place {
                        1 => multiply_place::<U, 1>(unit, task, slab, &pair, place),
                        _ => multiply_place::<U, 2>(unit, task, slab, &pair, place),
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`multiply`]; the sums of earlier blocks are in the outputs.
#[inline(always)]
unsafe fn multiply_place<U: PairUnit, const TILES: usize>(
    unit: &mut U,
    task: &Task<'_>,
    slab: &Slab,
    pair: &Pair,
    place: usize,
) {
    let row = slab.row + 2 * place * slab.tile_rows;
    let rows = row..row + TILES * slab.tile_rows;
    let block_words = slab.tile_rows * PAIRS;
    let x: [*const u32; TILES] =
        std::array::from_fn(|tile| task.x.tile(row + tile * slab.tile_rows).as_ptr());
    let outputs = task.weights.outputs;
    let mut sums = MaybeUninit::<PlaceSums>::uninit();
    // SAFETY: blocks are within the tiles and groups, whose lengths were checked; of the sums only what was stored is read.
    unsafe {
        match pair.blocks.start {
            0 => unit.clear(),
            _ => {
                for_each_vector::<U>(
                    pair,
                    rows.clone(),
                    slab.tile_rows,
                    sums.as_mut_ptr(),
                    |row, output, at| {
                        task.out.load::<U::Lanes>(row, output, outputs).store(at);
                    },
                );
                unit.load::<TILES>(sums.as_ptr());
            }
        }
        for block in pair.blocks.clone() {
            let x = x.map(|x| x.add(block * block_words));
            let weights = pair.weights.map(|weights| weights.add(block * BLOCK_WORDS));
            match slab.places() {
                1 => weights.map(|weights| prefetch::ahead_of(weights.cast(), BLOCK_BYTES)),
                places => {
                    for x in x {
                        let next = x.wrapping_add(NEAR_BLOCKS * block_words);
                        prefetch::near(next.cast(), block_words * size_of::<u32>());
                    }
                    weights.map(|weights| ask_for_next(task, weights, place, places))
                }
            };
            unit.multiply::<TILES>(x, weights);
        }
        unit.store::<TILES>(sums.as_mut_ptr());
        for_each_vector::<U>(
            pair,
            rows,
            slab.tile_rows,
            sums.as_mut_ptr(),
            |row, output, at| {
                task.out.store(U::Lanes::load(at), row, output, outputs);
            },
        );
    }
}

/// Of a block of a group's weights.
const BLOCK_WORDS: usize = BLOCK_BYTES / size_of::<u32>();

/// Each place asks for its part of what the group two further on has where this block is.
#[inline(always)]
fn ask_for_next(task: &Task<'_>, weights: *const u32, place: usize, places: usize) {
    let part = (BLOCK_BYTES / places).next_multiple_of(prefetch::LINE);
    let next = weights
        .cast::<u8>()
        .wrapping_add(GROUPS * task.weights.group_bytes);
    if (place + 1) * part <= BLOCK_BYTES {
        prefetch::far(next.wrapping_add(place * part), part);
    }
}

/// Calls `each` with a row, the first output of a vector, and where its sums are.
///
/// # Safety
/// `sums` points to those of the rows.
#[inline(always)]
unsafe fn for_each_vector<U: PairUnit>(
    pair: &Pair,
    rows: Range<usize>,
    tile_rows: usize,
    sums: *mut PlaceSums,
    mut each: impl FnMut(usize, usize, *mut f32),
) {
    for (index, row) in rows.enumerate() {
        for (place, group) in pair.groups.into_iter().enumerate() {
            for lane in (0..GROUP).step_by(U::Lanes::COUNT) {
                // SAFETY: a place within the sums of at most two tiles of the caller.
                let at = unsafe { &raw mut (*sums)[index / tile_rows][place].0[index % tile_rows][lane] };
                each(row, group * GROUP + lane, at);
            }
        }
    }
}

#[cfg(test)]
pub mod loops {
    use super::*;
    use crate::cpu::isa::scalar::Scalar;
    use crate::scalar::bf16_to_f32;

    /// A unit in plain loops.
    pub struct Loops {
        rows: usize,
        sums: PlaceSums,
    }

    const NOTHING: PlaceSums = [[Sums([[0.0; GROUP]; TILE]); GROUPS]; 2];

    impl PairUnit for Loops {
        type Lanes = Scalar;

        unsafe fn take(rows: usize) -> Loops {
            Loops { rows, sums: NOTHING }
        }

        unsafe fn clear(&mut self) {
            self.sums = NOTHING;
        }

        unsafe fn load<const TILES: usize>(&mut self, sums: *const PlaceSums) {
            for tile in 0..TILES {
                for group in 0..GROUPS {
                    for row in 0..self.rows {
                        // SAFETY: the caller promises so many.
                        self.sums[tile][group].0[row] = unsafe { (*sums)[tile][group].0[row] };
                    }
                }
            }
        }

        unsafe fn multiply<const TILES: usize>(
            &mut self,
            x: [*const u32; TILES],
            weights: [*const u32; GROUPS],
        ) {
            let half = |word: u32, high: u32| bf16_to_f32((word >> (16 * high)) as u16);
            for (tile, x) in x.into_iter().enumerate() {
                for (group, weights) in weights.into_iter().enumerate() {
                    for (row, output) in (0..self.rows).flat_map(|row| (0..GROUP).map(move |o| (row, o))) {
                        let sum = |high| {
                            (0..PAIRS).fold(0.0f32, |sum, pair| {
                                // SAFETY: the caller promises a block of both.
                                let (x, w) = unsafe {
                                    (*x.add(row * PAIRS + pair), *weights.add(pair * GROUP + output))
                                };
                                half(x, high).mul_add(half(w, high), sum)
                            })
                        };
                        self.sums[tile][group].0[row][output] += sum(0) + sum(1);
                    }
                }
            }
        }

        unsafe fn store<const TILES: usize>(&self, sums: *mut PlaceSums) {
            for tile in 0..TILES {
                for group in 0..GROUPS {
                    for row in 0..self.rows {
                        // SAFETY: the caller promises room.
                        unsafe { (*sums)[tile][group].0[row] = self.sums[tile][group].0[row] };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::loops::Loops;
    use super::*;
    use crate::WeightFormat;
    use crate::cpu::isa::scalar::Scalar;
    use crate::cpu::matmul::Out;
    use crate::cpu::matmul::pairs::{self, Crossed, Multiply, Wide};
    use crate::cpu::rounded::{Rounded, round_row_crossed, round_row_tiled, round_row_wide};
    use crate::cpu::weights::Weights;
    use crate::tensor::Tensor;

    type Kernel = unsafe fn(&Task<'_>, Range<usize>, Range<usize>);
    type Round = unsafe fn(&crate::cpu::rounded::Writer<'_>, usize, &[f32]);

    fn product(kernel: Kernel, round: Round, matrix: &Weights, rows: usize) -> Vec<u32> {
        let mut x = Rounded::new().unwrap();
        x.resize(rows, matrix.inputs).unwrap();
        for row in 0..rows {
            let values: Vec<f32> = (0..matrix.inputs)
                .map(|i| ((row * 31 + i * 7) % 101) as f32 / 13.0 - 3.0)
                .collect();
            // SAFETY: one thread; compiled for every CPU.
            unsafe { round(&x.writer(), row, &values) };
        }
        let mut out = Tensor::new(rows, matrix.outputs).unwrap();
        out.set_rows(rows);
        let task = Task {
            weights: matrix,
            x: &x,
            out: Out::whole(&mut out),
        };
        // SAFETY: one thread; scalar lanes need nothing; the inputs are as the kernel wants them.
        unsafe { kernel(&task, 0..matrix.groups(), 0..rows) };
        out.values().iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn tiles_and_crossed_pairs_have_the_bits_of_single_rows() {
        // Odd groups, blocks that are not whole, and more of them than stay near.
        for (outputs, inputs) in [(1, 1), (16, 64), (40, 50), (37, 32 * DEPTH_BLOCKS + 96)] {
            let bytes: Vec<u8> = (0..outputs * inputs)
                .flat_map(|i| (0x3c00u16 + (i * 89 % 1024) as u16 + ((i as u16 % 3) << 15)).to_le_bytes())
                .collect();
            let pack = |pairing| Weights::pack(WeightFormat::Bf16, pairing, &bytes, outputs, inputs).unwrap();
            let matrix = pack(Pairing::Neighbours);
            let crossed = pack(Crossed::<Scalar>::PAIRING);
            for rows in [1, 7, 13, 16, 17, 48, 85] {
                let expected = product(pairs::multiply::<Wide<Scalar>, 2>, round_row_wide, &matrix, rows);
                for found in [
                    product(multiply::<Loops>, round_row_tiled, &matrix, rows),
                    product(
                        pairs::multiply_eights::<Crossed<Scalar>>,
                        round_row_crossed::<Scalar>,
                        &crossed,
                        rows,
                    ),
                ] {
                    assert_eq!(found, expected, "{outputs} × {inputs}, {rows} rows");
                }
            }
        }
    }
}
