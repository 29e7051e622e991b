//! What the replicas that this node can use are doing, for everybody who asks: health, metrics, `cluster status`.

use proto::engine::{Load, PipelineUse, ReplicaInfo};
use proto::{Epoch, NodeId, ReplicaId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to copy; all copies show the same.
#[derive(Clone, Default)]
pub struct Board {
    replicas: Arc<Mutex<BTreeMap<ReplicaId, ReplicaView>>>,
}

#[derive(Clone, Debug)]
pub struct ReplicaView {
    pub place: Where,
    pub model: String,
    pub epoch: Epoch,
    pub phase: Phase,
    /// As last reported in this epoch.
    pub load: Load,
    /// Where it is in several stages and its head is on this node.
    pub pipeline: Option<PipelineUse>,
}

/// Where a replica lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    Here,
    Elsewhere(NodeId),
}

#[derive(Clone, Debug)]
pub enum Phase {
    Starting,
    Loading {
        permille: u16,
    },
    /// It cannot go on without something that another node is to mend.
    Waiting {
        reason: String,
    },
    Ready(ReplicaInfo),
    /// Ended, and waiting to be started again.
    Down {
        reason: String,
    },
}

impl Board {
    /// A new epoch of a replica begins.
    pub fn starting(&self, replica: ReplicaId, epoch: Epoch, model: &str, place: Where) {
        let view = ReplicaView {
            place,
            model: model.to_owned(),
            epoch,
            phase: Phase::Starting,
            load: Load::default(),
            pipeline: None,
        };
        self.lock().insert(replica, view);
    }

    pub fn phase(&self, replica: ReplicaId, phase: Phase) {
        if let Some(view) = self.lock().get_mut(&replica) {
            // One elsewhere begins epochs without a word to this node.
            if let Phase::Ready(info) = &phase
                && info.epoch != view.epoch
            {
                view.epoch = info.epoch;
                view.load = Load::default();
            }
            view.phase = phase;
            // It was of another epoch.
            view.pipeline = None;
        }
    }

    pub fn load(&self, replica: ReplicaId, load: Load) {
        if let Some(view) = self.lock().get_mut(&replica) {
            view.load = load;
        }
    }

    pub fn pipeline(&self, replica: ReplicaId, used: PipelineUse) {
        if let Some(view) = self.lock().get_mut(&replica) {
            view.pipeline = Some(used);
        }
    }

    /// It exists no more.
    pub fn remove(&self, replica: ReplicaId) {
        self.lock().remove(&replica);
    }

    /// It is not here any more; it may be elsewhere by now.
    pub fn remove_here(&self, replica: ReplicaId) {
        let mut replicas = self.lock();
        if replicas
            .get(&replica)
            .is_some_and(|view| view.place == Where::Here)
        {
            replicas.remove(&replica);
        }
    }

    /// Is there a replica of this model, whatever it is doing?
    pub fn has(&self, model: &str) -> bool {
        self.lock().values().any(|view| view.model == model)
    }

    /// `None`: there is no such replica here, or it can serve.
    pub fn unready_here(&self, replica: ReplicaId) -> Option<Phase> {
        let replicas = self.lock();
        let view = replicas.get(&replica)?;
        let is_unready = view.place == Where::Here && !matches!(view.phase, Phase::Ready(_));
        is_unready.then(|| view.phase.clone())
    }

    /// As of now.
    pub fn views(&self) -> BTreeMap<ReplicaId, ReplicaView> {
        self.lock().clone()
    }

    /// `Err`: why nothing is served at the moment. A replica of this node that is not offered serves nobody; what others do not
    /// offer is not on the board.
    pub fn health(&self, is_offered_here: impl Fn(ReplicaId) -> bool) -> Result<(), String> {
        let views = self.lock();
        let is_withheld =
            |replica: ReplicaId, view: &ReplicaView| view.place == Where::Here && !is_offered_here(replica);
        let mut ready = views
            .iter()
            .filter(|(_, view)| matches!(view.phase, Phase::Ready(_)));
        if ready.any(|(replica, view)| !is_withheld(*replica, view)) {
            return Ok(());
        }
        let reason = |(replica, view): (&ReplicaId, &ReplicaView)| {
            let (place, phase) = (view.place.in_words(), view.phase.in_words());
            match is_withheld(*replica, view) {
                true => format!("{}{place}: this node is drained", view.model),
                false => format!("{}{place}: {phase}", view.model),
            }
        };
        let reasons: Vec<String> = views.iter().map(reason).collect();
        Err(if reasons.is_empty() {
            "no node of this cluster offers a model: none has come up yet, or all that hold one are drained"
                .to_owned()
        } else {
            reasons.join("; ")
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, ReplicaView>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Where {
    /// Nothing to say of what is here.
    pub fn in_words(self) -> String {
        match self {
            Where::Here => String::new(),
            Where::Elsewhere(node) => format!(" on node {node}"),
        }
    }
}

impl Phase {
    pub fn in_words(&self) -> String {
        match self {
            Phase::Starting => "starting".to_owned(),
            Phase::Loading { permille } => format!("loading, {}%", permille / 10),
            Phase::Waiting { reason } => format!("waiting: {reason}"),
            Phase::Ready(_) => "ready".to_owned(),
            Phase::Down { reason } => format!("down: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ready_replica_is_health_and_otherwise_the_reasons_are_told() {
        let board = Board::default();
        assert_eq!(
            board.health(|_| true).unwrap_err(),
            "no node of this cluster offers a model: none has come up yet, or all that hold one are drained"
        );
        board.starting(ReplicaId(1), Epoch(1), "a", Where::Here);
        board.starting(ReplicaId(2), Epoch(1), "b", Where::Elsewhere(NodeId(2)));
        board.phase(ReplicaId(2), Phase::Loading { permille: 345 });
        assert_eq!(
            board.health(|_| true).unwrap_err(),
            "a: starting; b on node 2: loading, 34%"
        );
        board.phase(ReplicaId(2), Phase::Ready(info(Epoch(1))));
        assert_eq!(board.health(|_| true), Ok(()));
        assert!(board.has("a") && board.has("b") && !board.has("c"));
    }

    #[test]
    fn what_a_drained_node_has_ready_is_no_health() {
        let board = Board::default();
        board.starting(ReplicaId(1), Epoch(1), "a", Where::Here);
        board.phase(ReplicaId(1), Phase::Ready(info(Epoch(1))));
        assert_eq!(
            board.health(|replica| replica != ReplicaId(1)).unwrap_err(),
            "a: this node is drained"
        );
        board.starting(ReplicaId(2), Epoch(1), "a", Where::Elsewhere(NodeId(2)));
        board.phase(ReplicaId(2), Phase::Ready(info(Epoch(1))));
        assert_eq!(board.health(|_| false), Ok(()), "another node serves it");
    }

    #[test]
    fn a_replica_that_comes_back_elsewhere_shows_its_new_epoch_and_no_old_load() {
        let board = Board::default();
        let shown = || board.views()[&ReplicaId(2)].clone();
        board.starting(ReplicaId(2), Epoch(1), "b", Where::Elsewhere(NodeId(2)));
        board.phase(ReplicaId(2), Phase::Ready(info(Epoch(4))));
        let load = Load {
            running: 3,
            ..Load::default()
        };
        board.load(ReplicaId(2), load);
        let reason = "it was restarted".to_owned();
        board.phase(ReplicaId(2), Phase::Down { reason });
        assert_eq!((shown().epoch, shown().load), (Epoch(4), load));
        board.phase(ReplicaId(2), Phase::Ready(info(Epoch(7))));
        assert_eq!((shown().epoch, shown().load), (Epoch(7), Load::default()));
    }

    fn info(epoch: Epoch) -> ReplicaInfo {
        ReplicaInfo {
            replica: ReplicaId(2),
            epoch,
            context_tokens_max: 8,
            block_tokens: 1,
            blocks: 8,
            numerics: 0,
            description: String::new(),
        }
    }
}
