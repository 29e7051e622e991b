use super::*;
use coordinator::engine::EngineConfig;
use proto::engine::Load;
use proto::request::Grammar;
use proto::request::{Finish, PrefixUse, Refusal, Sampling, ServiceClass, Ticket};
use proto::step::Verdict;
use proto::{AdapterId, Attempt, BlockHash, Epoch, ReplicaId, RequestId, StreamId, TenantId};
use shard::{GrammarEnd, Mask, Purpose, TokenMask};
use std::cell::{Cell, RefCell};
use std::sync::Mutex;
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
                    let mask = request
                        .constraint
                        .map(|constraint| constraint.mask(request.position));
                    if let Some(Mask::Late) = mask {
                        let none = SampledToken {
                            id: 0,
                            score: None,
                            verdict: Verdict::Wait,
                        };
                        output.sampled.push((wanted.sequence, none));
                        continue;
                    }
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
        .for_each(|message| sender.send(LoopMessage::FromNode(message)).unwrap());
    let mut sender = Some(sender);
    let mut said = Vec::new();
    let send = |message: &FromEngine| {
        if *message == FromEngine::Drained {
            sender = None;
        }
        said.push(message.clone());
        Ok(())
    };
    let hands = Hands {
        launch: |_: &StepPlan, _: &StepInput| Ok(()),
        hidden: 0,
        compute: counting,
        compile: |_| Err(Full),
        send,
    };
    EngineLoop::new(engine(), hands, Clock::start())
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
    let submit = submit(0, 5, 5, Sampling::default());
    sender.send(LoopMessage::FromNode(submit)).unwrap();
    let hands = Hands {
        launch: |_: &StepPlan, _: &StepInput| Ok(()),
        hidden: 0,
        compute: |_| Err(Lost),
        compile: |_| Err(Full),
        send: |_: &FromEngine| Ok(()),
    };
    let mut engine_loop = EngineLoop::new(engine(), hands, Clock::start());
    assert!(matches!(engine_loop.run(&mailbox), Err(LoopError::Lost(Lost))));
}

/// Knows the mask of a position only after it was told to.
#[derive(Debug, Default)]
struct Hesitant {
    accepted: Mutex<Vec<u32>>,
    is_known: Mutex<bool>,
}

impl Constraint for Hesitant {
    fn mask(&self, position: proto::Position) -> Mask {
        assert_eq!(position.0 as usize, self.accepted.lock().unwrap().len());
        match std::mem::take(&mut *self.is_known.lock().unwrap()) {
            true => Mask::Ready(Arc::new(TokenMask::new(vec![u32::MAX], GrammarEnd::NotYet))),
            false => Mask::Late,
        }
    }

    fn accept(&self, token: u32) {
        self.accepted.lock().unwrap().push(token);
    }
}

/// A desk that compiles when the test says so, and what the loop said.
#[derive(Default)]
struct Desk {
    submits: RefCell<Vec<Submit>>,
    is_full: Cell<bool>,
    said: RefCell<Vec<FromEngine>>,
}

impl Desk {
    /// Runs `story` with a loop, and the loop until it has nothing to compute after each message.
    fn tell(&self, story: impl FnOnce(&mut dyn FnMut(LoopMessage))) {
        let hands = Hands {
            launch: |_: &StepPlan, _: &StepInput| Ok(()),
            hidden: 0,
            compute: counting,
            compile: |submit: Box<Submit>| match self.is_full.get() {
                true => Err(Full),
                false => {
                    self.submits.borrow_mut().push(*submit);
                    Ok(())
                }
            },
            send: |message: &FromEngine| {
                self.said.borrow_mut().push(message.clone());
                Ok(())
            },
        };
        let mut engine_loop = EngineLoop::new(engine(), hands, Clock::start());
        story(&mut |message| {
            engine_loop.take(message).unwrap();
            while engine_loop.can_compute() {
                engine_loop.step().unwrap();
            }
        });
    }

    fn compiled(&self, constraint: Result<Arc<dyn Constraint>, String>) -> LoopMessage {
        let submit = Box::new(self.submits.borrow_mut().remove(0));
        LoopMessage::Compiled(CompiledSubmit { submit, constraint })
    }

    fn refusals(&self) -> Vec<Refusal> {
        let refusal = |message: &FromEngine| match message {
            FromEngine::Refused { refusal, .. } => Some(refusal.clone()),
            _ => None,
        };
        self.said.borrow().iter().filter_map(refusal).collect()
    }

    fn finishes(&self, choice: u32) -> Vec<Finish> {
        let said = self.said.borrow();
        deliveries(&said, choice)
            .iter()
            .filter_map(|delivery| delivery.finish)
            .collect()
    }
}

fn guided(choice: u32) -> LoopMessage {
    let sampling = Sampling {
        grammar: Some(Grammar::JsonObject),
        ..Sampling::default()
    };
    LoopMessage::FromNode(submit(choice, 4, 2, sampling))
}

fn cancel(choice: u32) -> LoopMessage {
    LoopMessage::FromNode(ToEngine::Cancel {
        stream: stream(choice),
        attempt: Attempt(1),
    })
}

fn resume(choice: u32) -> LoopMessage {
    LoopMessage::Resume {
        stream: stream(choice),
        attempt: Attempt(1),
    }
}

#[test]
fn while_a_grammar_is_compiled_others_run_and_then_it_does() {
    let desk = Desk::default();
    desk.tell(|tell| {
        tell(guided(0));
        tell(LoopMessage::FromNode(submit(1, 4, 2, Sampling::default())));
        assert_eq!((desk.finishes(0).len(), desk.finishes(1).len()), (0, 1));
        let constraint = Arc::new(Hesitant::default());
        tell(desk.compiled(Ok(constraint.clone())));
        for known in 0..2 {
            assert_eq!(
                constraint.accepted.lock().unwrap().len(),
                known,
                "nothing is guessed"
            );
            *constraint.is_known.lock().unwrap() = true;
            tell(resume(0));
        }
        assert_eq!(desk.finishes(0), [Finish::Length]);
        assert_eq!(*constraint.accepted.lock().unwrap(), [4, 5]);
    });
}

#[test]
fn what_is_cancelled_or_refused_while_its_grammar_is_compiled_never_runs() {
    let desk = Desk::default();
    desk.tell(|tell| {
        tell(guided(0));
        tell(cancel(0));
        tell(desk.compiled(Ok(Arc::new(Hesitant::default()))));
        tell(guided(1));
        tell(desk.compiled(Err("no".to_owned())));
        desk.is_full.set(true);
        tell(guided(2));
        desk.is_full.set(false);
        tell(guided(3));
        tell(LoopMessage::FromNode(ToEngine::Drain));
        tell(desk.compiled(Ok(Arc::new(Hesitant::default()))));
    });
    let bad = Refusal::BadGrammar {
        reason: "no".to_owned(),
    };
    let busy = Refusal::Busy {
        retry_after: RETRY_AFTER_GRAMMARS,
    };
    assert_eq!(desk.refusals(), [bad, busy, Refusal::Draining]);
    let said = desk.said.borrow();
    let drained = said.iter().position(|message| *message == FromEngine::Drained);
    let after = &said[drained.expect("nothing is left")..];
    assert!(
        !after
            .iter()
            .any(|message| matches!(message, FromEngine::Refused { .. }))
    );
    assert!((0..4).all(|choice| deliveries(&said, choice).is_empty()));
}

#[test]
fn a_later_attempt_takes_the_place_of_one_that_is_being_compiled() {
    let desk = Desk::default();
    desk.tell(|tell| {
        tell(guided(0));
        let LoopMessage::FromNode(ToEngine::Submit(mut later)) = guided(0) else {
            unreachable!()
        };
        later.ticket.attempt = Attempt(2);
        tell(LoopMessage::FromNode(ToEngine::Submit(later)));
        tell(desk.compiled(Err("the first".to_owned())));
        tell(desk.compiled(Err("the second".to_owned())));
    });
    let second = Refusal::BadGrammar {
        reason: "the second".to_owned(),
    };
    assert_eq!(desk.refusals(), [second]);
}

const HANDED_ON_AFTER: Span = Span(5);

/// What the stages before would have made of a step: a row of ones for each token.
fn handed_on(plan: &StepPlan, input: &StepInput) -> LoopMessage {
    LoopMessage::Residual(Residual {
        step: plan.step,
        computed: vec![HANDED_ON_AFTER],
        values: vec![1.0; input.rows()],
    })
}

fn pipelined() -> Engine {
    let config = EngineConfig {
        step_tokens_max: 64,
        stages: 2,
        ..EngineConfig::for_replica(ReplicaId(3), Epoch(2))
    };
    Engine::new(config)
}

#[test]
fn a_head_computes_each_step_when_its_rows_have_come() {
    let (sender, mailbox) = sync_channel(64);
    for choice in 0..4 {
        let message = submit(choice, 3, 5, Sampling::default());
        sender.send(LoopMessage::FromNode(message)).unwrap();
    }
    sender.send(LoopMessage::FromNode(ToEngine::Drain)).unwrap();
    let under_way = Cell::new(0);
    let most = Cell::new(0);
    let steps = Cell::new(0);
    let handing_on = sender.clone();
    let mut open = Some(sender);
    let handing_on = RefCell::new(Some(handing_on));
    let mut said = Vec::new();
    let hands = Hands {
        launch: |plan: &StepPlan, input: &StepInput| {
            under_way.set(under_way.get() + 1);
            most.set(most.get().max(under_way.get()));
            let message = handed_on(plan, input);
            let handing_on = handing_on.borrow();
            handing_on.as_ref().ok_or(Lost)?.send(message).map_err(|_| Lost)
        },
        hidden: 1,
        compute: |input: StepInput| {
            under_way.set(under_way.get() - 1);
            steps.set(steps.get() + 1);
            assert_eq!(input.residual, vec![1.0; input.rows()]);
            counting(input)
        },
        compile: |_| Err(Full),
        send: |message: &FromEngine| {
            if *message == FromEngine::Drained {
                open = None;
                handing_on.take();
            }
            said.push(message.clone());
            Ok(())
        },
    };
    EngineLoop::new(pipelined(), hands, Clock::start())
        .run(&mailbox)
        .unwrap();
    assert_eq!(most.get(), 2, "as many steps as stages");
    let used = said.iter().rev().find_map(|message| match message {
        FromEngine::Pipeline(used) => Some(used),
        _ => None,
    });
    let computed = &used.expect("it comes with every report").computed;
    assert_eq!(computed[0].0, HANDED_ON_AFTER.0 * steps.get());
    assert!(computed.len() == 2 && computed[1] > Span::ZERO, "{computed:?}");
    for choice in 0..4 {
        let tokens: Vec<u32> = deliveries(&said, choice)
            .iter()
            .filter_map(|delivery| delivery.token.as_ref().map(|token| token.id))
            .collect();
        assert_eq!(tokens, [3, 4, 5, 6, 7], "choice {choice}");
    }
}

#[test]
fn a_head_ends_with_a_lost_stage_or_rows_that_do_not_fit() {
    let ended_by = |message: LoopMessage| {
        let (sender, mailbox) = sync_channel(8);
        let submitted = LoopMessage::FromNode(submit(0, 3, 5, Sampling::default()));
        sender.send(submitted).unwrap();
        sender.send(message).unwrap();
        let hands = Hands {
            launch: |_: &StepPlan, _: &StepInput| Ok(()),
            hidden: 1,
            compute: counting,
            compile: |_| Err(Full),
            send: |_: &FromEngine| Ok(()),
        };
        EngineLoop::new(pipelined(), hands, Clock::start()).run(&mailbox)
    };
    let reason = "its node has gone".to_owned();
    let lost = ended_by(LoopMessage::StageLost { reason });
    assert!(matches!(lost, Err(LoopError::StageLost { .. })));
    let short = ended_by(LoopMessage::Residual(Residual {
        step: StepId(0),
        computed: vec![HANDED_ON_AFTER],
        values: vec![1.0; 2],
    }));
    assert!(matches!(short, Err(LoopError::StageLost { .. })));
}
