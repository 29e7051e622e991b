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
                EngineAction::Drained => {
                    // Nothing may follow the last word.
                    self.flush()?;
                    (self.send)(&FromEngine::Drained)?;
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator::engine::EngineConfig;
    use proto::engine::Load;
    use proto::request::{Finish, PrefixUse, Refusal, Sampling, ServiceClass, Ticket};
    use proto::step::Verdict;
    use proto::{AdapterId, Attempt, BlockHash, Epoch, ReplicaId, RequestId, StreamId, TenantId};
    use shard::Purpose;
    use std::sync::mpsc::sync_channel;

    const STOP_TOKEN: u32 = 7;

    /// A rank that counts: the token after position p is p + 1. It stops at `STOP_TOKEN` where asked to.
    fn counting(input: StepInput) -> Result<StepOutput, Lost> {
        let mut output = StepOutput::default();
        for pass in input.passes {
            for wanted in pass.logits {
                let next = pass.positions[wanted.row as usize] + 1;
                match wanted.purpose {
                    Purpose::Sample(request) => {
                        let stops = request.sampling.stop_tokens.contains(&next);
                        let verdict = if stops { Verdict::Stop } else { Verdict::Continue };
                        output.sampled.push((
                            wanted.sequence,
                            SampledToken {
                                id: next,
                                score: None,
                                verdict,
                            },
                        ));
                    }
                    Purpose::Score { token, top: _ } => {
                        let score = TokenScore {
                            token,
                            logprob: 0.0,
                            rank: 0,
                            top: Vec::new(),
                        };
                        output.prompt_scores.push((wanted.sequence, vec![score]));
                    }
                }
            }
        }
        Ok(output)
    }

    fn stream(choice: u32) -> StreamId {
        StreamId {
            request: RequestId(1),
            choice,
        }
    }

    fn submit(choice: u32, prompt_tokens: u32, max_new_tokens: u32, sampling: Sampling) -> ToEngine {
        let prefix = match sampling.prompt_logprobs {
            Some(_) => PrefixUse::Recompute,
            None => PrefixUse::Reuse,
        };
        let ticket = Ticket {
            stream: stream(choice),
            attempt: Attempt(1),
            tenant: TenantId(1),
            class: ServiceClass::Default,
            adapter: AdapterId(0),
            prompt_tokens,
            resumed_tokens: 0,
            block_hashes: Vec::new(),
            max_new_tokens,
            prefix,
            deadline: None,
        };
        let prompt = (0..prompt_tokens).collect();
        ToEngine::Submit(Box::new(Submit {
            ticket,
            prompt,
            hash_root: BlockHash::default(),
            sampling,
        }))
    }

    fn engine() -> Engine {
        let config = EngineConfig {
            step_tokens_max: 64,
            ..EngineConfig::for_replica(ReplicaId(3), Epoch(2))
        };
        Engine::new(config)
    }

    /// Everything said about the messages until the engine has drained.
    fn said(messages: Vec<ToEngine>) -> Vec<FromEngine> {
        let (sender, mailbox) = sync_channel(16);
        messages
            .into_iter()
            .chain([ToEngine::Drain])
            .for_each(|message| sender.send(message).unwrap());
        let mut sender = Some(sender);
        let mut said = Vec::new();
        let send = |message: &FromEngine| {
            if *message == FromEngine::Drained {
                sender = None;
            }
            said.push(message.clone());
            Ok(())
        };
        EngineLoop::new(engine(), counting, send, Clock::start())
            .run(&mailbox)
            .unwrap();
        said
    }

    fn deliveries(said: &[FromEngine], choice: u32) -> Vec<&Delivery> {
        let batches = said.iter().filter_map(|message| match message {
            FromEngine::Tokens(batch) => Some(&batch.deliveries),
            _ => None,
        });
        batches
            .flatten()
            .filter(|delivery| delivery.stream == stream(choice))
            .collect()
    }

    #[test]
    fn tokens_come_in_order_with_their_contents_and_end_at_the_bound() {
        let said = said(vec![
            submit(0, 100, 3, Sampling::default()),
            submit(1, 4, 2, Sampling::default()),
        ]);
        let got = deliveries(&said, 0);
        let ids: Vec<_> = got
            .iter()
            .filter_map(|delivery| Some(delivery.token.as_ref()?.id))
            .collect();
        let positions: Vec<_> = got
            .iter()
            .filter_map(|delivery| Some(delivery.token.as_ref()?.position.0))
            .collect();
        assert_eq!((ids, positions), (vec![100, 101, 102], vec![0, 1, 2]));
        assert_eq!(got.last().unwrap().finish, Some(Finish::Length));
        assert_eq!(deliveries(&said, 1).last().unwrap().token.as_ref().unwrap().id, 5);
        let place = |wanted: fn(&FromEngine) -> bool| said.iter().rposition(wanted);
        let last_tokens = place(|message| matches!(message, FromEngine::Tokens(_)));
        assert!(
            last_tokens < place(|message| *message == FromEngine::Drained),
            "{said:?}"
        );
    }

    #[test]
    fn a_stop_token_is_delivered_and_ends_the_stream() {
        let sampling = Sampling {
            stop_tokens: vec![STOP_TOKEN],
            ..Sampling::default()
        };
        let said = said(vec![submit(0, 5, 50, sampling)]);
        let last = *deliveries(&said, 0).last().unwrap();
        assert_eq!(last.token.as_ref().unwrap().id, STOP_TOKEN);
        assert_eq!(last.finish, Some(Finish::Stop));
    }

    #[test]
    fn scores_of_a_prompt_computed_in_chunks_arrive_whole_and_in_order() {
        let sampling = Sampling {
            prompt_logprobs: Some(0),
            ..Sampling::default()
        };
        let said = said(vec![submit(0, 200, 1, sampling)]);
        let scored: Vec<u32> = deliveries(&said, 0)
            .iter()
            .flat_map(|delivery| delivery.prompt_scores.iter().map(|score| score.token))
            .collect();
        assert_eq!(scored, (1..200).collect::<Vec<_>>());
    }

    #[test]
    fn what_can_never_fit_is_refused_and_nothing_is_kept() {
        let said = said(vec![submit(0, 1 << 20, 1, Sampling::default())]);
        let refused = said.iter().any(|message| {
            matches!(
                message,
                FromEngine::Refused {
                    refusal: Refusal::TooLong { .. },
                    ..
                }
            )
        });
        assert!(refused, "{said:?}");
    }

    #[test]
    fn a_cancelled_stream_leaves_no_blocks_behind() {
        let cancel = ToEngine::Cancel {
            stream: stream(0),
            attempt: Attempt(1),
        };
        let said = said(vec![submit(0, 50, 1000, Sampling::default()), cancel]);
        let loads: Vec<&Load> = said
            .iter()
            .filter_map(|message| match message {
                FromEngine::Load(load) => Some(load),
                _ => None,
            })
            .collect();
        let last = loads.last().expect("an engine that becomes idle reports");
        assert_eq!((last.running, last.waiting), (0, 0));
        assert_eq!(last.blocks_free + last.blocks_cached, last.blocks_total);
    }

    #[test]
    fn a_lost_rank_ends_the_loop() {
        let (sender, mailbox) = sync_channel(16);
        sender.send(submit(0, 5, 5, Sampling::default())).unwrap();
        let mut engine_loop = EngineLoop::new(engine(), |_| Err(Lost), |_| Ok(()), Clock::start());
        assert!(matches!(engine_loop.run(&mailbox), Err(LoopError::Lost(Lost))));
    }
}
