//! The process of a stage that is not the last: it computes what the head tells it, and hands it on.

use super::links::StageLinks;
use super::port::{Port, StageStreams};
use super::residual;
use super::stage_loop::{Part, StageLoop, Work};
use crate::shard_host::child::{self, Loaded, Trust};
use crate::shard_host::landed::LandedParts;
use crate::shard_host::setup::{LinkSetup, PlacedSetup, ShardSetup};
use crate::transport::{Class, FrameReceiver, FrameSender, Peers};
use anyhow::{Context, bail};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proto::engine::FromEngine;
use proto::peer::{Hello, Stage};
use proto::stage::{StageBegin, StagePart, StageReady, StageStep};
use proto::wire::Kind;
use proto::{Epoch, NodeId, ReplicaId};
use shard::PlanBounds;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Plans and residuals that may wait for the ranks: the head has no more under way than it has stages.
const WORK_MAX: usize = 64;

/// Until the node closes the pipe.
pub fn run(
    setup: &ShardSetup,
    placed: &PlacedSetup,
    link: &LinkSetup,
    trust: &Trust,
    landed: Arc<LandedParts>,
) -> anyhow::Result<()> {
    let (work, mut to_compute) = mpsc::channel(WORK_MAX);
    let (ready, is_ready) = watch::channel(None);
    let streams = Arc::new(Streams {
        replica: setup.replica,
        own: placed.stage,
        part: placed.part(),
        nodes: link.members.iter().map(|member| member.node).collect(),
        work,
        ready: is_ready,
        peers: OnceLock::new(),
        latest: Mutex::new(Epoch(0)),
    });
    let links = StageLinks::start(link, Arc::new(Port(Arc::clone(&streams))))?;
    let is_first = streams.peers.set(links.peers.clone()).is_ok();
    assert!(is_first, "a stage has one port");
    let _ = trust.set(links.trust.clone());
    child::send(setup, &FromEngine::Listening(Box::new(links.address())))?;
    let Loaded {
        mut ranks,
        info,
        cost,
        hidden,
        vocabulary,
        step_tokens_max,
        stage,
        ..
    } = child::load(setup, landed)?;
    let cost = cost.unwrap_or_default();
    let _ = ready.send(Some(StageReady {
        numerics: info.numerics,
        fixed_secs: cost.fixed_secs,
        per_token_secs: cost.per_token_secs,
        per_context_secs: cost.per_context_secs,
    }));
    let part = Part {
        stage,
        hidden,
        bounds: PlanBounds {
            block_tokens: info.block_tokens,
            blocks: info.blocks,
            vocabulary,
            pass_rows_max: step_tokens_max,
        },
    };
    child::send(setup, &FromEngine::Ready(info))?;
    let mut stage_loop = StageLoop::new(part, |input| ranks.step(input));
    while let Some(work) = to_compute.blocking_recv() {
        stage_loop.take(work).context("a rank of this stage has died")?;
    }
    Ok(())
}

/// What the streams of other stages lead to.
struct Streams {
    replica: ReplicaId,
    own: u16,
    part: StagePart,
    /// Of all stages, in their order.
    nodes: Vec<NodeId>,
    work: mpsc::Sender<Work>,
    ready: watch::Receiver<Option<StageReady>>,
    peers: OnceLock<Peers>,
    /// The newest that a head has begun.
    latest: Mutex<Epoch>,
}

impl StageStreams for Arc<Streams> {
    fn stage(
        &self,
        from: NodeId,
        stage: Stage,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            if stage.replica != self.replica {
                bail!(
                    "it is for replica {}, and this is a stage of {}",
                    stage.replica,
                    self.replica
                );
            }
            if self.nodes.get(usize::from(stage.stage)) != Some(&from) {
                bail!("stage {} is not on node {from}", stage.stage);
            }
            if usize::from(stage.stage) + 1 == self.nodes.len() {
                self.obey(from, stage.epoch, sender, receiver).await
            } else if stage.stage + 1 == self.own {
                self.receive(stage.epoch, receiver).await
            } else {
                bail!("stage {} has nothing to say to stage {}", stage.stage, self.own)
            }
        }
        .boxed()
    }
}

impl Streams {
    /// An epoch, from its head's first word to the end of its stream.
    async fn obey(
        &self,
        head: NodeId,
        epoch: Epoch,
        mut sender: FrameSender,
        mut receiver: FrameReceiver,
    ) -> anyhow::Result<()> {
        self.enter(epoch)?;
        let begin = receiver.next_message::<StageBegin>(Kind::StageBegin).await?;
        let begin = begin.context("the head has ended before it began")?;
        if begin.part != self.part {
            bail!(
                "the head takes this stage for {:?}, and it is {:?}",
                begin.part,
                self.part
            );
        }
        let ready = self.loaded(&mut receiver).await?;
        self.still(epoch)?;
        let mut onward = self.reach(head, epoch, &begin).await?;
        let (results, mut computed) = mpsc::unbounded_channel();
        let (begun, has_begun) = oneshot::channel();
        let begin = Work::Begin {
            epoch,
            results,
            begun,
        };
        self.work.send(begin).await?;
        has_begun.await.context("another epoch has begun")?;
        sender.send(Kind::StageReady, epoch.0, &ready).await?;
        let plans = async {
            while let Some(step) = receiver.next_message::<StageStep>(Kind::StageStep).await? {
                self.work.send(Work::Step { epoch, step }).await?;
            }
            Ok(())
        };
        let results = async {
            while let Some(residual) = computed.recv().await {
                residual::send(&mut onward, epoch, &residual).await?;
            }
            bail!("this stage has ended the epoch")
        };
        tokio::select! {
            ended = plans => ended,
            ended = results => ended,
        }
    }

    /// Waits for the weights, unless the head goes first: it says nothing before it has heard.
    async fn loaded(&self, receiver: &mut FrameReceiver) -> anyhow::Result<StageReady> {
        let mut ready = self.ready.clone();
        tokio::select! {
            ready = ready.wait_for(Option::is_some) => {
                ready?.clone().context("it was waited for")
            }
            said = receiver.next() => {
                said?;
                bail!("the head did not wait for this stage")
            }
        }
    }

    fn still(&self, epoch: Epoch) -> anyhow::Result<()> {
        let latest = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest != epoch {
            bail!("epoch {latest} was begun meanwhile");
        }
        Ok(())
    }

    /// No device runs two epochs, and none an old one.
    fn enter(&self, epoch: Epoch) -> anyhow::Result<()> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch <= *latest {
            bail!("epoch {epoch} is over: {} was begun", *latest);
        }
        *latest = epoch;
        Ok(())
    }

    async fn reach(&self, head: NodeId, epoch: Epoch, begin: &StageBegin) -> anyhow::Result<FrameSender> {
        let peers = self.peers.get().expect("streams come in over this port");
        let next = &begin.next;
        if next.node != head {
            // What is left of its last process would be taken for it.
            peers.cut_off(next.node);
            peers.set_address(
                next.node,
                next.quic.parse().context("the address of the next stage")?,
            );
        }
        let hello = Hello::Stage(Box::new(Stage {
            replica: self.replica,
            epoch,
            stage: self.own,
        }));
        let (onward, _) = peers.open(next.node, Class::Activations, hello).await?;
        Ok(onward)
    }

    async fn receive(&self, epoch: Epoch, mut receiver: FrameReceiver) -> anyhow::Result<()> {
        while let Some(residual) = residual::receive(&mut receiver, epoch, self.own.into()).await? {
            self.work.send(Work::Residual { epoch, residual }).await?;
        }
        Ok(())
    }
}
