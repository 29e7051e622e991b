//! What is promised about any input: no panic, at most 100 ms of computing for each started 64 KiB, and at most eight
//! times its bytes of memory beside a constant, which each target names.
//!
//! The build is slower than the one that ships (instruments, overflow checks), so what passes here passes there.

use crate::memory::peak_bytes;
use rustix::time::{ClockId, clock_gettime};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

const PORTION_BYTES: usize = 64 << 10;
const PORTION_TIME_MAX: Duration = Duration::from_millis(100);
const MEMORY_FACTOR: usize = 8;

/// Input of `bytes`, on which `work` is done. It is done again before a promise counts as broken: time, because others
/// use the machine too; memory, because some of it is made once and kept.
pub fn keep<T>(bytes: usize, memory_constant: usize, work: impl Fn() -> T) -> T {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| drop(without_panic(&work)));
    without_panic(|| kept(bytes, memory_constant, &work))
}

/// A panic that is caught where it comes from, as those of other people's code are, is none.
pub fn without_panic<T>(work: impl FnOnce() -> T) -> T {
    static FIRST: Once = Once::new();
    FIRST.call_once(hold_back_panics);
    match watched(work) {
        Ok(done) => done,
        Err(_) => {
            eprintln!("{}", LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
            std::process::abort();
        }
    }
}

static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn watched<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    IS_WATCHED.store(true, Relaxed);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_WATCHED.store(false, Relaxed);
    done
}

/// libFuzzer's hook ends the process at once.
fn hold_back_panics() {
    let at_once = take_hook();
    set_hook(Box::new(move |panic| match IS_WATCHED.load(Relaxed) {
        true => *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string(),
        false => at_once(panic),
    }));
}

fn kept<T>(bytes: usize, memory_constant: usize, work: impl Fn() -> T) -> T {
    let started = Instant::now();
    let (done, peak) = peak_bytes(&work);
    let time = started.elapsed();
    let time_max = PORTION_TIME_MAX * bytes.div_ceil(PORTION_BYTES).max(1) as u32;
    if time > time_max {
        let again = computing_time(&work).min(computing_time(&work));
        assert!(
            again <= time_max,
            "it takes {again:?}; at most {time_max:?} are promised"
        );
    }
    let peak_max = MEMORY_FACTOR * bytes + memory_constant;
    if peak > peak_max {
        let (_, again) = peak_bytes(&work);
        assert!(
            again <= peak_max,
            "it takes {again} bytes; at most {peak_max} are promised"
        );
    }
    record(
        peak.saturating_sub(MEMORY_FACTOR * bytes),
        time / bytes.div_ceil(PORTION_BYTES).max(1) as u32,
    );
    done
}

fn computing_time<T>(work: impl Fn() -> T) -> Duration {
    let now =
        || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a thread's time is positive");
    let before = now();
    drop(work());
    now() - before
}

/// Tells, on stderr, how near the promises come to being broken.
fn record(constant: usize, time: Duration) {
    static CONSTANT: AtomicU64 = AtomicU64::new(16 << 10);
    static MICROS: AtomicU64 = AtomicU64::new(5_000);
    for (greatest, now, what) in [
        (&CONSTANT, constant as u64, "bytes beside eight times the input"),
        (
            &MICROS,
            time.as_micros() as u64,
            "µs for each started 64 KiB (wall)",
        ),
    ] {
        if now > greatest.load(Relaxed) * 5 / 4 {
            greatest.store(now, Relaxed);
            eprintln!("most so far: {now} {what}");
        }
    }
}
