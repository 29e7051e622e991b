use super::cluster::Cluster;
use super::drive::{Drive, some_loss};
use super::network::Weather;
use proto::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

const PAUSE_MILLIS_MAX: u64 = 2_500;
/// Longer than any lease or election lasts.
const JUMP_MILLIS_MAX: u64 = 10_000;

/// Everything that goes wrong with a cluster in some time, as its seed has it.
pub struct Chaos {
    pub cluster: Cluster,
    /// Nodes that are down, and after how many more rounds they come back.
    down: BTreeMap<NodeId, u64>,
    full: Vec<Drive>,
    pub tally: BTreeMap<&'static str, u32>,
}

impl Chaos {
    pub fn over(cluster: Cluster) -> Chaos {
        Chaos {
            cluster,
            down: BTreeMap::new(),
            full: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    pub async fn reign(&mut self, rounds: u32) {
        for _ in 0..rounds {
            let what = self.strike();
            *self.tally.entry(what).or_default() += 1;
            let pause = 100 + self.cluster.dice.below(PAUSE_MILLIS_MAX);
            sleep(Duration::from_millis(pause)).await;
            self.relent().await;
        }
    }

    fn strike(&mut self) -> &'static str {
        let nodes = self.cluster.network.nodes();
        let Some(victim) = self.one_of(&nodes) else {
            return "nobody is left";
        };
        match self.cluster.dice.below(5) {
            0 => self.strike_a_process(victim),
            1 => self.strike_a_disk(victim),
            2 => self.strike_time(victim),
            _ => self.strike_the_network(victim),
        }
    }

    fn strike_a_process(&mut self, victim: NodeId) -> &'static str {
        match self.cluster.dice.below(4) {
            0 => {
                self.kill(victim);
                "a kill"
            }
            1 => {
                if let Some(leader) = self.cluster.leader() {
                    self.kill(leader);
                }
                "a kill of the leader"
            }
            2 => {
                let syncs = self.cluster.dice.below(20);
                let loss = some_loss(&mut self.cluster.dice);
                self.cluster.drives[&victim].cut_power_after(syncs, loss);
                "a kill in the middle of a step"
            }
            _ => {
                for node in self.cluster.network.nodes() {
                    self.kill(node);
                }
                "a power cut of all"
            }
        }
    }

    fn strike_a_disk(&mut self, victim: NodeId) -> &'static str {
        let drive = self.cluster.drives[&victim].clone();
        match self.cluster.dice.below(2) {
            0 => {
                drive.fill();
                self.full.push(drive);
                "a full disk"
            }
            _ => {
                drive.fail_next_sync();
                "a failed sync"
            }
        }
    }

    fn strike_time(&mut self, victim: NodeId) -> &'static str {
        match self.cluster.dice.below(4) {
            0 => {
                self.stop(victim);
                "a pause"
            }
            1 => {
                if let Some(leader) = self.cluster.leader() {
                    self.stop(leader);
                }
                "a pause of the leader"
            }
            2 => {
                for node in self.cluster.network.nodes() {
                    self.stop(node);
                }
                "a pause of all"
            }
            _ => {
                let by = Duration::from_millis(self.cluster.dice.below(JUMP_MILLIS_MAX));
                if let Some(process) = self.cluster.network.process(victim) {
                    process.jump(by);
                }
                "a jump of a clock"
            }
        }
    }

    fn strike_the_network(&mut self, victim: NodeId) -> &'static str {
        let network = self.cluster.network.clone();
        let mut others = network.nodes();
        others.retain(|node| *node != victim);
        match self.cluster.dice.below(9) {
            0 => {
                network.part(&[victim], &others);
                "one node alone"
            }
            1 => {
                self.part_the_leader();
                "the leader in a minority"
            }
            2 => {
                if let Some(other) = self.one_of(&others) {
                    network.part(&[victim], &[other]);
                }
                "a bridge"
            }
            3 => {
                others.iter().for_each(|other| network.cut(victim, *other));
                "a node that is not heard"
            }
            4 => {
                others.iter().for_each(|other| network.cut(*other, victim));
                "a node that does not hear"
            }
            5 => {
                network.set_weather(Weather::foul());
                "foul weather"
            }
            6 => {
                others.iter().for_each(|other| network.hold(victim, *other));
                "messages held back"
            }
            7 => {
                others.iter().for_each(|other| network.hold(*other, victim));
                "answers held back"
            }
            _ => "nothing",
        }
    }

    fn stop(&self, node: NodeId) {
        if let Some(process) = self.cluster.network.process(node) {
            process.stop();
        }
    }

    fn one_of(&mut self, nodes: &[NodeId]) -> Option<NodeId> {
        match nodes.len() as u64 {
            0 => None,
            count => Some(nodes[self.cluster.dice.below(count) as usize]),
        }
    }

    fn kill(&mut self, node: NodeId) {
        let loss = some_loss(&mut self.cluster.dice);
        self.cluster.kill(node, loss);
        let rounds = self.cluster.dice.below(3);
        self.down.insert(node, rounds);
    }

    fn part_the_leader(&mut self) {
        let Some(leader) = self.cluster.leader() else {
            return;
        };
        let mut others = self.cluster.network.nodes();
        others.retain(|node| *node != leader);
        let mut minority = vec![leader];
        if others.len() >= 4 {
            minority.extend(others.pop());
        }
        self.cluster.network.part(&minority, &others);
    }

    /// Some of it gets better: in most rounds one fault meets the next.
    async fn relent(&mut self) {
        for dead in self.cluster.bury_the_dead() {
            self.down.insert(dead, 0);
        }
        if self.cluster.dice.below(3) != 0 {
            self.cluster.network.heal();
            self.cluster.network.set_weather(Weather::fair());
        }
        if self.cluster.dice.below(2) == 0 {
            self.cluster.network.go_on();
        }
        if self.cluster.dice.below(2) == 0 {
            self.cluster.network.let_through();
        }
        if self.cluster.dice.below(2) == 0 {
            self.make_room();
        }
        let back: Vec<NodeId> = self
            .down
            .iter()
            .filter(|(_, rounds)| **rounds == 0)
            .map(|(node, _)| *node)
            .collect();
        for node in back {
            self.down.remove(&node);
            self.start(node).await;
        }
        self.down.values_mut().for_each(|rounds| *rounds -= 1);
    }

    fn make_room(&mut self) {
        self.full.drain(..).for_each(|drive| drive.free());
    }

    /// It may die again while it starts.
    async fn start(&mut self, node: NodeId) {
        if let Err(error) = self.cluster.start(node).await {
            panic!("{node} did not start again on an undamaged disk: {error}");
        }
    }

    /// All faults end, and all nodes run.
    pub async fn end(&mut self) {
        self.cluster.network.heal();
        self.cluster.network.go_on();
        self.cluster.network.let_through();
        self.cluster.network.set_weather(Weather::fair());
        self.make_room();
        for dead in self.cluster.bury_the_dead() {
            self.down.insert(dead, 0);
        }
        while let Some((node, _)) = self.down.pop_first() {
            self.start(node).await;
        }
        // What was planned and has not come about.
        for drive in self.cluster.drives.values() {
            drive.forget_plans();
        }
    }
}
