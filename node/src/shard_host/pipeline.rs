//! The node's part in a pipeline whose head is here: it asks the other nodes where their stages are, and notices when one
//! has gone.

use super::stage::NOT_THERE_YET;
use crate::actors::board::{Board, Phase};
use crate::transport::Peers;
use proto::engine::ToEngine;
use proto::peer::{PeerAnswer, PeerRequest, Replica};
use proto::stage::{StageAddress, StageAddresses};
use proto::wire::{self, Kind};
use proto::{Epoch, NodeId, ReplicaId};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

const ASK_EVERY: Duration = Duration::from_millis(100);
/// A process that has ended is noticed by its own node at once, and so by this one within this.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Long enough that a host whose cores are all taken is not given up.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// A replica in several stages, the last of which is on this node.
#[derive(Clone)]
pub struct Pipeline {
    pub replica: ReplicaId,
    /// The nodes of the stages before, in their order.
    pub before: Vec<NodeId>,
    pub peers: Peers,
    pub board: Board,
}

impl Pipeline {
    /// Tells the head where all stages are, once its own port is known, and gives why it has to end: a stage is not any more
    /// where it was.
    pub async fn keep(
        &self,
        epoch: Epoch,
        own: oneshot::Receiver<StageAddress>,
        to_head: mpsc::UnboundedSender<Vec<u8>>,
    ) -> String {
        let Ok(own) = own.await else {
            // The process has ended, which somebody else sees.
            return std::future::pending().await;
        };
        let mut stages = Vec::new();
        for node in &self.before {
            stages.push(self.wait_for(*node).await);
        }
        let told = stages.clone();
        stages.push(own);
        let message = ToEngine::Stages(Box::new(StageAddresses { stages }));
        let _ = to_head.send(wire::frame(Kind::ToEngine, epoch.0, &message));
        self.watch(&told).await
    }

    async fn wait_for(&self, node: NodeId) -> StageAddress {
        loop {
            match self.ask(node).await {
                Ok(address) => return address,
                Err(reason) if reason == NOT_THERE_YET => {}
                Err(reason) => {
                    tracing::debug!(replica = %self.replica, %node, reason, "a stage is waited for");
                    let reason = format!("the stage on node {node}: {reason}");
                    self.board.phase(self.replica, Phase::Waiting { reason });
                }
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn watch(&self, told: &[StageAddress]) -> String {
        loop {
            sleep(LOOK_EVERY).await;
            for at in told {
                match self.ask(at.node).await {
                    Ok(found) if found == *at => {}
                    Ok(_) => return format!("the stage on node {} was started anew", at.node),
                    Err(reason) => return format!("the stage on node {}: {reason}", at.node),
                }
            }
        }
    }

    async fn ask(&self, node: NodeId) -> Result<StageAddress, String> {
        let replica = self.replica;
        let request = PeerRequest::StageAt(Box::new(Replica { replica }));
        let answer = self.peers.call_within(node, request, SUSPECT_AFTER).await;
        match answer.map_err(|error| error.to_string())? {
            PeerAnswer::StageAt(address) => Ok(*address),
            answer => Err(answer.amiss()),
        }
    }
}
