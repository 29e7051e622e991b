mod repairs;

use super::super::folder::FORMER;
use super::*;
use crate::hex;
use crate::trust::spki_of;
use proto::cluster::{Role, TokenRecord};
use std::fs;
use tokio::time::sleep;

/// With its data folder, which goes with it.
struct Node {
    data_dir: PathBuf,
    entry: Option<Entry>,
}

impl Node {
    fn off(name: &str) -> Node {
        let data_dir = std::env::temp_dir().join(format!("cluster-entry-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&data_dir);
        Node {
            data_dir,
            entry: None,
        }
    }

    async fn founded(name: &str) -> Node {
        let mut node = Node::off(name);
        node.start(None).await.unwrap();
        node
    }

    async fn start(&mut self, token: Option<&JoinToken>) -> Result<NodeId, EntryError> {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let place = Place {
            data_dir: &self.data_dir,
            quic: anywhere,
            http_scheme: "http",
            http: anywhere,
        };
        let entry = enter(&place, token).await?;
        let node = entry.state.node();
        self.entry = Some(entry);
        Ok(node)
    }

    async fn refused(&mut self, token: Option<&JoinToken>) -> String {
        self.start(token).await.expect_err("it is refused").to_string()
    }

    /// Until another run may begin on the folder.
    async fn stop(&mut self) {
        let entry = self.entry.take().expect("it runs");
        entry.state.member.stop().await;
        entry.peers.close().await;
        drop(entry);
        // Tasks that hold a part of the node end one after the other.
        loop {
            let lock = DataFolder::lock(&self.data_dir);
            match lock.map(|_lock| Disk::open(&self.data_dir).is_ok()) {
                Ok(true) => return,
                Ok(false) | Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn running(&self) -> &Entry {
        self.entry.as_ref().expect("it runs")
    }

    async fn token(&self) -> JoinToken {
        let entry = self.running();
        let authority = spki_of(&entry.state.applied().authorities()[0]).unwrap();
        let address = entry.peers.local_address().unwrap();
        let token = JoinToken::draw(Role::Worker, authority, vec![address]).unwrap();
        let record = TokenRecord {
            token: hex::encode(&token.id),
            secret_hash: token.secret_hash(),
            role: Role::Worker,
            expires_at_secs: clock::unix_secs() + 3600,
        };
        let added = entry.state.commit(ClusterCommand::AddToken(Box::new(record)));
        added.await.unwrap();
        token
    }

    fn members(&self) -> Vec<NodeId> {
        let state = self.running().state.applied();
        state.members().map(|member| member.node).collect()
    }

    fn lose(&self, name: &str) {
        fs::remove_dir_all(self.data_dir.join(name)).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.data_dir);
    }
}

#[tokio::test]
async fn a_founder_that_has_lost_its_log_founds_no_second_cluster() {
    let mut node = Node::founded("alone").await;
    node.stop().await;
    node.lose("raft");
    let told = node.refused(None).await;
    assert!(
        told.contains("raft/") && told.contains("held node 1") && told.contains("--join"),
        "{told}"
    );
    assert!(!node.data_dir.join("raft").exists(), "nothing was made anew");
    // Also where nothing says any more who it was.
    node.lose("identity");
    fs::write(node.data_dir.join("epochs"), "").unwrap();
    let told = node.refused(None).await;
    assert!(told.contains("held a member of a cluster"), "{told}");
}

#[tokio::test]
async fn a_member_that_has_lost_its_log_joins_as_another_one() {
    let founder = Node::founded("founder").await;
    let mut node = Node::off("wiped");
    let before = node.start(Some(&founder.token().await)).await.unwrap();
    node.stop().await;
    node.lose("raft");
    let token = founder.token().await;
    let after = node.start(Some(&token)).await.unwrap();
    assert!(after > before, "{after} after {before}");
    assert_eq!(founder.members(), [FOUNDER, after]);
    assert!(!node.data_dir.join(FORMER).exists(), "it is repaired");
    let told = Node::off("late").refused(Some(&token)).await;
    assert!(
        told.contains("joining the cluster"),
        "the token is used up: {told}"
    );
    // It has a log now, and goes on with it.
    node.stop().await;
    assert_eq!(node.start(None).await.unwrap(), after);
}

#[tokio::test]
async fn a_member_has_no_use_for_another_token_and_says_so() {
    let founder = Node::founded("letting").await;
    let mut node = Node::off("settled");
    let before = node.start(Some(&founder.token().await)).await.unwrap();
    assert_eq!(node.running().how, How::Joined);
    node.stop().await;
    let token = founder.token().await;
    assert_eq!(node.start(Some(&token)).await.unwrap(), before);
    assert_eq!(node.running().how, How::ReturnedWithToken);
    let another = Node::off("another").start(Some(&token)).await;
    assert!(another.unwrap() > before, "it is still good");
}

#[tokio::test]
async fn a_log_that_others_contradict_starts_nothing_until_a_token_repairs_it() {
    let founder = Node::founded("right").await;
    let mut node = Node::off("contradicted");
    let before = node.start(Some(&founder.token().await)).await.unwrap();
    node.stop().await;
    let other = proto::raft::LogId {
        term: 1_000,
        leader: FOUNDER,
        index: 1,
    };
    let mark = Change::Committed(wire::frame(Kind::RaftLogId, 0, &other));
    Disk::open(&node.data_dir).unwrap().commit(&[mark]).unwrap();
    let told = node.refused(None).await;
    assert!(told.contains("was set back") && told.contains("--join"), "{told}");
    let after = node.start(Some(&founder.token().await)).await.unwrap();
    assert_eq!(founder.members(), [FOUNDER, after], "{before} is gone");
}

#[tokio::test]
async fn a_repair_goes_on_after_a_token_that_was_refused() {
    let founder = Node::founded("repairing").await;
    let mut node = Node::off("repaired");
    let before = node.start(Some(&founder.token().await)).await.unwrap();
    node.stop().await;
    node.lose("raft");
    let token = founder.token().await;
    let mut wrong = token.clone();
    wrong.secret[0] ^= 1;
    node.refused(Some(&wrong)).await;
    let told = node.refused(None).await;
    assert!(told.contains(&format!("held node {before}")), "{told}");
    let after = node.start(Some(&token)).await.unwrap();
    assert_eq!(founder.members(), [FOUNDER, after]);
}
