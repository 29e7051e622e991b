//! How a run of Raft came to its end.

use super::types::Raft;
use openraft::error::Fatal;

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum End {
    #[error("{0}")]
    Failed(String),
    #[error("Raft stopped on this node by a fault of its own (a panic; the log of the node says where)")]
    Fault,
    #[error("another log contradicts what this node knows to be agreed on")]
    Disputed,
}

pub async fn end_of(raft: &Raft) -> End {
    let mut metrics = raft.metrics();
    let ended = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
    match ended.as_deref().map(|metrics| &metrics.running_state) {
        Ok(Err(Fatal::Panicked)) => End::Fault,
        Ok(Err(error @ (Fatal::StorageError(_) | Fatal::Stopped))) => End::Failed(error.to_string()),
        // It could not even say so.
        Ok(Ok(())) | Err(_) => End::Fault,
    }
}

/// `None` once the node itself is stopped. That counts before all else: Raft's own end follows from it, and is no fault then.
pub async fn first(
    stopped: impl Future<Output = ()>,
    disputed: impl Future<Output = ()>,
    raft: impl Future<Output = End>,
) -> Option<End> {
    tokio::select! {
        biased;
        () = stopped => None,
        () = disputed => Some(End::Disputed),
        end = raft => Some(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn a_node_that_is_stopped_has_no_fault() {
        let failed = || ready(End::Failed("raft stopped".to_owned()));
        for _ in 0..64 {
            assert_eq!(first(ready(()), ready(()), failed()).await, None);
        }
        assert_eq!(first(pending(), pending(), failed()).await, Some(failed().await));
    }
}
