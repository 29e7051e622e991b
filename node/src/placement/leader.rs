//! The placer, beside the Raft leader: it runs where the leader is, sees what was agreed on and who is silent, and proposes.

use super::explanations::Explanations;
use crate::clock::Clock;
use crate::raft::{Links, propose};
use crate::state::NodeState;
use coordinator::Machine;
use coordinator::placer::{ClusterView, Placer, PlacerAction, PlacerEvent};
use proto::cluster::ClusterCommand;
use proto::{NodeId, Span, Time};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(250);
