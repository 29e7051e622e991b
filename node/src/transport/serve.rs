//! What comes in over a connection that has been let in.

use super::acl::{self, Place};
use super::endpoint::Shared;
use super::error::{CloseCode, LinkError};
use super::frames::{FrameReceiver, FrameSender};
use super::links::Link;
use super::protocol::Side;
use proto::peer::{Hello, PeerRequest};
use proto::wire::Kind;
use std::sync::Arc;
use std::time::Duration;

/// Between a stream's beginning and the end of its first message.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(10);

/// Until the connection ends. As many streams as the class allows, each in a task of its own.
pub(super) async fn peer(shared: Arc<Shared>, link: Arc<Link>) {
    let end = loop {
        match link.guard.connection.accept_bi().await {
            Ok((send, receive)) => {
                let (shared, link) = (shared.clone(), link.clone());
                tokio::spawn(async move {
                    if let Err(error) = stream(&shared, &link, send, receive).await {
                        tracing::debug!(node = %link.guard.node, class = link.class.name(), %error, "a stream ended");
                    }
                });
            }
            Err(end) => break end,
        }
    };
    if CloseCode::NotAMember.is_why(&end) {
        shared.refusals().insert(link.guard.node);
    }
    shared.links.remove(&link);
    if CloseCode::NotAMember.is_why(&end) && link.side == Side::Opener {
        let refusal = link.guard.closed(&end);
        shared.dials.refused(link.guard.node, link.class, refusal).await;
    }
}

async fn stream(
    shared: &Shared,
    link: &Link,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
) -> Result<(), LinkError> {
    let guard = &link.guard;
    guard.check()?;
    let mut receiver = FrameReceiver::new(receive, guard.clone(), Place::Opening(link.class));
    let first = tokio::time::timeout(FIRST_MESSAGE_MAX, receiver.next()).await;
    let first = first.map_err(|_| guard.closed("a stream was opened and nothing said"))??;
    let Some(first) = first else { return Ok(()) };
    shared.heard(guard);
    let not_a_message = |error| LinkError::Wire {
        node: guard.node,
        error,
    };
    match first.kind {
        Kind::PeerRequest => {
            let request = first.open().map_err(|error| guard.wrong(not_a_message(error)))?;
            let sender = FrameSender::new(send, guard.clone(), Place::Answer);
            answer(shared, link, request, sender).await
        }
        Kind::Hello => {
            let hello = first.open().map_err(|error| guard.wrong(not_a_message(error)))?;
            let sender = FrameSender::new(send, guard.clone(), Place::Stream(link.class, Side::Acceptor));
            receiver.go_on(Place::Stream(link.class, Side::Opener));
            converse(shared, link, hello, sender, receiver).await
        }
        kind @ (Kind::ToEngine
        | Kind::FromEngine
        | Kind::LogEntry
        | Kind::ShardSetup
        | Kind::PackedIndex
        | Kind::PeerAnswer
        | Kind::JoinRequest
        | Kind::JoinAnswer
        | Kind::RenewRequest
        | Kind::RenewAnswer
        | Kind::Chunk
        | Kind::StageBegin
        | Kind::StageReady
        | Kind::StageStep
        | Kind::WantChunks
        | Kind::RaftEntry
        | Kind::RaftVote
        | Kind::RaftLogId
        | Kind::SnapshotMeta
        | Kind::ClusterImage
        | Kind::NodeIdentity
        | Kind::Backup
        | Kind::ModelText) => {
            let node = guard.node;
            Err(guard.wrong(LinkError::NotAllowed { node, kind }))
        }
    }
}

async fn answer(
    shared: &Shared,
    link: &Link,
    request: PeerRequest,
    mut sender: FrameSender,
) -> Result<(), LinkError> {
    let guard = &link.guard;
    if !acl::role_may_ask(guard.check()?, &request) {
        let (node, kind) = (guard.node, Kind::PeerRequest);
        return Err(guard.wrong(LinkError::NotAllowed { node, kind }));
    }
    let answer = tokio::select! {
        answer = shared.service.call(guard.node, request) => answer,
        () = sender.stopped() => return Ok(()),
    };
    sender.send(Kind::PeerAnswer, 0, &answer).await?;
    sender.finish();
    Ok(())
}

async fn converse(
    shared: &Shared,
    link: &Link,
    hello: Hello,
    sender: FrameSender,
    receiver: FrameReceiver,
) -> Result<(), LinkError> {
    let guard = &link.guard;
    if !acl::role_may_open(guard.check()?, link.class, &hello) {
        let (node, kind) = (guard.node, Kind::Hello);
        return Err(guard.wrong(LinkError::NotAllowed { node, kind }));
    }
    let service = shared
        .service
        .stream(guard.node, link.class, hello, sender, receiver);
    service.await;
    Ok(())
}

/// Closes once what was sent has arrived, or after a moment.
pub(super) async fn close_when_delivered(connection: &quinn::Connection, send: &quinn::SendStream) {
    const DELIVERY_MAX: Duration = Duration::from_secs(2);
    let _ = tokio::time::timeout(DELIVERY_MAX, send.stopped()).await;
    CloseCode::Done.close(connection);
}
