//! The loop of a replica: drain the mailbox, let the engine decide, let the ranks compute, send what came out.
//!
//! A plain loop on one thread and not an actor, because it shares its cores with spinning compute. The mailbox is
//! bounded, so a node that says too much waits; the pipe to the node is bounded, so an engine that says too much waits.

use crate::clock::Clock;
use coordinator::Machine;
use coordinator::engine::{Engine, EngineAction, EngineDelivery, EngineEvent};
use proto::engine::{Delivery, FromEngine, ToEngine, Token, TokenBatch, TokenScore};
use proto::request::Submit;
use proto::step::StepPlan;
use proto::{SequenceId, StepId};
use shard::{Lost, SampledToken, SequenceTable, StepInput, StepOutput};
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// Why the loop ended.
#[derive(thiserror::Error, Debug)]
pub enum LoopError {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the node does not read any more: {0}")]
    Pipe(#[from] io::Error),
}

pub struct EngineLoop<Compute, Send> {
    engine: Engine,
    sequences: SequenceTable,
    compute: Compute,
    send: Send,
    clock: Clock,
    /// Kept between events so as not to allocate for each.
    actions: Vec<EngineAction>,
    /// The submit being handled, until the engine takes or refuses it.
    offered: Option<Submit>,
    /// What the engine wants computed next.
    plan: Option<StepPlan>,
    news: News,
}

/// What a step gave, until the engine says what of it goes to whom.
#[derive(Default)]
struct News {
    step: StepId,
    sampled: BTreeMap<SequenceId, SampledToken>,
    /// Also from earlier steps: while a prompt is computed in chunks nothing is delivered.
    prompt_scores: BTreeMap<SequenceId, Vec<TokenScore>>,
    deliveries: Vec<Delivery>,
}

impl<Compute, Send> EngineLoop<Compute, Send>
where
    Compute: FnMut(StepInput) -> Result<StepOutput, Lost>,
    Send: FnMut(&FromEngine) -> io::Result<()>,
{
    /// `compute` runs a step on all ranks; `send` writes to the node.
    pub fn new(engine: Engine, compute: Compute, send: Send, clock: Clock) -> Self {
        let sequences = SequenceTable::new(engine.config().block_tokens);
        EngineLoop {
            engine,
            sequences,
            compute,
            send,
            clock,
            actions: Vec::new(),
            offered: None,
            plan: None,
            news: News::default(),
        }
    }

    /// Until the mailbox is closed.
    pub fn run(&mut self, mailbox: &Receiver<ToEngine>) -> Result<(), LoopError> {
        loop {
            if self.plan.is_none() && !self.wait(mailbox)? {
                return Ok(());
            }
            if !self.drain(mailbox)? {
                return Ok(());
            }
            self.wake()?;
            if let Some(plan) = self.plan.take() {
                self.step(&plan)?;
            }
        }
    }

    /// For a message or the engine's deadline, whichever comes first. False: the mailbox is closed.
    fn wait(&mut self, mailbox: &Receiver<ToEngine>) -> Result<bool, LoopError> {
        let received = match self.engine.deadline() {
            Some(deadline) => {
                let patience = Duration::from_nanos(deadline.since(self.clock.now()).0);
                mailbox.recv_timeout(patience)
            }
            None => mailbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(message) => self.take(message).map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(true),
            Err(RecvTimeoutError::Disconnected) => Ok(false),
        }
    }

    fn drain(&mut self, mailbox: &Receiver<ToEngine>) -> Result<bool, LoopError> {
        loop {
            match mailbox.try_recv() {
                Ok(message) => self.take(message)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn take(&mut self, message: ToEngine) -> Result<(), LoopError> {
        match message {
            ToEngine::Submit(submit) => {
                let ticket = submit.ticket.clone();
                self.offered = Some(*submit);
                self.handle(EngineEvent::Submit(ticket))?;
                self.offered = None;
                Ok(())
            }
            ToEngine::Cancel { stream, attempt } => self.handle(EngineEvent::Cancel { stream, attempt }),
            ToEngine::Drain => self.handle(EngineEvent::Drain),
        }
    }

    fn wake(&mut self) -> Result<(), LoopError> {
        let now = self.clock.now();
        if self.engine.deadline().is_some_and(|deadline| deadline <= now) {
            self.engine.wake(now, &mut self.actions);
            self.perform()?;
        }
        Ok(())
    }

    fn step(&mut self, plan: &StepPlan) -> Result<(), LoopError> {
        for sequence in &plan.forget {
            self.news.prompt_scores.remove(sequence);
        }
        let input = self.sequences.input(plan);
        let start = self.clock.now();
        let output = (self.compute)(input)?;
        let done = self
            .sequences
            .record(plan, &output, self.clock.now().since(start));
        self.news.take(plan.step, output);
        self.handle(EngineEvent::StepDone(done))
    }

    fn handle(&mut self, event: EngineEvent) -> Result<(), LoopError> {
        self.engine.handle(self.clock.now(), event, &mut self.actions);
        self.perform()
    }

    fn perform(&mut self) -> Result<(), LoopError> {
        for action in std::mem::take(&mut self.actions) {
            match action {
                EngineAction::Admitted {
                    stream,
                    attempt: _,
                    sequence,
                } => {
                    let submit = self.offered.take_if(|submit| submit.ticket.stream == stream);
                    self.sequences.admit(
                        sequence,
                        submit.expect("the engine admits what it was just offered"),
                    );
                }
                EngineAction::Refuse {
                    stream,
                    attempt,
                    refusal,
                } => {
                    (self.send)(&FromEngine::Refused {
                        stream,
                        attempt,
                        refusal,
                    })?;
                }
                EngineAction::Run(plan) => {
                    let earlier = self.plan.replace(plan);
                    assert!(earlier.is_none(), "the next plan comes after the last one's end");
                }
                EngineAction::Deliver(delivery) => self.news.deliver(&delivery),
                EngineAction::Report(load) => (self.send)(&FromEngine::Load(load))?,
                EngineAction::Drained => (self.send)(&FromEngine::Drained)?,
            }
        }
        self.flush()
    }

    /// One batch for all deliveries of an event.
    fn flush(&mut self) -> Result<(), LoopError> {
        if self.news.deliveries.is_empty() {
            return Ok(());
        }
        let config = self.engine.config();
        let batch = TokenBatch {
            replica: config.replica,
            epoch: config.epoch,
            step: self.news.step,
            deliveries: std::mem::take(&mut self.news.deliveries),
        };
        Ok((self.send)(&FromEngine::Tokens(batch))?)
    }
}

impl News {
    fn take(&mut self, step: StepId, output: StepOutput) {
        self.step = step;
        self.sampled = output.sampled.into_iter().collect();
        for (sequence, scores) in output.prompt_scores {
            self.prompt_scores.entry(sequence).or_default().extend(scores);
        }
    }

    fn deliver(&mut self, news: &EngineDelivery) {
        let token = news.position.map(|position| {
            let sampled = self.sampled.remove(&news.sequence);
            let sampled = sampled.expect("a position is delivered in the step that sampled it");
            Token {
                position,
                id: sampled.id,
                score: sampled.score,
            }
        });
        self.deliveries.push(Delivery {
            stream: news.stream,
            attempt: news.attempt,
            cached_tokens: news.cached_tokens,
            prompt_scores: self.prompt_scores.remove(&news.sequence).unwrap_or_default(),
            token,
            finish: news.finish,
        });
    }
}
