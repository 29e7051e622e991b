//! What a rank sees of a stream's grammar.

use super::follower::{Cost, Follower, Lost};
use super::masks::MaskThreads;
use proto::{Attempt, Position, StreamId};
use shard::{Constraint, Mask};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One stream's way through its grammar. Dropping it forgets the way.
pub struct StreamConstraint {
    course: Arc<Course>,
    threads: Arc<MaskThreads>,
}

/// What rank and mask thread share.
pub struct Course {
    stream: StreamId,
    attempt: Attempt,
    threads: std::sync::Weak<MaskThreads>,
    /// Held by the thread that computes the next mask; `None` after the end.
    follower: Mutex<Option<Box<Follower>>>,
    here: Mutex<Here>,
}

struct Here {
    position: Position,
    mask: Mask,
    /// A rank was told [`Mask::Late`], so the engine has to be told when it is there.
    is_awaited: bool,
    /// Of the largest mask so far: a grammar is no lighter later.
    cost: Cost,
}

impl StreamConstraint {
    /// Replays `output`, which the stream has already, and computes the mask that follows it.
    pub fn new(
        stream: StreamId,
        attempt: Attempt,
        mut follower: Follower,
        output: &[u32],
        threads: &Arc<MaskThreads>,
    ) -> Result<StreamConstraint, Lost> {
        for token in output {
            follower.accept(*token)?;
        }
        let mask = mask_of(&mut follower);
        let here = Here {
            position: Position(output.len() as u32),
            mask,
            is_awaited: false,
            cost: follower.cost(),
        };
        let course = Course {
            stream,
            attempt,
            threads: Arc::downgrade(threads),
            follower: Mutex::new(Some(Box::new(follower))),
            here: Mutex::new(here),
        };
        Ok(StreamConstraint {
            course: Arc::new(course),
            threads: Arc::clone(threads),
        })
    }
}

impl Constraint for StreamConstraint {
    fn mask(&self, position: Position) -> Mask {
        let mut here = self.course.here();
        assert_eq!(position, here.position, "masks are asked for in order");
        here.is_awaited = matches!(here.mask, Mask::Late);
        here.mask.clone()
    }

    fn accept(&self, token: u32) {
        let cost = {
            let mut here = self.course.here();
            here.position = Position(here.position.0 + 1);
            here.mask = Mask::Late;
            here.cost
        };
        self.threads.advance(&self.course, token, cost);
    }
}

impl Drop for StreamConstraint {
    fn drop(&mut self) {
        // Not while a mask is being computed: then that thread has it, and drops it.
        if let Ok(mut follower) = self.course.follower.try_lock()
            && let Some(follower) = follower.take()
        {
            self.threads.free(follower);
        }
    }
}

impl fmt::Debug for StreamConstraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StreamConstraint({})", self.course.stream)
    }
}

impl Course {
    /// On a mask thread: takes `token` in and computes what may follow it.
    pub fn advance(&self, token: u32) {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(follower) = follower.as_mut() else { return };
        let mask = match follower.accept(token) {
            Ok(()) => mask_of(follower),
            Err(lost) => failed(&lost),
        };
        let is_awaited = {
            let mut here = self.here();
            here.mask = mask;
            if follower.cost() == Cost::Large {
                here.cost = Cost::Large;
            }
            std::mem::take(&mut here.is_awaited)
        };
        if is_awaited && let Some(threads) = self.threads.upgrade() {
            (threads.resume)(self.stream, self.attempt);
        }
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        // Nothing panics while it is held but a broken invariant of its owner.
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mask_of(follower: &mut Follower) -> Mask {
    match follower.mask() {
        Ok(mask) => Mask::Ready(Arc::new(mask)),
        Err(lost) => failed(&lost),
    }
}

fn failed(lost: &Lost) -> Mask {
    tracing::info!(reason = %lost, "a grammar cannot be followed any further");
    Mask::Failed
}
