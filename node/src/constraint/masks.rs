//! The threads that compute masks while the ranks compute logits.
//!
//! A mask depends on tokens alone, so it can be computed as soon as the token before it is known. Two threads share the
//! work: one beside the ranks for masks that take microseconds, and one of the lowest priority for streams whose masks
//! have turned out to be large, so that these delay nobody: neither a forward pass nor a small mask.

use super::STACK_BYTES;
use super::follower::{Cost, Follower};
use super::stream::Course;
use crate::os;
use proto::{Attempt, StreamId};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

/// Told when a mask is there for which a rank came too early.
pub type Resume = dyn Fn(StreamId, Attempt) + Send + Sync;

/// Its queues hold one job for each stream at most, and the engine bounds streams.
pub struct MaskThreads {
    quick: Sender<Job>,
    slow: Sender<Job>,
    pub resume: Box<Resume>,
}

enum Job {
    /// A stream that has ended by then needs no mask.
    Advance { course: Weak<Course>, token: u32 },
    /// Freeing a large grammar takes a while too.
    Free(Box<Follower>),
}

impl MaskThreads {
    /// The threads end when the last stream is gone and this is dropped.
    pub fn start(resume: Box<Resume>) -> io::Result<Arc<MaskThreads>> {
        let (quick, quick_jobs) = channel();
        let (slow, slow_jobs) = channel();
        start("masks", quick_jobs, os::priority::below_control_plane)?;
        start("large-masks", slow_jobs, os::priority::below_computing)?;
        Ok(Arc::new(MaskThreads { quick, slow, resume }))
    }

    pub fn advance(&self, course: &Arc<Course>, token: u32, cost: Cost) {
        let job = Job::Advance {
            course: Arc::downgrade(course),
            token,
        };
        let queue = match cost {
            Cost::Small => &self.quick,
            Cost::Large => &self.slow,
        };
        queue.send(job).expect(LIVES);
    }

    pub fn free(&self, follower: Box<Follower>) {
        self.slow.send(Job::Free(follower)).expect(LIVES);
    }
}

const LIVES: &str = "a mask thread lives as long as somebody can send to it";

fn start(name: &str, jobs: Receiver<Job>, set_priority: fn()) -> io::Result<()> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES);
    thread.spawn(move || {
        set_priority();
        for job in jobs {
            match job {
                Job::Advance { course, token } => {
                    if let Some(course) = course.upgrade() {
                        course.advance(token);
                    }
                }
                Job::Free(follower) => drop(follower),
            }
        }
    })?;
    Ok(())
}
