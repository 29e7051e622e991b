use super::ArrivalError;
use crate::gguf::GgufError;
use kernels::OpsError;

/// Why a rank cannot hold its part of a model.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
pub enum LoadError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("tensor {tensor}: {error}")]
    Arrival { tensor: String, error: ArrivalError },
    #[error("{what}: {error}")]
    Device { what: String, error: OpsError },
    #[error("{ranks} ranks cannot share {heads} attention heads: ask for at most {heads}")]
    TooManyRanks { ranks: usize, heads: usize },
}

impl LoadError {
    pub(crate) fn device(what: &str, error: OpsError) -> LoadError {
        LoadError::Device {
            what: what.to_owned(),
            error,
        }
    }
}
