//! The handle by which the rest of the node speaks with other nodes.

use super::acl::Place;
use super::dial;
use super::endpoint::Shared;
use super::error::{CloseCode, LinkError, PeerError};
use super::frames::{FrameReceiver, FrameSender};
use super::links::{Link, LinkView};
use super::protocol::{Class, Protocol, Side};
use super::question;
use proto::NodeId;
use proto::join::{RenewAnswer, RenewRequest};
use proto::peer::{Hello, PeerAnswer, PeerRequest};
use proto::wire::Kind;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const RENEW_MAX: Duration = Duration::from_secs(30);
const OPEN_MAX: Duration = Duration::from_secs(3);

/// Clones are the same port.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

impl Peers {
    pub(super) fn new(shared: Arc<Shared>) -> Peers {
        Peers { shared }
    }

    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Where to dial a node. Connections that are there stay.
    pub fn set_address(&self, node: NodeId, address: SocketAddr) {
        self.shared.addresses.set(node, address);
    }

    /// Asks a node, over a connection that is there (whoever dialled it) or over a new one. The deadline is the
    /// request's own: see [`deadline_of`].
    pub async fn call(&self, node: NodeId, request: PeerRequest) -> Result<PeerAnswer, PeerError> {
        let deadline = deadline_of(&request);
        self.call_within(node, request, deadline).await
    }

    /// As [`Peers::call`]. The other side stops working on it when this is dropped or its time is over.
    pub async fn call_within(
        &self,
        node: NodeId,
        request: PeerRequest,
        deadline: Duration,
    ) -> Result<PeerAnswer, PeerError> {
        let answer = tokio::time::timeout(deadline, self.ask(node, request)).await;
        answer.unwrap_or(Err(PeerError::Deadline {
            node,
            after: deadline,
        }))
    }

    /// A stream that stays open. The other side's [`super::Service::stream`] has its other end.
    pub async fn open(
        &self,
        node: NodeId,
        class: Class,
        hello: Hello,
    ) -> Result<(FrameSender, FrameReceiver), PeerError> {
        let opening = async {
            let link = dial::link(&self.shared, node, class).await?;
            let first = Place::Opening(class);
            let (sender, receiver) = open(&link, first, Place::Stream(class, Side::Acceptor)).await?;
            let mut sender = sender;
            sender.send(Kind::Hello, 0, &hello).await?;
            sender.go_on(Place::Stream(class, Side::Opener));
            Ok((sender, receiver))
        };
        let opened = tokio::time::timeout(OPEN_MAX, opening).await;
        opened.unwrap_or(Err(PeerError::Deadline {
            node,
            after: OPEN_MAX,
        }))
    }

    /// Asks a member for a new certificate; ours, and the member's, may have run out.
    pub async fn renew(&self, node: NodeId, request: RenewRequest) -> Result<RenewAnswer, PeerError> {
        let answer = tokio::time::timeout(RENEW_MAX, self.ask_to_renew(node, request)).await;
        answer.unwrap_or(Err(PeerError::Deadline {
            node,
            after: RENEW_MAX,
        }))
    }

    /// Closes all connections with a node and forgets where it is. To be called when it is removed.
    pub fn cut_off(&self, node: NodeId) {
        self.shared.addresses.forget(node);
        self.shared.dials.forget(node);
        self.shared.links.close_unless(|link| link.guard.node != node);
    }

    /// Closes connections with whoever is no member now. To be called after every change of membership.
    pub fn sweep(&self) {
        let membership = &self.shared.membership;
        self.shared.links.close_unless(|link| {
            let member = membership.member(&link.guard.spki);
            member.is_some_and(|(node, _)| node == link.guard.node)
        });
    }

    /// Nodes that say that this one is no member, and have neither asked nor answered anything since. A node that has just joined may hear so
    /// from one that has not heard of it yet.
    pub fn refused_by(&self) -> BTreeSet<NodeId> {
        self.shared.refusals().clone()
    }

    /// How long ago somebody came who has a certificate of this cluster and is no member that this node knows.
    pub fn unknown_came_ago(&self) -> Option<Duration> {
        self.shared.unknown_came().map(|at| at.elapsed())
    }

    /// The connections that there are now.
    pub fn links(&self) -> Vec<LinkView> {
        self.shared.links.views()
    }

    /// Ends everything, tells the others so, and waits a moment for that to be sent.
    pub async fn close(&self) {
        const FAREWELL_MAX: Duration = Duration::from_secs(1);
        let endpoint = &self.shared.endpoint;
        endpoint.close(
            quinn::VarInt::from_u32(CloseCode::ShuttingDown as u32),
            b"the node is stopping",
        );
        let _ = tokio::time::timeout(FAREWELL_MAX, endpoint.wait_idle()).await;
    }

    async fn ask(&self, node: NodeId, request: PeerRequest) -> Result<PeerAnswer, PeerError> {
        let link = dial::link(&self.shared, node, Class::Control).await?;
        let (mut sender, mut receiver) = open(&link, Place::Opening(Class::Control), Place::Answer).await?;
        sender.send(Kind::PeerRequest, 0, &request).await?;
        sender.finish();
        let answer = receiver.next_message(Kind::PeerAnswer).await?;
        self.shared.heard(&link.guard);
        answer.ok_or_else(|| link.guard.closed("it ended without an answer").into())
    }

    async fn ask_to_renew(&self, node: NodeId, request: RenewRequest) -> Result<RenewAnswer, PeerError> {
        let address = self.shared.addresses.find(node);
        let address = address.ok_or(PeerError::NoAddress(node))?;
        let (connection, _) = dial::dial(&self.shared, node, address, Protocol::Renew).await?;
        let asking = async {
            let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
            question::write(&mut send, Kind::RenewRequest, &request).await?;
            question::read(&mut receive, Kind::RenewAnswer).await
        };
        let answer: Result<RenewAnswer, String> = asking.await;
        CloseCode::Done.close(&connection);
        answer.map_err(|reason| LinkError::Closed { node, reason }.into())
    }
}

/// Longer than it should take, shorter than somebody waits.
pub fn deadline_of(request: &PeerRequest) -> Duration {
    match request {
        PeerRequest::Ping(_)
        | PeerRequest::SignedBy(_)
        | PeerRequest::StageAt(_)
        | PeerRequest::Outlook(_)
        | PeerRequest::Papers(_) => Duration::from_secs(1),
        PeerRequest::Raft(_) | PeerRequest::ReadIndex(_) | PeerRequest::Holds(_) => Duration::from_secs(5),
        PeerRequest::Command(_)
        | PeerRequest::ModelText(_)
        | PeerRequest::AuthorityKey(_)
        | PeerRequest::Manifest(_) => Duration::from_secs(10),
    }
}

async fn open(link: &Link, ours: Place, theirs: Place) -> Result<(FrameSender, FrameReceiver), LinkError> {
    let guard = &link.guard;
    guard.check()?;
    let opened = guard.connection.open_bi().await;
    let (send, receive) = opened.map_err(|error| guard.closed(error))?;
    Ok((
        FrameSender::new(send, guard.clone(), ours),
        FrameReceiver::new(receive, guard.clone(), theirs),
    ))
}
