//! A new authority takes over from the old one, or the old one takes it back: what `coordinator::rotation` decides, done.
//!
//! The steps stand in the log, so a rotation that is interrupted goes on where it was, and from another node where that
//! holds what is needed.

use super::custody::Custody;
use super::desk::Desk;
use super::folder::DataFolder;
use crate::clock;
use crate::state::NodeState;
use crate::trust::{self, Authority, TrustError};
use coordinator::cluster_state::Rejected;
use coordinator::rotation::{self, Abandoning, AuthorityId, Beginning, InTheWay, Member, Named, Word};
use futures_util::future::join_all;
use proto::NodeId;
use proto::cluster::{AuthoritiesStep, ClusterCommand, PLACING_LEVEL, Role};
use proto::peer::{PeerAnswer, PeerRequest, ReadRequest};
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a step waits for nodes to hear and to renew, which takes them some milliseconds.
const PATIENCE: Duration = Duration::from_secs(6);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What this node needs for it.
pub struct Rotation<'a> {
    pub state: &'a NodeState,
    pub desk: &'a Desk,
    pub folder: &'a DataFolder,
}

/// Whom the log names, and who they are.
struct Committed {
    certificates: Vec<CertificateDer<'static>>,
    named: Vec<Named>,
    /// What a step follows upon that is taken because of this.
    at: u64,
}

impl Rotation<'_> {
    /// On a node that may vote: it makes the new authority and lets it sign, as soon as every member believes it. Called
    /// again, it goes on where it was interrupted.
    pub async fn begin(&self) -> Result<(), String> {
        let _exchange = self.custody().exchange().await;
        let committed = self.committed().await?;
        match rotation::begin(&committed.named, &self.custody().ids()).map_err(in_words)? {
            Beginning::Make => {
                let old = committed.named[0].id;
                self.wait_for(|members| rotation::in_the_way_of_signing(&old, members))
                    .await?;
                self.add_new(committed).await?;
            }
            Beginning::LetSecondSign => {}
        }
        let committed = self.committed().await?;
        let [_, second] = committed.named.as_slice() else {
            return Err(Rejected::AuthoritiesLeap.to_string());
        };
        self.wait_for(|members| rotation::in_the_way_of_signing(&second.id, members))
            .await?;
        self.let_second_sign(committed).await
    }

    /// The old authority is believed no more. Refused while a member needs it.
    pub async fn finish(&self) -> Result<(), String> {
        let committed = self.committed().await?;
        rotation::finish(&committed.named).map_err(in_words)?;
        let kept = committed.named[0].id;
        match rotation::in_the_way_of_dropping(&kept, &self.members().await) {
            None => self.keep_first(committed).await,
            Some(in_the_way) => Err(in_words(in_the_way)),
        }
    }

    /// The old authority signs again, and the new one is believed no more as soon as no member needs it.
    pub async fn abandon(&self) -> Result<(), String> {
        let committed = self.committed().await?;
        match rotation::abandon(&committed.named, &self.custody().ids()).map_err(in_words)? {
            Abandoning::LetSecondSign => self.let_second_sign(committed).await?,
            Abandoning::DropSecond => {}
        }
        let committed = self.committed().await?;
        let kept = committed.named[0].id;
        self.wait_for(|members| rotation::in_the_way_of_dropping(&kept, members))
            .await?;
        self.keep_first(committed).await
    }

    /// Its key is on this node's disk before anybody hears of it.
    async fn add_new(&self, committed: Committed) -> Result<(), String> {
        let Committed {
            mut certificates, at, ..
        } = committed;
        let new = Authority::make_after(&certificates[0], clock::unix_secs()).map_err(in_words)?;
        let new = self.custody().keep(new, &certificates, self.folder);
        certificates.push(new.map_err(in_words)?.certificate().clone());
        self.step(at, certificates).await
    }

    async fn let_second_sign(&self, committed: Committed) -> Result<(), String> {
        let mut certificates = committed.certificates;
        certificates.reverse();
        self.step(committed.at, certificates).await
    }

    async fn keep_first(&self, committed: Committed) -> Result<(), String> {
        let mut certificates = committed.certificates;
        certificates.truncate(1);
        self.step(committed.at, certificates).await
    }

    async fn step(&self, after: u64, certificates: Vec<CertificateDer<'static>>) -> Result<(), String> {
        let certificates = certificates.iter().map(|certificate| certificate.to_vec());
        let command = ClusterCommand::StepAuthorities(Box::new(AuthoritiesStep {
            after,
            certificates: certificates.collect(),
        }));
        self.state.commit(command).await.map_err(in_words)?;
        Ok(())
    }

    /// As of now, and not of when this node heard last.
    async fn committed(&self) -> Result<Committed, String> {
        self.state.linearize().await.map_err(in_words)?;
        let applied = self.state.applied();
        let level = applied.feature_level();
        if level < PLACING_LEVEL {
            let needed = PLACING_LEVEL;
            return Err(Rejected::LevelTooLow { needed, level }.to_string());
        }
        let certificates: Vec<CertificateDer<'static>> = applied
            .authorities()
            .iter()
            .map(|certificate| CertificateDer::from(certificate.clone()))
            .collect();
        let named: Result<Vec<Named>, TrustError> = certificates.iter().map(named).collect();
        Ok(Committed {
            certificates,
            named: named.map_err(in_words)?,
            at: applied.authorities_at(),
        })
    }

    /// Until nobody is in the way, or for so long that a person should look.
    async fn wait_for(&self, in_the_way: impl Fn(&[Member]) -> Option<InTheWay>) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            match in_the_way(&self.members().await) {
                None => return Ok(()),
                Some(reason) if Instant::now() > end => return Err(in_words(reason)),
                Some(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    async fn members(&self) -> Vec<Member> {
        let members: Vec<(NodeId, Role)> = {
            let applied = self.state.applied();
            let members = applied.members();
            members.map(|member| (member.node, member.role)).collect()
        };
        let asked = members.into_iter().map(async |(node, role)| Member {
            node,
            role,
            word: self.ask(node).await,
        });
        join_all(asked).await
    }

    async fn ask(&self, node: NodeId) -> Word {
        if node == self.state.node() {
            return Word::Said(self.desk.papers());
        }
        let request = PeerRequest::Papers(Box::new(ReadRequest {}));
        match self.state.member.links.peers.call(node, request).await {
            Ok(PeerAnswer::Papers(papers)) => Word::Said(*papers),
            // It is starting: what it shows will be seen when it has started.
            Ok(_) | Err(_) => Word::Silent,
        }
    }

    fn custody(&self) -> &Custody {
        &self.desk.custody
    }
}

fn named(certificate: &CertificateDer<'static>) -> Result<Named, TrustError> {
    let id: AuthorityId = trust::spki_of(certificate)?;
    Ok(Named {
        id,
        made_secs: trust::made_at(certificate)?,
    })
}

fn in_words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
