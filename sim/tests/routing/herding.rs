//! Late reports of load, read by many gateways at once: does everybody run to the same replica?

use crate::rival::{Rival, Rule};
use coordinator::Machine;
use coordinator::router::{Router, RouterAction, RouterConfig, RouterEvent};
use proto::{StreamId, Time};
use sim::{AnyRouter, Scenario, run_with};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Streams that all gateways together have at each replica.
#[derive(Default)]
struct Counts {
    places: BTreeMap<StreamId, usize>,
    streams: Vec<u32>,
    /// After each send: the most loaded replica against the mean.
    excess: Vec<f64>,
}

/// A router under observation.
struct Watched {
    router: AnyRouter,
    counts: Rc<RefCell<Counts>>,
}

impl Counts {
    fn see(&mut self, action: &RouterAction) {
        match action {
            RouterAction::Send { replica, ticket, .. } => {
                let replica = replica.0 as usize;
                self.places.insert(ticket.stream, replica);
                self.streams[replica] += 1;
                let most = f64::from(*self.streams.iter().max().unwrap());
                let mean = f64::from(self.streams.iter().sum::<u32>()) / self.streams.len() as f64;
                self.excess.push(most / mean);
            }
            RouterAction::Release {
                stream,
                finish: Some(_),
                ..
            } => self.streams[self.places.remove(stream).unwrap()] -= 1,
            // What comes before the first replica is known is refused.
            RouterAction::Release { .. } | RouterAction::Refuse { .. } => {}
            RouterAction::Cancel { .. } | RouterAction::Abandon { .. } | RouterAction::Drained => {
                panic!("nothing is refused or lost here: {action:?}")
            }
        }
    }
}

impl Machine for Watched {
    type Event = RouterEvent;
    type Action = RouterAction;

    fn handle(&mut self, now: Time, event: RouterEvent, out: &mut Vec<RouterAction>) {
        let before = out.len();
        self.router.handle(now, event, out);
        out[before..]
            .iter()
            .for_each(|action| self.counts.borrow_mut().see(action));
    }

    fn wake(&mut self, now: Time, out: &mut Vec<RouterAction>) {
        self.router.wake(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.router.deadline()
    }
}

/// Every replica has about 25 streams; a report is up to 100 ms old when it leaves and `network_ms` older when it comes.
fn scenario(gateways: u32, replicas: u32, network_ms: u32) -> Scenario {
    let toml = format!(
        "arrivals_secs = 6.0
        [cluster]
        gateways = {gateways}
        replicas = {replicas}
        network_us = {network_ms}000.0
        [engine]
        sequences_max = 256
        blocks = 1024
        [device]
        fixed_us = 10000.0
        per_token_us = 100.0
        [[tenant]]
        name = 'all'
        requests_per_sec = {}
        prompt_tokens = {{ min = 30, max = 60 }}
        output_tokens = {{ mean = 40, max = 200 }}",
        50 * replicas
    );
    Scenario::from_toml(&toml).unwrap()
}

/// Mean over all sends of the most loaded replica against the mean one.
fn excess(scenario: &Scenario, router: impl Fn() -> AnyRouter) -> f64 {
    let counts = Rc::new(RefCell::new(Counts {
        streams: vec![0; scenario.cluster.replicas as usize],
        ..Counts::default()
    }));
    let report = run_with(scenario, 1, || {
        Box::new(Watched {
            router: router(),
            counts: counts.clone(),
        })
    });
    assert_eq!(report.all.completed + report.all.refused, report.all.streams);
    let excess = &counts.borrow().excess;
    // Without the beginning, when there is next to nothing anywhere.
    let settled = &excess[excess.len() / 4..];
    settled.iter().sum::<f64>() / settled.len() as f64
}

#[test]
fn with_late_reports_two_choices_spread_better_than_chance_and_than_the_least_loaded() {
    for (gateways, network_ms) in [(8, 20), (32, 20), (8, 100)] {
        for replicas in [2, 4, 8] {
            let scenario = scenario(gateways, replicas, network_ms);
            let rival = |rule| excess(&scenario, || Box::new(Rival::new(rule)));
            let production = excess(&scenario, || Box::new(Router::new(RouterConfig::default())));
            let (random, least) = (rival(Rule::Random), rival(Rule::LeastLoaded));
            println!(
                "{gateways} gateways, {replicas} replicas, {network_ms} ms: production {production:.2}, \
                 random {random:.2}, least loaded {least:.2}"
            );
            assert!(production < random && production < least);
        }
    }
}
