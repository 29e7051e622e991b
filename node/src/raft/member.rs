//! This node as a member: one run of Raft after another, for as long as the node lives.
//!
//! openraft ends for good when its storage fails. Then the disk is opened and verified anew, and Raft starts from what is
//! there. A disk that holds something else than what was written starts nothing any more: the node neither votes nor
//! leads until its place is taken by a new member (see `docs/operations.md`).

use super::acknowledged::{self, Acknowledged};
use super::disk::{Disk, DiskError};
use super::dispute::{Disputed, marking};
use super::end::{End, end_of, first};
use super::journal::{Journal, Trouble};
use super::kept::Kept;
use super::leaving::{Leave, Leaving};
use super::link::{self, LinkError, LinkFactory, Links};
use super::log_store::{BEGIN_MAX, Ground, OpenError, Reign};
use super::state_machine::{AppliedState, StateMachine};
use super::types::{LogId, Raft, Runtime};
use super::view::{MemberView, leader_of};
use super::voting;
use coordinator::cluster_state::{ClusterState, Rejected};
use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::{AsyncRuntime, Config, EmptyNode, RaftMetrics, SnapshotPolicy};
use proto::NodeId;
use proto::cluster::{ClusterCommand, Proposal};
use proto::raft::{self as ours, Committed, NotLeader, RaftAnswer, RaftRequest, ReadIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A follower stands for election 500 to 600 ms after the last word of the leader.
pub(super) const HEARTBEAT_MILLIS: u64 = 50;
const ELECTION_MILLIS: (u64, u64) = (200, 300);
/// Several times the longest election.
pub(super) const UNHEARD_MILLIS_MAX: u64 = 2000;
const SNAPSHOT_AFTER_ENTRIES: u64 = 1000;
const ENTRIES_KEPT: u64 = 500;
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(20);

/// How long a command waits for a leader and its quorum before the caller hears of it.
pub const AGREEMENT_MAX: Duration = Duration::from_secs(5);
/// How long somebody else may take to vote in the place of a member that is to be removed; shorter than a command waits.
const RELIEF_MAX: Duration = Duration::from_secs(4);
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// So many faults of Raft itself, and it is not begun again: the next one would not be the last.
const FAULTS_MAX: u32 = 3;
const FAULTY: &str = "this node takes no part until it is started again; please report what its log says";
const RESTART_AFTER: Duration = Duration::from_secs(1);

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum CommitError {
    #[error(
        "the cluster has no leader at the moment (fewer than half of its voters can reach each other): streams go on, \
         changes have to wait; see `cluster status`"
    )]
    NoLeader,
    #[error(
        "whether this change counts is not known, because its leader was lost ({0}): look before you repeat it"
    )]
    Unknown(String),
    #[error("this node takes no part in the cluster's agreement: {0}")]
    Away(String),
}

/// Opens the disk, each time that Raft starts.
pub type OpenDisk = Arc<dyn Fn() -> Result<Disk, DiskError> + Send + Sync>;

/// Cheap to copy; all copies are the same member.
#[derive(Clone)]
pub struct Member<L> {
    pub id: NodeId,
    pub applied: AppliedState,
    pub links: L,
    /// While this member leads.
    pub(super) leaving: Leaving,
    run: Arc<RwLock<Run>>,
    ended: Arc<Notify>,
    /// In this life of the node.
    disputed: Disputed,
}

/// How Raft is at the moment.
enum Run {
    Running {
        raft: Raft,
        trouble: Trouble,
        ground: Ground,
        acknowledged: Acknowledged,
        /// That it came back to. openraft restores a leader that starts again, but not what it knew to be committed.
        reign: Option<Reign>,
    },
    /// It will be tried again.
    Away(String),
    /// Nothing will be tried.
    Quarantined(String),
}

impl<L: Links> Member<L> {
    /// Starts Raft on what the disk holds. The handle is of the task that starts it again where it ends.
    pub async fn start(
        id: NodeId,
        applied: AppliedState,
        links: L,
        open: OpenDisk,
    ) -> Result<(Member<L>, JoinHandle<()>), OpenError> {
        let member = Member {
            id,
            applied,
            links,
            leaving: Leaving::default(),
            run: Arc::new(RwLock::new(Run::Away("it is starting".to_owned()))),
            ended: Arc::new(Notify::new()),
            disputed: Disputed::default(),
        };
        member.begin(&open).await?;
        let supervised = Runtime::spawn(member.clone().supervise(open));
        Ok((member, supervised))
    }

    async fn begin(&self, open: &OpenDisk) -> Result<(), OpenError> {
        let open = Arc::clone(open);
        let read = tokio::task::spawn_blocking(move || Kept::read(open()?));
        let kept = read
            .await
            .unwrap_or_else(|panic| Err(OpenError::Refused(panic.to_string())))?;
        kept.check()?;
        self.applied.doubt(kept.revoked_keys());
        let journal = Journal::start(kept.disk)?;
        let trouble = journal.trouble().clone();
        let reign = kept.log.reign(self.id);
        let machine = StateMachine::start(self.applied.clone(), kept.snapshot, journal.clone());
        let acknowledged = Acknowledged::default();
        let links = LinkFactory {
            links: self.links.clone(),
            acknowledged: acknowledged.clone(),
        };
        let log = kept.log.store(journal, machine.kept(), self.disputed.clone());
        let ground = log.ground();
        let raft = Raft::new(self.id.0, Arc::new(config()), links, log, machine);
        // It would wait for ever for what it takes to be on its way.
        let raft = timeout(BEGIN_MAX, raft).await.map_err(|_| OpenError::Stuck)?;
        let raft = raft.map_err(|error| OpenError::Refused(error.to_string()))?;
        self.set(Run::Running {
            raft,
            trouble,
            ground,
            acknowledged,
            reign,
        });
        Ok(())
    }

    async fn supervise(self, open: OpenDisk) {
        let mut faults = 0;
        while let Ok(raft) = self.raft() {
            let voting = Runtime::spawn(voting::keep(self.clone()));
            let end = first(self.ended.notified(), self.disputed.raised(), end_of(&raft)).await;
            voting.abort();
            let Some(end) = end else {
                let _ = raft.shutdown().await;
                return;
            };
            faults += u32::from(end == End::Fault);
            let reason = end.to_string();
            tracing::error!(reason, "Raft ended on this node; its disk is read anew");
            if faults == FAULTS_MAX {
                self.set(Run::Quarantined(format!(
                    "{reason}, for the {faults}th time: {FAULTY}"
                )));
                return;
            }
            self.set(Run::Away(reason));
            let _ = timeout(RESTART_AFTER, raft.shutdown()).await;
            drop(raft);
            let open = match self.disputed.seen() {
                Some(other) => marking(&open, other),
                None => Arc::clone(&open),
            };
            self.begin_again(&open).await;
        }
    }

    /// Until Raft runs, or nothing gets better by itself.
    async fn begin_again(&self, open: &OpenDisk) {
        loop {
            sleep(RESTART_AFTER).await;
            match self.begin(open).await {
                Ok(()) => return,
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "this node neither votes nor leads until it is repaired");
                    self.set(Run::Quarantined(error.to_string()));
                    return;
                }
                Err(error) => self.set(Run::Away(error.to_string())),
            }
        }
    }

    /// Takes no part any more. What was acknowledged is on the disk.
    pub async fn stop(&self) {
        self.ended.notify_one();
        if let Ok(raft) = self.raft() {
            let _ = raft.shutdown().await;
        }
    }

    fn set(&self, run: Run) {
        *self.run.write().unwrap_or_else(PoisonError::into_inner) = run;
    }

    pub(super) fn raft(&self) -> Result<Raft, CommitError> {
        match &*self.run.read().unwrap_or_else(PoisonError::into_inner) {
            Run::Running { raft, .. } => Ok(raft.clone()),
            Run::Away(reason) | Run::Quarantined(reason) => Err(CommitError::Away(reason.clone())),
        }
    }

    fn ground(&self) -> Option<Ground> {
        match &*self.run.read().unwrap_or_else(PoisonError::into_inner) {
            Run::Running { ground, .. } => Some(ground.clone()),
            Run::Away(_) | Run::Quarantined(_) => None,
        }
    }

    /// Makes this node a cluster of one. Does nothing where it has been one before.
    pub async fn found(&self) -> Result<(), CommitError> {
        let raft = self.raft()?;
        let is_done = raft.is_initialized().await;
        if is_done.map_err(|error| CommitError::Away(error.to_string()))? {
            return Ok(());
        }
        let members = BTreeMap::from([(self.id.0, EmptyNode {})]);
        match raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(error)) => Err(CommitError::Away(error.to_string())),
        }
    }

    /// What this member says to a message of another one.
    pub async fn answer(&self, request: RaftRequest) -> RaftAnswer {
        if let RaftRequest::Append(append) = &request
            && let Some(other) = self.ground().and_then(|ground| ground.disputed_by(append))
        {
            self.disputed.raise(other);
        }
        if self.disputed.seen().is_some() {
            return RaftAnswer::Away(Box::new(away(End::Disputed.to_string())));
        }
        match self.raft() {
            Ok(raft) => link::answer(&raft, request).await,
            Err(error) => RaftAnswer::Away(Box::new(away(error.to_string()))),
        }
    }

    /// Durable on a quorum and applied here when it returns, whoever leads. Counts at most once. What some member does not
    /// understand yet is rejected, and neither logged nor said to anybody.
    pub async fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        // An earlier program cannot read what is above its level: it would hang up on whoever says it, and a log that holds
        // it would end there for that node.
        let is_early = |state: &ClusterState| state.allows_level(&proposal.command);
        if let Some(rejected) = self.rejected(is_early).await? {
            return Ok(rejected);
        }
        let deadline = Instant::now() + AGREEMENT_MAX;
        let mut doubt = None;
        let committed = loop {
            let leader = match self.leader_by(deadline).await {
                Ok(Some(leader)) => leader,
                Ok(None) => return Err(self.unheard(doubt)),
                // What was asked before may count all the same.
                Err(error) => return Err(doubt.map_or(error, CommitError::Unknown)),
            };
            let asked = async {
                match leader == self.id {
                    true => Ok(self.commit_here(proposal.clone()).await),
                    false => self.links.command(leader, proposal.clone(), AGREEMENT_MAX).await,
                }
            };
            match self.while_it_leads(leader, deadline, asked).await {
                Asked::Answered(ours::CommandAnswer::Committed(committed)) => break *committed,
                Asked::Answered(ours::CommandAnswer::NotLeader(_)) | Asked::Unreachable => {}
                Asked::Answered(ours::CommandAnswer::Unknown(unknown)) => doubt = Some(unknown.reason),
                Asked::Lost(reason) => doubt = Some(reason),
            }
            sleep(ASK_AGAIN).await;
        };
        let _ = timeout_at(deadline, self.applied.wait_for(committed.index)).await;
        Ok(committed)
    }

    /// As [`Member::commit`], for what strangers ask: what would be rejected now is not logged, so that they cannot make the log
    /// grow. Of two that are accepted now and exclude each other, the log takes one and rejects the other.
    pub async fn commit_if_accepted(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        match self.rejected(|state| state.accepts(&proposal.command)).await? {
            Some(rejected) => Ok(rejected),
            None => self.commit(proposal).await,
        }
    }

    /// By everything that was acknowledged before this was called.
    async fn rejected(
        &self,
        look: impl Fn(&ClusterState) -> Result<(), Rejected>,
    ) -> Result<Option<Committed>, CommitError> {
        if look(&self.applied.read()).is_ok() {
            return Ok(None);
        }
        // What would change that may be on its way here.
        self.linearize().await?;
        let state = self.applied.read();
        Ok(look(&state).err().map(|rejected| Committed {
            index: *self.applied.changes().borrow(),
            outcome: Err(rejected),
        }))
    }

    /// [`Member::commit_here`] for another member, which may not ask for everything.
    pub async fn commit_for(&self, from: NodeId, proposal: Proposal) -> ours::CommandAnswer {
        match self
            .rejected(|state| state.may_ask(from, &proposal.command))
            .await
        {
            Ok(None) => self.commit_here(proposal).await,
            Ok(Some(rejected)) => ours::CommandAnswer::Committed(Box::new(rejected)),
            Err(_) => not_leader(None),
        }
    }

    /// For this member as the leader. Of a command whose level has been committed. A leader without a quorum logs nothing:
    /// what is asked again and again while it lasts would fill its log.
    pub async fn commit_here(&self, proposal: Proposal) -> ours::CommandAnswer {
        let raft = match self.raft() {
            Ok(raft) => raft,
            Err(_) => return not_leader(None),
        };
        let metrics = raft.metrics().borrow().clone();
        let leads = metrics.current_leader == Some(self.id.0);
        if leads && !self.leads(&metrics) {
            return not_leader(None);
        }
        let _leave = match &proposal.command {
            ClusterCommand::RemoveMember(member) if leads => match self.relieve(&raft, member.node).await {
                Ok(leave) => Some(leave),
                Err(answer) => return answer,
            },
            _other => None,
        };
        match timeout(AGREEMENT_MAX, raft.client_write(proposal)).await {
            Ok(Ok(written)) => ours::CommandAnswer::Committed(Box::new(Committed {
                index: written.log_id.index,
                outcome: written.data,
            })),
            // It was logged, and cut off again: a node that has not been heard since may hold it, and lead one day.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) if leads => {
                unknown("another node has come to lead".to_owned())
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                not_leader(forward.leader_id.map(NodeId))
            }
            Ok(Err(error)) => unknown(error.to_string()),
            Err(_) => unknown("no quorum agreed in time".to_owned()),
        }
    }

    /// Returns when the node does not vote, which it is then not asked to do again. Its vote is passed on before it is
    /// removed: from then on nobody talks with it any more, and what it would have to agree to could never be agreed on.
    async fn relieve(&self, raft: &Raft, node: NodeId) -> Result<Leave, ours::CommandAnswer> {
        let leave = self.leaving.begin(node);
        let is_over = |metrics: &RaftMetrics<u64, EmptyNode>| {
            metrics.current_leader != Some(self.id.0)
                || metrics.membership_config.voter_ids().all(|voter| voter != node.0)
        };
        let over = raft
            .wait(Some(RELIEF_MAX))
            .metrics(is_over, "the node does not vote")
            .await;
        match over {
            Ok(metrics) if metrics.current_leader == Some(self.id.0) => Ok(leave),
            Ok(metrics) => Err(not_leader(metrics.current_leader.map(NodeId))),
            Err(_) => Err(self.not_logged(Rejected::LastVoter { node })),
        }
    }

    /// Nothing of it comes into the log.
    fn not_logged(&self, rejected: Rejected) -> ours::CommandAnswer {
        ours::CommandAnswer::Committed(Box::new(Committed {
            index: *self.applied.changes().borrow(),
            outcome: Err(rejected),
        }))
    }

    /// Everything that was acknowledged anywhere before this was called is in the applied state when it returns.
    pub async fn linearize(&self) -> Result<(), CommitError> {
        let deadline = Instant::now() + AGREEMENT_MAX;
        let index = loop {
            let Some(leader) = self.leader_by(deadline).await? else {
                return Err(self.unheard(None));
            };
            let asked = async {
                match leader == self.id {
                    true => Ok(self.read_index_here().await),
                    false => self.links.read_index(leader, AGREEMENT_MAX).await,
                }
            };
            if let Asked::Answered(ours::ReadAnswer::Index(read)) =
                self.while_it_leads(leader, deadline, asked).await
            {
                break read.index;
            }
            sleep(ASK_AGAIN).await;
        };
        match timeout_at(deadline, self.applied.wait_for(index)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.unheard(None)),
        }
    }

    /// Why nothing came of it in time. What keeps this node from writing also keeps from it what the others agree on, and is
    /// what its people can mend.
    fn unheard(&self, doubt: Option<String>) -> CommitError {
        match (doubt, self.trouble()) {
            (Some(doubt), trouble) => CommitError::Unknown(trouble.unwrap_or(doubt)),
            (None, Some(trouble)) => CommitError::Away(trouble),
            (None, None) => CommitError::NoLeader,
        }
    }

    fn trouble(&self) -> Option<String> {
        match &*self.run.read().unwrap_or_else(PoisonError::into_inner) {
            Run::Running { trouble, .. } => trouble.words(),
            Run::Away(reason) | Run::Quarantined(reason) => Some(reason.clone()),
        }
    }

    /// For this member as the leader: it still leads a quorum (Raft, section 6.4 of Ongaro's thesis).
    pub async fn read_index_here(&self) -> ours::ReadAnswer {
        let (raft, reign) = match &*self.run.read().unwrap_or_else(PoisonError::into_inner) {
            Run::Running { raft, reign, .. } => (raft.clone(), *reign),
            Run::Away(_) | Run::Quarantined(_) => {
                return ours::ReadAnswer::NotLeader(Box::new(NotLeader { leader: None }));
            }
        };
        match timeout(AGREEMENT_MAX, raft.get_read_log_id()).await {
            Ok(Ok((read, _))) => ours::ReadAnswer::Index(Box::new(ReadIndex {
                index: read.map_or(0, |id| id.index).max(missed(read, reign)),
            })),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                ours::ReadAnswer::NotLeader(Box::new(NotLeader {
                    leader: forward.leader_id.map(NodeId),
                }))
            }
            Ok(Err(error)) => ours::ReadAnswer::Unknown(Box::new(away(error.to_string()))),
            Err(_) => ours::ReadAnswer::Unknown(Box::new(away("no quorum answered in time".to_owned()))),
        }
    }

    /// Of a leader that a quorum hears, as far as this member can tell. `None`: the deadline has come.
    async fn leader_by(&self, deadline: Instant) -> Result<Option<NodeId>, CommitError> {
        if Instant::now() >= deadline {
            return Ok(None);
        }
        let mut metrics = self.raft()?.metrics();
        let found =
            metrics.wait_for(|metrics| leader_of(metrics).is_some() || metrics.running_state.is_err());
        match timeout_at(deadline, found).await {
            Ok(Ok(metrics)) => match leader_of(&metrics) {
                Some(leader) => Ok(Some(leader)),
                None => Err(CommitError::Away("it is being restarted".to_owned())),
            },
            Ok(Err(_)) => Err(CommitError::Away("it has ended".to_owned())),
            Err(_) => Ok(None),
        }
    }

    /// An answer that is still out when another leader is known will not come.
    async fn while_it_leads<T>(
        &self,
        leader: NodeId,
        deadline: Instant,
        asked: impl Future<Output = Result<T, LinkError>>,
    ) -> Asked<T> {
        let changed = async {
            match self.raft() {
                Ok(raft) => {
                    let mut metrics = raft.metrics();
                    let _ = metrics
                        .wait_for(|metrics| metrics.current_leader.is_some_and(|now| now != leader.0))
                        .await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            answered = timeout_at(deadline, asked) => match answered {
                Ok(Ok(answer)) => Asked::Answered(answer),
                Ok(Err(LinkError::Unreachable { .. })) => Asked::Unreachable,
                Ok(Err(error @ LinkError::Unanswered { .. })) => Asked::Lost(error.to_string()),
                Err(_) => Asked::Lost("no answer in time".to_owned()),
            },
            () = changed => Asked::Lost("another node leads now".to_owned()),
        }
    }

    /// As of now.
    pub fn view(&self) -> MemberView {
        let (raft, trouble, acknowledged) = match &*self.run.read().unwrap_or_else(PoisonError::into_inner) {
            Run::Running {
                raft,
                trouble,
                acknowledged,
                ..
            } => (raft.clone(), trouble.words(), acknowledged.clone()),
            Run::Away(reason) | Run::Quarantined(reason) => return MemberView::away(reason.clone()),
        };
        let metrics = raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let forgotten = acknowledged.forgotten(
            |vote| *vote == metrics.vote && self.leads(&metrics),
            |node| membership.get_node(&node.0).is_some(),
        );
        // A leader whose disk takes nothing leads nobody, and may not know of another.
        let may_lead = |leader: &NodeId| *leader != self.id || trouble.is_none();
        let is_heard = |leader: &NodeId| may_lead(leader) && self.is_heard(*leader);
        let leader = leader_of(&metrics).filter(is_heard);
        let trouble = trouble.clone().or_else(|| acknowledged::words(&forgotten));
        MemberView {
            leader,
            term: metrics.current_term,
            last_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.map_or(0, |id| id.index),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            trouble,
        }
    }

    /// And has been heard by a quorum just now.
    pub(super) fn leads(&self, metrics: &RaftMetrics<u64, EmptyNode>) -> bool {
        leader_of(metrics) == Some(self.id)
    }

    /// Those who vote, as of the newest entry of the log; two sets while one takes the place of the other, and none while Raft
    /// does not run.
    pub fn voter_sets(&self) -> Vec<BTreeSet<NodeId>> {
        let Ok(raft) = self.raft() else {
            return Vec::new();
        };
        let metrics = raft.metrics().borrow().clone();
        let sets = metrics.membership_config.membership().get_joint_config().iter();
        sets.map(|voters| voters.iter().copied().map(NodeId).collect())
            .collect()
    }

    fn is_heard(&self, node: NodeId) -> bool {
        node == self.id || self.links.silent(node).as_millis() <= u128::from(UNHEARD_MILLIS_MAX)
    }
}

/// Up to where entries of a restored leader may be acknowledged, though it has not seen again that they are committed.
fn missed(read: Option<LogId>, reign: Option<Reign>) -> u64 {
    // A leader's read index is in its own term, in which its first entry is.
    let term = read.map(|id| id.leader_id.term);
    let same = reign.filter(|reign| Some(reign.term) == term);
    same.map_or(0, |reign| reign.last_index)
}

enum Asked<T> {
    Answered(T),
    Unreachable,
    Lost(String),
}

fn config() -> Config {
    let config = Config {
        cluster_name: "cluster".to_owned(),
        heartbeat_interval: HEARTBEAT_MILLIS,
        election_timeout_min: ELECTION_MILLIS.0,
        election_timeout_max: ELECTION_MILLIS.1,
        install_snapshot_timeout: SNAPSHOT_WITHIN.as_millis() as u64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER_ENTRIES),
        replication_lag_threshold: SNAPSHOT_AFTER_ENTRIES + ENTRIES_KEPT,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        ..Config::default()
    };
    config.validate().expect("these times stand in the right order")
}

fn away(reason: String) -> ours::Away {
    ours::Away { reason }
}

fn not_leader(leader: Option<NodeId>) -> ours::CommandAnswer {
    ours::CommandAnswer::NotLeader(Box::new(NotLeader { leader }))
}

fn unknown(reason: String) -> ours::CommandAnswer {
    ours::CommandAnswer::Unknown(Box::new(away(reason)))
}
