//! The other stages, as the head sees them: plans go to all of them, residuals come from the one before.

use super::links::{LinkTrust, StageLinks};
use super::port::{Port, StageStreams};
use super::residual;
use crate::shard_host::child::STILL_WAITING_EVERY;
use crate::shard_host::engine_loop::LoopMessage;
use crate::shard_host::setup::{LinkSetup, PlacedSetup, ShardSetup};
use crate::transport::{Class, FrameReceiver, FrameSender, LinkError};
use anyhow::{Context, bail};
use coordinator::cost::StepCost;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proto::peer::{Hello, Stage};
use proto::stage::{StageAddress, StageAddresses, StageBegin, StagePart, StageReady, StageStep};
use proto::step::StepPlan;
use proto::wire::{self, Kind};
use proto::{Epoch, NodeId, ReplicaId};
use shard::{Lost, StepInput};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SendError, SyncSender, TrySendError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;

/// The head's ends of all streams. Dropping it ends the epoch.
pub struct Head {
    links: StageLinks,
    own: Own,
    /// What all stages have, this one included.
    parts: Vec<StagePart>,
    mailbox: SyncSender<LoopMessage>,
    /// To each stage before this one, in their order; empty until they are connected.
    plans: Vec<mpsc::UnboundedSender<Vec<u8>>>,
}

/// Which process this is.
#[derive(Clone, Copy)]
struct Own {
    replica: ReplicaId,
    epoch: Epoch,
    stage: u16,
}

impl Head {
    /// Opens the port. Residuals, and the end of any stream, go to `mailbox`.
    pub fn start(
        setup: &ShardSetup,
        placed: &PlacedSetup,
        link: &LinkSetup,
        mailbox: SyncSender<LoopMessage>,
    ) -> anyhow::Result<Head> {
        let own = Own {
            replica: setup.replica,
            epoch: setup.epoch,
            stage: placed.stage,
        };
        let residuals = Residuals {
            own,
            before: (placed.stage > 0).then(|| link.members[usize::from(placed.stage) - 1].node),
            mailbox: mailbox.clone(),
        };
        Ok(Head {
            links: StageLinks::start(link, Arc::new(Port(residuals)))?,
            own,
            parts: placed.parts.clone(),
            mailbox,
            plans: Vec::new(),
        })
    }

    pub fn address(&self) -> StageAddress {
        self.links.address()
    }

    pub fn trust(&self) -> LinkTrust {
        self.links.trust.clone()
    }

    /// Begins the epoch on all stages and waits until they are ready; gives what a step costs on all of them together.
    /// They must compute as `numerics` says. `waiting` is called now and then while they load.
    pub fn connect(
        &mut self,
        addresses: &StageAddresses,
        numerics: u64,
        waiting: impl Fn() -> io::Result<()>,
    ) -> anyhow::Result<StepCost> {
        let before = self.parts.len() - 1;
        if addresses.stages.len() != before + 1 {
            bail!(
                "{} stages were named, and there are {}",
                addresses.stages.len(),
                before + 1
            );
        }
        let begun: Vec<_> = (0..before)
            .map(|stage| {
                let (at, next) = (&addresses.stages[stage], &addresses.stages[stage + 1]);
                let begin = self.begin(at.clone(), next.clone(), self.parts[stage]);
                self.links.runtime.spawn(begin)
            })
            .collect();
        let mut cost = StepCost::default();
        for (begun, at) in begun.into_iter().zip(&addresses.stages) {
            let (ready, plans) = self
                .wait_for(begun, &waiting)
                .with_context(|| format!("the stage on node {}", at.node))?;
            if ready.numerics != numerics {
                bail!(
                    "the stage on node {} computes otherwise than this one: run the same release on both",
                    at.node
                );
            }
            cost = cost.then(StepCost {
                fixed_secs: ready.fixed_secs,
                per_token_secs: ready.per_token_secs,
                per_context_secs: ready.per_context_secs,
            });
            self.plans.push(plans);
        }
        Ok(cost)
    }

    fn wait_for(
        &self,
        mut begun: JoinHandle<anyhow::Result<Begun>>,
        waiting: &impl Fn() -> io::Result<()>,
    ) -> anyhow::Result<Begun> {
        self.links.runtime.block_on(async {
            loop {
                match timeout(STILL_WAITING_EVERY, &mut begun).await {
                    Ok(begun) => return begun?,
                    Err(_) => waiting()?,
                }
            }
        })
    }

    /// Tells all stages what to compute.
    pub fn launch(&mut self, plan: &StepPlan, input: &StepInput) -> Result<(), Lost> {
        let Some((first, later)) = self.plans.split_first() else {
            return Ok(());
        };
        let mut step = StageStep {
            plan: plan.clone(),
            tokens: input.tokens(),
        };
        let frame = |step: &StageStep| wire::frame(Kind::StageStep, self.own.epoch.0, step);
        first.send(frame(&step)).map_err(|_| Lost)?;
        if later.is_empty() {
            return Ok(());
        }
        // All others get the same.
        step.tokens.clear();
        let frame = frame(&step);
        later
            .iter()
            .try_for_each(|plans| plans.send(frame.clone()).map_err(|_| Lost))
    }

    fn begin(
        &self,
        at: StageAddress,
        next: StageAddress,
        part: StagePart,
    ) -> impl Future<Output = anyhow::Result<Begun>> + Send + 'static {
        let (peers, own, mailbox) = (self.links.peers.clone(), self.own, self.mailbox.clone());
        async move {
            peers.set_address(at.node, at.quic.parse().context("its address")?);
            let hello = Hello::Stage(Box::new(Stage {
                replica: own.replica,
                epoch: own.epoch,
                stage: own.stage,
            }));
            let (mut sender, mut receiver) = peers.open(at.node, Class::Activations, hello).await?;
            let begin = StageBegin { next, part };
            sender.send(Kind::StageBegin, own.epoch.0, &begin).await?;
            let ready = receiver.next_message::<StageReady>(Kind::StageReady).await?;
            let ready = ready.context("it has ended the stream")?;
            let (plans, outbox) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let ended = tokio::select! {
                    ended = write_all(sender, outbox) => ended,
                    ended = until_end(receiver) => ended,
                };
                let reason = ended.err().map(|error| error.to_string());
                lost(&mailbox, reason.unwrap_or_else(|| "it has ended".to_owned()));
            });
            Ok((ready, plans))
        }
    }
}

type Begun = (StageReady, mpsc::UnboundedSender<Vec<u8>>);

async fn write_all(
    mut sender: FrameSender,
    mut outbox: mpsc::UnboundedReceiver<Vec<u8>>,
) -> Result<(), LinkError> {
    while let Some(frame) = outbox.recv().await {
        sender.send_framed(Kind::StageStep, frame).await?;
    }
    Ok(())
}

/// A stage says nothing after that it is ready.
async fn until_end(mut receiver: FrameReceiver) -> Result<(), LinkError> {
    while receiver.next().await?.is_some() {}
    Ok(())
}

fn lost(mailbox: &SyncSender<LoopMessage>, reason: String) {
    // A loop that has ended needs no telling.
    let _ = tell(mailbox, LoopMessage::StageLost { reason });
}

/// Only where there is no room does it cost what a worker costs that is given up: another thread, for every step.
pub(super) fn tell(
    mailbox: &SyncSender<LoopMessage>,
    message: LoopMessage,
) -> Result<(), SendError<LoopMessage>> {
    match mailbox.try_send(message) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(message)) => block_in_place(|| mailbox.send(message)),
        Err(TrySendError::Disconnected(message)) => Err(SendError(message)),
    }
}

/// From the stage before.
struct Residuals {
    own: Own,
    /// Whose residuals these are to be.
    before: Option<NodeId>,
    mailbox: SyncSender<LoopMessage>,
}

impl StageStreams for Residuals {
    fn stage(
        &self,
        from: NodeId,
        stage: Stage,
        _sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let is_due = stage.replica == self.own.replica && stage.epoch == self.own.epoch;
            if !is_due || stage.stage + 1 != self.own.stage || self.before != Some(from) {
                bail!("it is of another replica, epoch or place");
            }
            let ended = self.receive(receiver).await;
            let reason = match &ended {
                Ok(()) => "the stage before has ended".to_owned(),
                Err(error) => format!("the stage before: {error:#}"),
            };
            lost(&self.mailbox, reason);
            ended
        }
        .boxed()
    }
}

impl Residuals {
    async fn receive(&self, mut receiver: FrameReceiver) -> anyhow::Result<()> {
        let Own { epoch, stage, .. } = self.own;
        while let Some(residual) = residual::receive(&mut receiver, epoch, stage.into()).await? {
            tell(&self.mailbox, LoopMessage::Residual(residual))?;
        }
        Ok(())
    }
}
