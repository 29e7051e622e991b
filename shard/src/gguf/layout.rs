use super::reader::corrupted;
use super::{GgufError, Table};
use crate::stage::{Output, Stage, Turn, layer_of};
use std::ops::Range;

/// Where in the file a model's parts lie. Known from the file's beginning alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Header, metadata and the table of tensors.
    head_bytes: u64,
    /// By name.
    tensors: Vec<(String, Range<u64>)>,
    layers: usize,
    output: Output,
}

impl Layout {
    /// From the first bytes of a file of `file_bytes`. `None`: more of them are needed.
    pub fn of_prefix(prefix: &[u8], file_bytes: u64) -> Result<Option<Layout>, GgufError> {
        match Table::parse(prefix) {
            Ok(table) => Layout::of_table(&table, file_bytes).map(Some),
            Err(error @ (GgufError::NotGguf | GgufError::UnknownVersion { .. })) => Err(error),
            // Cut off, or what follows could tell that a count is no lie.
            Err(_) if (prefix.len() as u64) < file_bytes => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn of_table(table: &Table<'_>, file_bytes: u64) -> Result<Layout, GgufError> {
        let mut tensors = Vec::new();
        for tensor in table.gguf.tensors() {
            let from = table.data_at.saturating_add(tensor.offset);
            let size = tensor
                .size()
                .ok_or_else(|| corrupted(from, tensor.describe_size()))?;
            let to = from.saturating_add(size);
            if to > file_bytes {
                return Err(GgufError::Truncated {
                    what: format!("tensor {}", tensor.name),
                    from,
                    to,
                    length: file_bytes,
                });
            }
            tensors.push((tensor.name.to_owned(), from..to));
        }
        let layers = tensors
            .iter()
            .filter_map(|(name, _)| layer_of(name)?.checked_add(1));
        Ok(Layout {
            head_bytes: table.data_at.min(file_bytes),
            layers: layers.max().unwrap_or(0),
            output: match table.gguf.find_tensor("output.weight") {
                Some(_) => Output::Own,
                None => Output::Embeddings,
            },
            tensors,
        })
    }

    /// How many layers the model has.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The bytes that a stage with these layers needs, in the order in which it loads them: those of the file's beginning, of
    /// its layers, and of what the first and the last stage have besides. A tensor of a type whose size nobody knows has none:
    /// [`super::Tensor::format`] refuses it.
    pub fn ranges_of_stage(&self, layers: &Range<u32>) -> Vec<Range<u64>> {
        self.ranges(layers, |_| true)
    }

    /// Those among them that must be there before a stage can begin to load: after them comes one tensor after the other.
    pub fn ranges_of_start(&self, layers: &Range<u32>) -> Vec<Range<u64>> {
        self.ranges(layers, |turn| turn == Turn::Start)
    }

    fn ranges(&self, layers: &Range<u32>, is_wanted: impl Fn(Turn) -> bool) -> Vec<Range<u64>> {
        let head = 0..self.head_bytes;
        let Some(stage) = Stage::new(layers.start as usize..layers.end as usize, self.layers) else {
            return vec![head];
        };
        let needed = self
            .tensors
            .iter()
            .filter(|(name, _)| stage.needs(name, self.output));
        let turns = needed.map(|(name, range)| (stage.turn(name), range.clone()));
        let mut turns: Vec<(Turn, Range<u64>)> = turns.filter(|(turn, _)| is_wanted(*turn)).collect();
        turns.sort_by_key(|(turn, range)| (*turn, range.start));
        let ranges = turns.into_iter().map(|(_, range)| range);
        std::iter::once(head).chain(ranges).collect()
    }
}
