//! Attention over paged keys and values, in both their forms.

use super::{Scene, bits, check, check_on, cpus, cpus_of, numbers, sized};
use std::ops::Range;

use kernels::{AttentionShape, Batch, KvFormat, Ops, Reference, SequenceRows};

#[test]
fn attention_has_the_bits_of_the_reference() {
    for (heads, kv_heads, first_head_in_group, head_dim, block_tokens) in [
        (9, 3, 0, 64, 16),
        (4, 4, 0, 20, 16),
        (8, 1, 0, 80, 32),
        (5, 3, 1, 16, 16),
        (4, 2, 2, 128, 48),
        (1, 1, 0, 8, 128),
        (3, 1, 0, 21, 16),
        (3, 1, 0, 22, 16),
        (2, 1, 0, 23, 16),
    ] {
        for kv in KV_FORMATS {
            let shape = AttentionShape {
                heads,
                kv_heads,
                heads_per_kv: usize::div_ceil(first_head_in_group + heads, kv_heads),
                first_head_in_group,
                head_dim,
                block_tokens,
                scale: 1.0 / (head_dim as f32).sqrt(),
                kv,
            };
            let chunks = vec![vec![(0, 5), (1, 150), (2, 1), (0, 1), (1, 7)]];
            check(&format!("{shape:?}"), &Attention::new(shape, chunks));
        }
    }
}

#[test]
fn attention_over_many_steps_has_the_bits_of_the_reference() {
    let chunks = vec![
        vec![(0, 127)],
        vec![(0, 1)],
        vec![(0, 1), (1, 260)],
        vec![(0, 300), (1, 1)],
    ];
    for kv in KV_FORMATS {
        let (shape, chunks) = (AttentionShape { kv, ..SMOL }, chunks.clone());
        check(&format!("steps, {kv:?}"), &Attention::new(shape, chunks));
    }
}

/// By which a context is cut into parts.
const PART: usize = kernels::reference::PART;

#[test]
fn attention_over_several_parts_has_the_bits_of_the_reference() {
    for (heads, kv_heads, head_dim) in [(9, 3, 64), (1, 1, 64), (8, 2, 32), (7, 1, 20), (13, 1, 32)] {
        for kv in KV_FORMATS {
            let shape = AttentionShape {
                heads,
                kv_heads,
                heads_per_kv: heads / kv_heads,
                head_dim,
                kv,
                ..SMOL
            };
            for cached in [
                [PART - 2, 0, 0],
                [PART, 0, 0],
                [2 * PART - 1, 5, 0],
                [3 * PART - 1, PART, 2 * PART],
            ] {
                let attention = Attention {
                    cached,
                    ..Attention::new(shape, vec![vec![(0, 1)]; 3])
                };
                let company = Attention {
                    cached,
                    ..Attention::new(shape, vec![vec![(1, 1), (0, 1), (2, 2)]])
                };
                let name = format!("{shape:?} behind {cached:?}");
                check_on(cpus_of(TEAMS), &name, &attention);
                check_on(cpus_of(TEAMS), &name, &company);
            }
        }
    }
}

#[test]
fn prompts_that_begin_in_a_part_and_end_in_another_have_the_bits_of_the_reference() {
    for kv in KV_FORMATS {
        for heads_per_kv in [1, 4, 7] {
            let shape = AttentionShape {
                heads: 2 * heads_per_kv,
                kv_heads: 2,
                heads_per_kv,
                head_dim: 32,
                kv,
                ..SMOL
            };
            let attention = Attention {
                cached: [PART - 3, 2 * PART - 20, 100],
                ..Attention::new(
                    shape,
                    vec![vec![(0, 9)], vec![(2, 3), (1, 40), (0, 1)], vec![(1, 2)]],
                )
            };
            check_on(cpus_of(TEAMS), &format!("{shape:?}"), &attention);
        }
    }
}

#[test]
fn a_position_that_is_no_number_shows_in_whichever_part_it_is() {
    for kv in KV_FORMATS {
        for poisoned in [20, PART + 88, 2 * PART + 60] {
            let attention = Attention {
                cached: [2 * PART + 76, 0, 0],
                poisoned: Some((0, poisoned)),
                ..Attention::new(AttentionShape { kv, ..SMOL }, vec![vec![(0, 1)]])
            };
            check_on(cpus_of(TEAMS), &format!("poison at {poisoned}"), &attention);
            let row = &attention.play(&mut Reference)[..SMOL.heads * SMOL.head_dim];
            assert!(row.iter().all(|number| number.is_nan()));
        }
    }
}

/// Alone, and dividing work evenly and unevenly.
const TEAMS: [usize; 4] = [1, 2, 3, 5];

#[test]
fn attention_has_the_same_bits_however_the_prompt_is_chunked() {
    for kv in KV_FORMATS {
        for (rows, chunks) in [(300, [1, 7, 64]), (3 * PART + 1, [1, 200, PART + 1])] {
            let whole = last_row(kv, vec![vec![(0, rows)]]);
            for chunk in chunks {
                let mut chunks = vec![vec![(0, chunk)]; rows / chunk];
                if rows % chunk > 0 {
                    chunks.push(vec![(0, rows % chunk)]);
                }
                assert_eq!(last_row(kv, chunks), whole, "{kv:?}, {rows} in chunks of {chunk}");
            }
        }
    }
}

#[test]
fn attention_has_the_same_bits_in_company() {
    for kv in KV_FORMATS {
        let alone = last_row(kv, vec![vec![(0, 40)], vec![(0, 1)]]);
        let company = last_row(
            kv,
            vec![vec![(1, 33), (0, 40), (2, 5)], vec![(2, 1), (1, 1), (0, 1)]],
        );
        assert_eq!(alone, company, "{kv:?}");
    }
}

#[test]
fn what_is_behind_the_last_position_does_not_matter_even_if_it_is_no_number() {
    for kv in KV_FORMATS {
        for head_dim in [64, 20] {
            let shape = AttentionShape { kv, head_dim, ..SMOL };
            for mut cpu in cpus() {
                let first = [1, 2, 5, 9, 17, 33, 150].map(|rows| (0, rows));
                for (start, rows) in first.into_iter().chain([(PART - 1, 1), (PART - 2, 5), (PART, 1)]) {
                    let poisoned = over_poison(&mut cpu, shape, start, rows);
                    assert!(poisoned.iter().all(|number| number.is_finite()));
                    let clean = over_poison(&mut Reference, shape, start, rows);
                    let name = format!("{} {shape:?} {rows} from {start}", cpu.level());
                    assert_eq!(bits(&poisoned), bits(&clean), "{name}");
                }
            }
        }
    }
}

/// The output of `rows` rows from `start` on of a sequence in blocks whose last owner left no numbers.
fn over_poison<O: Ops>(ops: &mut O, shape: AttentionShape, start: usize, rows: usize) -> Vec<f32> {
    let scene = Attention::new(shape, Vec::new());
    let mut pages = ops.pages(&shape, POSITIONS_MAX * 3).unwrap();
    let ends = start + 160;
    scene.append(ops, &mut pages, 0, &vec![f32::NAN; ends * scene.columns()]);
    let cached = scene.values(0, 0..start);
    scene.append(ops, &mut pages, 0, &cached);
    scene.step(ops, &mut pages, &[(0, rows)], &mut [start, 0, 0])
}

#[test]
fn pages_that_no_machine_has_are_refused() {
    assert!(cpus().pop().unwrap().pages(&SMOL, usize::MAX / 4).is_err());
    assert!(Reference.pages(&SMOL, usize::MAX / 4).is_err());
}

const KV_FORMATS: [KvFormat; 2] = [KvFormat::Bf16, KvFormat::Int8];

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

/// Steps of (sequence, rows). A sequence's row at a position has the same numbers whatever the steps.
struct Attention {
    shape: AttentionShape,
    chunks: Vec<Vec<(usize, usize)>>,
    /// Positions of each sequence that are there already.
    cached: [usize; 3],
    /// A sequence and a position of which nothing is a number.
    poisoned: Option<(usize, usize)>,
}

impl Scene for Attention {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let mut pages = ops
            .pages(&self.shape, POSITIONS_MAX.div_ceil(self.shape.block_tokens) * 3)
            .unwrap();
        let mut starts = self.cached;
        let mut outcome = Vec::new();
        for (sequence, cached) in self.cached.into_iter().enumerate() {
            self.append(ops, &mut pages, sequence, &self.values(sequence, 0..cached));
        }
        for step in &self.chunks {
            outcome.extend(self.step(ops, &mut pages, step, &mut starts));
        }
        let blocks: Vec<u32> = self.blocks(1);
        ops.zero_blocks(&mut pages, &blocks);
        starts[1] = 0;
        outcome.extend(self.step(ops, &mut pages, &[(1, 2)], &mut starts));
        outcome
    }
}

const POSITIONS_MAX: usize = 2048;

impl Attention {
    fn new(shape: AttentionShape, chunks: Vec<Vec<(usize, usize)>>) -> Attention {
        Attention {
            shape,
            chunks,
            cached: [0; 3],
            poisoned: None,
        }
    }

    /// Of queries, keys and values side by side.
    fn columns(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head_dim
    }

    fn values(&self, sequence: usize, positions: Range<usize>) -> Vec<f32> {
        let row = |position: usize| match self.poisoned {
            Some(poisoned) if poisoned == (sequence, position) => vec![f32::NAN; self.columns()],
            Some(_) | None => numbers(self.columns(), (sequence * POSITIONS_MAX + position) as u64),
        };
        positions.flat_map(row).collect()
    }

    /// Stores the first positions of a sequence, and attends to nothing.
    fn append<O: Ops>(&self, ops: &mut O, pages: &mut O::Pages, sequence: usize, values: &[f32]) {
        let rows = values.len() / self.columns();
        let sequences = vec![SequenceRows {
            first_row: 0,
            rows,
            start: 0,
            blocks: self.blocks(sequence),
        }];
        let mut qkv = sized(ops, rows, self.columns());
        ops.write(&mut qkv, values);
        let [k_column, v_column] = self.key_and_value_columns();
        ops.append_kv(&self.shape, &Batch { sequences }, &qkv, k_column, v_column, pages);
    }

    fn key_and_value_columns(&self) -> [usize; 2] {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        [heads * head_dim, (heads + kv_heads) * head_dim]
    }

    fn step<O: Ops>(
        &self,
        ops: &mut O,
        pages: &mut O::Pages,
        step: &[(usize, usize)],
        starts: &mut [usize; 3],
    ) -> Vec<f32> {
        let (mut sequences, mut values, mut first_row) = (Vec::new(), Vec::new(), 0);
        for (sequence, rows) in step.iter().copied() {
            let start = starts[sequence];
            sequences.push(SequenceRows {
                first_row,
                rows,
                start,
                blocks: self.blocks(sequence),
            });
            values.extend(self.values(sequence, start..start + rows));
            starts[sequence] += rows;
            first_row += rows;
        }
        let mut qkv = sized(ops, first_row, self.columns());
        ops.write(&mut qkv, &values);
        let mut out = sized(ops, first_row, self.shape.heads * self.shape.head_dim);
        let batch = Batch { sequences };
        let [k_column, v_column] = self.key_and_value_columns();
        ops.append_kv(&self.shape, &batch, &qkv, k_column, v_column, pages);
        ops.attention(&self.shape, &batch, &qkv, pages, &mut out);
        ops.read(&out).to_vec()
    }

    /// Every third block, the highest first.
    fn blocks(&self, sequence: usize) -> Vec<u32> {
        let count = POSITIONS_MAX.div_ceil(self.shape.block_tokens) as u32;
        (0..count)
            .rev()
            .map(|block| block * 3 + sequence as u32)
            .collect()
    }
}

/// The last row of sequence 0, at the highest level.
fn last_row(kv: KvFormat, chunks: Vec<Vec<(usize, usize)>>) -> Vec<u32> {
    let mut cpu = cpus().pop().unwrap();
    let shape = AttentionShape { kv, ..SMOL };
    let attention = Attention::new(shape, chunks);
    let mut pages = cpu.pages(&shape, POSITIONS_MAX).unwrap();
    let (mut starts, mut row) = ([0; 3], Vec::new());
    for step in &attention.chunks {
        let out = attention.step(&mut cpu, &mut pages, step, &mut starts);
        let before = step.iter().take_while(|(sequence, _)| *sequence != 0);
        let rows =
            before.map(|(_, rows)| rows).sum::<usize>() + step.iter().find(|part| part.0 == 0).unwrap().1;
        row = bits(&out[(rows - 1) * 576..rows * 576]);
    }
    row
}
