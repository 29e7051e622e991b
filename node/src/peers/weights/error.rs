//! Why a file could not be had from other nodes.

use crate::store::error::StoreError;
use anyhow::anyhow;
use proto::NodeId;
use shard::GgufError;

#[derive(thiserror::Error, Debug)]
pub enum FetchError {
    #[error("no other node of the cluster holds it{}", listed(.tried))]
    Nobody { tried: Vec<(NodeId, String)> },
    #[error(
        "{missing} of {wanted} chunks could not be had, because no node is left to ask{}; what has come is kept: start \
         a node that holds the file, and try again",
        listed(.tried)
    )]
    NobodyLeft {
        missing: u32,
        wanted: u32,
        tried: Vec<(NodeId, String)>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its beginning has come, and is none of a model: {0}")]
    Gguf(#[from] GgufError),
    #[error("a task of this fetch failed ({0}): please report it")]
    Task(#[from] tokio::task::JoinError),
}

impl FetchError {
    /// Is it the disk of this node that fails? No other source helps then.
    pub fn is_of_own_disk(&self) -> bool {
        match self {
            FetchError::Store(error) => error.is_of_own_disk(),
            FetchError::Nobody { .. }
            | FetchError::NobodyLeft { .. }
            | FetchError::Gguf(_)
            | FetchError::Task(_) => false,
        }
    }

    /// For a person, where the place that the file came from does not give it either.
    pub fn and_original(&self, original: StoreError) -> anyhow::Error {
        match original {
            // Often of another host: there is nothing to be checked about it here.
            StoreError::NoFile(path) => {
                anyhow!("{self}; nor is there a file at {} on this host", path.display())
            }
            other => anyhow::Error::new(other).context(format!("other nodes could not give it ({self})")),
        }
    }
}

fn listed(tried: &[(NodeId, String)]) -> String {
    let each = tried
        .iter()
        .map(|(node, reason)| format!("node {node}: {reason}"));
    let all: Vec<String> = each.collect();
    match all.is_empty() {
        true => String::new(),
        false => format!(" ({})", all.join("; ")),
    }
}
