//! Rotary position embedding.

use crate::RopeTable;
use crate::ops::RopePairing;
use crate::tensor::Tensor;

/// Which heads of a row are rotated.
#[derive(Clone, Copy)]
pub struct Heads {
    pub first_column: usize,
    pub heads: usize,
    pub head_dim: usize,
}

pub fn rope(table: &RopeTable, positions: &[u32], x: &mut Tensor, heads: Heads) {
    assert_eq!(positions.len(), x.rows(), "one position per row");
    assert!(table.rotated <= heads.head_dim, "rotates more than a head has");
    for (row, position) in positions.iter().enumerate() {
        let angles = Angles::at(table, *position as usize);
        let columns = &mut x.row_mut(row)[heads.first_column..][..heads.heads * heads.head_dim];
        for head in columns.chunks_exact_mut(heads.head_dim) {
            angles.rotate(head);
        }
    }
}

/// The table's row of one position.
struct Angles<'a> {
    pairing: RopePairing,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Angles<'_> {
    fn at(table: &RopeTable, position: usize) -> Angles<'_> {
        let pairs = table.rotated / 2;
        let row = position * pairs..(position + 1) * pairs;
        Angles {
            pairing: table.pairing,
            cos: &table.cos[row.clone()],
            sin: &table.sin[row],
        }
    }

    fn rotate(&self, head: &mut [f32]) {
        for (i, (cos, sin)) in self.cos.iter().zip(self.sin).enumerate() {
            let [first, second] = match self.pairing {
                RopePairing::Interleaved => [2 * i, 2 * i + 1],
                RopePairing::Halves => [i, i + self.cos.len()],
            };
            let (a, b) = (head[first], head[second]);
            head[first] = a.mul_add(*cos, -(b * sin));
            head[second] = b.mul_add(*cos, a * sin);
        }
    }
}
