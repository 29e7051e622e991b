//! Folders that start nothing as they are, and what becomes of them with a token.

use super::super::super::folder::FORMER;
use super::*;
use crate::peers::reseed;
use crate::raft::WrittenState;

impl Node {
    async fn joined(name: &str, founder: &Node) -> (Node, NodeId) {
        let mut node = Node::off(name);
        let id = node.start(Some(&founder.token().await)).await.unwrap();
        (node, id)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join(name)
    }

    fn folders_aside(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(&self.data_dir).unwrap();
        let found = found.map(|entry| entry.unwrap().path());
        found
            .filter(|path| path.to_string_lossy().contains("/before-"))
            .collect()
    }
}

/// One that nobody believes.
fn of_another_authority(token: &JoinToken) -> JoinToken {
    let mut other = token.clone();
    other.authority[0] ^= 1;
    other
}

fn flip_bytes(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn in_another_cluster_nobody_is_replaced() {
    let other = Node::founded("other").await;
    let mut node = Node::founded("moved").await;
    node.stop().await;
    node.lose("raft");
    // Both clusters have a node 1.
    let joined = node.start(Some(&other.token().await)).await.unwrap();
    assert_eq!(other.members(), [FOUNDER, joined]);
    assert!(!node.path(FORMER).exists(), "it is repaired");
}

#[tokio::test]
async fn a_whole_folder_of_another_cluster_is_left_as_it_is() {
    let other = Node::founded("elsewhere").await;
    let mut node = Node::founded("at-home").await;
    node.stop().await;
    let told = node.refused(Some(&other.token().await)).await;
    assert!(told.contains("a member of another cluster"), "{told}");
    assert!(node.folders_aside().is_empty() && !node.path(FORMER).exists());
    assert_eq!(node.start(None).await.unwrap(), FOUNDER);
}

#[tokio::test]
async fn who_it_was_outlives_a_first_token_of_another_authority() {
    let founder = Node::founded("rotated").await;
    let (mut node, before) = Node::joined("patient", &founder).await;
    node.stop().await;
    // As that of a cluster which has changed its authority since.
    fs::remove_file(node.path("identity/joined-with")).unwrap();
    flip_bytes(&node.path("raft/log.redb"));
    let token = founder.token().await;
    let told = node.refused(Some(&of_another_authority(&token))).await;
    assert!(told.contains("joining the cluster"), "{told}");
    let told = node.refused(None).await;
    assert!(told.contains(&format!("held node {before}")), "{told}");
    let after = node.start(Some(&token)).await.unwrap();
    assert_eq!(founder.members(), [FOUNDER, after], "{before} is gone");
}

#[tokio::test]
async fn a_repair_that_was_killed_after_it_had_joined_is_ended_by_the_next_start() {
    let founder = Node::founded("ending").await;
    let (mut node, before) = Node::joined("killed", &founder).await;
    node.stop().await;
    let key = crate::trust::named_in(&node.path("identity/chain.pem"))
        .unwrap()
        .1;
    node.lose("raft");
    node.lose("identity");
    let after = node.start(Some(&founder.token().await)).await.unwrap();
    assert_eq!(
        founder.members(),
        [FOUNDER, before, after],
        "nothing said who it was"
    );
    node.stop().await;
    let line = format!("{before} key {}", hex::encode(&key));
    fs::write(node.path(FORMER), line).unwrap();
    assert_eq!(node.start(None).await.unwrap(), after);
    assert_eq!(founder.members(), [FOUNDER, after]);
    assert!(!node.path(FORMER).exists());
}

/// What may have happened to a part of a folder.
enum Harm {
    Lost,
    Holds(&'static str),
    /// What reads as a certificate, with a signature of nobody.
    Flipped,
}

/// In the signature, with which a certificate ends.
fn flip_signature(path: &std::path::Path) {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("-----END").unwrap();
    let at = end - 12;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    fs::write(path, [&text[..at], other, &text[at + 1..]].concat()).unwrap();
}

#[tokio::test]
async fn who_may_sign_makes_itself_another_certificate_in_place_of_a_damaged_one() {
    let mut founder = Node::founded("signs-itself").await;
    founder.stop().await;
    let chain = founder.path("identity/chain.pem");
    flip_signature(&chain);
    let damaged = fs::read(&chain).unwrap();
    assert_eq!(founder.start(None).await.unwrap(), FOUNDER);
    assert_ne!(fs::read(&chain).unwrap(), damaged);
    let (_other, _) = Node::joined("believes", &founder).await;
}

#[tokio::test]
async fn each_damaged_part_is_named_and_repaired() {
    let harms = [
        ("identity", Harm::Lost),
        ("identity/key.pem", Harm::Lost),
        ("identity/key.pem", Harm::Holds("")),
        ("identity/chain.pem", Harm::Lost),
        ("identity/chain.pem", Harm::Holds("")),
        ("identity/chain.pem", Harm::Holds("nonsense")),
        ("identity/chain.pem", Harm::Flipped),
        ("identity/authorities.pem", Harm::Lost),
        ("identity/authorities.pem", Harm::Holds("")),
        ("authority/key.pem", Harm::Holds("nonsense")),
        ("epochs", Harm::Holds("x")),
        ("epochs", Harm::Holds("")),
    ];
    for (number, (name, harm)) in harms.into_iter().enumerate() {
        // Each lets in no more than so many at once.
        let founder = Node::founded(&format!("whole-{number}")).await;
        let (mut node, _) = Node::joined(&format!("harmed-{number}"), &founder).await;
        node.stop().await;
        if name.starts_with("authority") {
            // As of one that may vote.
            let certificate = founder.path("authority/certificate.pem");
            fs::copy(certificate, node.path("authority/certificate.pem")).unwrap();
        }
        let path = node.path(name);
        match harm {
            Harm::Lost if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Harm::Lost => fs::remove_file(&path).unwrap(),
            Harm::Holds(text) => fs::write(&path, text).unwrap(),
            Harm::Flipped => flip_signature(&path),
        }
        let told = node.refused(None).await;
        let is_told = told.contains(name) && told.contains("--join") && told.contains("token create");
        assert!(is_told, "{number}, {name}: {told}");
        let after = node.start(Some(&founder.token().await)).await;
        let after = after.unwrap_or_else(|error| panic!("{number}, {name}: {error}"));
        assert_eq!(founder.members(), [FOUNDER, after], "{number}, {name}");
        assert_eq!(node.folders_aside().len(), 1, "{number}, {name}");
        node.stop().await;
        assert_eq!(node.start(None).await.unwrap(), after);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_damage() {
    let founder = Node::founded("readable").await;
    let (mut node, before) = Node::joined("unreadable", &founder).await;
    node.stop().await;
    let (key, kept) = (node.path("identity/key.pem"), node.path("kept"));
    fs::rename(&key, &kept).unwrap();
    fs::create_dir(&key).unwrap();
    let told = node.refused(Some(&founder.token().await)).await;
    assert!(told.contains("key.pem") && told.contains("can be read"), "{told}");
    assert!(node.folders_aside().is_empty() && !node.path(FORMER).exists());
    fs::remove_dir(&key).unwrap();
    fs::rename(&kept, &key).unwrap();
    assert_eq!(node.start(None).await.unwrap(), before);
}

#[tokio::test]
async fn the_log_of_another_node_is_told_and_nobody_is_removed_for_it() {
    let founder = Node::founded("sorted").await;
    let (mut one, first) = Node::joined("first", &founder).await;
    let (mut two, second) = Node::joined("second", &founder).await;
    one.stop().await;
    two.stop().await;
    two.lose("raft");
    fs::create_dir(two.path("raft")).unwrap();
    for name in ["log.redb", "witness"] {
        fs::copy(one.path("raft").join(name), two.path("raft").join(name)).unwrap();
    }
    let told = two.refused(None).await;
    let (log, certificate) = (format!("is of node {first}"), format!("of node {second}"));
    assert!(
        told.contains(&log) && told.contains(&certificate) && told.contains("--join"),
        "{told}"
    );
    let third = two.start(Some(&founder.token().await)).await.unwrap();
    assert_eq!(founder.members(), [FOUNDER, first, second, third]);
    assert_eq!(one.start(None).await.unwrap(), first);
}

#[tokio::test]
async fn a_cluster_of_one_without_its_key_is_recovered() {
    let mut node = Node::founded("sole").await;
    node.stop().await;
    for name in ["identity/key.pem", "authority/key.pem", "epochs"] {
        fs::write(node.path(name), "nonsense").unwrap();
    }
    let told = node.refused(None).await;
    assert!(
        told.contains("key.pem") && told.contains("cluster recover"),
        "{told}"
    );
    let reseeded = reseed::recover(&node.data_dir).unwrap();
    assert_eq!(reseeded.was, Some(Role::Voter));
    assert_eq!(node.start(None).await.unwrap(), reseeded.node);
}

#[tokio::test]
async fn a_recovery_names_where_the_log_was_set_aside() {
    let mut node = Node::founded("set-aside").await;
    node.stop().await;
    fs::create_dir(node.path("before-1")).unwrap();
    for name in ["raft", "identity"] {
        fs::rename(node.path(name), node.path("before-1").join(name)).unwrap();
    }
    let told = reseed::recover(&node.data_dir).err().unwrap().to_string();
    assert!(told.contains("before-1: move its raft/"), "{told}");
    for name in ["raft", "identity"] {
        fs::rename(node.path("before-1").join(name), node.path(name)).unwrap();
    }
    let reseeded = reseed::recover(&node.data_dir).unwrap();
    assert_eq!(node.start(None).await.unwrap(), reseeded.node);
}

#[tokio::test]
async fn what_a_recovered_node_was_is_told() {
    let founder = Node::founded("followed").await;
    let (mut node, _) = Node::joined("following", &founder).await;
    node.stop().await;
    let reseeded = reseed::recover(&node.data_dir).unwrap();
    assert_eq!(reseeded.was, Some(Role::Worker));
}

#[tokio::test]
async fn a_recovery_that_broke_off_is_done_again_and_nothing_starts_before() {
    for moved in [vec!["raft"], vec!["raft", "identity"]] {
        let mut node = Node::founded("broken-off").await;
        node.stop().await;
        fs::create_dir(node.path("before-1")).unwrap();
        for name in moved {
            fs::rename(node.path(name), node.path("before-1").join(name)).unwrap();
        }
        fs::write(node.path("reseeding"), "recovery before-1\n").unwrap();
        let told = node.refused(None).await;
        assert!(told.contains("`cluster recover` has begun"), "{told}");
        let reseeded = reseed::recover(&node.data_dir).unwrap();
        assert_eq!(reseeded.was, Some(Role::Voter), "its log was found again");
        assert_eq!(node.start(None).await.unwrap(), reseeded.node);
    }
}

#[tokio::test]
async fn a_restoration_that_broke_off_is_done_again_and_no_cluster_founded_instead() {
    let mut node = Node::founded("half-restored").await;
    node.stop().await;
    let image = WrittenState::read(Disk::open(&node.data_dir).unwrap())
        .unwrap()
        .state
        .image();
    let backup = node.path("backup");
    fs::write(&backup, wire::frame(Kind::Backup, 0, &image)).unwrap();
    let empty = node.path("restored");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("reseeding"), "restoration\n").unwrap();
    fs::create_dir(empty.join("raft")).unwrap();
    let told = reseed::recover(&empty).err().unwrap().to_string();
    assert!(told.contains("`cluster restore FILE` has begun"), "{told}");
    let reseeded = reseed::restore(&backup, &empty).unwrap();
    assert_eq!(reseeded.tenants, 1);
    assert!(!empty.join("reseeding").exists());
}
