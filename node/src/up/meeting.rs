//! A node that comes back knows after a moment whom it can ask.

use crate::actors::gateway::RouterGateway;
use crate::gateway::Gateway;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Longer than it takes to hear of a replica that is ready; where none is, people want to be told so.
const MEETING_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Until a replica is ready for the requests that come in. Before that they would be refused, on a cluster that serves: who
/// connects meanwhile waits. Does nothing where no other node has a replica.
pub async fn meet_others(gateway: &RouterGateway) {
    let own = gateway.state.node();
    let are_others = {
        let applied = gateway.state.applied();
        applied.replicas().any(|replica| replica.node != own)
    };
    let met = async {
        while gateway.models().is_empty() || gateway.health().is_err() {
            sleep(LOOK_AGAIN).await;
        }
    };
    if are_others && timeout(MEETING_MAX, met).await.is_err() {
        tracing::info!("no replica of another node is ready yet");
    }
}
