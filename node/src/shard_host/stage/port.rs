//! What a stage's port answers: streams of other stages, and nothing else.

use crate::transport::{Class, FrameReceiver, FrameSender, Service};
use crate::trust::SpkiHash;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proto::NodeId;
use proto::join::{JoinAnswer, JoinRequest, Refused, RenewAnswer, RenewRequest};
use proto::peer::{Hello, PeerAnswer, PeerRequest, Refusal, Stage};
use std::net::SocketAddr;

const ELSEWHERE: &str = "this port is for the stages of one replica; ask the node";

/// A stream that another stage has opened.
pub trait StageStreams: Send + Sync + 'static {
    fn stage(
        &self,
        from: NodeId,
        stage: Stage,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, anyhow::Result<()>>;
}

pub struct Port<S>(pub S);

impl<S: StageStreams> Service for Port<S> {
    fn call(&self, _from: NodeId, _request: PeerRequest) -> BoxFuture<'_, PeerAnswer> {
        let reason = ELSEWHERE.to_owned();
        async { PeerAnswer::Refused(Box::new(Refusal { reason })) }.boxed()
    }

    fn stream(
        &self,
        from: NodeId,
        _class: Class,
        hello: Hello,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, ()> {
        async move {
            match hello {
                Hello::Stage(stage) => {
                    if let Err(error) = self.0.stage(from, *stage, sender, receiver).await {
                        tracing::warn!(node = %from, stage = stage.stage, %error, "a stage's stream ended");
                    }
                }
                Hello::Engine(_) | Hello::Blob(_) | Hello::Probe(_) => {
                    tracing::warn!(node = %from, "a stream that a stage has no use for");
                }
            }
        }
        .boxed()
    }

    fn join(&self, _from: SocketAddr, _request: JoinRequest) -> BoxFuture<'_, JoinAnswer> {
        async { JoinAnswer::Refused(Box::new(refused())) }.boxed()
    }

    fn renew(&self, _spki: SpkiHash, _request: RenewRequest) -> BoxFuture<'_, RenewAnswer> {
        async { RenewAnswer::Refused(Box::new(refused())) }.boxed()
    }
}

fn refused() -> Refused {
    Refused {
        reason: ELSEWHERE.to_owned(),
    }
}
