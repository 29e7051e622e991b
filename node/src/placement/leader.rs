//! The placer, beside the Raft leader: it runs where the leader is, sees what was agreed on and who is silent, and proposes.

use super::outlook::OutlookBoard;
use crate::actors::board::{Board, Phase};
use crate::clock::Clock;
use crate::raft::Links;
use crate::state::NodeState;
use coordinator::Machine;
use coordinator::placer::{Placer, PlacerAction, PlacerEvent, View};
use proto::cluster::ClusterCommand;
use proto::{Epoch, NodeId, ReplicaId, Span, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Heartbeats come more often than this.
const SILENT_AFTER: Span = Span::from_secs(2);

/// A placer for every time that this node leads.
pub struct Leading {
    pub state: Arc<NodeState>,
    pub outlook: OutlookBoard,
    /// Of all replicas, as this node's router sees them.
    pub board: Board,
}

impl Leading {
    /// For as long as the node lives.
    pub async fn keep(self) {
        loop {
            if self.leads() {
                self.outlook.begin();
                self.lead().await;
                self.outlook.end();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn leads(&self) -> bool {
        self.state.member.view().leader == Some(self.state.node())
    }

    async fn lead(&self) {
        let (mut placer, clock) = (Placer::default(), Clock::start());
        let mut changes = self.state.applied_state().changes();
        let (mut version, mut silent, mut told) = (None, BTreeSet::new(), None);
        let mut computed = BTreeMap::new();
        while self.leads() {
            let mut events = self.silences(&mut silent, clock.now());
            let now = self.state.applied().version();
            if version != Some(now) {
                version = Some(now);
                events.insert(0, PlacerEvent::Cluster(Box::new(self.view())));
            }
            let serving = self.serving();
            events.extend(self.computed(&serving, &mut computed));
            if told.as_ref() != Some(&serving) {
                let replicas = serving.iter().map(|(replica, _)| *replica);
                events.push(PlacerEvent::Serving(replicas.collect()));
                told = Some(serving);
            }
            for event in events {
                let mut actions = Vec::new();
                placer.handle(clock.now(), event, &mut actions);
                self.perform_all(actions, &mut placer, clock).await;
            }
            if placer.deadline().is_some_and(|deadline| deadline <= clock.now()) {
                let mut actions = Vec::new();
                placer.wake(clock.now(), &mut actions);
                self.perform_all(actions, &mut placer, clock).await;
            }
            self.outlook.lose(placer.lost());
            let _ = timeout(LOOK_EVERY, changes.changed()).await;
        }
    }

    fn view(&self) -> View {
        View::of(&self.state.applied())
    }

    /// What serves where it is placed now. With epochs, since each place has its own.
    fn serving(&self) -> BTreeSet<(ReplicaId, Epoch)> {
        let views = self.board.views();
        let applied = self.state.applied();
        let serving = applied.placements().filter_map(|placement| {
            let replica = placement.replica;
            let placed = applied.replica(replica)?.epoch;
            match &views.get(&replica)?.phase {
                Phase::Ready(info) if info.epoch >= placed => Some((replica, info.epoch)),
                Phase::Ready(_)
                | Phase::Starting
                | Phase::Loading { .. }
                | Phase::Waiting { .. }
                | Phase::Down { .. } => None,
            }
        });
        serving.collect()
    }

    /// What stages of these replicas have computed, where that is news.
    fn computed(
        &self,
        serving: &BTreeSet<(ReplicaId, Epoch)>,
        told: &mut BTreeMap<ReplicaId, Vec<Span>>,
    ) -> Vec<PlacerEvent> {
        let views = self.board.views();
        let computed = serving.iter().filter_map(|(replica, _)| {
            let used = views.get(replica)?.pipeline.as_ref()?;
            Some((*replica, &used.computed))
        });
        let mut news = Vec::new();
        for (replica, computed) in computed {
            if told.get(&replica) != Some(computed) {
                told.insert(replica, computed.clone());
                let computed = computed.clone();
                news.push(PlacerEvent::Computed { replica, computed });
            }
        }
        news
    }

    /// Of those who are silent, and of those who are no more. Nobody is taken to have been silent for longer than this
    /// node leads: before, it did not listen.
    fn silences(&self, silent: &mut BTreeSet<NodeId>, leads_since: Time) -> Vec<PlacerEvent> {
        let own = self.state.node();
        let members: Vec<NodeId> = self.state.applied().members().map(|member| member.node).collect();
        let links = &self.state.member.links;
        let mut events = Vec::new();
        for node in members.into_iter().filter(|node| *node != own) {
            let silence = Span::from_secs_f64(links.silent(node).as_secs_f64()).min(Span(leads_since.0));
            if silence >= SILENT_AFTER {
                silent.insert(node);
                events.push(PlacerEvent::Silent {
                    node,
                    silent: silence,
                });
            } else if silent.remove(&node) {
                events.push(PlacerEvent::Heard { node });
            }
        }
        events
    }

    /// With all that follows from it at once.
    async fn perform_all(&self, mut actions: Vec<PlacerAction>, placer: &mut Placer, clock: Clock) {
        while !actions.is_empty() {
            let mut next = Vec::new();
            for action in actions {
                match action {
                    PlacerAction::Explain { model, reason } => {
                        tracing::info!(model, reason, "placement");
                        self.outlook.explain(&model, reason);
                    }
                    PlacerAction::Propose(command) => {
                        let proposed = self.propose(command).await;
                        // What it made of it is seen before it hears that it counts.
                        placer.handle(
                            clock.now(),
                            PlacerEvent::Cluster(Box::new(self.view())),
                            &mut next,
                        );
                        placer.handle(clock.now(), proposed, &mut next);
                    }
                }
            }
            actions = next;
        }
    }

    async fn propose(&self, command: ClusterCommand) -> PlacerEvent {
        match self.state.commit(command).await {
            Ok(_) => PlacerEvent::Committed,
            Err(error) => {
                tracing::warn!(%error, "a change of placement came to nothing");
                PlacerEvent::Refused
            }
        }
    }
}
