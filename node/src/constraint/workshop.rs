//! Work that may take its time: a bounded queue, and one thread that runs when nobody else wants the CPU.

use super::STACK_BYTES;
use crate::os;
use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Ends its thread, after what is queued, when it is dropped.
#[derive(Clone)]
pub struct Workshop {
    jobs: SyncSender<Job>,
}

/// The queue is full.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("too many grammars wait to be compiled")]
pub struct Full;

impl Workshop {
    pub fn start(name: &str, jobs_max: usize) -> io::Result<Workshop> {
        let (jobs, queue) = sync_channel::<Job>(jobs_max);
        thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                os::priority::below_computing();
                queue.into_iter().for_each(|job| job());
            })?;
        Ok(Workshop { jobs })
    }

    /// Never waits.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => Full,
            TrySendError::Disconnected(_) => panic!("the workshop's thread lives as long as the workshop"),
        })
    }
}
