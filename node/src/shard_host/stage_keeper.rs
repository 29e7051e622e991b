//! Keeps a stage alive that is not the head of its pipeline. It serves whichever epoch a head begins on it, so it has none
//! of its own.

use super::ear::{Ear, Heard};
use super::process::ShardProcess;
use super::stage::StagePorts;
use super::supervisor::{self, ReplicaPlan};
use proto::engine::FromEngine;
use std::time::Duration;
use tokio::process::ChildStdout;
use tokio::sync::mpsc;
use tokio::time::sleep;

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

pub struct StageKeeper {
    pub plan: ReplicaPlan,
    pub ports: StagePorts,
}

/// How far a process came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Loading,
    Ready,
}

impl StageKeeper {
    /// Until it is dropped.
    pub async fn run(self) {
        let (replica, model) = (self.plan.setup.replica, &self.plan.model);
        let mut pause = PAUSE_MIN;
        loop {
            let port = OpenPort(&self);
            let mut reached = Reached::Loading;
            let reason = self.serve(&mut reached).await;
            drop(port);
            self.ports.fail(replica, reason.clone());
            tracing::error!(%replica, model, reason, "a stage has ended, starting it again");
            pause = match reached {
                Reached::Ready => PAUSE_MIN,
                Reached::Loading => (pause * 2).min(PAUSE_MAX),
            };
            sleep(pause).await;
        }
    }

    /// Gives why the process has ended.
    async fn serve(&self, reached: &mut Reached) -> String {
        let setup = self.plan.setup_now();
        let mut process = match ShardProcess::start(&setup, self.plan.log_format).await {
            Ok(process) => process,
            Err(error) => return error.to_string(),
        };
        let stdout = process.stdout.take().expect("stdout was asked for");
        let stdin = process.stdin.take().expect("stdin was asked for");
        let (frames, outbox) = mpsc::unbounded_channel();
        let ended = tokio::select! {
            ended = self.listen(stdout, reached) => ended,
            () = supervisor::keep_trusted(self.plan.link.as_ref(), frames.clone()) => None,
            () = supervisor::keep_told(self.plan.coming.as_ref(), frames.clone()) => None,
            () = supervisor::write_all(stdin, outbox) => None,
        };
        match ended {
            Some(reason) => reason,
            None => supervisor::exit_words(process).await,
        }
    }

    /// `None`: the pipe ended.
    async fn listen(&self, stdout: ChildStdout, reached: &mut Reached) -> Option<String> {
        let replica = self.plan.setup.replica;
        let mut ear = Ear::new(stdout);
        loop {
            match ear.next().await {
                Heard::Message(FromEngine::Listening(address)) => self.ports.set(replica, *address),
                Heard::Message(FromEngine::Ready(info)) => {
                    tracing::info!(%replica, what = info.description, "stage ready");
                    *reached = Reached::Ready;
                }
                Heard::Message(FromEngine::Failed { reason }) => return Some(reason),
                Heard::Message(FromEngine::Damaged { reason }) => {
                    self.plan.damage.notify_one();
                    return Some(reason);
                }
                Heard::Message(
                    FromEngine::Loading { .. }
                    | FromEngine::Tokens(_)
                    | FromEngine::Refused { .. }
                    | FromEngine::Load(_)
                    | FromEngine::Drained
                    | FromEngine::Pipeline(_)
                    | FromEngine::Alive,
                )
                // It has work when the head says so, and the head notices when nothing comes of it.
                | Heard::Quiet => {}
                Heard::Ended => return None,
                Heard::Hung => {
                    return Some("it was stopped, or hangs: it has not said for seconds that it is there".to_owned());
                }
                Heard::Broken(error) => return Some(format!("the pipe to the stage: {error}")),
            }
        }
    }
}

/// However its process ends, nobody is sent there any more.
struct OpenPort<'a>(&'a StageKeeper);

impl Drop for OpenPort<'_> {
    fn drop(&mut self) {
        self.0.ports.remove(self.0.plan.setup.replica);
    }
}
