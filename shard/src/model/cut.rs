use super::ModelConfig;
use kernels::{AttentionShape, KvFormat};
use std::ops::Range;

/// Which part of every matrix is whose. All matrices are cut by output rows and the results gathered, so no sum is ever
/// cut, and every number of ranks gives the same bits.
///
/// Heads are dealt out as evenly as whole heads allow. A KV head that heads of two ranks read stands on both.
#[derive(Clone, PartialEq, Debug)]
pub struct Cut {
    /// Query heads, by rank.
    heads: Vec<Range<usize>>,
    head_dim: usize,
    heads_per_kv: usize,
    kv: KvFormat,
    pub hidden: Vec<Range<usize>>,
    pub feed_forward: Vec<Range<usize>>,
    pub vocabulary: Vec<Range<usize>>,
}

/// Rows that kernels like to take together.
const UNIT: usize = 32;

impl Cut {
    /// `None` when there are more ranks than heads.
    pub fn new(config: &ModelConfig, ranks: usize) -> Option<Cut> {
        let smallest = config
            .heads
            .min(config.hidden)
            .min(config.feed_forward)
            .min(config.vocabulary);
        if ranks == 0 || ranks > smallest {
            return None;
        }
        Some(Cut {
            heads: ranges(config.heads, 1, ranks),
            head_dim: config.head_dim,
            heads_per_kv: config.heads_per_kv(),
            kv: config.kv,
            hidden: ranges(config.hidden, UNIT, ranks),
            feed_forward: ranges(config.feed_forward, UNIT, ranks),
            vocabulary: ranges(config.vocabulary, UNIT, ranks),
        })
    }

    pub fn ranks(&self) -> usize {
        self.heads.len()
    }

    /// Rows of the query matrix, and columns of what attention gives.
    pub fn queries(&self) -> Vec<Range<usize>> {
        self.heads.iter().map(|heads| self.columns(heads)).collect()
    }

    /// Rows of the key and the value matrix.
    pub fn keys(&self, rank: usize) -> Range<usize> {
        self.columns(&self.kv_heads(rank))
    }

    pub fn kv_heads(&self, rank: usize) -> Range<usize> {
        let heads = &self.heads[rank];
        heads.start / self.heads_per_kv..heads.end.div_ceil(self.heads_per_kv)
    }

    pub fn attention(&self, rank: usize, block_tokens: usize) -> AttentionShape {
        AttentionShape {
            heads: self.heads[rank].len(),
            kv_heads: self.kv_heads(rank).len(),
            heads_per_kv: self.heads_per_kv,
            first_head_in_group: self.heads[rank].start % self.heads_per_kv,
            head_dim: self.head_dim,
            block_tokens,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            kv: self.kv,
        }
    }

    fn columns(&self, heads: &Range<usize>) -> Range<usize> {
        heads.start * self.head_dim..heads.end * self.head_dim
    }
}

/// `total` in `ranks` parts that differ by one unit at most; smaller units where there would be too few.
fn ranges(total: usize, unit: usize, ranks: usize) -> Vec<Range<usize>> {
    let unit = if total / unit < ranks { 1 } else { unit };
    let units = total.div_ceil(unit);
    let bound = |rank: usize| (units * rank / ranks * unit).min(total);
    (0..ranks).map(|rank| bound(rank)..bound(rank + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_order_without_gap_and_never_empty() {
        for total in [9, 32, 100, 515, 1536] {
            for ranks in 1..=9 {
                let ranges = ranges(total, UNIT, ranks);
                assert_eq!((ranges[0].start, ranges[ranks - 1].end), (0, total));
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(
                    ranges.iter().all(|range| !range.is_empty()),
                    "{total} over {ranks}: {ranges:?}"
                );
            }
        }
    }

    #[test]
    fn nine_heads_with_three_kv_heads_over_two_ranks_share_the_middle_one() {
        let cut = Cut {
            heads: ranges(9, 1, 2),
            head_dim: 64,
            heads_per_kv: 3,
            kv: KvFormat::Bf16,
            hidden: Vec::new(),
            feed_forward: Vec::new(),
            vocabulary: Vec::new(),
        };
        assert_eq!((cut.kv_heads(0), cut.kv_heads(1)), (0..2, 1..3));
        assert_eq!(cut.attention(0, 16).first_head_in_group, 0);
        assert_eq!(cut.attention(1, 16).first_head_in_group, 1);
        assert_eq!(cut.queries(), vec![0..256, 256..576]);
    }
}
