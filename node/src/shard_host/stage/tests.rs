use super::head::tell;
use super::residual::{self, Residual, ResidualError};
use super::stage_loop::{Part, StageLoop, Work};
use crate::shard_host::engine_loop::LoopMessage;
use crate::transport::Class;
use crate::transport::tests::support::Cluster;
use proto::peer::{Hello, Stage as StageHello};
use proto::stage::StageStep;
use proto::step::{Slice, SliceOutput, StepPlan};
use proto::{AdapterId, BlockId, Epoch, GroupId, ReplicaId, SequenceId, Span, StepId};
use shard::{Lost, PlanBounds, Stage, StepInput, StepOutput};
use std::sync::mpsc::sync_channel;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

const HIDDEN: usize = 3;

/// Every value one more than it was; the first stage begins with its tokens.
fn adding(input: StepInput) -> Result<StepOutput, Lost> {
    let embedded = || {
        let tokens = input.tokens().into_iter();
        tokens.flat_map(|token| [token as f32; HIDDEN]).collect()
    };
    let values: Vec<f32> = match input.residual.is_empty() {
        true => embedded(),
        false => input.residual.clone(),
    };
    Ok(StepOutput {
        residual: values.into_iter().map(|value| value + 1.0).collect(),
        ..StepOutput::default()
    })
}

fn part(layers: std::ops::Range<usize>) -> Part {
    Part {
        stage: Stage::new(layers, 6).unwrap(),
        hidden: HIDDEN,
        bounds: PlanBounds {
            block_tokens: 16,
            blocks: 64,
            vocabulary: 100,
            pass_rows_max: 512,
        },
    }
}

fn step(step: u64, tokens: &[u32]) -> StageStep {
    let slice = Slice {
        sequence: SequenceId(step),
        adapter: AdapterId(0),
        start: 0,
        count: 2,
        new_blocks: vec![(GroupId(0), BlockId(step as u32))],
        output: SliceOutput::Nothing,
    };
    StageStep {
        plan: StepPlan {
            step: StepId(step),
            slices: vec![slice],
            ..StepPlan::default()
        },
        tokens: tokens.to_vec(),
    }
}

fn residual(step: u64, value: f32) -> Residual {
    Residual {
        step: StepId(step),
        computed: vec![Span(1000)],
        values: vec![value; 2 * HIDDEN],
    }
}

struct Fixture<Compute> {
    stage_loop: StageLoop<Compute>,
    results: mpsc::UnboundedReceiver<Residual>,
}

const EPOCH: Epoch = Epoch(4);

fn begun(layers: std::ops::Range<usize>) -> Fixture<impl FnMut(StepInput) -> Result<StepOutput, Lost>> {
    let mut stage_loop = StageLoop::new(part(layers), adding);
    let (results, received) = mpsc::unbounded_channel();
    let (begun, _) = oneshot::channel();
    let begin = Work::Begin {
        epoch: EPOCH,
        results,
        begun,
    };
    stage_loop.take(begin).unwrap();
    Fixture {
        stage_loop,
        results: received,
    }
}

impl<Compute: FnMut(StepInput) -> Result<StepOutput, Lost>> Fixture<Compute> {
    fn step(&mut self, epoch: Epoch, step: StageStep) {
        self.stage_loop.take(Work::Step { epoch, step }).unwrap();
    }

    fn residual(&mut self, epoch: Epoch, residual: Residual) {
        self.stage_loop.take(Work::Residual { epoch, residual }).unwrap();
    }

    fn result(&mut self) -> Option<(u64, Vec<f32>)> {
        let result = self.results.try_recv().ok()?;
        Some((result.step.0, result.values))
    }
}

#[test]
fn the_first_stage_begins_with_the_tokens_of_its_plans() {
    let mut first = begun(0..2);
    first.step(EPOCH, step(7, &[10, 20]));
    let rows = [[11.0; HIDDEN], [21.0; HIDDEN]].concat();
    assert_eq!(first.result(), Some((7, rows)));
}

#[test]
fn a_later_stage_waits_for_plan_and_residual_whichever_comes_first() {
    let mut middle = begun(2..4);
    middle.residual(EPOCH, residual(7, 1.0));
    assert_eq!(middle.result(), None);
    middle.step(EPOCH, step(7, &[]));
    middle.step(EPOCH, step(8, &[]));
    assert_eq!(middle.result(), Some((7, vec![2.0; 6])));
    assert_eq!(middle.result(), None);
    middle.residual(EPOCH, residual(8, 5.0));
    let result = middle.results.try_recv().unwrap();
    assert_eq!((result.step, result.values), (StepId(8), vec![6.0; 6]));
    assert_eq!((result.computed.len(), result.computed[0]), (2, Span(1000)));
    assert!(result.computed[1] > Span::ZERO, "its own");
}

#[test]
fn nothing_of_another_epoch_counts() {
    let mut middle = begun(2..4);
    middle.residual(Epoch(3), residual(7, 1.0));
    middle.step(Epoch(5), step(7, &[]));
    middle.residual(EPOCH, residual(9, 4.0));
    middle.step(EPOCH, step(9, &[]));
    assert_eq!(middle.result(), Some((9, vec![5.0; 6])));
    assert_eq!(middle.result(), None);
}

#[test]
fn an_epoch_that_comes_late_does_not_take_the_place_of_a_newer_one() {
    let mut middle = begun(2..4);
    let (results, _late) = mpsc::unbounded_channel();
    let (begun, mut has_begun) = oneshot::channel();
    let epoch = Epoch(3);
    middle
        .stage_loop
        .take(Work::Begin {
            epoch,
            results,
            begun,
        })
        .unwrap();
    assert!(has_begun.try_recv().is_err(), "it is told that it came too late");
    middle.step(EPOCH, step(7, &[]));
    middle.residual(EPOCH, residual(7, 1.0));
    assert_eq!(middle.result(), Some((7, vec![2.0; 6])));
}

#[test]
fn what_does_not_fit_ends_the_epoch_and_not_the_process() {
    let misfits: [fn(&mut Vec<Work>); 3] = [
        |work| {
            work.push(Work::Residual {
                epoch: EPOCH,
                residual: residual(6, 1.0),
            })
        },
        |work| {
            let mut short = residual(7, 1.0);
            short.values.pop();
            work.push(Work::Residual {
                epoch: EPOCH,
                residual: short,
            });
        },
        |work| {
            work.clear();
            work.push(Work::Step {
                epoch: EPOCH,
                step: step(7, &[1, 2]),
            });
            work.push(Work::Residual {
                epoch: EPOCH,
                residual: residual(7, 1.0),
            });
        },
    ];
    for misfit in misfits {
        let mut middle = begun(2..4);
        let mut work = vec![Work::Step {
            epoch: EPOCH,
            step: step(7, &[]),
        }];
        misfit(&mut work);
        work.into_iter()
            .for_each(|work| middle.stage_loop.take(work).unwrap());
        assert_eq!(
            middle.results.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        );
    }
}

/// The runtime of this test could not give up its only worker.
#[tokio::test]
async fn a_mailbox_with_room_takes_rows_without_another_thread() {
    let (sender, mailbox) = sync_channel(1);
    tell(&sender, LoopMessage::Residual(residual(7, 1.0))).unwrap();
    let LoopMessage::Residual(arrived) = mailbox.recv().unwrap() else {
        panic!("another message")
    };
    assert_eq!(arrived, residual(7, 1.0));
    drop(mailbox);
    assert!(tell(&sender, LoopMessage::Residual(residual(8, 1.0))).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_mailbox_is_waited_for() {
    let (sender, mailbox) = sync_channel(1);
    let told = tokio::spawn(async move {
        for step in 0..3 {
            tell(&sender, LoopMessage::Residual(residual(step, 1.0))).unwrap();
        }
    });
    let steps = spawn_blocking(move || {
        let arrived = mailbox.iter().map(|message| match message {
            LoopMessage::Residual(residual) => residual.step.0,
            _other => panic!("another message"),
        });
        arrived.collect::<Vec<_>>()
    });
    assert_eq!(steps.await.unwrap(), [0, 1, 2]);
    told.await.unwrap();
}

#[tokio::test]
async fn rows_arrive_as_they_were_over_a_connection() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    let hello = Hello::Stage(Box::new(StageHello {
        replica: ReplicaId(1),
        epoch: EPOCH,
        stage: 0,
    }));
    // The other side echoes.
    let (mut sender, mut receiver) = one.peers.open(two.id, Class::Activations, hello).await.unwrap();
    // More than a chunk, and not a whole number of them.
    let values: Vec<f32> = (0..300_001).map(|n| n as f32 * 0.5 - 7.0).collect();
    let sent = Residual {
        step: StepId(9),
        computed: vec![Span(77), Span(78)],
        values,
    };
    residual::send(&mut sender, EPOCH, &sent).await.unwrap();
    assert_eq!(
        residual::receive(&mut receiver, EPOCH, 2).await.unwrap(),
        Some(sent.clone())
    );
    let nothing = Residual {
        values: Vec::new(),
        ..sent
    };
    residual::send(&mut sender, EPOCH, &nothing).await.unwrap();
    assert_eq!(
        residual::receive(&mut receiver, EPOCH, 2).await.unwrap(),
        Some(nothing.clone())
    );
    residual::send(&mut sender, EPOCH, &nothing).await.unwrap();
    let other = residual::receive(&mut receiver, Epoch(5), 2).await;
    assert!(matches!(
        other,
        Err(ResidualError::Epoch {
            found: 4,
            expected: 5
        })
    ));
}
