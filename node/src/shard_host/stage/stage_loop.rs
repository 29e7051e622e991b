use super::residual::Residual;
use proto::stage::StageStep;
use proto::{Epoch, Span};
use shard::{Lost, PlanBounds, Stage, StageTable, StepInput, StepOutput, UnfitPlan};
use std::collections::VecDeque;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// What a stage is told.
pub enum Work {
    /// What was before is over. Dropping `results` ends the epoch.
    Begin {
        epoch: Epoch,
        results: mpsc::UnboundedSender<Residual>,
        /// Is told when the loop is at it; dropped where a later epoch is.
        begun: oneshot::Sender<()>,
    },
    Step {
        epoch: Epoch,
        step: StageStep,
    },
    /// From the stage before.
    Residual {
        epoch: Epoch,
        residual: Residual,
    },
}

/// Computes plans in their order, each as soon as what it needs is there. Nothing of another epoch counts.
pub struct StageLoop<Compute> {
    part: Part,
    compute: Compute,
    open: Option<OpenEpoch>,
}

/// Which part of the model it computes.
#[derive(Clone)]
pub struct Part {
    pub stage: Stage,
    /// Values in a row of the residual.
    pub hidden: usize,
    pub bounds: PlanBounds,
}

struct OpenEpoch {
    epoch: Epoch,
    table: StageTable,
    results: mpsc::UnboundedSender<Residual>,
    steps: VecDeque<StageStep>,
    residuals: VecDeque<Residual>,
}

/// The head or the stage before has said something that does not fit.
#[derive(thiserror::Error, Debug)]
enum Misfit {
    #[error(transparent)]
    Plan(#[from] UnfitPlan),
    #[error("the residual is of step {found}, and {expected} is due")]
    Step { found: u64, expected: u64 },
    #[error("the residual has {found} values, and the plan needs {expected}")]
    Values { found: usize, expected: usize },
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl<Compute> StageLoop<Compute>
where
    Compute: FnMut(StepInput) -> Result<StepOutput, Lost>,
{
    pub fn new(part: Part, compute: Compute) -> Self {
        StageLoop {
            part,
            compute,
            open: None,
        }
    }

    /// An error ends the process; what only ends the epoch is logged.
    pub fn take(&mut self, work: Work) -> Result<(), Lost> {
        match work {
            Work::Begin { epoch, .. } if self.open.as_ref().is_some_and(|open| open.epoch > epoch) => {}
            Work::Begin {
                epoch,
                results,
                begun,
            } => {
                let _ = begun.send(());
                self.open = Some(OpenEpoch {
                    epoch,
                    table: StageTable::new(self.part.stage.clone(), self.part.bounds),
                    results,
                    steps: VecDeque::new(),
                    residuals: VecDeque::new(),
                });
            }
            Work::Step { epoch, step } => {
                if let Some(open) = self.of(epoch) {
                    open.steps.push_back(step);
                }
            }
            Work::Residual { epoch, residual } => {
                if let Some(open) = self.of(epoch) {
                    open.residuals.push_back(residual);
                }
            }
        }
        match self.compute_what_can_be() {
            Ok(()) => Ok(()),
            Err(Misfit::Lost(lost)) => Err(lost),
            Err(misfit @ (Misfit::Plan(_) | Misfit::Step { .. } | Misfit::Values { .. })) => {
                tracing::error!(%misfit, "the epoch ends");
                self.open = None;
                Ok(())
            }
        }
    }

    fn of(&mut self, epoch: Epoch) -> Option<&mut OpenEpoch> {
        self.open.as_mut().filter(|open| open.epoch == epoch)
    }

    fn compute_what_can_be(&mut self) -> Result<(), Misfit> {
        let StageLoop { part, compute, open } = self;
        let Some(open) = open else { return Ok(()) };
        while let Some((input, mut arrived)) = open.next(part)? {
            let began = Instant::now();
            let output = compute(input)?;
            let own = Span(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            arrived.computed.push(own);
            arrived.values = output.residual;
            // The stream's end is told by whoever holds it.
            let _ = open.results.send(arrived);
        }
        Ok(())
    }
}

impl OpenEpoch {
    /// What is to be computed now, and what came with it; its values are in the input.
    fn next(&mut self, part: &Part) -> Result<Option<(StepInput, Residual)>, Misfit> {
        let stage = &part.stage;
        if !stage.embeds() && self.residuals.is_empty() {
            return Ok(None);
        }
        let Some(StageStep { plan, tokens }) = self.steps.pop_front() else {
            return Ok(None);
        };
        let mut arrived = match stage.embeds() {
            true => Residual {
                step: plan.step,
                computed: Vec::new(),
                values: Vec::new(),
            },
            false => self.residuals.pop_front().expect("there was one"),
        };
        if arrived.step != plan.step {
            let (found, expected) = (arrived.step.0, plan.step.0);
            return Err(Misfit::Step { found, expected });
        }
        let mut input = self.table.input(&plan, &tokens)?;
        input.residual = std::mem::take(&mut arrived.values);
        let (found, expected) = (input.residual.len(), input.rows() * part.hidden);
        if !stage.embeds() && found != expected {
            return Err(Misfit::Values { found, expected });
        }
        Ok(Some((input, arrived)))
    }
}
