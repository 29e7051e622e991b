//! Every operation of [`kernels::Cpu`], at every level of this machine and with several threads, against its twin in
//! [`kernels::Reference`]: bit for bit.

mod attention;

use kernels::{Cpu, InputPrecision, Level, Ops, Reference, RopePairing, RopeTable, Team, WeightFormat};

#[test]
fn products_have_the_bits_of_the_reference() {
    for format in FORMATS {
        for (outputs, inputs) in [(1, 32usize), (16, 32), (40, 96), (17, 64), (130, 160), (20, 512)] {
            let inputs = inputs.next_multiple_of(format.block());
            for rows in [1, 2, 3, 7, 16, 17, 33] {
                let product = Product {
                    parts: vec![(format, outputs)],
                    inputs,
                    rows,
                };
                check(&format!("{format:?} {outputs} × {inputs}, {rows} rows"), &product);
            }
        }
    }
}

#[test]
fn products_of_several_matrices_stand_side_by_side() {
    let outputs: [usize; FORMATS.len()] = [33, 1, 16, 50, 7, 64, 9, 34, 21, 18];
    let parts = FORMATS.into_iter().zip(outputs).collect::<Vec<_>>();
    for rows in [1, 5, 40] {
        check(
            "side by side",
            &Product {
                parts: parts.clone(),
                inputs: 256,
                rows,
            },
        );
    }
}

#[test]
fn products_of_many_rows_cut_into_panels_keep_their_bits() {
    for format in [
        WeightFormat::Q4_1,
        WeightFormat::Q8_0,
        WeightFormat::Bf16,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
    ] {
        check(
            "panels",
            &Product {
                parts: vec![(format, 20)],
                inputs: 9216,
                rows: 70,
            },
        );
    }
}

#[test]
fn extreme_weights_and_activations_multiply_exactly() {
    for format in [
        WeightFormat::Q8_0,
        WeightFormat::Q4_0,
        WeightFormat::Q4_1,
        WeightFormat::Q4K,
        WeightFormat::Q5K,
        WeightFormat::Q6K,
    ] {
        for byte in [0x80, 0x7f, 0xff, 0x00] {
            for scale in [0x80, 0x7f] {
                let extremes = Extremes { format, byte, scale };
                check(&format!("{format:?} all {byte:#x}, scales {scale:#x}"), &extremes);
            }
        }
    }
}

/// Two nodes of a host share what either has packed.
#[test]
fn what_is_packed_in_one_form_is_the_same_at_every_level() {
    let (outputs, inputs) = (33, 512);
    for format in FORMATS {
        let bytes = weights(format, outputs, inputs, 5);
        let mut of_forms = std::collections::HashMap::new();
        for cpu in cpus_of([1]) {
            let matrix = cpu.pack(format, &bytes, outputs, inputs).unwrap();
            let packed = cpu.packed(&matrix);
            let first = of_forms.entry(cpu.packing()).or_insert_with(|| packed.to_vec());
            assert_eq!(packed, first.as_slice(), "{format:?} at {}", cpu.level());
        }
    }
}

#[test]
fn a_poisoned_row_is_nan_and_alone() {
    for format in FORMATS {
        check(&format!("{format:?}"), &Poisoned { format });
    }
    let outcome = Poisoned {
        format: WeightFormat::Q4_1,
    }
    .play(&mut Reference);
    let (poisoned, healthy) = outcome.split_at(POISONED_OUTPUTS);
    assert!(poisoned.iter().all(|x| x.is_nan()) && healthy.iter().all(|x| x.is_finite()));
}

#[test]
fn embedding_has_the_bits_of_the_reference() {
    for format in FORMATS {
        check(&format!("{format:?}"), &Embedding { format });
    }
}

#[test]
fn row_operations_have_the_bits_of_the_reference() {
    for columns in [1, 15, 16, 33, 64, 576] {
        for rows in [1, 3, 70] {
            check(&format!("{rows} × {columns}"), &RowOperations { rows, columns });
        }
    }
}

#[test]
fn silu_has_the_bits_of_the_reference_from_end_to_end() {
    check("silu", &Silu);
}

#[test]
fn rope_has_the_bits_of_the_reference() {
    for pairing in [RopePairing::Interleaved, RopePairing::Halves] {
        for (head_dim, rotated) in [(64, 64), (64, 32), (20, 6), (8, 8)] {
            check(
                &format!("{pairing:?} {rotated} of {head_dim}"),
                &Rotation {
                    pairing,
                    head_dim,
                    rotated,
                },
            );
        }
    }
}

#[test]
fn a_product_has_the_same_bits_alone_and_in_company() {
    for format in FORMATS {
        let (many, inputs, outputs) = (37, 96usize.next_multiple_of(format.block()), 24);
        for mut cpu in cpus() {
            let x = numbers(many * inputs, 5);
            let all = multiply(&mut cpu, format, outputs, inputs, &x);
            for row in [0, 16, 36] {
                let alone = multiply(&mut cpu, format, outputs, inputs, &x[row * inputs..][..inputs]);
                assert_eq!(
                    bits(&alone),
                    bits(&all[row * outputs..][..outputs]),
                    "{format:?} row {row}"
                );
            }
        }
    }
}

#[test]
fn cutting_a_matrix_by_outputs_changes_no_bit() {
    let mut cpu = cpus().pop().unwrap();
    let (inputs, rows) = (256, 3);
    let x = numbers(rows * inputs, 6);
    for format in FORMATS {
        let bytes = weights(format, 50, inputs, 7);
        let (first, second) = bytes.split_at(bytes.len() / 50 * 21);
        let whole = multiply_bytes(&mut cpu, &[(format, &bytes)], inputs, &x);
        assert_eq!(
            whole,
            multiply_bytes(&mut cpu, &[(format, first), (format, second)], inputs, &x)
        );
    }
}

#[test]
fn matrices_of_the_wrong_size_are_refused() {
    let cpu = cpus().pop().unwrap();
    assert!(cpu.pack(WeightFormat::Q8_0, &[0; 34], 1, 32).is_ok());
    assert!(cpu.pack(WeightFormat::Q8_0, &[0; 33], 1, 32).is_err());
    assert!(cpu.pack(WeightFormat::Q8_0, &[0; 34], 1, 33).is_err());
    assert!(cpu.pack(WeightFormat::F32, &[], usize::MAX, 64).is_err());
    assert!(cpu.pack(WeightFormat::Q4K, &[0; 144], 1, 256).is_ok());
    assert!(cpu.pack(WeightFormat::Q4K, &[0; 144], 1, 255).is_err());
    assert!(cpu.pack(WeightFormat::Q4K, &[0; 160], 1, 256).is_err());
    assert!(cpu.pack(WeightFormat::Q5K, &[0; 176], 1, 256).is_ok());
    assert!(cpu.pack(WeightFormat::Q5K, &[0; 176], 1, 255).is_err());
    assert!(cpu.pack(WeightFormat::Q5K, &[0; 180], 1, 256).is_err());
    assert!(cpu.pack(WeightFormat::Q6K, &[0; 210], 1, 256).is_ok());
    assert!(cpu.pack(WeightFormat::Q6K, &[0; 210], 1, 255).is_err());
    assert!(cpu.pack(WeightFormat::Q6K, &[0; 512], 1, 256).is_err());
    assert!(Reference.pack(WeightFormat::F32, &[0; 3], 1, 1).is_err());
}

/// Something to do with a device, and the numbers that come of it.
trait Scene {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32>;
}

/// Plays a scene on the reference and on every CPU there is, and compares.
fn check(name: &str, scene: &impl Scene) {
    check_on(cpus(), name, scene);
}

fn check_on(cpus: Vec<Cpu>, name: &str, scene: &impl Scene) {
    let expected = scene.play(&mut Reference);
    for mut cpu in cpus {
        let found = scene.play(&mut cpu);
        let who = format!("{name} at {} with {} threads", cpu.level(), cpu.threads());
        assert_eq!(found.len(), expected.len(), "{who}");
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            assert!(same, "{who}: {found} instead of {expected} at {index}");
        }
    }
}

fn cpus() -> Vec<Cpu> {
    cpus_of([1, 3])
}

fn cpus_of<const COUNT: usize>(threads: [usize; COUNT]) -> Vec<Cpu> {
    let levels = Level::ALL
        .into_iter()
        .filter(|level| Level::choose(Some(*level)) == *level);
    let each = levels.flat_map(|level| threads.map(|threads| (level, threads)));
    each.map(|(level, threads)| Cpu::new(Team::new(threads, |_| ()).unwrap(), Some(level)).unwrap())
        .collect()
}

const FORMATS: [WeightFormat; 10] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::Q8_0,
    WeightFormat::Q4_0,
    WeightFormat::Q4_1,
    WeightFormat::Q5_0,
    WeightFormat::Q4K,
    WeightFormat::Q5K,
    WeightFormat::Q6K,
];

struct Product {
    parts: Vec<(WeightFormat, usize)>,
    inputs: usize,
    rows: usize,
}

impl Scene for Product {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let packed = |(format, outputs): &(WeightFormat, usize)| {
            let bytes = weights(*format, *outputs, self.inputs, *outputs as u64);
            ops.pack(*format, &bytes, *outputs, self.inputs).unwrap()
        };
        let parts: Vec<O::Weights> = self.parts.iter().map(packed).collect();
        let x = filled(ops, self.rows, self.inputs, 1);
        let outputs = self.parts.iter().map(|(_, outputs)| outputs).sum();
        let mut out = sized(ops, self.rows, outputs);
        let mut results = Vec::new();
        for precision in [InputPrecision::OneTerm, InputPrecision::TwoTerms] {
            ops.matmul(&parts.iter().collect::<Vec<_>>(), &x, precision, &mut out);
            results.extend_from_slice(ops.read(&out));
        }
        results
    }
}

struct Extremes {
    format: WeightFormat,
    byte: u8,
    /// Where scales are integers, all of them.
    scale: u8,
}

/// More than go together, and some that do not.
const EXTREME_ROWS: usize = 7;
const EXTREME_OUTPUTS: usize = 33;

impl Scene for Extremes {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let inputs = 64usize.next_multiple_of(self.format.block());
        let mut bytes = weights(self.format, EXTREME_OUTPUTS, inputs, 1);
        let (quants, scales) = match self.format {
            WeightFormat::Q4_1 => (4..20, 0..0),
            WeightFormat::Q4K => (16..144, 4..16),
            WeightFormat::Q5K => (16..176, 4..16),
            WeightFormat::Q6K => (0..192, 192..208),
            _ => (2..self.format.block_bytes(), 0..0),
        };
        for block in bytes.chunks_exact_mut(self.format.block_bytes()) {
            block[quants.clone()].fill(self.byte);
            block[scales.clone()].fill(self.scale);
        }
        let matrix = ops.pack(self.format, &bytes, EXTREME_OUTPUTS, inputs).unwrap();
        let mut x = sized(ops, EXTREME_ROWS, inputs);
        // Every activation the largest: of either sign, and of both by turns.
        let values: Vec<f32> = (0..EXTREME_ROWS * inputs)
            .map(|i| [1.0, -1.0, (i % 2) as f32 * 2.0 - 1.0][i / inputs % 3])
            .collect();
        ops.write(&mut x, &values);
        let mut outcome = Vec::new();
        for precision in [InputPrecision::OneTerm, InputPrecision::TwoTerms] {
            let mut out = sized(ops, EXTREME_ROWS, EXTREME_OUTPUTS);
            ops.matmul(&[&matrix], &x, precision, &mut out);
            outcome.extend_from_slice(ops.read(&out));
        }
        outcome
    }
}

/// The first of two rows holds an infinity, a NaN, or both.
struct Poisoned {
    format: WeightFormat,
}

const POISONED_OUTPUTS: usize = 18;

impl Scene for Poisoned {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let inputs = 64usize.next_multiple_of(self.format.block());
        let bytes = weights(self.format, POISONED_OUTPUTS, inputs, 3);
        let matrix = ops.pack(self.format, &bytes, POISONED_OUTPUTS, inputs).unwrap();
        let mut values = numbers(2 * inputs, 2);
        (values[3], values[40]) = (f32::INFINITY, f32::NAN);
        let mut x = sized(ops, 2, inputs);
        ops.write(&mut x, &values);
        let mut out = sized(ops, 2, POISONED_OUTPUTS);
        ops.matmul(&[&matrix], &x, InputPrecision::TwoTerms, &mut out);
        ops.read(&out).to_vec()
    }
}

struct Embedding {
    format: WeightFormat,
}

impl Scene for Embedding {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let inputs = 96usize.next_multiple_of(self.format.block());
        let bytes = weights(self.format, 41, inputs, 4);
        let table = ops.pack(self.format, &bytes, 41, inputs).unwrap();
        let tokens: Vec<u32> = (0..41).rev().chain([7, 7, 0]).collect();
        let mut out = sized(ops, tokens.len(), inputs);
        ops.embed(&table, &tokens, &mut out);
        ops.read(&out).to_vec()
    }
}

struct RowOperations {
    rows: usize,
    columns: usize,
}

impl Scene for RowOperations {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let RowOperations { rows, columns } = *self;
        let mut x = filled(ops, rows, columns, 1);
        let y = filled(ops, rows, columns, 2);
        let mut normed = sized(ops, rows, columns);
        ops.add(&mut x, &y);
        ops.rms_norm(&x, &numbers(columns, 3), 1e-5, &mut normed);
        let picked: Vec<u32> = (0..rows as u32).rev().chain([0]).collect();
        let mut gathered = sized(ops, picked.len(), columns);
        ops.gather_rows(&normed, &picked, &mut gathered);
        let gate_up = filled(ops, rows, 2 * columns, 4);
        let mut activated = sized(ops, rows, columns);
        ops.silu_mul(&gate_up, &mut activated);
        [ops.read(&x), ops.read(&gathered), ops.read(&activated)].concat()
    }
}

struct Silu;

impl Scene for Silu {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let mut gate: Vec<f32> = (-120_000..120_000).map(|i| i as f32 * 1e-3).collect();
        gate.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MIN_POSITIVE,
            1e-45,
        ]);
        let columns = gate.len();
        gate.resize(2 * columns, 1.0);
        let (mut x, mut out) = (sized(ops, 1, 2 * columns), sized(ops, 1, columns));
        ops.write(&mut x, &gate);
        ops.silu_mul(&x, &mut out);
        ops.read(&out).to_vec()
    }
}

struct Rotation {
    pairing: RopePairing,
    head_dim: usize,
    rotated: usize,
}

impl Scene for Rotation {
    fn play<O: Ops>(&self, ops: &mut O) -> Vec<f32> {
        let (cos, sin) = (
            numbers(50 * self.rotated / 2, 8),
            numbers(50 * self.rotated / 2, 9),
        );
        let table = RopeTable {
            rotated: self.rotated,
            pairing: self.pairing,
            cos,
            sin,
        };
        let positions = [3, 49, 0, 7];
        let mut x = filled(ops, positions.len(), 5 + 4 * self.head_dim, 1);
        ops.rope(&table, &positions, &mut x, 5, 3, self.head_dim);
        ops.read(&x).to_vec()
    }
}

fn multiply(cpu: &mut Cpu, format: WeightFormat, outputs: usize, inputs: usize, x: &[f32]) -> Vec<f32> {
    multiply_bytes(cpu, &[(format, &weights(format, outputs, inputs, 9))], inputs, x)
}

fn multiply_bytes(cpu: &mut Cpu, parts: &[(WeightFormat, &[u8])], inputs: usize, x: &[f32]) -> Vec<f32> {
    let outputs = |format: WeightFormat, bytes: &[u8]| bytes.len() / format.row_bytes(inputs).unwrap();
    let packed: Vec<_> = parts
        .iter()
        .map(|(format, bytes)| cpu.pack(*format, bytes, outputs(*format, bytes), inputs).unwrap())
        .collect();
    let rows = x.len() / inputs;
    let mut input = sized(cpu, rows, inputs);
    cpu.write(&mut input, x);
    let columns = parts.iter().map(|(format, bytes)| outputs(*format, bytes)).sum();
    let mut out = sized(cpu, rows, columns);
    let precision = InputPrecision::TwoTerms;
    cpu.matmul(&packed.iter().collect::<Vec<_>>(), &input, precision, &mut out);
    cpu.read(&out).to_vec()
}

fn sized<O: Ops>(ops: &O, rows: usize, columns: usize) -> O::Tensor {
    let mut tensor = ops.tensor(rows, columns).unwrap();
    ops.set_rows(&mut tensor, rows);
    tensor
}

fn filled<O: Ops>(ops: &O, rows: usize, columns: usize, seed: u64) -> O::Tensor {
    let mut tensor = sized(ops, rows, columns);
    ops.write(&mut tensor, &numbers(rows * columns, seed));
    tensor
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Numbers between −4 and 4.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count)
        .map(|_| (random.next() >> 40) as f32 / (1 << 21) as f32 - 4.0)
        .collect()
}

/// Stored rows: random, but with scales and floats of a sensible size.
fn weights(format: WeightFormat, outputs: usize, inputs: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes: Vec<u8> = (0..format.row_bytes(inputs).unwrap() * outputs)
        .map(|_| (random.next() >> 56) as u8)
        .collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let ends: &[usize] = match format {
            WeightFormat::F32 => &[3],
            WeightFormat::F16
            | WeightFormat::Bf16
            | WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q5_0 => &[1],
            WeightFormat::Q4_1 | WeightFormat::Q4K | WeightFormat::Q5K => &[1, 3],
            WeightFormat::Q6K => &[209],
        };
        // Exponents below one, sign kept.
        ends.iter()
            .for_each(|end| block[*end] = block[*end] & 0x83 | 0x38);
    }
    bytes
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
