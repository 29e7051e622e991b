//! A team of threads that share the work of one operation.
//!
//! Operations follow each other within microseconds, so members spin for the next one before they sleep. How work is
//! cut never changes a bit: every output is computed by one thread, in an order of its own.

use std::cell::UnsafeCell;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::thread::{self, JoinHandle};

use crate::cpu::shares::Shares;

/// Members: the calling thread (number 0) and `threads − 1` of its own. Dropping the team ends them.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Team {
    /// `start` is called once on each new thread with its number (1 ..), before any work: for pinning and priorities.
    /// Errors: the operating system gave no thread.
    ///
    /// # Panics
    /// When `threads` is 0.
    pub fn new(threads: usize, start: fn(usize)) -> io::Result<Team> {
        assert!(threads > 0, "a team has at least its caller");
        let shared = Arc::new(Shared::new(threads));
        let mut team = Team {
            shared,
            workers: Vec::new(),
        };
        for number in 1..threads {
            let shared = Arc::clone(&team.shared);
            let builder = thread::Builder::new().name(format!("team-{number}"));
            team.workers.push(builder.spawn(move || {
                start(number);
                shared.serve(number);
            })?);
        }
        Ok(team)
    }

    /// A team of the caller alone.
    pub fn alone() -> Team {
        Team {
            shared: Arc::new(Shared::new(1)),
            workers: Vec::new(),
        }
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(thread, threads)` once on every member and returns when all have returned.
    ///
    /// # Panics
    /// When `work` panicked on any member.
    pub fn run(&mut self, work: impl Fn(usize, usize) + Sync) {
        match self.workers.is_empty() {
            true => work(0, 1),
            false => self.shared.run(&work, &self.workers),
        }
    }

    /// Calls `work` with runs that together are `0 .. total`, each once: every member works off its own part of them, and then helps
    /// whoever has most left. Where `operations` are too few to be worth waking anyone, the caller does all.
    ///
    /// # Panics
    /// When `work` panicked on any member, or there are more than 2³² units.
    pub fn share_out(&mut self, total: usize, operations: usize, work: impl Fn(Range<usize>) + Sync) {
        if self.workers.is_empty() || operations < OPERATIONS_MIN {
            return work(0..total);
        }
        let shares = &self.shared.shares;
        shares.deal(total);
        // Shorter ones would cost more to take than they even out.
        let least = total / (16 * self.threads());
        let take_all = |member: usize, _: usize| {
            while let Some(run) = shares.take(member, least) {
                work(run);
            }
        };
        self.shared.run(&take_all, &self.workers);
    }
}

/// Waking a spinning member takes about a microsecond, in which one thread does some thousands of operations.
const OPERATIONS_MIN: usize = 16 * 1024;

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.next_round(&self.workers);
        for worker in self.workers.drain(..) {
            // A member catches the panics of its work, so joining cannot fail; nothing is left to do if it did.
            let _ = worker.join();
        }
    }
}

struct Shared {
    /// What is to be done in this round, if it is shared out; dealt only between rounds.
    shares: Shares,
    /// Counts calls of `publish`; a change is the signal to work.
    round: AtomicUsize,
    /// The work of this round; written only between rounds.
    work: UnsafeCell<Option<Work>>,
    /// Members that have yet to finish this round, without the caller.
    pending: AtomicUsize,
    /// Which members sleep, by number; the caller never does.
    asleep: Vec<AtomicBool>,
    ended: AtomicBool,
    panicked: AtomicBool,
}

/// A borrowed closure whose lifetime was erased: `run` does not return before every member is done with it.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn(usize, usize) + Sync));

// SAFETY: `work` is written by the caller while all members wait: they acquire it through `round`, and release it
// through `pending`.
unsafe impl Sync for Shared {}
// SAFETY: the closure behind `Work` is `Sync`, and outlives the round.
unsafe impl Send for Shared {}

impl Shared {
    fn new(threads: usize) -> Shared {
        Shared {
            shares: Shares::new(threads),
            round: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            pending: AtomicUsize::new(0),
            asleep: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            ended: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        }
    }

    fn run(&self, work: &(dyn Fn(usize, usize) + Sync), workers: &[JoinHandle<()>]) {
        self.publish(work, workers);
        let own = catch_unwind(AssertUnwindSafe(|| work(0, self.asleep.len())));
        self.wait_until_done();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(
            !self.panicked.swap(false, Ordering::Relaxed),
            "a thread of the team panicked"
        );
    }

    fn publish<'a>(&self, work: &'a (dyn Fn(usize, usize) + Sync + 'a), workers: &[JoinHandle<()>]) {
        // SAFETY: only the lifetime changes; `run` waits until no member uses the reference any more.
        let work: *const (dyn Fn(usize, usize) + Sync) =
            unsafe { std::mem::transmute::<&'a (dyn Fn(usize, usize) + Sync + 'a), _>(work) };
        // SAFETY: the last round is over and the next not begun: no member reads `work`.
        unsafe { *self.work.get() = Some(Work(work)) };
        self.pending.store(workers.len(), Ordering::Relaxed);
        self.next_round(workers);
    }

    fn next_round(&self, workers: &[JoinHandle<()>]) {
        self.round.fetch_add(1, Ordering::Release);
        // Pairs with the fence in `wait_for_round_after`: either we see the member asleep, or it sees the new round.
        fence(Ordering::SeqCst);
        for (asleep, worker) in self.asleep[1..].iter().zip(workers) {
            if asleep.load(Ordering::Relaxed) {
                worker.thread().unpark();
            }
        }
    }

    /// A member's life.
    fn serve(&self, number: usize) {
        let mut round = 0;
        loop {
            self.wait_for_round_after(round, number);
            round = round.wrapping_add(1);
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            self.work_once(number);
        }
    }

    fn work_once(&self, number: usize) {
        // SAFETY: acquired through `round`; the caller writes it again only after `pending` came to 0.
        let work = unsafe { *self.work.get() }.expect("a round has work");
        // SAFETY: the caller keeps the closure alive until `pending` is 0.
        let work = unsafe { &*work.0 };
        if catch_unwind(AssertUnwindSafe(|| work(number, self.asleep.len()))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        self.pending.fetch_sub(1, Ordering::Release);
    }

    /// Spins until the round of `number` changes, then sleeps.
    fn wait_for_round_after(&self, round: usize, number: usize) {
        let changed = || self.round.load(Ordering::Acquire) != round;
        if spin_until(changed) {
            return;
        }
        let asleep = &self.asleep[number];
        asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `next_round`.
        fence(Ordering::SeqCst);
        while !changed() {
            thread::park();
        }
        asleep.store(false, Ordering::Relaxed);
    }

    /// The caller had a share like everyone's, so it waits little and needs no sleep; but it lets others run if the
    /// machine is crowded.
    fn wait_until_done(&self) {
        let done = || self.pending.load(Ordering::Acquire) == 0;
        while !spin_until(done) {
            thread::yield_now();
        }
    }
}

fn spin_until(done: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS_MAX {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    false
}

/// About 50 µs on a machine whose pause takes 40 ns or more.
const SPINS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn every_member_works_once_a_round() {
        for threads in [1, 2, 5] {
            let mut team = Team::new(threads, |_| ()).unwrap();
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..1000 {
                team.run(|thread, all| {
                    assert_eq!(all, threads);
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1000));
        }
    }

    #[test]
    fn a_team_that_slept_wakes_up() {
        let mut team = Team::new(3, |_| ()).unwrap();
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            team.run(|thread, _| {
                sum.fetch_add(thread, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 3);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_survives() {
        let mut team = Team::new(2, |_| ()).unwrap();
        for culprit in [0, 1] {
            let run = || team.run(|thread, _| assert_ne!(thread, culprit));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            team.run(|_, _| ());
        }
    }

    #[test]
    fn runs_cover_everything_once() {
        for (total, threads) in [(0, 3), (1, 4), (36, 5), (7, 7), (1000, 2)] {
            let mut team = Team::new(threads, |_| ()).unwrap();
            let counts: Vec<AtomicUsize> = (0..total).map(|_| AtomicUsize::new(0)).collect();
            team.share_out(total, OPERATIONS_MIN, |run| {
                for unit in run {
                    counts[unit].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_slow_member_is_not_waited_for() {
        let mut team = Team::new(2, |_| ()).unwrap();
        let others = AtomicUsize::new(0);
        team.share_out(100, OPERATIONS_MIN, |run| {
            if thread::current().name() == Some("team-1") {
                let patience = Instant::now() + Duration::from_secs(60);
                while others.load(Ordering::Relaxed) < 60 {
                    assert!(Instant::now() < patience, "the others wait too");
                    thread::yield_now();
                }
            } else {
                others.fetch_add(run.len(), Ordering::Relaxed);
            }
        });
    }
}
