//! What one call of attention consists of: units for a team, and queries whose parts are joined once all units are done.
//!
//! A (sequence, KV head) whose units would each cost more than a quarter of what a thread has to do is divided by parts: else one
//! stream would keep no more threads at work than it has KV heads, and some of them twice as long as others. No bit depends on it.

use std::ops::Range;

use super::parts::{Kept, Target, kept_len};
use super::{Job, Unit};
use crate::reference::PART;
use crate::{AttentionShape, Batch};

/// Numbers of parts that are kept at a time, at most (16 MiB). What would need more is not divided.
pub const KEPT_MAX: usize = 4 << 20;

/// The units of one call.
#[derive(Default)]
pub struct Agenda {
    /// Of each (sequence, KV head).
    groups: Vec<Group>,
    units: usize,
    joins: usize,
    /// Numbers that are kept.
    kept: usize,
}

/// Queries that share keys.
struct Group {
    /// Units before its own.
    first_unit: usize,
    queries: usize,
    /// Queries of a unit; the last has what is left.
    at_a_time: usize,
    parts: usize,
    /// Among so many units the parts of the same queries are dealt out.
    divisor: usize,
    /// Of its queries, if it is divided.
    first_join: usize,
    first_kept: usize,
}

impl Agenda {
    /// # Panics
    /// When rows of sequences overlap or do not ascend.
    pub fn plan(
        &mut self,
        shape: &AttentionShape,
        batch: &Batch,
        threads: usize,
        at_a_time: fn(&AttentionShape, usize) -> usize,
    ) {
        (self.units, self.joins, self.kept) = (0, 0, 0);
        self.groups.clear();
        let share = Share::of(shape, batch, threads);
        let mut row = 0;
        for sequence in &batch.sequences {
            assert!(sequence.first_row >= row, "rows of sequences overlap");
            row = sequence.first_row + sequence.rows;
            for kv_head in 0..shape.kv_heads {
                let queries = sequence.rows * heads_of(shape, kv_head).len();
                let positions = sequence.start + sequence.rows;
                self.add(shape, share, queries, at_a_time(shape, queries), positions);
            }
        }
    }

    fn add(
        &mut self,
        shape: &AttentionShape,
        share: Share,
        queries: usize,
        at_a_time: usize,
        positions: usize,
    ) {
        let parts = positions.div_ceil(PART);
        let kept = queries * parts * kept_len(shape.head_dim);
        let divisor = match share.divisor(queries.min(at_a_time), positions) {
            divisor if divisor > 1 && self.kept + kept <= KEPT_MAX => divisor,
            _ => 1,
        };
        self.groups.push(Group {
            first_unit: self.units,
            queries,
            at_a_time,
            parts,
            divisor,
            first_join: self.joins,
            first_kept: self.kept,
        });
        self.units += queries.div_ceil(at_a_time) * divisor;
        if divisor > 1 {
            self.joins += queries;
            self.kept += kept;
        }
    }

    pub fn units(&self) -> usize {
        self.units
    }

    /// Queries whose parts are to be joined, once all units are done.
    pub fn joins(&self) -> usize {
        self.joins
    }

    /// Numbers that are kept for that.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Units of one part of different queries follow each other, since they read the same keys.
    pub fn unit<'a>(&self, unit: usize, shape: &AttentionShape, batch: &'a Batch) -> Unit<'a> {
        let owner = self.groups.partition_point(|group| group.first_unit <= unit) - 1;
        let group = &self.groups[owner];
        let unit = unit - group.first_unit;
        let units_of_a_run = group.queries.div_ceil(group.at_a_time);
        let (run, place) = (unit / units_of_a_run, unit % units_of_a_run);
        let first = place * group.at_a_time;
        let bound = |run: usize| group.parts * run / group.divisor;
        let target = match group.divisor {
            1 => Target::Output,
            _ => Target::Kept(group.kept()),
        };
        let queries = first..group.queries.min(first + group.at_a_time);
        let job = Job::Attend(bound(run)..bound(run + 1), target);
        group_unit(owner, shape, batch, queries, job)
    }

    pub fn join<'a>(&self, join: usize, shape: &AttentionShape, batch: &'a Batch) -> Unit<'a> {
        // Of groups with the same first one, the last is the one that has it: the others have none.
        let owner = self.groups.partition_point(|group| group.first_join <= join) - 1;
        let group = &self.groups[owner];
        let query = join - group.first_join;
        let job = Job::Join(group.kept());
        group_unit(owner, shape, batch, query..query + 1, job)
    }
}

impl Group {
    fn kept(&self) -> Kept {
        Kept {
            first: self.first_kept,
            parts: self.parts,
        }
    }
}

fn group_unit<'a>(
    owner: usize,
    shape: &AttentionShape,
    batch: &'a Batch,
    queries: Range<usize>,
    job: Job,
) -> Unit<'a> {
    let kv_head = owner % shape.kv_heads;
    Unit {
        sequence: &batch.sequences[owner / shape.kv_heads],
        kv_head,
        heads: heads_of(shape, kv_head),
        queries,
        job,
    }
}

/// What a unit may cost, in queries times positions.
#[derive(Clone, Copy)]
enum Share {
    /// Nobody else is there.
    All,
    UpTo(usize),
}

impl Share {
    fn of(shape: &AttentionShape, batch: &Batch, threads: usize) -> Share {
        let seen = batch
            .sequences
            .iter()
            .map(|rows| rows.rows * (rows.start + rows.rows));
        match threads {
            1 => Share::All,
            _ => Share::UpTo(seen.sum::<usize>() * shape.heads / (4 * threads)),
        }
    }

    /// Into how many units the parts of so many queries are to be divided.
    fn divisor(self, queries: usize, positions: usize) -> usize {
        match self {
            Share::UpTo(share) if queries * positions > share => {
                let parts = (share / (queries * PART)).max(1);
                positions.div_ceil(PART).div_ceil(parts)
            }
            Share::UpTo(_) | Share::All => 1,
        }
    }
}

/// The query heads of this rank that attend to a KV head.
fn heads_of(shape: &AttentionShape, kv_head: usize) -> Range<usize> {
    let first = |kv_head: usize| {
        (kv_head * shape.heads_per_kv)
            .saturating_sub(shape.first_head_in_group)
            .min(shape.heads)
    };
    first(kv_head)..first(kv_head + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KvFormat, SequenceRows};
    use std::collections::BTreeMap;

    const SMOL: AttentionShape = AttentionShape {
        heads: 9,
        kv_heads: 3,
        heads_per_kv: 3,
        first_head_in_group: 0,
        head_dim: 64,
        block_tokens: 16,
        scale: 0.125,
        kv: KvFormat::Bf16,
    };

    /// `(start, rows)` of each.
    fn batch(sequences: &[(usize, usize)]) -> Batch {
        let mut first_row = 0;
        let sequences = sequences.iter().map(|(start, rows)| {
            first_row += rows;
            SequenceRows {
                first_row: first_row - rows,
                rows: *rows,
                start: *start,
                blocks: Vec::new(),
            }
        });
        Batch {
            sequences: sequences.collect(),
        }
    }

    fn planned(shape: &AttentionShape, batch: &Batch, threads: usize) -> Agenda {
        let mut agenda = Agenda::default();
        // What it has planned before leaves no trace.
        agenda.plan(&SMOL, &self::batch(&[(9000, 1)]), 2, |_, _| 1);
        agenda.plan(shape, batch, threads, |_, _| 6);
        agenda
    }

    fn shapes() -> [AttentionShape; 4] {
        let cut = |heads, kv_heads, heads_per_kv, first_head_in_group| AttentionShape {
            heads,
            kv_heads,
            heads_per_kv,
            first_head_in_group,
            ..SMOL
        };
        [SMOL, cut(1, 1, 1, 0), cut(14, 2, 7, 0), cut(5, 3, 2, 1)]
    }

    const BATCHES: [&[(usize, usize)]; 8] = [
        &[(0, 1)],
        &[(511, 1)],
        &[(512, 1)],
        &[(8000, 1)],
        &[(3500, 16)],
        &[(1500, 512)],
        &[(9000, 1), (3, 1), (0, 700), (600, 2)],
        &[(400, 300), (100, 0), (70_000, 3)],
    ];

    fn for_each_plan(mut check: impl FnMut(&AttentionShape, &Batch, usize, &Agenda)) {
        for shape in &shapes() {
            for batch in BATCHES.map(batch) {
                for threads in [1, 2, 3, 5, 64] {
                    check(shape, &batch, threads, &planned(shape, &batch, threads));
                }
            }
        }
    }

    #[test]
    fn every_part_of_every_query_is_computed_once_and_joined_if_it_was_kept() {
        for_each_plan(|shape, batch, _, agenda| {
            // By first row of the sequence, KV head and query: parts that were kept, and joins.
            let mut found = BTreeMap::new();
            let mut kept_places = BTreeMap::new();
            for unit in (0..agenda.units()).map(|unit| agenda.unit(unit, shape, batch)) {
                let positions = unit.sequence.start + unit.sequence.rows;
                let Job::Attend(parts, target) = unit.job else {
                    panic!("a unit joins")
                };
                assert!(!unit.queries.is_empty() && !parts.is_empty());
                for query in unit.queries {
                    let key = (unit.sequence.first_row, unit.kv_head, query);
                    for part in parts.clone() {
                        let seen: &mut Vec<_> = found.entry(key).or_default();
                        assert!(!seen.contains(&part), "twice");
                        seen.push(part);
                    }
                    match target {
                        Target::Output => assert_eq!(parts, 0..positions.div_ceil(PART)),
                        Target::Kept(kept) => drop(kept_places.insert(key, (kept, positions))),
                    }
                }
            }
            let queries = batch.sequences.iter().map(|rows| rows.rows).sum::<usize>() * shape.heads;
            assert_eq!(found.len(), queries);
            for ((first_row, ..), mut parts) in found {
                let of = |rows: &&SequenceRows| rows.rows > 0 && rows.first_row == first_row;
                let rows = batch.sequences.iter().find(of).unwrap();
                parts.sort_unstable();
                assert!(parts.into_iter().eq(0..(rows.start + rows.rows).div_ceil(PART)));
            }
            let mut end = 0;
            for unit in (0..agenda.joins()).map(|join| agenda.join(join, shape, batch)) {
                let key = (unit.sequence.first_row, unit.kv_head, unit.queries.start);
                let (kept, positions) = kept_places.remove(&key).expect("kept, and joined once");
                assert_eq!((unit.queries.len(), unit.job), (1, Job::Join(kept)));
                assert_eq!(kept.parts, positions.div_ceil(PART));
                let queries = unit.sequence.rows * unit.heads.len();
                let numbers = queries * kept.parts * kept_len(shape.head_dim);
                assert!(kept.first == end || unit.queries.start > 0, "places overlap");
                end = kept.first + numbers;
            }
            assert!(kept_places.is_empty());
            assert_eq!(end, agenda.kept());
        });
    }

    #[test]
    fn no_unit_that_can_be_divided_is_dearer_than_a_quarter_of_an_even_share() {
        for_each_plan(|shape, batch, threads, agenda| {
            let seen = batch
                .sequences
                .iter()
                .map(|rows| rows.rows * (rows.start + rows.rows));
            let share = seen.sum::<usize>() * shape.heads / (4 * threads);
            for unit in (0..agenda.units()).map(|unit| agenda.unit(unit, shape, batch)) {
                let positions = unit.sequence.start + unit.sequence.rows;
                let Job::Attend(parts, _) = unit.job else {
                    panic!("a unit joins")
                };
                let cost = unit.queries.len() * (positions.min(parts.end * PART) - parts.start * PART);
                assert!(
                    cost <= share || parts.len() == 1 || threads == 1,
                    "{cost} of {share}"
                );
            }
        });
    }

    #[test]
    fn one_thread_divides_nothing() {
        for_each_plan(|_, _, threads, agenda| {
            assert!(threads > 1 || (agenda.joins(), agenda.kept()) == (0, 0));
        });
    }

    #[test]
    fn few_queries_behind_much_are_divided_and_many_or_short_ones_are_not() {
        let joins = |shape, sequences, threads| planned(shape, &batch(sequences), threads).joins();
        assert_eq!(joins(&SMOL, &[(8000, 1)], 2), 9);
        assert_eq!(joins(&SMOL, &[(511, 1)], 2), 0);
        assert_eq!(joins(&SMOL, &[(1500, 512)], 2), 0);
        assert_eq!(joins(&SMOL, &[(3500, 16)], 2), 0);
        assert_eq!(joins(&SMOL, &[(2000, 1); 32], 2), 0);
        // The long one of two alone.
        assert_eq!(joins(&SMOL, &[(100, 1), (8000, 1)], 2), 9);
        // As many heads as an even share needs.
        let many = AttentionShape {
            heads: 32,
            kv_heads: 8,
            heads_per_kv: 4,
            ..SMOL
        };
        assert_eq!(joins(&many, &[(8000, 1)], 2), 0);
        assert_eq!(joins(&many, &[(8000, 1)], 3), 32);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let long = batch(&[(1 << 20, 1); 40]);
        let agenda = planned(&SMOL, &long, 64);
        assert!(agenda.joins() > 0 && agenda.joins() < 40 * 9 && agenda.kept() <= KEPT_MAX);
    }
}
