//! What goes wrong with three real nodes, and gets better again.

use sim::Random;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;
use tests::{Fleet, until};

const NODES: usize = 3;
const KINDS: u64 = 8;
const PAUSE_MILLIS: (u64, u64) = (300, 2_000);
const HOURS_WRONG_MAX: u64 = 13;

pub struct Faults {
    fleet: Fleet,
    dice: Random,
    stopped: Vec<usize>,
    /// Kinds of faults that are still to come before any comes again.
    deck: Vec<u64>,
    pub tally: BTreeMap<&'static str, u32>,
}

impl Faults {
    pub fn over(fleet: Fleet, dice: Random) -> Faults {
        Faults {
            fleet,
            dice,
            stopped: Vec::new(),
            deck: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    /// Each kind comes, and none much more often than another. In most rounds one fault meets the next.
    pub fn reign(&mut self, rounds: u32) {
        for _ in 0..rounds {
            let what = self.strike();
            *self.tally.entry(what).or_default() += 1;
            let millis = self.dice.between(PAUSE_MILLIS.0, PAUSE_MILLIS.1);
            sleep(Duration::from_millis(millis));
            if self.dice.between(0, 2) != 0 {
                self.relent();
            }
        }
    }

    /// All faults end, and all nodes agree again.
    pub fn end(&mut self) {
        self.relent();
        until("all nodes agree again", Duration::from_secs(30), || {
            (0..NODES).all(|place| self.fleet.command(place, &["tenant", "list"]).status.success())
        });
    }

    /// Lost, and late.
    pub fn datagrams(&self) -> (u64, u64) {
        let weathers = || (0..NODES).map(|place| self.fleet.weather(place));
        let lost = weathers().map(|weather| weather.lost_count()).sum();
        (lost, weathers().map(|weather| weather.held_count()).sum())
    }

    fn kind(&mut self) -> u64 {
        if self.deck.is_empty() {
            self.deck = (0..KINDS).collect();
        }
        let place = self.dice.between(0, self.deck.len() as u64 - 1);
        self.deck.swap_remove(place as usize)
    }

    fn strike(&mut self) -> &'static str {
        let victim = self.dice.between(0, NODES as u64 - 1) as usize;
        let others: Vec<usize> = (0..NODES).filter(|place| *place != victim).collect();
        match self.kind() {
            0 => {
                self.pause(victim);
                "a pause"
            }
            1 => {
                self.kill(victim);
                "a kill"
            }
            2 => {
                self.cut(victim, &others);
                others.iter().for_each(|other| self.cut(*other, &[victim]));
                "one node alone"
            }
            3 => {
                self.cut(others[0], &others[1..]);
                self.cut(others[1], &others[..1]);
                "a bridge"
            }
            4 => {
                self.cut(victim, &others);
                "a node that is not heard"
            }
            5 => {
                others.iter().for_each(|other| self.cut(*other, &[victim]));
                "a node that does not hear"
            }
            6 => {
                let ports = self.ports(&others);
                self.fleet.weather(victim).hold(&ports);
                "messages held back"
            }
            _ => {
                let hours = self.dice.between(0, 2 * HOURS_WRONG_MAX) as i64;
                let secs = (hours - HOURS_WRONG_MAX as i64) * 60 * 60;
                self.fleet.weather(victim).set_clock_ahead(secs);
                "a wrong clock"
            }
        }
    }

    fn ports(&self, places: &[usize]) -> Vec<u16> {
        places.iter().map(|place| self.fleet.quic_port(*place)).collect()
    }

    /// One way only.
    fn cut(&self, from: usize, to: &[usize]) {
        self.fleet.weather(from).cut(&self.ports(to));
    }

    fn pause(&mut self, place: usize) {
        if self.fleet.runs(place) {
            self.fleet.node(place).signal("STOP");
            self.stopped.push(place);
        }
    }

    fn kill(&mut self, place: usize) {
        if self.fleet.runs(place) {
            self.fleet.kill(place);
            self.stopped.retain(|stopped| *stopped != place);
        }
    }

    fn relent(&mut self) {
        for place in self.stopped.drain(..) {
            self.fleet.node(place).signal("CONT");
        }
        (0..NODES).for_each(|place| self.fleet.weather(place).clear());
        self.fleet.start_all();
    }
}
