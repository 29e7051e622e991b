//! One fetch under way: who is asked for what, until nothing is missing or nobody is left.

use super::error::FetchError;
use super::fetch::{Fetcher, Progress, Wanted, holding};
use super::lane::{ASKED_MAX, Asked, End, Lane, News};
use super::missing::Missing;
use super::shelf::Fetching;
use super::sources::{Sources, View};
use crate::store::chunk_set::ChunkSet;
use crate::store::partial::Partial;
use proto::NodeId;
use std::collections::BTreeMap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// News that wait to be read; who has more waits too.
const NEWS_MAX: usize = 64;
/// So often nobody may be found whom to ask, before that is believed.
const FRUITLESS_MAX: u32 = 3;
/// So many chunks may have to wait for a busy node, before no more are looked at.
const WAITING_MAX: usize = 64;

pub(super) struct Run<'a> {
    fetcher: &'a Fetcher,
    digest: [u8; 32],
    file_bytes: u64,
    partial: Partial,
    wanted: ChunkSet,
    newcomers: watch::Receiver<()>,
    candidates: &'a [NodeId],
    sources: &'a mut Sources,
    missing: Missing,
    lanes: BTreeMap<NodeId, Open>,
    /// Lanes and questions; all end with the run.
    tasks: JoinSet<()>,
    tell: mpsc::Sender<(NodeId, News)>,
    heard: mpsc::Receiver<(NodeId, News)>,
    /// Answers that are due to what was asked last.
    looking: usize,
    looks: u32,
    /// Looks in a row after which nobody was asked for anything.
    fruitless: u32,
    /// Chunks, by who gave them.
    given: BTreeMap<NodeId, u32>,
}

struct Open {
    asked: Asked,
    wishes: mpsc::Sender<u32>,
}

impl<'a> Run<'a> {
    pub fn new(
        fetcher: &'a Fetcher,
        wanted: &Wanted,
        fetching: &Fetching,
        candidates: &'a [NodeId],
        sources: &'a mut Sources,
    ) -> Run<'a> {
        let (tell, heard) = mpsc::channel(NEWS_MAX);
        let missing = fetching.wanted.minus(&fetching.partial.here());
        Run {
            fetcher,
            digest: wanted.digest,
            file_bytes: wanted.file_bytes,
            partial: fetching.partial.clone(),
            wanted: fetching.wanted.clone(),
            newcomers: fetching.newcomers.clone(),
            candidates,
            sources,
            missing: Missing::of(&wanted.which, fetching.partial.manifest(), &missing),
            lanes: BTreeMap::new(),
            tasks: JoinSet::new(),
            tell,
            heard,
            looking: 0,
            looks: 0,
            fruitless: 0,
            given: BTreeMap::new(),
        }
    }

    /// Until all that is wanted is there.
    pub async fn finish(mut self, progress: &mut dyn Progress) -> Result<(), FetchError> {
        let mut ticks = interval(self.fetcher.patience.look_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let missing = self.wanted.minus(&self.partial.here());
            self.tell_progress(&missing, progress);
            if missing.is_empty() {
                self.log_givers();
                return Ok(());
            }
            if self.fruitless >= FRUITLESS_MAX {
                return Err(FetchError::NobodyLeft {
                    missing: missing.len(),
                    wanted: self.wanted.len(),
                    tried: self.sources.tried(),
                });
            }
            tokio::select! {
                Some((node, news)) = self.heard.recv() => self.take(node, news)?,
                _ = self.newcomers.changed() => self.look(),
                _ = ticks.tick() => self.tick(),
            }
            // Not before it is known who else fetches: the first chunks too are to be carried once.
            if self.looks > 1 || self.looks == 1 && self.looking == 0 {
                self.ask_around();
            }
        }
    }

    fn tick(&mut self) {
        let is_asked = self.lanes.values().any(|lane| lane.asked.len() > 0);
        if !is_asked && self.looking == 0 && self.looks > 0 {
            self.fruitless += 1;
        }
        self.look();
    }

    /// Asks everybody what he has, unless that is being asked.
    fn look(&mut self) {
        if self.looking > 0 {
            return;
        }
        self.looks += 1;
        for node in self.candidates.iter().copied() {
            self.looking += 1;
            let (peers, tell) = (self.fetcher.peers.clone(), self.tell.clone());
            let (digest, file_bytes, wanted) = (self.digest, self.file_bytes, self.wanted.clone());
            self.tasks.spawn(async move {
                let seen = holding(&peers, node, digest).await;
                let seen = seen.map(|holding| View::of(holding, file_bytes, &wanted));
                // Otherwise the run is over.
                let _ = tell.send((node, News::Seen(seen))).await;
            });
        }
    }

    fn take(&mut self, node: NodeId, news: News) -> Result<(), FetchError> {
        match news {
            News::Landed => {
                self.sources.praise(node);
                self.fruitless = 0;
                *self.given.entry(node).or_default() += 1;
            }
            News::NotThere { index } => {
                self.sources.lacks(node, index);
                self.missing.insert(index);
            }
            News::Seen(Ok(view)) => {
                self.looking -= 1;
                self.sources.see(node, view);
            }
            News::Seen(Err(reason)) => {
                self.looking -= 1;
                self.sources.miss(node, reason);
            }
            News::Ended(end) => {
                self.close(node);
                match end {
                    End::Blamed(blame, reason) => {
                        tracing::warn!(%node, reason, "a node does not give what was asked of it: it is fetched from others");
                        self.sources.blame(node, blame, reason);
                    }
                    End::Store(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// What the node still owes is missing again.
    fn close(&mut self, node: NodeId) {
        if let Some(lane) = self.lanes.remove(&node) {
            let owed = lane.asked.take_all().into_iter();
            self.missing
                .extend(owed.filter(|index| !self.partial.has(*index)));
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Every chunk of the best node for it, in order, while that is not busy.
    fn ask_around(&mut self) {
        let mut waiting = 0;
        let mut chosen = Vec::new();
        let mut loads: BTreeMap<NodeId, usize> = self
            .lanes
            .iter()
            .map(|(node, lane)| (*node, lane.asked.len()))
            .collect();
        for index in self.missing.iter() {
            let load = |node: NodeId| loads.get(&node).copied().unwrap_or(0);
            match self.sources.of_chunk(index, load) {
                Some(node) if load(node) < ASKED_MAX => {
                    chosen.push((node, index));
                    *loads.entry(node).or_default() += 1;
                }
                Some(_) => waiting += 1,
                None => {}
            }
            if waiting == WAITING_MAX {
                break;
            }
        }
        for (node, index) in chosen {
            self.missing.remove(index);
            let lane = self.lane(node);
            lane.asked.push(index);
            // Where it has just ended, its last word says so, and what it was asked is missing again.
            let _ = lane.wishes.try_send(index);
        }
    }

    fn lane(&mut self, node: NodeId) -> &Open {
        self.lanes.entry(node).or_insert_with(|| {
            let (wishes, wished) = mpsc::channel(ASKED_MAX);
            let asked = Asked::default();
            let lane = Lane {
                node,
                peers: self.fetcher.peers.clone(),
                partial: self.partial.clone(),
                asked: asked.clone(),
                patience: self.fetcher.patience,
                news: self.tell.clone(),
            };
            self.tasks.spawn(lane.run(wished));
            Open { asked, wishes }
        })
    }

    fn tell_progress(&self, missing: &ChunkSet, progress: &mut dyn Progress) {
        let bytes = |chunks: &ChunkSet| -> u64 {
            let places = chunks.iter().map(|index| self.partial.manifest().place(index));
            places.map(|place| place.end - place.start).sum()
        };
        let wanted_bytes = bytes(&self.wanted);
        progress.set(wanted_bytes - bytes(missing), wanted_bytes);
    }

    fn log_givers(&mut self) {
        while let Ok((node, news)) = self.heard.try_recv() {
            if matches!(news, News::Landed) {
                *self.given.entry(node).or_default() += 1;
            }
        }
        if self.given.is_empty() {
            return;
        }
        let givers = self.given.iter();
        let givers: Vec<String> = givers
            .map(|(node, chunks)| format!("{chunks} of node {node}"))
            .collect();
        tracing::info!(
            chunks = givers.join(", "),
            "a model's file has come from other nodes"
        );
    }
}
