//! The one path to the disk: votes and log entries are written by one thread, in the order in which Raft gave them.
//!
//! What has gathered while a write was under way goes into the next one together. While the disk is full nothing is
//! acknowledged and writing is tried again: Raft on the other nodes goes on, and this node does when space returns. After
//! any other error the thread ends, and with it this run of Raft: the disk has to be read anew before it may be believed.

use super::disk::{Change, Disk, DiskError};
use super::types::{Runtime, TypeConfig};
use openraft::AsyncRuntime;
use openraft::storage::LogFlushed;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Writes that may share one sync.
const BATCH_MAX: usize = 256;
/// How long a change that nobody waits for may stay in memory.
const LAZY_MAX: Duration = Duration::from_millis(200);
const FULL_RETRY: Duration = Duration::from_millis(500);

/// Cheap to copy. The thread ends when the last copy has gone.
#[derive(Clone)]
pub struct Journal {
    // Without a bound of its own: Raft waits for votes and truncations, and what it appends comes from writers and a
    // leader that are bounded themselves.
    work: UnboundedSender<Work>,
    trouble: Trouble,
}

/// Why nothing is being written at the moment, for whoever asks.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

struct Work {
    changes: Vec<Change>,
    done: Done,
}

/// Who hears that it is durable.
enum Done {
    Raft(LogFlushed<TypeConfig>),
    Caller(oneshot::Sender<Result<(), Failed>>),
    /// It goes with the next write, or alone after a while.
    Nobody,
}

impl Journal {
    pub fn start(disk: Disk) -> io::Result<Journal> {
        let (work, queue) = unbounded_channel();
        let trouble = Trouble::default();
        let writer = Writer {
            disk,
            trouble: trouble.clone(),
        };
        writer.start(queue)?;
        Ok(Journal { work, trouble })
    }

    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// `flushed` hears when they are durable.
    pub fn append(&self, changes: Vec<Change>, flushed: LogFlushed<TypeConfig>) {
        self.give(changes, Done::Raft(flushed));
    }

    /// Durable when it returns.
    pub async fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.give(changes, Done::Caller(sender));
        match receiver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other(Failed::Ended)),
        }
    }

    /// Durable soon.
    pub fn note(&self, change: Change) {
        self.give(vec![change], Done::Nobody);
    }

    fn give(&self, changes: Vec<Change>, done: Done) {
        if let Err(refused) = self.work.send(Work { changes, done }) {
            refused.0.done.tell(Err(&Failed::Ended));
        }
    }
}

/// Why something was not written.
#[derive(thiserror::Error, Clone, Debug)]
enum Failed {
    #[error(transparent)]
    Disk(Arc<DiskError>),
    #[error("the thread that writes the log has ended")]
    Ended,
}

impl Trouble {
    pub fn words(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, words: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }
}

impl Done {
    fn tell(self, result: Result<(), &Failed>) {
        match self {
            Done::Raft(flushed) => {
                flushed.log_io_completed(result.map_err(|error| io::Error::other(error.clone())))
            }
            Done::Caller(sender) => {
                let _ = sender.send(result.map_err(Failed::clone));
            }
            Done::Nobody => {}
        }
    }
}

struct Writer {
    disk: Disk,
    trouble: Trouble,
}

impl Writer {
    /// On a thread of its own, because a sync blocks. In tests the thread that owns the clock writes too: another one
    /// would not be waited for by a clock that is stopped, and would make two runs differ.
    fn start(self, queue: UnboundedReceiver<Work>) -> io::Result<()> {
        let shares_its_thread =
            cfg!(test) && Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        if shares_its_thread {
            Runtime::spawn(self.run(queue));
            return Ok(());
        }
        let runtime = Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || runtime.block_on(self.run(queue)))?;
        Ok(())
    }

    async fn run(mut self, mut queue: UnboundedReceiver<Work>) {
        let mut lazy: Vec<Change> = Vec::new();
        loop {
            let next = match lazy.is_empty() {
                true => Ok(queue.recv().await),
                false => timeout(LAZY_MAX, queue.recv()).await,
            };
            let (mut batch, last) = match next {
                Ok(Some(first)) => (gather(first, &mut queue), false),
                Ok(None) => (Vec::new(), true),
                Err(_) => (Vec::new(), false),
            };
            for work in &mut batch {
                lazy.append(&mut work.changes);
            }
            let is_waited_for = batch.iter().any(|work| !matches!(work.done, Done::Nobody));
            if !is_waited_for && !batch.is_empty() {
                continue;
            }
            let result = match lazy.is_empty() {
                true => Ok(()),
                false => self.commit(&std::mem::take(&mut lazy)).await,
            };
            let result = result.map_err(|error| Failed::Disk(Arc::new(error)));
            for work in batch {
                work.done.tell(result.as_ref().copied());
            }
            if last || result.is_err() {
                return;
            }
        }
    }

    /// Tries again for as long as the disk is full.
    async fn commit(&mut self, changes: &[Change]) -> Result<(), DiskError> {
        loop {
            match self.disk.commit(changes) {
                Err(error @ DiskError::Full { .. }) => {
                    if self.trouble.words().is_none() {
                        tracing::error!(%error, "nothing can be written until there is space");
                    }
                    self.trouble.set(Some(error.to_string()));
                    sleep(FULL_RETRY).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the log could not be written");
                    self.trouble.set(Some(error.to_string()));
                    return Err(error);
                }
                Ok(()) => {
                    if self.trouble.words().is_some() {
                        tracing::info!("there is space again, and what waited is written");
                    }
                    self.trouble.set(None);
                    return Ok(());
                }
            }
        }
    }
}

fn gather(first: Work, queue: &mut UnboundedReceiver<Work>) -> Vec<Work> {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        let Ok(work) = queue.try_recv() else { break };
        batch.push(work);
    }
    batch
}
