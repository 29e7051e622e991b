//! For tests.

use coordinator::cluster_state::ClusterState;
use proto::cluster::{ClusterCommand, Founding, Proposal};

/// The state of a cluster after the first entry of its log. The founder's key is ones.
pub fn founded() -> ClusterState {
    let mut state = ClusterState::default();
    let founding = Founding {
        cluster: 1,
        spki: [1; 32],
        quic: String::new(),
        http: String::new(),
        level: 1,
        at_secs: 0,
        authority: vec![1],
        salt: [1; 32],
    };
    let command = ClusterCommand::Found(Box::new(founding));
    let outcome = state.apply(1, &Proposal { id: 1, command });
    outcome.expect("the first entry");
    state
}
