use super::drive::Drive;
use super::network::{MemoryLinks, Network};
use super::stoppable::Process;
use crate::raft::disk::tests::dice::Dice;
use crate::raft::disk::tests::machine::Loss;
use crate::raft::{AppliedState, CommitError, Member, OpenDisk, OpenError};
use coordinator::cluster_state::{Applied, ClusterState, FOUNDER, Outcome};
use proto::NodeId;
use proto::cluster::{ClusterCommand, Founding, MemberIs, NewMember, NewTenant, Proposal, Role, TokenRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longer than anything here may take once nothing is in its way.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// So often that no state is missed that lasts as long as a message is under way.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Of every token's secret.
const SECRET_HASH: [u8; 32] = [9; 32];

/// Some nodes, what holds them together, and the hand that breaks it.
pub struct Cluster {
    pub network: Network,
    /// Of the nodes, running or not.
    pub drives: BTreeMap<NodeId, Drive>,
    pub dice: Dice,
}

impl Cluster {
    /// Of one node.
    pub async fn founded(seed: u64) -> Cluster {
        let mut dice = Dice::new(seed);
        let mut cluster = Cluster {
            network: Network::new(dice.roll()),
            drives: BTreeMap::new(),
            dice,
        };
        cluster.place(FOUNDER).await;
        cluster.member(FOUNDER).found().await.unwrap();
        let founding = ClusterCommand::Found(Box::new(Founding {
            cluster: 7,
            spki: [1; 32],
            quic: String::new(),
            http: String::new(),
            level: 1,
            at_secs: 0,
            authority: vec![1],
            salt: [0; 32],
        }));
        let founded = cluster.commit(FOUNDER, founding).await.unwrap();
        assert_eq!(founded, Ok(Applied::Member(FOUNDER)));
        cluster
    }

    /// Of so many nodes, of which as many vote as may.
    pub async fn of(count: usize, seed: u64) -> Cluster {
        let mut cluster = Cluster::founded(seed).await;
        for _ in 1..count {
            cluster.join(FOUNDER, Role::Voter).await;
        }
        let voters = [0, 1, 1, 3, 3, 5][count.min(5)];
        cluster.settle(voters).await;
        cluster
    }

    /// A new and empty node, let in through another one.
    pub async fn join(&mut self, through: NodeId, role: Role) -> NodeId {
        let token = self.add_token(through, role).await;
        self.join_by(through, &token).await
    }

    /// For newcomers until the first second is over.
    pub async fn add_token(&mut self, through: NodeId, role: Role) -> String {
        let token = self.dice.roll().to_string();
        let record = TokenRecord {
            token: token.clone(),
            secret_hash: SECRET_HASH,
            role,
            expires_at_secs: 1,
        };
        let added = self.commit(through, ClusterCommand::AddToken(Box::new(record)));
        assert_eq!(added.await.unwrap(), Ok(Applied::Done));
        token
    }

    pub async fn join_by(&mut self, through: NodeId, token: &str) -> NodeId {
        let newcomer = ClusterCommand::Join(Box::new(self.newcomer(token)));
        let joined = self.commit(through, newcomer).await.unwrap();
        let Ok(Applied::Member(node)) = joined else {
            panic!("{joined:?}")
        };
        self.place(node).await;
        node
    }

    /// With a key of its own.
    pub fn newcomer(&mut self, token: &str) -> NewMember {
        let mut spki = [0; 32];
        spki[..8].copy_from_slice(&self.dice.roll().to_le_bytes());
        NewMember {
            token: token.to_owned(),
            secret_hash: SECRET_HASH,
            spki,
            quic: String::new(),
            http: String::new(),
            level: 1,
            at_secs: 0,
        }
    }

    async fn place(&mut self, node: NodeId) {
        self.drives.insert(node, Drive::new(self.dice.roll()));
        self.start(node).await.unwrap();
    }

    /// On what its drive holds.
    pub async fn start(&self, node: NodeId) -> Result<(), OpenError> {
        let drive = self.drives[&node].clone();
        let links = self.network.links(node, &drive);
        let disk = drive.clone();
        let open: OpenDisk = Arc::new(move || disk.open());
        let process = Process::default();
        let start = Member::start(node, AppliedState::default(), links, open);
        let (member, _supervised) = process.does(start).await?;
        self.network.attach(member, &drive, process);
        Ok(())
    }

    /// kill -9 and a power cut at once.
    pub fn kill(&mut self, node: NodeId, loss: Loss) {
        self.drives[&node].cut_power(loss);
        self.bury(node);
    }

    /// Of a node whose drive is off: the rest of it ends too, and what its disk kept is ready for a new run.
    pub fn bury(&mut self, node: NodeId) {
        let drive = self.drives.get_mut(&node).expect("it was placed");
        *drive = drive.after_cut();
        if let Some(member) = self.network.detach(node) {
            tokio::spawn(async move { member.stop().await });
        }
    }

    /// The nodes that died by themselves in the middle of a step.
    pub fn bury_the_dead(&mut self) -> Vec<NodeId> {
        let dead: Vec<NodeId> = self
            .drives
            .iter()
            .filter(|(_, drive)| drive.is_off())
            .map(|(node, _)| *node)
            .collect();
        for node in &dead {
            self.bury(*node);
        }
        dead
    }

    /// # Panics
    /// When it does not run.
    pub fn member(&self, node: NodeId) -> Member<MemoryLinks> {
        let running = self.network.member(node);
        running.unwrap_or_else(|| panic!("{node} does not run")).0
    }

    pub fn proposal(&mut self, command: ClusterCommand) -> Proposal {
        let id = u128::from(self.dice.roll()) << 64 | u128::from(self.dice.roll());
        Proposal { id, command }
    }

    pub async fn commit(&mut self, through: NodeId, command: ClusterCommand) -> Result<Outcome, CommitError> {
        let proposal = self.proposal(command);
        let committed = self.member(through).commit(proposal).await?;
        Ok(committed.outcome)
    }

    pub async fn remove(&mut self, through: NodeId, node: NodeId) -> Outcome {
        let remove = ClusterCommand::RemoveMember(Box::new(MemberIs { node }));
        self.commit(through, remove).await.unwrap()
    }

    pub async fn add_tenant(&mut self, through: NodeId, name: &str) -> Result<Outcome, CommitError> {
        self.commit(through, tenant(name, 0)).await
    }

    /// Who leads, in the eyes of a majority of those that run.
    pub fn leader(&self) -> Option<NodeId> {
        let nodes = self.network.nodes();
        let views = nodes.iter().map(|node| self.member(*node).view());
        let newest = views.max_by_key(|view| view.term)?;
        let leader = newest.leader?;
        let sees = |node: &&NodeId| self.member(**node).view().leader == Some(leader);
        (nodes.contains(&leader) && nodes.iter().filter(sees).count() * 2 > nodes.len()).then_some(leader)
    }

    pub async fn wait_for_leader(&self) -> NodeId {
        let mut found = None;
        let until = self.until("somebody leads", || {
            found = self.leader();
            found.is_some()
        });
        until.await;
        found.expect("it was waited for")
    }

    /// # Panics
    /// When it does not come.
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}; {:#?}", self.views());
            sleep(LOOK_EVERY).await;
        }
    }

    fn views(&self) -> Vec<String> {
        let nodes = self.network.nodes().into_iter();
        nodes
            .map(|node| format!("{node}: {:?}", self.member(node).view()))
            .collect()
    }

    /// Until so many vote, in one set that all have heard of, and all show the same state.
    pub async fn settle(&self, voters: usize) {
        self.until("as many vote as should, and all agree", || {
            let nodes = self.network.nodes();
            let views: Vec<_> = nodes.iter().map(|node| self.member(*node).view()).collect();
            let same = |view: &crate::raft::MemberView| {
                view.voters.len() == voters
                    && view.voters == views[0].voters
                    && view.applied_index == views[0].last_index
                    && view.last_index == views[0].last_index
                    && view.leader.is_some()
            };
            views.iter().all(same) && nodes.iter().all(|node| !self.is_joint(*node))
        })
        .await;
        let mut states = self.network.nodes().into_iter().map(|node| self.state(node));
        let first = states.next();
        assert!(states.all(|state| Some(state) == first));
    }

    /// Two sets of voters are in force at this node.
    pub fn is_joint(&self, node: NodeId) -> bool {
        self.member(node).voter_sets().len() > 1
    }

    pub fn state(&self, node: NodeId) -> ClusterState {
        self.member(node).applied.read().clone()
    }
}

/// `salt` tells one tenant from another of the same name.
pub fn tenant(name: &str, salt: u64) -> ClusterCommand {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&salt.to_le_bytes());
    ClusterCommand::AddTenant(Box::new(NewTenant {
        name: name.to_owned(),
        salt: bytes,
    }))
}
