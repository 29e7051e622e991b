//! One generic actor runs any decider: read the clock, handle, perform each action, re-arm one timer.
//!
//! ractor's mailboxes have no bound, so the bound is at the door: a [`Mailbox`] hands out a fixed number of credits,
//! and a message carries its credit until it has been handled. Producers that cannot wait (a dropped client) may send
//! without one; each such message is owed to something that was admitted with a credit, so they are bounded as well.

use crate::clock::Clock;
use coordinator::Machine;
use proto::Time;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// What a decider's actions act upon.
pub trait World<M: Machine>: Send + 'static {
    /// What producers send: an event and the contents that the decider must not see.
    type Message: Send + 'static;

    /// Keeps the contents for the actions to come and gives the event, or nothing where there is none.
    fn open(&mut self, message: Self::Message) -> Option<M::Event>;
    /// Does what was decided. Must not block. What follows from it at once goes to `events`.
    fn perform(&mut self, action: M::Action, events: &mut Vec<M::Event>);
    /// Everything that followed from a message has been performed.
    fn settled(&mut self);
}

/// Runs the machine for as long as the runtime lives.
/// The handle completes when the actor has ended, which only a fault of its own makes it do.
pub async fn spawn<M, W>(
    machine: M,
    world: W,
    clock: Clock,
    credits: usize,
) -> Result<(Mailbox<W::Message>, JoinHandle<()>), ractor::SpawnErr>
where
    M: Machine + Send + Sync + 'static,
    M::Event: Send,
    M::Action: Send,
    W: World<M> + Sync,
{
    let running = Running {
        machine,
        world,
        clock,
        timer: None,
        actions: Vec::new(),
    };
    let (actor, task) = MachineActor::spawn(None, MachineActor(PhantomData), running).await?;
    Ok((
        Mailbox {
            actor,
            credits: Arc::new(Semaphore::new(credits)),
        },
        task,
    ))
}

/// The producers' side.
pub struct Mailbox<T: Send + 'static> {
    actor: ActorRef<Letter<T>>,
    credits: Arc<Semaphore>,
}

impl<T: Send + 'static> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Mailbox {
            actor: self.actor.clone(),
            credits: Arc::clone(&self.credits),
        }
    }
}

impl<T: Send + 'static> Mailbox<T> {
    /// Waits for a credit. A message to an actor that has ended is lost, as with any process that has ended.
    pub async fn send(&self, message: T) {
        let credit = Arc::clone(&self.credits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let _ = self.actor.cast(Letter::Message {
            message,
            _credit: Some(credit),
        });
    }

    /// For what is owed to something already admitted: see the module's words.
    pub fn send_owed(&self, message: T) {
        let _ = self.actor.cast(Letter::Message {
            message,
            _credit: None,
        });
    }
}

/// What lies in the mailbox.
pub enum Letter<T> {
    Message {
        message: T,
        _credit: Option<OwnedSemaphorePermit>,
    },
    Alarm,
}

struct MachineActor<M, W>(PhantomData<fn() -> (M, W)>);

struct Running<M: Machine, W> {
    machine: M,
    world: W,
    clock: Clock,
    timer: Option<(Time, JoinHandle<()>)>,
    /// Kept between messages so as not to allocate for each.
    actions: Vec<M::Action>,
}

impl<M, W> Actor for MachineActor<M, W>
where
    M: Machine + Send + Sync + 'static,
    M::Event: Send,
    M::Action: Send,
    W: World<M> + Sync,
{
    type Msg = Letter<W::Message>;
    type State = Running<M, W>;
    type Arguments = Running<M, W>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        running: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(running)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        letter: Self::Msg,
        running: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match letter {
            Letter::Message { message, _credit } => running.take(message),
            Letter::Alarm => running.alarm(),
        }
        running.world.settled();
        running.arm(&myself);
        Ok(())
    }
}

impl<M: Machine, W: World<M>> Running<M, W> {
    fn take(&mut self, message: W::Message) {
        if let Some(event) = self.world.open(message) {
            self.machine.handle(self.clock.now(), event, &mut self.actions);
            self.follow();
        }
    }

    /// An alarm that was set for a deadline since moved wakes nobody.
    fn alarm(&mut self) {
        let now = self.clock.now();
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.machine.wake(now, &mut self.actions);
            self.follow();
        }
    }

    /// Performs what was decided, then hands over what followed from that, until nothing follows.
    fn follow(&mut self) {
        let mut events = Vec::new();
        loop {
            for action in self.actions.drain(..) {
                self.world.perform(action, &mut events);
            }
            if events.is_empty() {
                return;
            }
            for event in events.drain(..) {
                self.machine.handle(self.clock.now(), event, &mut self.actions);
            }
        }
    }

    fn arm(&mut self, myself: &ActorRef<Letter<W::Message>>) {
        let deadline = self.machine.deadline();
        if let (Some(deadline), Some((armed, timer))) = (deadline, &self.timer)
            && *armed == deadline
            && !timer.is_finished()
        {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
        self.timer = deadline.map(|deadline| (deadline, alarm_at(deadline, self.clock, myself.clone())));
    }
}

fn alarm_at<T: Send + 'static>(deadline: Time, clock: Clock, actor: ActorRef<Letter<T>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Timers of the runtime may fire early by less than a tick; the clock of the deciders is what counts.
        while clock.now() < deadline {
            tokio::time::sleep(Duration::from_nanos(deadline.since(clock.now()).0)).await;
        }
        let _ = actor.cast(Letter::Alarm);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Span;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    /// Adds up; says the sum when it is odd, and a while after the last number.
    #[derive(Default)]
    struct Adder {
        sum: u32,
        due: Option<Time>,
    }

    #[derive(PartialEq, Debug)]
    enum Said {
        Odd(u32),
        Quiet(u32),
    }

    impl Machine for Adder {
        type Event = u32;
        type Action = Said;

        fn handle(&mut self, now: Time, number: u32, out: &mut Vec<Said>) {
            self.sum += number;
            self.due = Some(now + Span::from_millis(20));
            if self.sum % 2 == 1 {
                out.push(Said::Odd(self.sum));
            }
        }

        fn wake(&mut self, now: Time, out: &mut Vec<Said>) {
            assert!(self.due.is_some_and(|due| due <= now), "woken too early");
            self.due = None;
            out.push(Said::Quiet(self.sum));
        }

        fn deadline(&self) -> Option<Time> {
            self.due
        }
    }

    /// Answers 7 with one more event, and tells everything.
    struct Ear(UnboundedSender<Said>);

    impl World<Adder> for Ear {
        type Message = &'static str;

        fn open(&mut self, message: &'static str) -> Option<u32> {
            message.parse().ok()
        }

        fn perform(&mut self, action: Said, events: &mut Vec<u32>) {
            if action == Said::Odd(7) {
                events.push(4);
            }
            self.0.send(action).unwrap();
        }

        fn settled(&mut self) {}
    }

    async fn adder(credits: usize) -> (Mailbox<&'static str>, UnboundedReceiver<Said>) {
        let (sender, receiver) = unbounded_channel();
        let (mailbox, _task) = spawn(Adder::default(), Ear(sender), Clock::start(), credits)
            .await
            .unwrap();
        (mailbox, receiver)
    }

    #[tokio::test]
    async fn events_become_actions_in_order_and_what_follows_is_handled_at_once() {
        let (mailbox, mut said) = adder(8).await;
        for message in ["1", "no number", "6", "2"] {
            mailbox.send(message).await;
        }
        assert_eq!(said.recv().await, Some(Said::Odd(1)));
        assert_eq!(said.recv().await, Some(Said::Odd(7)));
        assert_eq!(said.recv().await, Some(Said::Odd(11)));
        assert_eq!(said.recv().await, Some(Said::Odd(13)));
    }

    #[tokio::test]
    async fn the_deadline_wakes_once_and_later_events_move_it() {
        let (mailbox, mut said) = adder(8).await;
        mailbox.send("2").await;
        mailbox.send_owed("4");
        assert_eq!(said.recv().await, Some(Said::Quiet(6)));
        mailbox.send("2").await;
        assert_eq!(said.recv().await, Some(Said::Quiet(8)));
    }

    #[tokio::test]
    async fn credits_come_back_when_messages_have_been_handled() {
        let (mailbox, mut said) = adder(1).await;
        for _ in 0..100 {
            mailbox.send("2").await;
        }
        assert_eq!(said.recv().await, Some(Said::Quiet(200)));
        assert_eq!(mailbox.credits.available_permits(), 1);
    }
}
