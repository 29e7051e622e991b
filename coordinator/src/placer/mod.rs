//! The placer, beside the leader: which nodes carry which layers of the models that are deployed to the cluster.
//!
//! It proposes one change at a time and looks at what has come of it before the next. It holds nothing that is not in the
//! log, but for who is silent, what serves, and for how long all has been calm: another leader's placer goes on where this one
//! stopped.

mod choice;
mod drain;
mod growth;
pub mod layout;
mod paces;
mod recut;
mod rehearsal;
mod sight;
mod view;

pub use choice::rehearse;
pub use drain::{Staying, rehearse_drain};
pub use rehearsal::rehearse_copies;
pub use view::View;

use crate::Machine;
use choice::{Change, Choice};
use paces::Paces;
use proto::cluster::{ClusterCommand, Placement};
use proto::{NodeId, ReplicaId, Span, Time};
use recut::Recut;
use sight::Sight;
use std::collections::{BTreeMap, BTreeSet};

/// A node that is silent for so long is lost to placement; it stays a member.
pub const LOST_AFTER: Span = Span::from_secs(10);
/// Caches grow when nothing that placement depends on has changed for so long: a model that leaves is often followed by another.
pub const GROW_AFTER: Span = Span::from_secs(60);
/// After a proposal that came to nothing; doubles with each that follows, up to the longest.
const REST: Span = Span::from_secs(1);
const REST_MAX: Span = Span::from_secs(60);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlacerEvent {
    /// The applied state has changed, or this placer begins.
    Cluster(Box<View>),
    /// A member was last heard so long ago. Said again now and then while it lasts; members of which nothing was said are well.
    Silent {
        node: NodeId,
        silent: Span,
    },
    Heard {
        node: NodeId,
    },
    /// Of what is placed, these serve where they are placed now, and no others do. A replica whose place changes serves no more
    /// until it is said again.
    Serving(BTreeSet<ReplicaId>),
    /// How long each stage of a replica that serves has computed since its epoch began, in their order.
    Computed {
        replica: ReplicaId,
        computed: Vec<Span>,
    },
    /// What was proposed counts, and the view in which it does has been handed over before.
    Committed,
    /// What was proposed was rejected, or may or may not have been committed.
    Refused,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlacerAction {
    /// Answered by [`PlacerEvent::Committed`] or [`PlacerEvent::Refused`]; there is no other before that.
    Propose(ClusterCommand),
    /// Why not all of a model can be placed now; `None`: nothing stands in the way any more. Said when it changes.
    Explain { model: String, reason: Option<String> },
}

#[derive(Clone, Debug, Default)]
pub struct Placer {
    view: View,
    /// Since when, of those that are not lost yet.
    silent_since: BTreeMap<NodeId, Time>,
    sight: Sight,
    paces: Paces,
    flight: Flight,
    rest: Span,
    /// When something that placement depends on changed last.
    changed: Time,
    /// When a cache grows, if it stays calm.
    grows: Option<Time>,
    explained: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Flight {
    #[default]
    Free,
    /// A proposal is under way.
    Proposed,
    /// The last one came to nothing.
    Resting { until: Time },
}

impl Machine for Placer {
    type Event = PlacerEvent;
    type Action = PlacerAction;

    fn handle(&mut self, now: Time, event: PlacerEvent, out: &mut Vec<PlacerAction>) {
        match event {
            PlacerEvent::Cluster(view) => self.see(now, *view),
            PlacerEvent::Silent { node, silent } => {
                let since = Time(now.0.saturating_sub(silent.0));
                let was_lost = self.sight.lost.remove(&node);
                if self.silent_since.insert(node, since).is_none() && !was_lost {
                    self.changed = now;
                }
            }
            PlacerEvent::Heard { node } => {
                let was_silent = self.silent_since.remove(&node).is_some();
                if self.sight.lost.remove(&node) || was_silent {
                    self.changed = now;
                }
            }
            PlacerEvent::Serving(serving) => {
                if self.sight.serving != serving {
                    self.sight.serving = serving;
                    self.changed = now;
                }
            }
            PlacerEvent::Computed { replica, computed } => self.hear(replica, computed),
            PlacerEvent::Committed => {
                self.flight = Flight::Free;
                self.rest = Span::ZERO;
            }
            PlacerEvent::Refused => {
                self.rest = Span((self.rest.0 * 2).clamp(REST.0, REST_MAX.0));
                let until = now + self.rest;
                self.flight = Flight::Resting { until };
            }
        }
        self.look(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<PlacerAction>) {
        self.look(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let losses = self.silent_since.values().map(|since| *since + LOST_AFTER);
        let rested = match self.flight {
            Flight::Resting { until } => Some(until),
            Flight::Free | Flight::Proposed => None,
        };
        losses.chain(rested).chain(self.grows).min()
    }
}

impl Placer {
    /// Nodes that nothing is placed on, since they have been silent for too long.
    pub fn lost(&self) -> &BTreeSet<NodeId> {
        &self.sight.lost
    }

    fn see(&mut self, now: Time, view: View) {
        let is_there = |node: &NodeId| view.profiles.iter().any(|profile| profile.node == *node);
        self.sight.lost.retain(is_there);
        self.silent_since.retain(|node, _| is_there(node));
        let stays = |replica: &ReplicaId| {
            let placement = view.placement(*replica);
            placement.is_some() && placement == self.view.placement(*replica)
        };
        self.sight.serving.retain(stays);
        self.paces.retain(|replica| view.placement(replica).is_some());
        if view != self.view {
            self.changed = now;
            self.view = view;
        }
    }

    fn look(&mut self, now: Time, out: &mut Vec<PlacerAction>) {
        let is_lost = |since: &Time| now.since(*since) >= LOST_AFTER;
        let gone = self.silent_since.extract_if(.., |_, since| is_lost(since));
        self.sight.lost.extend(gone.map(|(node, _)| node));
        self.grows = None;
        match self.flight {
            Flight::Proposed => return,
            Flight::Resting { until } if now < until => return,
            Flight::Resting { .. } | Flight::Free => self.flight = Flight::Free,
        }
        match choice::next(&self.view, &self.sight) {
            Choice::Change(change) => self.propose(change, out),
            Choice::Rest(obstacles) => {
                self.explain(obstacles, out);
                match self.recut() {
                    Some(placement) => self.propose(Change::Place(placement), out),
                    None => self.grow(now, out),
                }
            }
        }
    }

    fn hear(&mut self, replica: ReplicaId, computed: Vec<Span>) {
        let placement = self.view.placement(replica);
        // One that is not of the place that it has now is of no use.
        if placement.is_some_and(|placement| placement.stages.len() == computed.len()) {
            self.paces.hear(replica, computed);
        }
    }

    /// Of the replicas that have computed enough to judge their cut, the first that should be cut anew.
    fn recut(&mut self) -> Option<Placement> {
        for (replica, computed) in self.paces.full() {
            match recut::recut(&self.view, &self.sight, replica, &computed) {
                Recut::Later => {}
                Recut::Stays => self.paces.begin(replica),
                Recut::Cut(placement) => {
                    self.paces.begin_longer(replica);
                    return Some(placement);
                }
            }
        }
        None
    }

    fn grow(&mut self, now: Time, out: &mut Vec<PlacerAction>) {
        let Some(grown) = growth::growth(&self.view, &self.sight) else {
            return;
        };
        let due = self.changed + GROW_AFTER;
        match now < due {
            true => self.grows = Some(due),
            false => self.propose(Change::Place(grown), out),
        }
    }

    fn propose(&mut self, change: Change, out: &mut Vec<PlacerAction>) {
        self.flight = Flight::Proposed;
        out.push(PlacerAction::Propose(change.command()));
    }

    fn explain(&mut self, obstacles: BTreeMap<String, String>, out: &mut Vec<PlacerAction>) {
        let before = std::mem::replace(&mut self.explained, obstacles);
        for (model, reason) in &self.explained {
            if before.get(model) != Some(reason) {
                let (model, reason) = (model.clone(), Some(reason.clone()));
                out.push(PlacerAction::Explain { model, reason });
            }
        }
        for model in before
            .into_keys()
            .filter(|model| !self.explained.contains_key(model))
        {
            out.push(PlacerAction::Explain { model, reason: None });
        }
    }
}
