//! Products with quantised weights: exact integer dot products of blocks, accumulated in f32.

use std::marker::PhantomData;
use std::ops::Range;

use crate::InputPrecision;
use crate::cpu::activations::{Activations, TILE, Tile};
use crate::cpu::lanes::Lanes;
use crate::cpu::matmul::Out;
use crate::cpu::prefetch::{self, Pass};
use crate::cpu::scales::{SUPER_BLOCK, Scales, ScalesAt};
use crate::cpu::weights::{GROUP, Weights};
use crate::scalar::BLOCK;

/// What an instruction set must know of a weight format: dot products of a block of 16 rows (or of 8 of them at a time).
pub trait BlockDot {
    type Lanes: Lanes;
    /// The weights of a block, unpacked as far as that pays for several rows.
    type Block: Copy;
    /// Of a packed block of 16 rows.
    const BYTES: usize;
    /// Groups whose blocks the registers hold beside each other: what is loaded of the activations then serves all of them. 1 or 2.
    const GROUPS: usize = 1;
    /// Whether dot products leave registers for minima beside the scales; else all of a block's rows are gone through again for them.
    const LEAVES_REGISTERS: bool = false;

    /// The lanes from `first_lane` on.
    ///
    /// # Safety
    /// The CPU must have the instructions, and what is pointed to be a packed block.
    unsafe fn load(from: PackedBlock, first_lane: usize) -> Self::Block;

    /// The integer dot products of each lane's weights with `N` times 32 activations in `TERMS` (1 or 2) terms. They advance together:
    /// one after the other their sums would wait for each other.
    ///
    /// # Safety
    /// The CPU must have the instructions, `q` point to `32 · TERMS · N` values and `origins` to `N`, and what `block` was
    /// loaded from be still there.
    unsafe fn dots<const TERMS: usize, const N: usize>(
        block: &Self::Block,
        q: *const i8,
        origins: Origins,
    ) -> [Self::Lanes; N];

    /// The same for a block of each of `G` groups.
    ///
    /// # Safety
    /// As [`BlockDot::dots`], for each block.
    #[inline(always)]
    unsafe fn dots_of_groups<const TERMS: usize, const N: usize, const G: usize>(
        blocks: &[Self::Block; G],
        q: *const i8,
        origins: Origins,
    ) -> [[Self::Lanes; N]; G] {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut dots = [Self::dots::<TERMS, N>(&blocks[0], q, origins); G];
            for (dots, block) in dots.iter_mut().zip(blocks).skip(1) {
                *dots = Self::dots::<TERMS, N>(block, q, origins);
            }
            dots
        }
    }
}

/// Where a block of 16 rows is.
#[derive(Clone, Copy)]
pub struct PackedBlock {
    pub quants: *const u8,
    /// What its [`Scales`] have for it.
    pub scales: *const u8,
}

/// −8 times the sums of each 32 activations: what takes back that weights stand 8 above their value.
#[derive(Clone, Copy)]
pub struct Origins {
    pub whole: *const i32,
    /// Of the first 16 of each 32 alone.
    pub first_half: *const i32,
}

impl Origins {
    #[inline(always)]
    fn at_row(self, row: usize) -> Origins {
        Origins {
            whole: self.whole.wrapping_add(row),
            first_half: self.first_half.wrapping_add(row),
        }
    }

    /// Of each half of number `index`.
    ///
    /// # Safety
    /// There are more than `index`.
    #[inline(always)]
    pub unsafe fn halves(self, index: usize) -> [i32; 2] {
        // SAFETY: the caller's promise.
        let (whole, first) = unsafe { (*self.whole.add(index), *self.first_half.add(index)) };
        [first, whole - first]
    }
}

/// One matrix, and where its products go.
pub struct Task<'a> {
    pub weights: &'a Weights,
    pub x: &'a Activations,
    pub out: Out<'a>,
}

/// The products of `rows` (whole tiles, or up to the last row) with `groups` of output rows.
///
/// # Safety
/// The CPU must have the instructions of `D`, the matrix the format of `D` and `S`, and no other thread may write these outputs.
#[inline(always)]
pub unsafe fn multiply<D: BlockDot, S: Scales>(task: &Task<'_>, groups: Range<usize>, rows: Range<usize>) {
    // SAFETY: passed on to the caller.
    unsafe {
        match task.x.precision() {
            InputPrecision::OneTerm => multiply_terms::<D, S, 1>(task, groups, rows),
            InputPrecision::TwoTerms => multiply_terms::<D, S, 2>(task, groups, rows),
        }
    }
}

#[inline(always)]
unsafe fn multiply_terms<D: BlockDot, S: Scales, const TERMS: usize>(
    task: &Task<'_>,
    groups: Range<usize>,
    rows: Range<usize>,
) {
    const { assert!(D::GROUPS == 1 || D::GROUPS == 2) };
    let mut first = groups.start;
    while first < groups.end {
        // SAFETY: passed on to the caller.
        unsafe {
            match D::GROUPS.min(groups.end - first) {
                1 => {
                    multiply_groups::<D, S, TERMS, 1>(task, first, rows.clone());
                    first += 1;
                }
                _ => {
                    multiply_groups::<D, S, TERMS, 2>(task, first, rows.clone());
                    first += 2;
                }
            }
        }
    }
}

/// # Safety
/// As [`multiply`], of `G` groups from `first` on.
#[inline(always)]
unsafe fn multiply_groups<D: BlockDot, S: Scales, const TERMS: usize, const G: usize>(
    task: &Task<'_>,
    first: usize,
    rows: Range<usize>,
) {
    let groups: [Group<S>; G] = std::array::from_fn(|i| Group::new(task.weights, first + i, D::BYTES));
    let count = rows.len().div_ceil(TILE);
    for (index, row) in rows.clone().step_by(TILE).enumerate() {
        let pass = Pass { index, count };
        let tile = task.x.tile(row..rows.end.min(row + TILE));
        assert_eq!(
            tile.d.len(),
            task.weights.blocks() * tile.rows,
            "activations of these inputs"
        );
        // SAFETY: passed on to the caller; the tile has all blocks of the groups.
        unsafe {
            match tile.rows {
                // Reading the weights is what takes the time: one group is read after the other.
                1 => {
                    for group in &groups {
                        let group = std::slice::from_ref(group).as_array().expect("one");
                        multiply_rows::<D, S, TERMS, 1, 1>(group, &tile, task, row, pass);
                    }
                }
                _ => multiply_rows::<D, S, TERMS, TILE, G>(&groups, &tile, task, row, pass),
            }
        }
    }
}

/// The group that comes when those which are read side by side are done: what follows each of them in memory is its neighbour.
pub struct Next {
    bytes_on: usize,
    pass: Pass,
    /// What this pass asks for of each of its blocks.
    part: Range<usize>,
}

impl Next {
    #[inline(always)]
    pub fn new(weights: &Weights, groups: usize, block_bytes: usize, pass: Pass) -> Next {
        Next {
            bytes_on: groups * weights.group_bytes,
            part: pass.part(block_bytes),
            pass,
        }
    }
}

/// Rows whose accumulators are addressed from one place.
const ROWS_AT_A_TIME: usize = 4;

/// The products of a tile of up to `ROWS_MAX` rows. One row's accumulators stay in registers; those of more are in memory
/// (in reach of the nearest cache), and unpacking a block is paid once for all rows.
///
/// # Safety
/// As [`multiply`]; the tile has all blocks of the groups, in `TERMS`.
#[inline(always)]
unsafe fn multiply_rows<D: BlockDot, S: Scales, const TERMS: usize, const ROWS_MAX: usize, const G: usize>(
    groups: &[Group<S>; G],
    tile: &Tile<'_>,
    task: &Task<'_>,
    row: usize,
    pass: Pass,
) {
    let parts = GROUP / D::Lanes::COUNT;
    let next = Next::new(task.weights, G, D::BYTES, pass);
    // SAFETY: the caller promises the instructions; blocks and rows are within the matrix and the tile.
    unsafe {
        if ROWS_MAX > 1 {
            // Rows lie pages apart: stores would wait for them one by one.
            for r in row..row + tile.rows {
                task.out.prefetch(r, groups[0].first_output);
            }
        }
        let mut acc = [[[D::Lanes::splat(0.0); G]; ROWS_MAX]; PARTS_MAX];
        for block in 0..task.weights.blocks() {
            for group in groups {
                if pass.index == 0 {
                    prefetch::nearer(group.quants(block, D::BYTES), D::BYTES);
                }
                group.ask_for(&next, block, D::BYTES);
            }
            for (part, acc) in acc[..parts].iter_mut().enumerate() {
                let weights = WeightBlocks::<D, S, G>::load(groups, block, part * D::Lanes::COUNT);
                let inputs = Inputs::<TERMS>::new(tile, block);
                let acc = match ROWS_MAX {
                    1 => &mut acc[..1],
                    _ => &mut acc[..tile.rows],
                };
                let (fours, rest) = acc.as_chunks_mut::<ROWS_AT_A_TIME>();
                let whole = fours.len() * ROWS_AT_A_TIME;
                for (i, acc) in fours.iter_mut().enumerate() {
                    weights.accumulate(inputs.at_row(i * ROWS_AT_A_TIME), acc);
                }
                for (i, acc) in rest.iter_mut().enumerate() {
                    weights.accumulate(inputs.at_row(whole + i), std::array::from_mut(acc));
                }
                if S::HAS_MINIMUM && !D::LEAVES_REGISTERS {
                    weights.add_minima(inputs, acc);
                }
            }
        }
        for (part, acc) in acc[..parts].iter().enumerate() {
            for (r, acc) in acc[..tile.rows].iter().enumerate() {
                for (group, acc) in groups.iter().zip(acc) {
                    let output = group.first_output + part * D::Lanes::COUNT;
                    task.out.store(*acc, row + r, output, task.weights.outputs);
                }
            }
        }
    }
}

/// Vectors of 8 lanes in a group.
const PARTS_MAX: usize = 2;

/// One block's activations, from some row of a tile on.
#[derive(Clone, Copy)]
struct Inputs<const TERMS: usize> {
    q: *const i8,
    d: *const f32,
    offset: *const f32,
    origins: Origins,
}

impl<const TERMS: usize> Inputs<TERMS> {
    #[inline(always)]
    fn new(tile: &Tile<'_>, block: usize) -> Self {
        Inputs {
            q: tile.q.as_ptr(),
            d: tile.d.as_ptr(),
            offset: tile.offset.as_ptr(),
            origins: Origins {
                whole: tile.origin.as_ptr(),
                first_half: tile.first_origin.as_ptr(),
            },
        }
        .at_row(block * tile.rows)
    }

    #[inline(always)]
    fn at_row(self, row: usize) -> Self {
        Inputs {
            q: self.q.wrapping_add(row * TERMS * BLOCK),
            d: self.d.wrapping_add(row),
            offset: self.offset.wrapping_add(row),
            origins: self.origins.at_row(row),
        }
    }
}

/// 16 output rows of a matrix.
pub struct Group<S: Scales> {
    pub first_output: usize,
    pub blocks: usize,
    quants: *const u8,
    /// Of all blocks, then of all super-blocks.
    scales: *const u8,
    format: PhantomData<S>,
}

impl<S: Scales> Group<S> {
    #[inline(always)]
    pub fn new(weights: &Weights, group: usize, block_bytes: usize) -> Self {
        let blocks = weights.blocks();
        let bytes = &weights.bytes[group * weights.group_bytes..][..weights.group_bytes];
        let (quants, scales) = bytes.split_at(blocks * block_bytes);
        assert!(
            scales.len() >= blocks * S::BYTES + blocks.div_ceil(SUPER_BLOCK) * S::SUPER_BYTES,
            "a group of another format"
        );
        Group {
            first_output: group * GROUP,
            blocks,
            quants: quants.as_ptr(),
            scales: scales.as_ptr(),
            format: PhantomData,
        }
    }

    /// A packed block.
    ///
    /// # Safety
    /// `index` must be less than `blocks`, and `block_bytes` those of `new`.
    #[inline(always)]
    pub unsafe fn quants(&self, index: usize, block_bytes: usize) -> *const u8 {
        // SAFETY: the caller's promise; `new` has checked the length.
        unsafe { self.quants.add(index * block_bytes) }
    }

    /// # Safety
    /// As [`Group::quants`].
    #[inline(always)]
    unsafe fn packed_block(&self, index: usize, block_bytes: usize) -> PackedBlock {
        // SAFETY: the caller's promise; `new` has checked the length.
        unsafe {
            PackedBlock {
                quants: self.quants(index, block_bytes),
                scales: self.scales_at(index).block,
            }
        }
    }

    /// Those of a block, or where they would be.
    #[inline(always)]
    fn scales_at(&self, index: usize) -> ScalesAt {
        let super_block = self.blocks * S::BYTES + index / SUPER_BLOCK * S::SUPER_BYTES;
        ScalesAt {
            block: self.scales.wrapping_add(index * S::BYTES),
            super_block: self.scales.wrapping_add(super_block),
        }
    }

    /// Starts fetching the packed block that lies `ahead` bytes after this one, be it in the next group.
    #[inline(always)]
    pub fn prefetch(&self, index: usize, block_bytes: usize, ahead: usize) {
        let from = self.quants.wrapping_add(index * block_bytes + ahead);
        prefetch::near(from, block_bytes);
    }

    /// Starts fetching this pass' part of what has a block's place in the group that comes `next`.
    #[inline(always)]
    pub fn ask_for(&self, next: &Next, index: usize, block_bytes: usize) {
        let quants = self.quants.wrapping_add(index * block_bytes + next.bytes_on);
        match next.pass {
            // So many lines as are known here need no loop.
            Pass::ONLY => prefetch::far(quants, block_bytes),
            _ => prefetch::far(quants.wrapping_add(next.part.start), next.part.len()),
        }
        if next.pass.index == 0 {
            // A block's scales and minima are at most a line, and so are a super-block's.
            let ScalesAt { block, super_block } = self.scales_at(index);
            prefetch::far(block.wrapping_add(next.bytes_on), prefetch::LINE);
            if S::SUPER_BYTES > 0 && index.is_multiple_of(SUPER_BLOCK) {
                prefetch::far(super_block.wrapping_add(next.bytes_on), prefetch::LINE);
            }
        }
    }

    /// The scales, and the minima where there are any, of a block's lanes from `first_lane` on.
    ///
    /// # Safety
    /// The CPU must have the instructions of `L`; `index` be less than `blocks`.
    #[inline(always)]
    pub unsafe fn scales<L: Lanes>(&self, index: usize, first_lane: usize) -> (L, L) {
        // SAFETY: the caller's promise; `new` has checked the length.
        unsafe { S::load(self.scales_at(index), first_lane) }
    }
}

/// One block of each group: the lanes of a part.
struct WeightBlocks<D: BlockDot, S: Scales, const G: usize> {
    weights: [D::Block; G],
    scales: [D::Lanes; G],
    /// Unused unless the format has them.
    minima: [D::Lanes; G],
    format: PhantomData<S>,
}

impl<D: BlockDot, S: Scales, const G: usize> WeightBlocks<D, S, G> {
    /// The lanes from `first_lane` on.
    ///
    /// # Safety
    /// The CPU must have the instructions of `D`; `index` be less than the groups' `blocks`.
    #[inline(always)]
    unsafe fn load(groups: &[Group<S>; G], index: usize, first_lane: usize) -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut weights = [D::load(groups[0].packed_block(index, D::BYTES), first_lane); G];
            let (scale, minimum) = groups[0].scales(index, first_lane);
            let (mut scales, mut minima) = ([scale; G], [minimum; G]);
            for (i, group) in groups.iter().enumerate().skip(1) {
                weights[i] = D::load(group.packed_block(index, D::BYTES), first_lane);
                (scales[i], minima[i]) = group.scales(index, first_lane);
            }
            WeightBlocks {
                weights,
                scales,
                minima,
                format: PhantomData,
            }
        }
    }

    /// # Safety
    /// `inputs` has `ROWS` rows.
    #[inline(always)]
    unsafe fn accumulate<const TERMS: usize, const ROWS: usize>(
        &self,
        inputs: Inputs<TERMS>,
        acc: &mut [[D::Lanes; G]; ROWS],
    ) {
        const { assert!(ROWS == 1 || ROWS == ROWS_AT_A_TIME) };
        // SAFETY: passed on to the caller.
        unsafe {
            match (ROWS, TERMS) {
                (1, _) => self.accumulate_rows::<TERMS, ROWS, 1>(inputs, 0, acc),
                (_, 1) => self.accumulate_rows::<TERMS, ROWS, 4>(inputs, 0, acc),
                // As many sums as of four rows with one term.
                _ => {
                    self.accumulate_rows::<TERMS, ROWS, 2>(inputs, 0, acc);
                    self.accumulate_rows::<TERMS, ROWS, 2>(inputs, 2, acc);
                }
            }
        }
    }

    /// # Safety
    /// `inputs` has `N` rows from the first on.
    #[inline(always)]
    unsafe fn accumulate_rows<const TERMS: usize, const ROWS: usize, const N: usize>(
        &self,
        inputs: Inputs<TERMS>,
        first: usize,
        acc: &mut [[D::Lanes; G]; ROWS],
    ) {
        let inputs = inputs.at_row(first);
        // SAFETY: the caller's promise; blocks exist, so the CPU has the instructions.
        unsafe {
            let dots = D::dots_of_groups::<TERMS, N, G>(&self.weights, inputs.q, inputs.origins);
            for i in 0..N {
                let d = D::Lanes::splat(*inputs.d.add(i));
                for group in 0..G {
                    let acc = &mut acc[first + i][group];
                    *acc = dots[group][i].fma(self.scales[group].mul(d), *acc);
                    if S::HAS_MINIMUM && D::LEAVES_REGISTERS {
                        let offset = D::Lanes::splat(*inputs.offset.add(i));
                        *acc = self.minima[group].fma(offset, *acc);
                    }
                }
            }
        }
    }

    /// Apart from the products, which leave no registers for it.
    ///
    /// # Safety
    /// `inputs` has as many rows as there are sums.
    #[inline(always)]
    unsafe fn add_minima<const TERMS: usize>(&self, inputs: Inputs<TERMS>, acc: &mut [[D::Lanes; G]]) {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the caller's promise; blocks exist, so the CPU has the instructions.
            let offset = unsafe { D::Lanes::splat(*inputs.offset.add(i)) };
            for (acc, minimum) in acc.iter_mut().zip(&self.minima) {
                *acc = minimum.fma(offset, *acc);
            }
        }
    }
}
