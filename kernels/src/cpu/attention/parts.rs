//! Parts of the context: each is an online softmax of its own, and all are joined in ascending order.
//!
//! Whoever attends walks the steps of one part after the other. Between them, here, is said where the sums of a part are to be, and what
//! becomes of them: they are joined at once, or kept until all parts are there, whoever computed them.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Query, Softmax, Task, Unit};
use crate::cpu::shared::Shared;
use crate::reference::PART;
use crate::scalar::exp;

/// Where what comes of a part goes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Target {
    /// To the output, joined with the parts before. The unit has all parts.
    Output,
    Kept(Kept),
}

/// Where parts are kept of the queries of one sequence and KV head: `[query][part]`, each [`kept_len`] numbers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Kept {
    /// Numbers before.
    pub first: usize,
    /// Of each query.
    pub parts: usize,
}

/// Numbers that are kept for one part and query: its sums, `m` and `l`, and so many that each has its lines of the cache to itself.
pub fn kept_len(head_dim: usize) -> usize {
    (head_dim + 2).next_multiple_of(16)
}

impl Kept {
    #[inline(always)]
    fn place(self, part: usize, query: usize, head_dim: usize) -> usize {
        self.first + (query * self.parts + part) * kept_len(head_dim)
    }
}

/// Room for a number that is written before it is read.
pub type Spare = MaybeUninit<f32>;

/// One part of what the queries of a unit see.
pub struct Part {
    number: usize,
    /// That any query sees.
    pub positions: Range<usize>,
    /// Where the last part of this unit ends.
    pub unit_end: usize,
}

impl Part {
    /// Those of `parts` that any query sees.
    #[inline(always)]
    pub fn each(task: &Task<'_>, unit: &Unit<'_>, parts: &Range<usize>) -> impl Iterator<Item = Part> {
        // Later rows see more.
        let seen = Query::new(task, unit, unit.queries.len() - 1).positions;
        let unit_end = seen.min(parts.end * PART);
        let seen_parts = parts.start..parts.end.min(seen.div_ceil(PART));
        seen_parts.map(move |number| Part {
            number,
            positions: number * PART..unit_end.min((number + 1) * PART),
            unit_end,
        })
    }

    /// Gives every query a place for its sums of this part, and says among which numbers. They begin as zeros.
    ///
    /// # Safety
    /// These queries, or with [`Target::Kept`] this part of them, are this thread's alone, and none of their sums in use.
    #[inline(always)]
    pub(super) unsafe fn place<'a>(
        &self,
        task: &Task<'a>,
        target: Target,
        queries: &mut [Query],
        spare: &'a mut [Spare],
    ) -> Shared<'a, f32> {
        let head_dim = task.shape.head_dim;
        for (index, query) in queries.iter_mut().enumerate() {
            query.place = match target {
                Target::Output if self.number == 0 => query.output(task),
                Target::Output => index * head_dim,
                Target::Kept(kept) => kept.place(self.number, query.index, head_dim),
            };
        }
        let all = match target {
            Target::Output if self.number == 0 => task.out,
            Target::Output => {
                let room = &mut spare[..queries.len() * head_dim];
                room.fill(Spare::new(0.0));
                // SAFETY: all of them are zeros.
                return Shared::new(unsafe { room.assume_init_mut() });
            }
            Target::Kept(_) => task.kept,
        };
        for query in queries.iter() {
            // SAFETY: passed on to the caller.
            unsafe { query.sums(all, head_dim) }.fill(0.0);
        }
        all
    }

    /// Joins or keeps what came of this part: `sums` and `softmax` of each query. `totals` are those of all parts before.
    ///
    /// # Safety
    /// As [`place`](Self::place), which has given the places.
    #[inline(always)]
    pub(super) unsafe fn take(
        &self,
        task: &Task<'_>,
        target: Target,
        queries: &[Query],
        sums: Shared<'_, f32>,
        softmax: &[Softmax],
        totals: &mut [Softmax],
    ) {
        let head_dim = task.shape.head_dim;
        for ((query, softmax), total) in queries.iter().zip(softmax).zip(totals) {
            match target {
                Target::Output if self.number == 0 => *total = *softmax,
                // Who sees nothing of it has no numbers here.
                Target::Output if query.seen(self.positions.start) == 0 => (),
                // SAFETY: passed on to the caller; the output and the sums of this part are two.
                Target::Output => unsafe {
                    let out = task.out.part(query.output(task), head_dim);
                    total.join(out, *softmax, query.sums(sums, head_dim));
                },
                // SAFETY: passed on to the caller; they are behind the sums.
                Target::Kept(_) => unsafe {
                    let rest = task.kept.part(query.place + head_dim, 2);
                    rest.copy_from_slice(&[softmax.m, softmax.l]);
                },
            }
        }
    }
}

/// Ends what is in the output.
///
/// # Safety
/// With [`Target::Output`] the queries are this thread's alone.
#[inline(always)]
pub(super) unsafe fn finish(task: &Task<'_>, target: Target, queries: &[Query], totals: &[Softmax]) {
    match target {
        Target::Output => {
            for (query, total) in queries.iter().zip(totals) {
                // SAFETY: passed on to the caller.
                total.divide(unsafe { task.out.part(query.output(task), task.shape.head_dim) });
            }
        }
        Target::Kept(_) => (),
    }
}

/// Joins what was kept of all parts, for each query of a unit.
///
/// # Safety
/// The queries are this thread's alone; all their parts are there.
#[inline(always)]
pub unsafe fn join(task: &Task<'_>, unit: &Unit<'_>, kept: Kept) {
    let head_dim = task.shape.head_dim;
    for index in 0..unit.queries.len() {
        let query = Query::new(task, unit, index);
        let mut total = Softmax::NOTHING;
        // SAFETY: passed on to the caller.
        let out = unsafe { task.out.part(query.output(task), head_dim) };
        for part in 0..query.positions.div_ceil(PART) {
            let place = kept.place(part, query.index, head_dim);
            // SAFETY: passed on to the caller.
            let (sums, rest) = unsafe { task.kept.part(place, head_dim + 2) }.split_at(head_dim);
            let softmax = Softmax {
                m: rest[0],
                l: rest[1],
                ..Softmax::NOTHING
            };
            match part {
                0 => {
                    out.copy_from_slice(sums);
                    total = softmax;
                }
                _ => total.join(out, softmax, sums),
            }
        }
        total.divide(out);
    }
}

impl Softmax {
    /// Adds the next part to all before it, whose sums are `sums`.
    #[inline(always)]
    fn join(&mut self, sums: &mut [f32], next: Softmax, next_sums: &[f32]) {
        let m = if next.m > self.m { next.m } else { self.m };
        let (a, b) = (exp(self.m - m), exp(next.m - m));
        self.l = self.l.mul_add(a, next.l * b);
        for (sum, next) in sums.iter_mut().zip(next_sums) {
            *sum = sum.mul_add(a, next * b);
        }
        self.m = m;
    }

    #[inline(always)]
    fn divide(&self, sums: &mut [f32]) {
        for sum in sums {
            *sum /= self.l;
        }
    }
}
