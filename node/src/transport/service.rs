//! What the node does with what comes in, and who may come in at all.

use super::{Class, FrameReceiver, FrameSender};
use crate::trust::SpkiHash;
use futures_util::future::BoxFuture;
use proto::NodeId;
use proto::join::{JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, Role};
use proto::peer::{Hello, PeerAnswer, PeerRequest};
use std::net::SocketAddr;

/// Committed membership. Asked on every message, so it must answer from memory.
pub trait Membership: Send + Sync {
    /// Which member has the key with this hash; `None`: nobody.
    fn member(&self, spki: &SpkiHash) -> Option<(NodeId, Role)>;
}

/// Everything that others ask of this node. `from` has been authenticated; what it says has been checked for its form
/// and its place, and for whether its role may say it.
pub trait Service: Send + Sync {
    /// The future is dropped where who asked has given up.
    fn call(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'_, PeerAnswer>;

    /// A stream that the other has opened; it ends with the future, or with the connection.
    fn stream(
        &self,
        from: NodeId,
        class: Class,
        hello: Hello,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, ()>;

    /// From somebody who has shown no certificate: only the token speaks for him.
    fn join(&self, from: SocketAddr, request: JoinRequest) -> BoxFuture<'_, JoinAnswer>;

    /// From the member with this key, whose certificate may have run out.
    fn renew(&self, spki: SpkiHash, request: RenewRequest) -> BoxFuture<'_, RenewAnswer>;
}
