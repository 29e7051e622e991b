//! The loop of a replica: drain the mailbox, let the engine decide, let the ranks compute, send what came out.
//!
//! A plain loop on one thread and not an actor, because it shares its cores with spinning compute. The mailbox is
//! bounded, so a node that says too much waits; the pipe to the node is bounded, so an engine that says too much waits.

use super::grammars::CompiledSubmit;
use super::stage::Residual;
use crate::clock::Clock;
use crate::constraint::workshop::Full;
use coordinator::Machine;
use coordinator::engine::{Engine, EngineAction, EngineDelivery, EngineEvent};
use proto::engine::{Delivery, FromEngine, Load, ToEngine, Token, TokenBatch, TokenScore};
use proto::request::{Refusal, Submit};
use proto::step::{StepDone, StepPlan};
use proto::{Attempt, SequenceId, Span, StepId, StreamId};
use shard::{Constraint, Lost, SampledToken, SequenceTable, StepInput, StepOutput};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// Why the loop ended.
#[derive(thiserror::Error, Debug)]
pub enum LoopError {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the pipeline has lost a stage: {reason}")]
    StageLost { reason: String },
    #[error("the node does not read any more: {0}")]
    Pipe(#[from] io::Error),
}

/// What the loop hears.
pub enum LoopMessage {
    FromNode(ToEngine),
    Compiled(CompiledSubmit),
    /// What the stages before have made of the oldest step under way.
    Residual(Residual),
    StageLost {
        reason: String,
    },
    /// A mask is there that a rank had to do without.
    Resume {
        stream: StreamId,
        attempt: Attempt,
    },
}

/// The hands of the loop.
pub struct Hands<Launch, Compute, Compile, Send> {
    /// Tells the stages before what to compute.
    pub launch: Launch,
    /// Runs a step on all ranks of this stage.
    pub compute: Compute,
    /// Values in a row of what the stages before hand on.
    pub hidden: usize,
    /// Starts to compile a submit's grammar; [`LoopMessage::Compiled`] is the answer.
    pub compile: Compile,
    /// Writes to the node.
    pub send: Send,
}

pub struct EngineLoop<Launch, Compute, Compile, Send> {
    engine: Engine,
    sequences: SequenceTable,
    hands: Hands<Launch, Compute, Compile, Send>,
    clock: Clock,
    /// Kept between events so as not to allocate for each.
    actions: Vec<EngineAction>,
    /// Streams whose grammar is being compiled: the engine does not know of them.
    compiling: BTreeMap<StreamId, Attempt>,
    /// The submit being handled, until the engine takes or refuses it.
    offered: Option<Offer>,
    /// What the engine wants computed, the oldest first.
    launched: VecDeque<Launched>,
    /// What the stages before have made of the oldest of these.
    residuals: VecDeque<Residual>,
    news: News,
}

struct Launched {
    plan: StepPlan,
    input: StepInput,
}

struct Offer {
    submit: Submit,
    constraint: Option<Arc<dyn Constraint>>,
}

/// What a client is told when too many grammars wait to be compiled.
const RETRY_AFTER_GRAMMARS: Span = Span::from_secs(1);

/// What a step gave, until the engine says what of it goes to whom.
#[derive(Default)]
struct News {
    step: StepId,
    sampled: BTreeMap<SequenceId, SampledToken>,
    /// Also from earlier steps: while a prompt is computed in chunks nothing is delivered.
    prompt_scores: BTreeMap<SequenceId, Vec<TokenScore>>,
    deliveries: Vec<Delivery>,
}

impl<Launch, Compute, Compile, Send> EngineLoop<Launch, Compute, Compile, Send>
where
    Launch: FnMut(&StepPlan, &StepInput) -> Result<(), Lost>,
    Compute: FnMut(StepInput) -> Result<StepOutput, Lost>,
    Compile: FnMut(Box<Submit>) -> Result<(), Full>,
    Send: FnMut(&FromEngine) -> io::Result<()>,
{
    pub fn new(engine: Engine, hands: Hands<Launch, Compute, Compile, Send>, clock: Clock) -> Self {
        let sequences = SequenceTable::new(engine.config().block_tokens, engine.config().step_tokens_max);
        EngineLoop {
            engine,
            sequences,
            hands,
            clock,
            actions: Vec::new(),
            compiling: BTreeMap::new(),
            offered: None,
            launched: VecDeque::new(),
            residuals: VecDeque::new(),
            news: News::default(),
        }
    }

    /// Until the mailbox is closed.
    pub fn run(&mut self, mailbox: &Receiver<LoopMessage>) -> Result<(), LoopError> {
        loop {
            if !self.can_compute() && !self.wait(mailbox)? {
                return Ok(());
            }
            if !self.drain(mailbox)? {
                return Ok(());
            }
            self.wake()?;
            if self.can_compute() {
                self.step()?;
            }
        }
    }

    fn can_compute(&self) -> bool {
        !self.launched.is_empty() && (self.is_alone() || !self.residuals.is_empty())
    }

    /// Is the whole model here?
    fn is_alone(&self) -> bool {
        self.engine.config().stages == 1
    }

    /// For a message or the engine's deadline, whichever comes first. False: the mailbox is closed.
    fn wait(&mut self, mailbox: &Receiver<LoopMessage>) -> Result<bool, LoopError> {
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

    fn drain(&mut self, mailbox: &Receiver<LoopMessage>) -> Result<bool, LoopError> {
        loop {
            match mailbox.try_recv() {
                Ok(message) => self.take(message)?,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn take(&mut self, message: LoopMessage) -> Result<(), LoopError> {
        match message {
            LoopMessage::FromNode(message) => self.take_from_node(message),
            LoopMessage::Compiled(compiled) => self.take_compiled(compiled),
            LoopMessage::Residual(residual) => {
                self.residuals.push_back(residual);
                Ok(())
            }
            LoopMessage::StageLost { reason } => Err(LoopError::StageLost { reason }),
            LoopMessage::Resume { stream, attempt } => self.handle(EngineEvent::Resume { stream, attempt }),
        }
    }

    fn take_from_node(&mut self, message: ToEngine) -> Result<(), LoopError> {
        match message {
            ToEngine::Submit(submit) if submit.sampling.grammar.is_some() => self.compile(submit),
            ToEngine::Submit(submit) => self.offer(*submit, None),
            ToEngine::Cancel { stream, attempt } if self.compiling.get(&stream) == Some(&attempt) => {
                self.compiling.remove(&stream);
                Ok(())
            }
            ToEngine::Cancel { stream, attempt } => self.handle(EngineEvent::Cancel { stream, attempt }),
            ToEngine::Drain => {
                for (stream, attempt) in std::mem::take(&mut self.compiling) {
                    self.refuse(stream, attempt, Refusal::Draining)?;
                }
                self.handle(EngineEvent::Drain)
            }
            // Somebody else has taken them.
            ToEngine::Stages(_) | ToEngine::Trust(_) | ToEngine::Landed(_) => Ok(()),
        }
    }

    fn compile(&mut self, submit: Box<Submit>) -> Result<(), LoopError> {
        let (stream, attempt) = (submit.ticket.stream, submit.ticket.attempt);
        match (self.hands.compile)(submit) {
            Ok(()) => {
                // A later attempt takes the place of an earlier one.
                self.compiling.insert(stream, attempt);
                Ok(())
            }
            Err(Full) => {
                let retry_after = RETRY_AFTER_GRAMMARS;
                self.refuse(stream, attempt, Refusal::Busy { retry_after })
            }
        }
    }

    /// Nobody waits any more for what was cancelled, or submitted again, while it was being compiled.
    fn take_compiled(&mut self, compiled: CompiledSubmit) -> Result<(), LoopError> {
        let (stream, attempt) = (compiled.submit.ticket.stream, compiled.submit.ticket.attempt);
        if self.compiling.get(&stream) != Some(&attempt) {
            return Ok(());
        }
        self.compiling.remove(&stream);
        match compiled.constraint {
            Ok(constraint) => self.offer(*compiled.submit, Some(constraint)),
            Err(reason) => self.refuse(stream, attempt, Refusal::BadGrammar { reason }),
        }
    }

    fn offer(&mut self, submit: Submit, constraint: Option<Arc<dyn Constraint>>) -> Result<(), LoopError> {
        let ticket = submit.ticket.clone();
        self.offered = Some(Offer { submit, constraint });
        self.handle(EngineEvent::Submit(ticket))?;
        self.offered = None;
        Ok(())
    }

    fn refuse(&mut self, stream: StreamId, attempt: Attempt, refusal: Refusal) -> Result<(), LoopError> {
        Ok((self.hands.send)(&FromEngine::Refused {
            stream,
            attempt,
            refusal,
        })?)
    }

    fn wake(&mut self) -> Result<(), LoopError> {
        let now = self.clock.now();
        if self.engine.deadline().is_some_and(|deadline| deadline <= now) {
            self.engine.wake(now, &mut self.actions);
            self.perform()?;
        }
        Ok(())
    }

    fn launch(&mut self, plan: StepPlan) -> Result<(), LoopError> {
        for sequence in &plan.forget {
            self.news.prompt_scores.remove(sequence);
        }
        let input = self.sequences.input(&plan);
        (self.hands.launch)(&plan, &input)?;
        self.launched.push_back(Launched { plan, input });
        Ok(())
    }

    /// Computes the oldest plan.
    fn step(&mut self) -> Result<(), LoopError> {
        let Launched { plan, mut input } = self.launched.pop_front().expect("there is something to compute");
        let mut parts = self.take_residual(&plan, &mut input)?;
        let start = self.clock.now();
        let output = (self.hands.compute)(input)?;
        let own = self.clock.now().since(start);
        let elapsed = parts.iter().fold(own, |sum, part| sum + *part);
        if !self.is_alone() {
            parts.push(own);
        }
        let done = StepDone {
            parts,
            ..self.sequences.record(&plan, &output, elapsed)
        };
        self.news.take(plan.step, output);
        self.handle(EngineEvent::StepDone(done))
    }

    /// Gives how long each of the stages before has computed.
    fn take_residual(&mut self, plan: &StepPlan, input: &mut StepInput) -> Result<Vec<Span>, LoopError> {
        if self.is_alone() {
            return Ok(Vec::new());
        }
        let residual = self.residuals.pop_front().expect("it has arrived");
        let values = input.rows() * self.hands.hidden;
        if residual.step != plan.step || residual.values.len() != values {
            let reason = format!(
                "{} values of step {} came where {values} of {} were due",
                residual.values.len(),
                residual.step,
                plan.step
            );
            return Err(LoopError::StageLost { reason });
        }
        input.residual = residual.values;
        Ok(residual.computed)
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
                    let offer = self.offered.take_if(|offer| offer.submit.ticket.stream == stream);
                    let offer = offer.expect("the engine admits what it was just offered");
                    self.sequences.admit(sequence, offer.submit, offer.constraint);
                }
                EngineAction::Refuse {
                    stream,
                    attempt,
                    refusal,
                } => self.refuse(stream, attempt, refusal)?,
                EngineAction::Run(plan) => self.launch(plan)?,
                EngineAction::Deliver(delivery) => self.news.deliver(&delivery),
                EngineAction::Report(load) => self.report(load)?,
                EngineAction::Drained => {
                    // Nothing may follow the last word.
                    self.flush()?;
                    (self.hands.send)(&FromEngine::Drained)?;
                }
            }
        }
        self.flush()
    }

    fn report(&mut self, load: Load) -> Result<(), LoopError> {
        (self.hands.send)(&FromEngine::Load(load))?;
        if !self.is_alone() {
            let used = self.engine.pipeline().clone();
            (self.hands.send)(&FromEngine::Pipeline(Box::new(used)))?;
        }
        Ok(())
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
        Ok((self.hands.send)(&FromEngine::Tokens(batch))?)
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
            timing: news.timing,
        });
    }
}

#[cfg(test)]
mod tests;
