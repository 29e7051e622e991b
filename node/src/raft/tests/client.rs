use super::cluster::tenant;
use super::network::{MemoryLinks, Network};
use crate::raft::disk::tests::dice::Dice;
use crate::raft::{CommitError, Member};
use coordinator::cluster_state::{ClusterState, DEFAULT_TENANT, Outcome};
use proto::cluster::{ClusterCommand, KeyId, KeyRecord, Proposal, TenantIs};
use proto::{NodeId, TenantId};
use sim::{Action, Answer, History, Invoked};
use std::time::Duration;
use tokio::time::sleep;

const KEYS: u64 = 3;
const TENANTS: u64 = 2;
const PAUSE_MILLIS_MAX: u64 = 400;

/// Somebody who does one thing after another, each time at another node.
pub struct Client {
    pub network: Network,
    pub history: History,
    pub dice: Dice,
    pub care: Care,
}

/// All but one of these are wrong, and there to be found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Care {
    Proper,
    /// Reads whatever the node has applied.
    ReadsAsApplied,
    /// Reads what is applied where a node leads, as far as that knows.
    ReadsAsLeader,
    /// Proposes what it wants a second time, as something new.
    ProposesTwice,
}

impl Client {
    /// Until it is dropped.
    pub async fn run(mut self) {
        loop {
            sleep(Duration::from_millis(self.dice.below(PAUSE_MILLIS_MAX))).await;
            let nodes = self.network.nodes();
            if nodes.is_empty() {
                continue;
            }
            let node = nodes[self.dice.below(nodes.len() as u64) as usize];
            match self.dice.below(10) {
                0 | 1 => self.add_key(node).await,
                2 => self.revoke_key(node).await,
                3 => self.add_tenant(node).await,
                4 => self.remove_tenant(node).await,
                5..=7 => {
                    let key_id = self.key_id();
                    self.look(node, &key_id, key_value).await;
                }
                _ => {
                    let name = self.tenant_name();
                    self.look(node, &name, tenant_value).await;
                }
            }
        }
    }

    fn key_id(&mut self) -> String {
        format!("key {}", self.dice.below(KEYS))
    }

    fn tenant_name(&mut self) -> String {
        format!("tenant {}", self.dice.below(TENANTS))
    }

    async fn add_key(&mut self, node: NodeId) {
        let (key_id, value) = (self.key_id(), self.dice.roll());
        let add = ClusterCommand::AddKey(Box::new(KeyRecord {
            key_id: key_id.clone(),
            secret_hash: hash_of(value),
            tenant: DEFAULT_TENANT,
            created_at_secs: 0,
            name: None,
        }));
        self.change(node, &key_id, Action::Fill(value), add).await;
    }

    async fn revoke_key(&mut self, node: NodeId) {
        let key_id = self.key_id();
        let revoke = ClusterCommand::RevokeKey(Box::new(KeyId {
            key_id: key_id.clone(),
        }));
        self.change(node, &key_id, Action::Empty, revoke).await;
    }

    async fn add_tenant(&mut self, node: NodeId) {
        let (name, value) = (self.tenant_name(), self.dice.roll());
        let add = tenant(&name, value);
        self.change(node, &name, Action::Fill(value), add).await;
    }

    /// The one that stands in the applied state, which may be an old one.
    async fn remove_tenant(&mut self, node: NodeId) {
        let name = self.tenant_name();
        let known = self.network.member(node).and_then(|(member, _)| {
            let state = member.applied.read();
            let record = state.tenants().find(|tenant| tenant.name == name).cloned();
            record.map(|record| (record.id, value_of(&record.salt)))
        });
        if let Some((id, value)) = known {
            let remove: (TenantId, Action) = (id, Action::EmptyOf(value));
            let command = ClusterCommand::RemoveTenant(Box::new(TenantIs { tenant: remove.0 }));
            self.change(node, &name, remove.1, command).await;
        }
    }

    async fn change(&mut self, node: NodeId, register: &str, action: Action, command: ClusterCommand) {
        let Some(((member, drive), process)) = self.network.member(node).zip(self.network.process(node))
        else {
            return;
        };
        let id = u128::from(self.dice.roll()) << 64 | u128::from(self.dice.roll());
        if self.care == Care::ProposesTwice {
            let (member, command) = (member.clone(), command.clone());
            let (id, delay) = (u128::from(self.dice.roll()), self.dice.below(1_000));
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                let _ = member.commit(Proposal { id, command }).await;
            });
        }
        let invoked = self.history.invoke(register, action);
        let committed = tokio::select! {
            biased;
            // Its process is gone, and with it whoever waited.
            () = drive.turned_off() => return,
            committed = process.does(member.commit(Proposal { id, command })) => committed,
        };
        self.note(invoked, committed.map(|committed| committed.outcome));
    }

    fn note(&self, invoked: Invoked, committed: Result<Outcome, CommitError>) {
        match committed {
            Ok(Ok(_)) => self.history.heard(invoked, Answer::Done),
            Ok(Err(_)) => self.history.heard(invoked, Answer::Refused),
            Err(CommitError::Unknown(_)) => {}
            Err(error @ (CommitError::NoLeader | CommitError::Away(_))) => {
                self.history.did_not_happen(invoked, &error.to_string());
            }
        }
    }

    pub async fn look(
        &mut self,
        node: NodeId,
        register: &str,
        value: fn(&ClusterState, &str) -> Option<u64>,
    ) {
        let Some(((member, drive), process)) = self.network.member(node).zip(self.network.process(node))
        else {
            return;
        };
        let invoked = self.history.invoke(register, Action::Look);
        let read = tokio::select! {
            biased;
            () = drive.turned_off() => return,
            read = process.does(self.read(&member, || value(&member.applied.read(), register))) => read,
        };
        match read {
            Ok(seen) => self.history.heard(invoked, Answer::Seen(seen)),
            Err(error) => self.history.did_not_happen(invoked, &error.to_string()),
        }
    }

    async fn read<T>(&self, member: &Member<MemoryLinks>, seen: impl Fn() -> T) -> Result<T, CommitError> {
        let is_proper = match self.care {
            Care::Proper | Care::ProposesTwice => true,
            Care::ReadsAsApplied => false,
            Care::ReadsAsLeader => {
                let metrics = member.raft()?.metrics().borrow().clone();
                metrics.current_leader != Some(member.id.0)
            }
        };
        if is_proper {
            member.linearize().await?;
        }
        Ok(seen())
    }

    /// Every register, at this node.
    pub async fn look_at_all(&mut self, node: NodeId) {
        for key in 0..KEYS {
            self.look(node, &format!("key {key}"), key_value).await;
        }
        for tenant in 0..TENANTS {
            self.look(node, &format!("tenant {tenant}"), tenant_value).await;
        }
    }
}

pub fn key_value(state: &ClusterState, key_id: &str) -> Option<u64> {
    state.key(key_id).map(|key| value_of(&key.secret_hash))
}

pub fn tenant_value(state: &ClusterState, name: &str) -> Option<u64> {
    let mut tenants = state.tenants();
    let found = tenants.find(|tenant| tenant.name == name);
    found.map(|tenant| value_of(&tenant.salt))
}

fn hash_of(value: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn value_of(bytes: &[u8; 32]) -> u64 {
    let first = bytes.first_chunk().expect("32 bytes");
    u64::from_le_bytes(*first)
}
