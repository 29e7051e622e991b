//! Hears what a shard host says, and notices when it has stopped saying anything.
//!
//! A process that is stopped, or whose host is, ends no pipe. One thread of every shard host says that it is there and does
//! nothing else, above those that compute, so how long a step takes does not matter.

use super::supervisor::read_frame;
use proto::engine::FromEngine;
use std::io;
use std::time::Duration;
use tokio::process::ChildStdout;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a shard host says that it is there.
pub const BEAT_EVERY: Duration = Duration::from_millis(500);
/// How often its node looks whether it did.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without a word until a process counts as hung. A thread that sleeps gets its turn within milliseconds also where all
/// cores compute; a host where it does not for seconds delays these looks as well.
const MISSED_MAX: u32 = 4;
/// The same before its first word: its program may have to come from a slow disk.
const MISSED_FIRST_MAX: u32 = 60;
/// Looks without anything but its being there until that is told: longer than any step and any percent of loading takes, on
/// the slowest machine.
pub const QUIET_LOOKS: u32 = 60;

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    Message(FromEngine),
    /// Nothing for a minute but that it is there.
    Quiet,
    /// It does not say any more that it is there.
    Hung,
    /// The pipe ended between two frames.
    Ended,
    Broken(io::Error),
}

/// The node's end of a shard host's pipe.
pub struct Ear {
    stdout: ChildStdout,
    looks: Interval,
    patience: Patience,
}

impl Ear {
    pub fn new(stdout: ChildStdout) -> Ear {
        let mut looks = interval(LOOK_EVERY);
        // A node that was stopped itself has looked once, not as often as it would have.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ear {
            stdout,
            looks,
            patience: Patience::new(),
        }
    }

    /// Waits for the next thing worth telling. Not to be dropped while it waits and then called again: a part of a frame may
    /// be read.
    pub async fn next(&mut self) -> Heard {
        let Ear {
            stdout,
            looks,
            patience,
        } = self;
        loop {
            let reading = read_frame(stdout);
            tokio::pin!(reading);
            let read = loop {
                tokio::select! {
                    // What has been said counts before what has been missed.
                    biased;
                    read = &mut reading => break read,
                    _ = looks.tick() => match patience.looked() {
                        Finding::Fine => {}
                        Finding::Quiet => return Heard::Quiet,
                        Finding::Hung => return Heard::Hung,
                    },
                }
            };
            match read {
                Ok(Some(FromEngine::Alive)) => patience.beat(),
                Ok(Some(message)) => {
                    patience.said();
                    return Heard::Message(message);
                }
                Ok(None) => return Heard::Ended,
                Err(error) => return Heard::Broken(error),
            }
        }
    }
}

/// Counts looks rather than seconds: a node that does not get to look cannot know.
struct Patience {
    /// Looks since the last word of any kind.
    missed: u32,
    missed_max: u32,
    /// Looks since the last word that was more than a beat.
    quiet: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding {
    Fine,
    Quiet,
    Hung,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            missed: 0,
            missed_max: MISSED_FIRST_MAX,
            quiet: 0,
        }
    }

    fn beat(&mut self) {
        self.missed = 0;
        self.missed_max = MISSED_MAX;
    }

    fn said(&mut self) {
        self.beat();
        self.quiet = 0;
    }

    fn looked(&mut self) -> Finding {
        self.missed += 1;
        self.quiet += 1;
        if self.missed > self.missed_max {
            return Finding::Hung;
        }
        match self.quiet > QUIET_LOOKS {
            true => {
                self.quiet = 0;
                Finding::Quiet
            }
            false => Finding::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(patience: &mut Patience, count: u32) -> Vec<Finding> {
        (0..count).map(|_| patience.looked()).collect()
    }

    #[test]
    fn a_process_that_says_nothing_for_several_looks_is_hung() {
        let mut patience = Patience::new();
        patience.beat();
        assert_eq!(
            looks(&mut patience, 5),
            [[Finding::Fine; 4].as_slice(), &[Finding::Hung]].concat()
        );
    }

    #[test]
    fn a_beat_now_and_then_is_enough() {
        let mut patience = Patience::new();
        for _ in 0..10 {
            assert_eq!(looks(&mut patience, 4), [Finding::Fine; 4]);
            patience.beat();
        }
    }

    #[test]
    fn a_program_may_take_a_while_to_start() {
        let mut patience = Patience::new();
        assert_eq!(looks(&mut patience, 60), [Finding::Fine; 60]);
        assert_eq!(patience.looked(), Finding::Hung);
    }

    #[test]
    fn that_it_does_nothing_else_for_long_is_told_each_time() {
        let mut patience = Patience::new();
        for _ in 0..2 {
            for _ in 0..60 {
                patience.beat();
                assert_eq!(patience.looked(), Finding::Fine);
            }
            patience.beat();
            assert_eq!(patience.looked(), Finding::Quiet);
        }
        patience.said();
        assert_eq!(patience.looked(), Finding::Fine);
    }
}
