//! The virtual clock and everything that happens on it.

use crate::checkers::Checkers;
use crate::gateway::{AnyRouter, Gateway};
use crate::network::{Network, Path};
use crate::random::Random;
use crate::replica::Replica;
use crate::report::{Outcome, Recorder, Report};
use crate::scenario::{Scenario, at, secs};
use crate::workload::{Request, prompt_tokens_least, requests};
use coordinator::engine::{EngineAction, EngineDelivery, EngineEvent};
use coordinator::router::{RouterAction, RouterDelivery, RouterEvent};
use proto::request::{Finish, Ticket};
use proto::step::{StepDone, StepPlan};
use proto::{Attempt, Epoch, Position, ReplicaId, RequestId, StreamId, Time};
use std::collections::BTreeMap;

/// Model name: there is one.
const MODEL: &str = "model";

pub struct World<'s> {
    scenario: &'s Scenario,
    seed: u64,
    now: Time,
    /// By time, and among equal times by when it was decided.
    agenda: BTreeMap<(Time, u64), Happening>,
    decided: u64,
    requests: Vec<Request>,
    by_id: BTreeMap<RequestId, usize>,
    gateways: Vec<Gateway>,
    replicas: Vec<Replica>,
    network: Network,
    recorder: Recorder,
    checkers: Checkers,
}

/// What the agenda holds. Gateways, replicas and requests by index.
enum Happening {
    /// A client asks.
    Arrive(usize),
    /// A client loses patience.
    Leave(usize),
    ReachRouter {
        gateway: usize,
        event: RouterEvent,
    },
    Submit {
        replica: usize,
        epoch: Epoch,
        gateway: usize,
        ticket: Ticket,
    },
    Cancel {
        replica: usize,
        epoch: Epoch,
        stream: StreamId,
        attempt: Attempt,
    },
    StepReturns {
        replica: usize,
        done: StepDone,
    },
    WakeGateway(usize),
    WakeReplica(usize),
    Crash(usize),
    Start(usize),
}

impl<'s> World<'s> {
    /// `routers`: one for each gateway of the scenario.
    pub fn new(scenario: &'s Scenario, seed: u64, routers: Vec<AnyRouter>) -> World<'s> {
        let cluster = &scenario.cluster;
        let requests = requests(scenario, seed);
        let device = |index| Replica::new(index, &scenario.device, Random::new(seed, 100 + index as u64));
        World {
            scenario,
            seed,
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            decided: 0,
            by_id: requests
                .iter()
                .enumerate()
                .map(|(index, request)| (request.id, index))
                .collect(),
            requests,
            gateways: routers.into_iter().map(Gateway::new).collect(),
            replicas: (0..cluster.replicas as usize).map(device).collect(),
            network: Network::new(cluster, Random::new(seed, 1)),
            recorder: Recorder::default(),
            checkers: Checkers::default(),
        }
    }

    pub fn play(mut self) -> Report {
        self.plan();
        while let Some(((time, _), happening)) = self.agenda.pop_first() {
            self.now = time;
            self.happen(happening);
        }
        let violations = self.checkers.finish();
        let histories = self.replicas.iter().map(Replica::total).collect();
        let least = prompt_tokens_least(&self.requests, self.scenario.engine.block_tokens);
        self.recorder
            .report(self.scenario, self.seed, self.now, histories, least, violations)
    }

    /// Everything that does not depend on what happens.
    fn plan(&mut self) {
        // Replicas are up before the first client comes.
        (0..self.replicas.len()).for_each(|replica| self.start(replica));
        for crash in &self.scenario.crashes {
            let (replica, crash_at) = (crash.replica as usize, at(crash.at_secs));
            self.later(crash_at, Happening::Crash(replica));
            if let Some(back_after_secs) = crash.back_after_secs {
                self.later(crash_at + secs(back_after_secs), Happening::Start(replica));
            }
        }
        for index in 0..self.requests.len() {
            let request = &self.requests[index];
            let (arrives, leaves) = (request.at, request.patience.map(|patience| request.at + patience));
            self.later(arrives, Happening::Arrive(index));
            if let Some(leaves) = leaves {
                self.later(leaves, Happening::Leave(index));
            }
        }
    }

    fn later(&mut self, time: Time, happening: Happening) {
        self.decided += 1;
        self.agenda.insert((time.max(self.now), self.decided), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(request) => self.arrive(request),
            Happening::Leave(request) => self.leave(request),
            Happening::ReachRouter { gateway, event } => self.reach_router(gateway, event),
            Happening::Submit {
                replica,
                epoch,
                gateway,
                ticket,
            } => {
                if self.is_current(replica, epoch) {
                    let actions = self.replicas[replica].submit(self.now, gateway, ticket);
                    self.perform_engine(replica, actions);
                }
            }
            Happening::Cancel {
                replica,
                epoch,
                stream,
                attempt,
            } => {
                if self.is_current(replica, epoch) {
                    self.reach_engine(replica, EngineEvent::Cancel { stream, attempt });
                }
            }
            Happening::StepReturns { replica, done } => {
                if self.is_current(replica, done.epoch) {
                    self.reach_engine(replica, EngineEvent::StepDone(done));
                }
            }
            Happening::WakeGateway(gateway) => self.wake_gateway(gateway),
            Happening::WakeReplica(replica) => self.wake_replica(replica),
            Happening::Crash(replica) => self.crash(replica),
            Happening::Start(replica) => self.start(replica),
        }
    }

    fn gateway_of(&self, request: usize) -> usize {
        request % self.gateways.len()
    }

    /// Messages to an epoch that is over are lost with it.
    fn is_current(&self, replica: usize, epoch: Epoch) -> bool {
        self.replicas[replica].is_up() && self.replicas[replica].epoch == epoch
    }

    fn arrive(&mut self, index: usize) {
        let request = &self.requests[index];
        for ticket in &request.tickets {
            self.checkers.began(ticket.stream);
            self.recorder.began(ticket.stream, request.tenant, self.now);
        }
        let event = RouterEvent::Arrived {
            request: request.id,
            model: MODEL.into(),
            tickets: request.tickets.clone(),
        };
        self.reach_router(self.gateway_of(index), event);
    }

    fn leave(&mut self, index: usize) {
        let request = self.requests[index].id;
        self.end_all(request, Outcome::Left);
        self.reach_router(self.gateway_of(index), RouterEvent::ClientGone { request });
    }

    fn crash(&mut self, replica: usize) {
        let (id, epoch) = (self.replicas[replica].id, self.replicas[replica].epoch);
        self.replicas[replica].crash();
        let known_at = self.now + secs(self.scenario.cluster.detection_ms / 1e3);
        for gateway in 0..self.gateways.len() {
            let event = RouterEvent::ReplicaDown { replica: id, epoch };
            self.later(known_at, Happening::ReachRouter { gateway, event });
        }
    }

    fn start(&mut self, replica: usize) {
        let info = self.replicas[replica].start(self.scenario);
        for gateway in 0..self.gateways.len() {
            let event = RouterEvent::ReplicaUp {
                model: MODEL.into(),
                info: info.clone(),
            };
            self.send_to_gateway(replica, gateway, event);
        }
    }

    fn reach_router(&mut self, gateway: usize, event: RouterEvent) {
        let actions = self.gateways[gateway].handle(self.now, event);
        self.perform_router(gateway, actions);
    }

    fn wake_gateway(&mut self, gateway: usize) {
        // Wakes that were overtaken by an earlier one are void.
        if self.gateways[gateway].armed == Some(self.now) {
            self.gateways[gateway].armed = None;
            let actions = self.gateways[gateway].wake(self.now);
            self.perform_router(gateway, actions);
        }
    }

    fn perform_router(&mut self, gateway: usize, actions: Vec<RouterAction>) {
        for action in actions {
            self.perform_router_action(gateway, action);
        }
        if let Some(due) = sooner(
            self.gateways[gateway].deadline(),
            self.gateways[gateway].armed,
            self.now,
        ) {
            self.gateways[gateway].armed = Some(due);
            self.later(due, Happening::WakeGateway(gateway));
        }
    }

    fn perform_router_action(&mut self, gateway: usize, action: RouterAction) {
        match action {
            RouterAction::Send {
                replica,
                epoch,
                ticket,
            } => {
                let replica = replica.0 as usize;
                let submit = Happening::Submit {
                    replica,
                    epoch,
                    gateway,
                    ticket,
                };
                self.send_to_replica(gateway, replica, submit);
            }
            RouterAction::Cancel {
                replica,
                epoch,
                stream,
                attempt,
            } => {
                let replica = replica.0 as usize;
                self.send_to_replica(
                    gateway,
                    replica,
                    Happening::Cancel {
                        replica,
                        epoch,
                        stream,
                        attempt,
                    },
                );
            }
            RouterAction::Release {
                stream,
                position,
                finish,
            } => self.release(stream, position, finish),
            RouterAction::Refuse { request, refusal: _ } => self.end_all(request, Outcome::Refused),
            RouterAction::Abandon { stream, refusal: _ } => self.end(stream, Outcome::Abandoned),
            RouterAction::Drained => {}
        }
    }

    fn release(&mut self, stream: StreamId, position: Option<Position>, finish: Option<Finish>) {
        if let Some(position) = position {
            self.checkers.released(stream, position);
            self.recorder.released(stream, self.now);
        }
        match finish {
            Some(Finish::Stop | Finish::Length) => self.end(stream, Outcome::Completed),
            Some(Finish::Cancelled | Finish::Expired | Finish::Failed | Finish::GrammarTooCostly) => {
                self.end(stream, Outcome::Failed)
            }
            None => {}
        }
    }

    /// What a request still has running ends.
    fn end_all(&mut self, request: RequestId, outcome: Outcome) {
        for ticket in self.requests[self.by_id[&request]].tickets.clone() {
            if self.recorder.is_open(ticket.stream) {
                self.end(ticket.stream, outcome);
            }
        }
    }

    fn end(&mut self, stream: StreamId, outcome: Outcome) {
        self.checkers.ended(stream);
        self.recorder.ended(stream, outcome);
    }

    fn reach_engine(&mut self, replica: usize, event: EngineEvent) {
        let actions = self.replicas[replica].handle(self.now, event);
        self.perform_engine(replica, actions);
    }

    fn wake_replica(&mut self, replica: usize) {
        if self.replicas[replica].armed == Some(self.now) {
            self.replicas[replica].armed = None;
            let actions = self.replicas[replica].wake(self.now);
            self.perform_engine(replica, actions);
        }
    }

    fn perform_engine(&mut self, replica: usize, actions: Vec<EngineAction>) {
        for action in actions {
            self.perform_engine_action(replica, action);
        }
        if let Some(due) = sooner(
            self.replicas[replica].deadline(),
            self.replicas[replica].armed,
            self.now,
        ) {
            self.replicas[replica].armed = Some(due);
            self.later(due, Happening::WakeReplica(replica));
        }
    }

    fn perform_engine_action(&mut self, replica: usize, action: EngineAction) {
        let (id, epoch) = (self.replicas[replica].id, self.replicas[replica].epoch);
        match action {
            EngineAction::Admitted {
                stream,
                attempt,
                sequence,
            } => {
                self.replicas[replica].admitted(stream, attempt, sequence);
            }
            EngineAction::Refuse {
                stream,
                attempt,
                refusal,
            } => {
                let gateway = self.replicas[replica].gateway_of(stream, attempt);
                self.replicas[replica].forget_ticket(stream, attempt);
                let event = RouterEvent::Refused {
                    replica: id,
                    epoch,
                    stream,
                    attempt,
                    refusal,
                };
                self.send_to_gateway(replica, gateway, event);
            }
            EngineAction::Run(plan) => self.run_step(replica, &plan),
            EngineAction::Deliver(delivery) => self.deliver(replica, id, epoch, delivery),
            EngineAction::Report(load) => {
                for gateway in 0..self.gateways.len() {
                    let event = RouterEvent::Load {
                        replica: id,
                        epoch,
                        load,
                    };
                    self.send_to_gateway(replica, gateway, event);
                }
            }
            EngineAction::Drained => {}
        }
    }

    fn run_step(&mut self, replica: usize, plan: &StepPlan) {
        let (requests, by_id) = (&self.requests, &self.by_id);
        let output_tokens =
            |stream: StreamId| requests[by_id[&stream.request]].output_tokens[stream.choice as usize];
        let block_tokens = self.scenario.engine.block_tokens;
        let (returns_at, done) = self.replicas[replica].compute(self.now, plan, block_tokens, output_tokens);
        self.later(returns_at, Happening::StepReturns { replica, done });
    }

    fn deliver(&mut self, replica: usize, id: ReplicaId, epoch: Epoch, delivery: EngineDelivery) {
        let EngineDelivery {
            stream,
            attempt,
            position,
            cached_tokens,
            finish,
            sequence: _,
            timing: _,
        } = delivery;
        let gateway = self.replicas[replica].gateway_of(stream, attempt);
        if finish.is_some() {
            self.replicas[replica].forget_ticket(stream, attempt);
        }
        let delivery = RouterDelivery {
            stream,
            attempt,
            position,
            cached_tokens,
            finish,
        };
        self.send_to_gateway(
            replica,
            gateway,
            RouterEvent::Delivered {
                replica: id,
                epoch,
                delivery,
            },
        );
    }

    fn send_to_gateway(&mut self, replica: usize, gateway: usize, event: RouterEvent) {
        let arrival = self
            .network
            .arrival(self.now, Path::ToGateway { gateway, replica });
        self.later(arrival, Happening::ReachRouter { gateway, event });
    }

    fn send_to_replica(&mut self, gateway: usize, replica: usize, message: Happening) {
        let arrival = self
            .network
            .arrival(self.now, Path::ToReplica { gateway, replica });
        self.later(arrival, message);
    }
}

/// When to arm a machine's one timer anew: only for an earlier moment than it is armed for.
fn sooner(deadline: Option<Time>, armed: Option<Time>, now: Time) -> Option<Time> {
    deadline
        .map(|due| due.max(now))
        .filter(|due| armed.is_none_or(|armed| *due < armed))
}
