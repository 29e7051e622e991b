//! tokio, for nodes that can stand still and go on, and whose clocks can jump.

use openraft::{AsyncRuntime, Instant, OptionalSend, TokioInstant, TokioRuntime};
use std::cell::RefCell;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One run of a node, seen as a process: when it is stopped (SIGSTOP), none of its tasks goes on, while time does. Clones
/// are the same process.
#[derive(Clone, Default)]
pub struct Process(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    is_stopped: bool,
    /// Of tasks that would have gone on meanwhile.
    waiting: Vec<Waker>,
    /// Of the clock of its Raft before that of everybody else.
    ahead: Duration,
}

impl Process {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn stop(&self) {
        self.inner().is_stopped = true;
    }

    pub fn go_on(&self) {
        let waiting = {
            let mut inner = self.inner();
            inner.is_stopped = false;
            std::mem::take(&mut inner.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub fn is_stopped(&self) -> bool {
        self.inner().is_stopped
    }

    /// Its clock, which nothing sets back, goes forward at once.
    pub fn jump(&self, by: Duration) {
        self.inner().ahead += by;
    }

    /// A part of what it does; the tasks that this starts belong to it too.
    pub fn does<F: Future>(&self, work: F) -> Doing<F> {
        Doing {
            process: self.clone(),
            work: Box::pin(work),
        }
    }
}

pub struct Doing<F> {
    process: Process,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Doing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut inner = self.process.inner();
            if inner.is_stopped {
                inner.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let _within = Within::enter(&self.process);
        self.work.as_mut().poll(context)
    }
}

thread_local! {
    /// Whose task this thread is running.
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

fn current() -> Option<Process> {
    CURRENT.with_borrow(Clone::clone)
}

fn ahead() -> Duration {
    current().map_or(Duration::ZERO, |process| process.inner().ahead)
}

/// On drop the thread goes back to whose it was, whether or not the task panicked.
struct Within(Option<Process>);

impl Within {
    fn enter(process: &Process) -> Within {
        Within(CURRENT.replace(Some(process.clone())))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoppableRuntime;

impl AsyncRuntime for StoppableRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = NodeInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match current() {
            Some(process) => TokioRuntime::spawn(process.does(future)),
            None => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: NodeInstant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline.of_all())
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: NodeInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline.of_all(), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

/// As the clock of one node has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeInstant(TokioInstant);

impl NodeInstant {
    /// When everybody's clock says so: now, where it is past after a jump.
    fn of_all(self) -> TokioInstant {
        self.0
            .checked_sub(ahead())
            .unwrap_or_else(<TokioInstant as Instant>::now)
    }
}

impl Instant for NodeInstant {
    fn now() -> NodeInstant {
        NodeInstant(<TokioInstant as Instant>::now() + ahead())
    }
}

impl Add<Duration> for NodeInstant {
    type Output = NodeInstant;

    fn add(self, duration: Duration) -> NodeInstant {
        NodeInstant(self.0 + duration)
    }
}

impl AddAssign<Duration> for NodeInstant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for NodeInstant {
    type Output = NodeInstant;

    fn sub(self, duration: Duration) -> NodeInstant {
        NodeInstant(self.0 - duration)
    }
}

impl Sub<NodeInstant> for NodeInstant {
    type Output = Duration;

    fn sub(self, earlier: NodeInstant) -> Duration {
        self.0 - earlier.0
    }
}

impl SubAssign<Duration> for NodeInstant {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}
