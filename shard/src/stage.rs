use std::ops::Range;

/// One of the parts into which a pipeline cuts a model: layers that follow each other. The first stage has the table of
/// embeddings besides, the last one what makes logits, and one that is both is the whole model.
///
/// Between stages goes the residual, as it is: rows of `f32`, so a cut changes no bit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    layers: Range<usize>,
    of: usize,
}

impl Stage {
    /// Some layers of a model that has `of`. `None`: there are no such layers.
    pub fn new(layers: Range<usize>, of: usize) -> Option<Stage> {
        (layers.start < layers.end && layers.end <= of).then_some(Stage { layers, of })
    }

    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// Does it need this tensor of a GGUF file? What belongs to no layer in particular every stage needs.
    pub fn needs(&self, tensor: &str, output: Output) -> bool {
        match tensor {
            "token_embd.weight" => self.embeds() || (self.samples() && output == Output::Embeddings),
            "output.weight" | "output_norm.weight" => self.samples(),
            _ => layer_of(tensor).is_none_or(|layer| self.layers.contains(&layer)),
        }
    }

    /// When the stage comes to a tensor that it needs, while it loads.
    pub(crate) fn turn(&self, tensor: &str) -> Turn {
        match tensor {
            "token_embd.weight" if self.embeds() => Turn::Embeddings,
            "token_embd.weight" | "output.weight" | "output_norm.weight" => Turn::Output,
            _ => layer_of(tensor).map_or(Turn::Start, Turn::Layer),
        }
    }

    /// Is it where tokens come in?
    pub fn embeds(&self) -> bool {
        self.layers.start == 0
    }

    /// Is it where logits come out?
    pub fn samples(&self) -> bool {
        self.layers.end == self.of
    }
}

/// `None`: it is of all layers, or of none.
pub(crate) fn layer_of(tensor: &str) -> Option<usize> {
    let (layer, _) = tensor.strip_prefix("blk.")?.split_once('.')?;
    layer.parse().ok()
}

/// Parts of a stage in the order in which they are loaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Turn {
    /// What belongs to no layer in particular: before anything is computed with, or allocated for.
    Start,
    Embeddings,
    Layer(usize),
    Output,
}

/// Which matrix makes logits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// The table of embeddings.
    Embeddings,
    /// One of its own.
    Own,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_layers_of_its_model() {
        let whole = Stage::new(0..8, 8).unwrap();
        assert!(whole.embeds() && whole.samples());
        let middle = Stage::new(2..5, 8).unwrap();
        assert!(!middle.embeds() && !middle.samples());
        let needs = |stage: &Stage, tensor| stage.needs(tensor, Output::Embeddings);
        assert!(needs(&middle, "blk.2.attn_q.weight") && !needs(&middle, "blk.12.attn_q.weight"));
        assert!(!needs(&middle, "token_embd.weight") && !needs(&middle, "output_norm.weight"));
        let last = Stage::new(5..8, 8).unwrap();
        assert!(needs(&last, "token_embd.weight") && needs(&last, "output_norm.weight"));
        assert!(!last.needs("token_embd.weight", Output::Own));
        assert_eq!(Stage::new(3..3, 8), None);
        assert_eq!(Stage::new(3..9, 8), None);
    }
}
