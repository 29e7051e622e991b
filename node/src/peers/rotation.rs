//! A new authority takes over from the old one, while nobody stops to be believed.
//!
//! 1. `[old, new]`: everybody believes both; the old one still signs.
//! 2. `[new, old]`: the new one signs. Nodes renew their certificates as soon as they hear of it.
//! 3. `[new]`: the old one is believed no more. Only when every node shows a certificate of the new one.
//!
//! The steps stand in the log, so a rotation that is interrupted goes on where it was.

use super::custody::Custody;
use super::folder::DataFolder;
use crate::clock;
use crate::state::NodeState;
use crate::trust::{Authority, spki_of};
use proto::NodeId;
use proto::cluster::{Authorities, ClusterCommand};
use proto::peer::{PeerAnswer, PeerRequest, ReadRequest};

/// Steps 1 and 2. On a node that may vote; it makes the new authority and the other holders fetch it from it.
pub async fn begin(state: &NodeState, custody: &Custody, folder: &DataFolder) -> Result<(), String> {
    let committed = state.applied().authorities().to_vec();
    let [old] = committed.as_slice() else {
        return Err("a rotation is under way: finish it with `cluster authority rotate --finish`".to_owned());
    };
    if custody.authority().is_none() {
        return Err("this node does not hold the authority: ask on a node that may vote".to_owned());
    }
    let _exchange = custody.exchange().await;
    let new = Authority::make(clock::unix_secs()).map_err(|error| error.to_string())?;
    let new_certificate = new.certificate().to_vec();
    let both = vec![old.clone(), new_certificate.clone()];
    set(state, both).await?;
    // From here on this node signs with the new one, which everybody that has heard of step 1 believes.
    let stored = new.store(&folder.authority_certificate(), &folder.authority_key());
    stored.map_err(|error| error.to_string())?;
    custody.hold(new);
    set(state, vec![new_certificate, old.clone()]).await
}

/// Step 3. Refused while a node shows a certificate of the old one, or cannot be asked.
pub async fn finish(state: &NodeState) -> Result<(), String> {
    let committed = state.applied().authorities().to_vec();
    let [new, _old] = committed.as_slice() else {
        return Err("no rotation is under way: begin one with `cluster authority rotate`".to_owned());
    };
    let wanted = spki_of(new).map_err(|error| error.to_string())?;
    let others: Vec<NodeId> = {
        let applied = state.applied();
        let others = applied.members().filter(|member| member.node != state.node());
        others.map(|member| member.node).collect()
    };
    for node in others {
        let request = PeerRequest::SignedBy(Box::new(ReadRequest {}));
        match state.member.links.peers.call(node, request).await {
            Ok(PeerAnswer::SignedBy(signed)) if signed.authority == wanted => {}
            Ok(_) => {
                return Err(format!(
                    "node {node} has not renewed its certificate yet; try again in a moment"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "{error}: start it, or remove it (`cluster node rm {node}`) first"
                ));
            }
        }
    }
    set(state, vec![new.clone()]).await
}

async fn set(state: &NodeState, certificates: Vec<Vec<u8>>) -> Result<(), String> {
    let command = ClusterCommand::SetAuthorities(Box::new(Authorities { certificates }));
    state.commit(command).await.map_err(|error| error.to_string())?;
    Ok(())
}
