//! Stored blocks as tables of embeddings, which is how their weights are read one by one.

use kernels::{Cpu, Ops, Reference, Team, WeightFormat};

/// Both rows of a table, by the reference and by the CPU.
pub fn by_twins(format: WeightFormat, stored: &[u8], columns: usize) -> [Vec<f32>; 2] {
    let cpu = Cpu::new(Team::alone(), None).unwrap();
    [
        embedded(Reference, format, stored, columns),
        embedded(cpu, format, stored, columns),
    ]
}

fn embedded<O: Ops>(mut ops: O, format: WeightFormat, stored: &[u8], columns: usize) -> Vec<f32> {
    let table = ops.pack(format, stored, 2, columns).unwrap();
    let mut out = ops.tensor(2, columns).unwrap();
    ops.set_rows(&mut out, 2);
    ops.embed(&table, &[0, 1], &mut out);
    ops.read(&out).to_vec()
}
