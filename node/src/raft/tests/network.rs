use super::drive::Drive;
use super::stoppable::Process;
use crate::raft::disk::tests::dice::Dice;
use crate::raft::{LinkError, Links, Member};
use proto::NodeId;
use proto::cluster::Proposal;
use proto::raft::{CommandAnswer, RaftAnswer, RaftRequest, ReadAnswer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// Every way between the nodes. What becomes of each message is drawn from the seed. Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Inner>>);

struct Inner {
    stations: BTreeMap<NodeId, Station>,
    /// (from, to): nothing gets through.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// (from, to): what is under way waits, and then arrives in any order.
    held: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
    /// By (who asks, of whom).
    seen: BTreeMap<(NodeId, NodeId), Instant>,
    dice: Dice,
}

/// One run of a node, reached for as long as its drive is on.
#[derive(Clone)]
struct Station {
    member: Member<MemoryLinks>,
    drive: Drive,
    process: Process,
}

/// What happens to messages where nothing is cut.
#[derive(Clone, Debug)]
pub struct Weather {
    pub delay_micros: Range<u64>,
    pub lost_per_mille: u64,
    /// Messages of Raft that also arrive a second time, up to [`HELD_MILLIS_MAX`] later, when terms have passed.
    pub held_per_mille: u64,
}

const HELD_MILLIS_MAX: u64 = 10_000;

impl Weather {
    pub fn fair() -> Weather {
        Weather {
            delay_micros: 100..1_000,
            lost_per_mille: 0,
            held_per_mille: 0,
        }
    }

    pub fn foul() -> Weather {
        Weather {
            delay_micros: 100..20_000,
            lost_per_mille: 50,
            held_per_mille: 20,
        }
    }
}

impl Network {
    pub fn new(seed: u64) -> Network {
        Network(Arc::new(Mutex::new(Inner {
            stations: BTreeMap::new(),
            cuts: BTreeSet::new(),
            held: BTreeSet::new(),
            weather: Weather::fair(),
            seen: BTreeMap::new(),
            dice: Dice::new(seed),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn links(&self, from: NodeId, drive: &Drive) -> MemoryLinks {
        MemoryLinks {
            network: self.clone(),
            from,
            drive: drive.clone(),
        }
    }

    /// From now on it is reached.
    pub fn attach(&self, member: Member<MemoryLinks>, drive: &Drive, process: Process) {
        let (node, drive) = (member.id, drive.clone());
        let station = Station {
            member,
            drive,
            process,
        };
        self.inner().stations.insert(node, station);
    }

    /// `None`: it never was. Nothing holds up its end.
    pub fn detach(&self, node: NodeId) -> Option<Member<MemoryLinks>> {
        let station = self.inner().stations.remove(&node)?;
        station.process.go_on();
        Some(station.member)
    }

    fn station(&self, node: NodeId) -> Option<Station> {
        let station = self.inner().stations.get(&node).cloned();
        station.filter(|station| !station.drive.is_off())
    }

    /// With the drive that it runs on.
    pub fn member(&self, node: NodeId) -> Option<(Member<MemoryLinks>, Drive)> {
        let station = self.station(node);
        station.map(|station| (station.member, station.drive))
    }

    /// Of a node that runs, be it stopped or not.
    pub fn process(&self, node: NodeId) -> Option<Process> {
        self.station(node).map(|station| station.process)
    }

    /// Everybody who was stopped goes on.
    pub fn go_on(&self) {
        let stations: Vec<Station> = self.inner().stations.values().cloned().collect();
        stations.iter().for_each(|station| station.process.go_on());
    }

    /// Those that run.
    pub fn nodes(&self) -> Vec<NodeId> {
        let inner = self.inner();
        let running = inner
            .stations
            .iter()
            .filter(|(_, station)| !station.drive.is_off());
        running.map(|(node, _)| *node).collect()
    }

    pub fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// One way only.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.inner().cuts.insert((from, to));
    }

    /// Neither way.
    pub fn part(&self, some: &[NodeId], others: &[NodeId]) {
        let mut inner = self.inner();
        for one in some {
            for other in others {
                inner.cuts.insert((*one, *other));
                inner.cuts.insert((*other, *one));
            }
        }
    }

    /// One way only: nothing arrives, and nothing is lost, until it is let through.
    pub fn hold(&self, from: NodeId, to: NodeId) {
        self.inner().held.insert((from, to));
    }

    /// What was held arrives, in any order and perhaps when nobody waits for it any more.
    pub fn let_through(&self) {
        self.inner().held.clear();
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.inner().cuts.clear();
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.inner().cuts.contains(&(from, to))
    }

    fn is_held(&self, from: NodeId, to: NodeId) -> bool {
        self.inner().held.contains(&(from, to))
    }

    async fn wait_while_held(&self, from: NodeId, to: NodeId) {
        while self.is_held(from, to) {
            let micros = 1_000 + self.inner().dice.below(20_000);
            sleep(Duration::from_micros(micros)).await;
        }
    }

    /// `None`: it is lost. As drawn for one message.
    fn fate(&self) -> Option<Duration> {
        let mut inner = self.inner();
        let Weather {
            delay_micros,
            lost_per_mille,
            ..
        } = inner.weather.clone();
        let is_lost = inner.dice.below(1_000) < lost_per_mille;
        let spread = delay_micros.end - delay_micros.start;
        let delay = Duration::from_micros(delay_micros.start + inner.dice.below(spread));
        (!is_lost).then_some(delay)
    }

    /// `None`: it comes once.
    fn held(&self) -> Option<Duration> {
        let mut inner = self.inner();
        let is_held = inner.dice.below(1_000) < inner.weather.held_per_mille;
        let delay = Duration::from_millis(inner.dice.below(HELD_MILLIS_MAX));
        is_held.then_some(delay)
    }

    /// Of two ways in which a message does not arrive: the connection is known to be gone, or nothing is known.
    fn is_known_to_be_gone(&self) -> bool {
        self.inner().dice.below(2) == 0
    }
}

/// The ways from one run of a node.
#[derive(Clone)]
pub struct MemoryLinks {
    network: Network,
    from: NodeId,
    drive: Drive,
}

impl MemoryLinks {
    /// What was sent goes its way, whether or not the sender waits.
    async fn call<T, F>(
        &self,
        to: NodeId,
        within: Duration,
        serve: impl FnOnce(Member<MemoryLinks>) -> F + Send + 'static,
    ) -> Result<T, LinkError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let unreachable = |reason: &str| LinkError::Unreachable {
            node: to,
            reason: reason.to_owned(),
        };
        if self.drive.is_off() {
            return Err(unreachable("this node is dead"));
        }
        let is_out_of_reach = self.network.is_cut(self.from, to) || self.network.member(to).is_none();
        if is_out_of_reach && self.network.is_known_to_be_gone() {
            return Err(unreachable("no connection"));
        }
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(self.clone().carry(to, serve, sender));
        let lost = |reason: &str| LinkError::Unanswered {
            node: to,
            reason: reason.to_owned(),
        };
        match timeout(within, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(lost("the connection was lost")),
            Err(_) => Err(lost("no answer in time")),
        }
    }

    async fn carry<T, F>(
        self,
        to: NodeId,
        serve: impl FnOnce(Member<MemoryLinks>) -> F,
        sender: oneshot::Sender<T>,
    ) where
        F: Future<Output = T>,
    {
        let Some(answer) = self.carry_there(to, serve).await else {
            // A lost message is not noticed by itself: the sender waits as long as it cares to.
            sleep(Duration::from_secs(20)).await;
            return;
        };
        let _ = sender.send(answer);
    }

    /// `None`: the message or its answer was lost.
    async fn carry_there<T, F>(&self, to: NodeId, serve: impl FnOnce(Member<MemoryLinks>) -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        sleep(self.network.fate()?).await;
        self.network.wait_while_held(self.from, to).await;
        if self.drive.is_off() || self.network.is_cut(self.from, to) {
            return None;
        }
        let station = self.network.station(to)?;
        let served = station.process.does(serve(station.member));
        let answer = tokio::select! {
            biased;
            () = station.drive.turned_off() => return None,
            answer = served => answer,
        };
        if station.drive.is_off() {
            return None;
        }
        sleep(self.network.fate()?).await;
        self.network.wait_while_held(to, self.from).await;
        (!self.network.is_cut(to, self.from) && !self.drive.is_off()).then_some(answer)
    }
}

impl Links for MemoryLinks {
    async fn raft(
        &self,
        to: NodeId,
        request: RaftRequest,
        within: Duration,
    ) -> Result<RaftAnswer, LinkError> {
        if let Some(delay) = self.network.held() {
            let (network, from, again) = (self.network.clone(), self.from, request.clone());
            tokio::spawn(async move {
                sleep(delay).await;
                if let Some(station) = network.station(to).filter(|_| !network.is_cut(from, to)) {
                    let Station { member, process, .. } = station;
                    process.does(member.answer(again)).await;
                }
            });
        }
        let serve = |member: Member<MemoryLinks>| async move { member.answer(request).await };
        self.call(to, within, serve).await
    }

    async fn command(
        &self,
        to: NodeId,
        proposal: Proposal,
        within: Duration,
    ) -> Result<CommandAnswer, LinkError> {
        let serve = |member: Member<MemoryLinks>| async move { member.commit_here(proposal).await };
        self.call(to, within, serve).await
    }

    async fn read_index(&self, to: NodeId, within: Duration) -> Result<ReadAnswer, LinkError> {
        let serve = |member: Member<MemoryLinks>| async move { member.read_index_here().await };
        self.call(to, within, serve).await
    }

    fn silent(&self, node: NodeId) -> Duration {
        let is_reached = !self.network.is_cut(self.from, node)
            && !self.network.is_cut(node, self.from)
            && !self.network.is_held(node, self.from)
            && (self.network.process(node)).is_some_and(|process| !process.is_stopped());
        let now = Instant::now();
        let mut inner = self.network.inner();
        let last = inner.seen.entry((self.from, node)).or_insert(now);
        if is_reached {
            *last = now;
        }
        now - *last
    }
}
