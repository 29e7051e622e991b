//! Attention over paged keys and values, in both their forms.

use super::{Scene, bits, check, cpus, numbers, sized};
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
            check(&format!("{shape:?}"), &Attention { shape, chunks });
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
        check(&format!("steps, {kv:?}"), &Attention { shape, chunks });
    }
}

#[test]
fn attention_has_the_same_bits_however_the_prompt_is_chunked() {
    for kv in KV_FORMATS {
        let whole = last_row(kv, vec![vec![(0, 300)]]);
        for chunk in [1, 7, 64] {
            let mut chunks = vec![vec![(0, chunk)]; 300 / chunk];
            if 300 % chunk > 0 {
                chunks.push(vec![(0, 300 % chunk)]);
            }
            assert_eq!(last_row(kv, chunks), whole, "{kv:?}, chunks of {chunk}");
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
                for rows in [1, 2, 5, 9, 17, 33, 150] {
                    let poisoned = over_poison(&mut cpu, shape, rows);
                    assert!(poisoned.iter().all(|number| number.is_finite()));
                    let clean = over_poison(&mut Reference, shape, rows);
                    assert_eq!(bits(&poisoned), bits(&clean), "{} {shape:?} {rows}", cpu.level());
                }
            }
        }
    }
}

/// The output of the first rows of a sequence in blocks whose last owner left no numbers.
fn over_poison<O: Ops>(ops: &mut O, shape: AttentionShape, rows: usize) -> Vec<f32> {
    let scene = Attention {
        shape,
        chunks: Vec::new(),
    };
    let mut pages = ops.pages(&shape, POSITIONS_MAX * 3).unwrap();
    let columns = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    let mut qkv = sized(ops, 160, columns);
    ops.write(&mut qkv, &vec![f32::NAN; 160 * columns]);
    let batch = Batch {
        sequences: vec![SequenceRows {
            first_row: 0,
            rows: 160,
            start: 0,
            blocks: scene.blocks(0),
        }],
    };
    let k_column = shape.heads * shape.head_dim;
    let v_column = k_column + shape.kv_heads * shape.head_dim;
    ops.append_kv(&shape, &batch, &qkv, k_column, v_column, &mut pages);
    scene.step(ops, &mut pages, &[(0, rows)], &mut [0; 3])
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
}

impl Scene for Attention {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let mut pages = ops
            .pages(&self.shape, POSITIONS_MAX.div_ceil(self.shape.block_tokens) * 3)
            .unwrap();
        let mut starts = [0; 3];
        let mut outcome = Vec::new();
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

const POSITIONS_MAX: usize = 512;

impl Attention {
    fn step<O: Ops>(
        &self,
        ops: &mut O,
        pages: &mut O::Pages,
        step: &[(usize, usize)],
        starts: &mut [usize; 3],
    ) -> Vec<f32> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let columns = (heads + 2 * kv_heads) * head_dim;
        let (mut sequences, mut values, mut first_row) = (Vec::new(), Vec::new(), 0);
        for (sequence, rows) in step.iter().copied() {
            let start = starts[sequence];
            sequences.push(SequenceRows {
                first_row,
                rows,
                start,
                blocks: self.blocks(sequence),
            });
            for position in start..start + rows {
                values.extend(numbers(columns, (sequence * POSITIONS_MAX + position) as u64));
            }
            starts[sequence] += rows;
            first_row += rows;
        }
        let mut qkv = sized(ops, first_row, columns);
        ops.write(&mut qkv, &values);
        let mut out = sized(ops, first_row, heads * head_dim);
        let batch = Batch { sequences };
        let [k_column, v_column] = [heads * head_dim, (heads + kv_heads) * head_dim];
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
    let attention = Attention { shape, chunks };
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
