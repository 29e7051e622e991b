use super::support::*;
use crate::clock;
use crate::transport::*;
use crate::trust::{Bundle, Identity};
use bytes::Bytes;
use proto::NodeId;
use proto::join::*;
use proto::wire::Kind;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(2);

fn reason<T: std::fmt::Debug>(outcome: Result<T, PeerError>) -> String {
    outcome.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_at_its_next_message() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let identity = cluster.identity(1);
    cluster.roster.add(identity.spki_hash(), 1, Role::Voter);
    // It does not hear of its removal.
    let unaware = cluster.as_it_is_now();
    let one = unaware.node_with(1, identity, "127.0.0.1:0".parse().unwrap());
    one.knows(&two);
    let (mut sender, mut receiver) = one.echo_stream(two.id, Class::Bulk).await;
    sender.send_chunk(0, Bytes::from_static(b"before")).await.unwrap();
    assert_eq!(receiver.next().await.unwrap().unwrap().payload, b"before");
    one.ping(two.id).await.unwrap();
    let calls = two.service.calls.lock().unwrap().len();

    cluster.roster.remove(&one.identity.spki_hash());
    sender.send_chunk(0, Bytes::from_static(b"after")).await.unwrap();
    assert!(receiver.next().await.is_err());
    assert_eq!(*two.service.heard.lock().unwrap(), ["before"]);
    assert!(one.ping(two.id).await.is_err());
    assert_eq!(two.service.calls.lock().unwrap().len(), calls);
    until("its connections are closed", SOON, || {
        two.peers.links().is_empty()
    })
    .await;
    assert_closed_with(&reason(one.ping(two.id).await), "no member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_closes_connections_at_once() {
    let cluster = Cluster::new();
    let (one, two, three) = (cluster.node(1), cluster.node(2), cluster.node(3));
    for node in [&one, &three] {
        node.knows(&two);
        node.ping(two.id).await.unwrap();
    }
    let (_sender, mut receiver) = one.echo_stream(two.id, Class::Activations).await;
    cluster.roster.remove(&one.identity.spki_hash());
    two.peers.sweep();
    let closed = tokio::time::timeout(SOON, receiver.next()).await;
    assert!(closed.expect("in time").is_err());
    until("nothing of it is left", SOON, || two.peers.links().len() == 1).await;
    three.ping(two.id).await.unwrap();

    two.peers.cut_off(three.id);
    until("nothing of it is left", SOON, || two.peers.links().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_taken_back_by_whatever_is_said_later() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    // Of a node that two has not heard of yet.
    let sooner = cluster.as_it_is_now();
    let identity = cluster.identity(1);
    sooner.roster.add(identity.spki_hash(), 1, Role::Voter);
    let one = sooner.node_with(1, identity, "127.0.0.1:0".parse().unwrap());
    one.knows(&two);
    two.knows(&one);
    for asks_first in [&two, &one] {
        cluster.roster.remove(&one.identity.spki_hash());
        assert!(one.ping(two.id).await.is_err());
        until("it is refused", SOON, || !one.peers.refused_by().is_empty()).await;
        cluster.roster.add(one.identity.spki_hash(), 1, Role::Voter);
        let asked = if asks_first.id == one.id { two.id } else { one.id };
        until_answered(asks_first, asked).await;
        assert!(one.peers.refused_by().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_bound_to_another_node_is_cut_off() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    one.ping(two.id).await.unwrap();
    cluster.roster.add(one.identity.spki_hash(), 9, Role::Voter);
    assert!(one.ping(two.id).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_key_that_is_no_member_is_refused_and_so_is_another_cluster() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let two = ours.node(2);
    let stranger = ours.node_with(1, ours.identity(1), "127.0.0.1:0".parse().unwrap());
    stranger.knows(&two);
    assert_closed_with(&reason(stranger.ping(two.id).await), "no member");

    let foreign = theirs.node(1);
    theirs.roster.add(two.identity.spki_hash(), 2, Role::Voter);
    ours.roster.add(foreign.identity.spki_hash(), 1, Role::Voter);
    foreign.knows(&two);
    assert_closed_with(&reason(foreign.ping(two.id).await), "UnknownIssuer");
    // Who is dialled looks as well.
    foreign.bundle.replace(two.bundle.authorities()).unwrap();
    until_refused(&foreign, two.id, "unknown").await;
    assert!(two.service.calls.lock().unwrap().is_empty());
}

/// Until the pause after the last failure is over.
async fn until_refused(node: &Node, other: NodeId, words: &str) {
    for _ in 0..50 {
        let said = reason(node.ping(other).await);
        if said.to_lowercase().contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never refused with `{words}`: {}", reason(node.ping(other).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_at_the_address_is_not_taken_for_the_one_that_was_meant() {
    let cluster = Cluster::new();
    let (one, two, three) = (cluster.node(1), cluster.node(2), cluster.node(3));
    one.peers.set_address(two.id, three.address());
    assert_closed_with(&reason(one.ping(two.id).await), "another key");
    assert!(three.service.calls.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ran_out_may_renew_and_nothing_else() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let identity = Identity::make().unwrap();
    let long_ago = clock::unix_secs() - 10 * 24 * 60 * 60;
    cluster.chain_at(&identity, 1, long_ago);
    let one = cluster.node_with(1, Arc::new(identity), "127.0.0.1:0".parse().unwrap());
    one.knows(&two);
    let request = || {
        let csr = one.identity.csr().unwrap();
        RenewRequest::V1(Box::new(Renewing { csr }))
    };
    assert!(
        one.peers.renew(two.id, request()).await.is_err(),
        "its key is not committed"
    );
    assert!(two.service.renewals.lock().unwrap().is_empty());

    cluster.roster.add(one.identity.spki_hash(), 1, Role::Worker);
    assert_closed_with(&reason(one.ping(two.id).await), "does not hold");
    assert!(two.service.calls.lock().unwrap().is_empty());

    // Also when the one who is asked has run out: the whole cluster was off.
    cluster.chain_at(&two.identity, 2, long_ago);
    let answer = one.peers.renew(two.id, request()).await.unwrap();
    let RenewAnswer::Renewed(renewed) = answer else {
        panic!("{answer:?}");
    };
    let chain = vec![renewed.certificate.into(), renewed.authorities[0].clone().into()];
    one.identity.set_chain(chain).unwrap();
    assert_eq!(
        *two.service.renewals.lock().unwrap(),
        vec![one.identity.spki_hash()]
    );

    until_refused(&one, two.id, "does not hold").await;
    cluster.chain_at(&two.identity, 2, clock::unix_secs());
    until_answered(&one, two.id).await;
}

async fn until_answered(node: &Node, other: NodeId) {
    for _ in 0..50 {
        if node.ping(other).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never answered: {:?}", node.ping(other).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_authority_interrupts_nobody() {
    let (old, new) = (Cluster::new(), Cluster::new());
    let (one, two, three) = (old.node(1), old.node(2), old.node(3));
    let both = vec![
        old.authority.certificate().clone(),
        new.authority.certificate().clone(),
    ];
    one.knows(&two);
    one.ping(two.id).await.unwrap();
    for node in [&one, &two, &three] {
        node.bundle.replace(both.clone()).unwrap();
    }
    // One after the other gets a certificate of the new authority; old and new ones work together.
    new.chain_at(&one.identity, 1, clock::unix_secs());
    one.ping(two.id).await.unwrap();
    one.knows(&three);
    one.ping(three.id).await.unwrap();
    three.knows(&two);
    three.ping(two.id).await.unwrap();
    for (node, id) in [(&two, 2), (&three, 3)] {
        new.chain_at(&node.identity, id, clock::unix_secs());
    }
    for node in [&one, &two, &three] {
        node.bundle
            .replace(vec![new.authority.certificate().clone()])
            .unwrap();
    }
    two.knows(&three);
    one.echo_stream(two.id, Class::Bulk).await;
    two.ping(three.id).await.unwrap();
    // A certificate of the old one is worth nothing now.
    let late = old.node(4);
    late.bundle
        .replace(vec![new.authority.certificate().clone()])
        .unwrap();
    late.knows(&two);
    until_refused(&late, two.id, "unknown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_by_new_connections_without_a_restart() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    one.ping(two.id).await.unwrap();
    let soon_over = clock::unix_secs() + 12 * 60 * 60;
    cluster.chain_at(&one.identity, 1, soon_over - 60);
    one.ping(two.id).await.unwrap();
    // Not valid before long: so a connection that is let in cannot have been shown the first one.
    let (_, _) = one.echo_stream(two.id, Class::Control).await;
    let outcome = one.peers.open(two.id, Class::Bulk, hello(Class::Bulk)).await;
    let (mut sender, mut receiver) = match outcome {
        Ok(both) => both,
        Err(error) => return assert_closed_with(&error.to_string(), "does not hold"),
    };
    let _ = sender.send_chunk(0, Bytes::from_static(b"x")).await;
    let error = receiver.next().await.unwrap_err();
    assert_closed_with(&error.to_string(), "does not hold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_not_lead_and_what_has_no_place_closes_the_connection() {
    let cluster = Cluster::new();
    let (worker, two) = (cluster.node_as(1, Role::Worker), cluster.node(2));
    worker.knows(&two);
    worker.ping(two.id).await.unwrap();
    let request = raft(b"I lead");
    let outcome = worker.peers.call(two.id, request).await;
    assert_closed_with(&reason(outcome), "not how nodes speak");
    assert_eq!(two.service.calls.lock().unwrap().len(), 1, "the ping");
    // Activations have no place on a connection for bulk.
    let outcome = worker
        .peers
        .open(two.id, Class::Bulk, hello(Class::Activations))
        .await;
    let (_, mut receiver) = outcome.unwrap();
    let error = receiver.next().await.unwrap_err();
    assert_closed_with(&error.to_string(), "not how nodes speak");
    // Nor has an engine's answer in the hands of who asks; it does not even leave.
    let (mut sender, _receiver) = worker.echo_stream(two.id, Class::Control).await;
    let message = proto::engine::FromEngine::Drained;
    let (node, kind) = (two.id, Kind::FromEngine);
    assert_eq!(
        sender.send(kind, 0, &message).await,
        Err(LinkError::NotAllowed { node, kind })
    );
}

#[test]
fn the_table_of_what_may_stand_where() {
    use crate::transport::acl::{Place, kind_may_stand};
    let mut places = vec![
        Place::Answer,
        Place::JoinRequest,
        Place::JoinAnswer,
        Place::RenewRequest,
        Place::RenewAnswer,
    ];
    for class in Class::ALL {
        places.push(Place::Opening(class));
        places.extend([Side::Opener, Side::Acceptor].map(|side| Place::Stream(class, side)));
    }
    let found: Vec<String> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let may: Vec<String> = places
                .iter()
                .filter(|place| kind_may_stand(kind, **place))
                .map(|place| format!("{place:?}"))
                .collect();
            format!("{kind:?}: {}", may.join(" "))
        })
        .collect();
    let expected = [
        "ToEngine: Stream(Control, Opener)",
        "FromEngine: Stream(Control, Acceptor)",
        "LogEntry: ",
        "ShardSetup: ",
        "PackedIndex: ",
        "PeerRequest: Opening(Control)",
        "PeerAnswer: Answer",
        "Hello: Opening(Control) Opening(Bulk) Opening(Activations)",
        "JoinRequest: JoinRequest",
        "JoinAnswer: JoinAnswer",
        "RenewRequest: RenewRequest",
        "RenewAnswer: RenewAnswer",
        "Chunk: Stream(Bulk, Opener) Stream(Bulk, Acceptor) Stream(Activations, Opener) Stream(Activations, Acceptor)",
        "WantChunks: Stream(Bulk, Opener)",
        "StageBegin: Stream(Activations, Opener)",
        "StageReady: Stream(Activations, Acceptor)",
        "StageStep: Stream(Activations, Opener)",
        "RaftEntry: ",
        "RaftVote: ",
        "RaftLogId: ",
        "SnapshotMeta: ",
        "ClusterImage: ",
        "NodeIdentity: ",
        "Backup: ",
        "ModelText: ",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_bundle_of_nobody_is_no_bundle() {
    assert!(Bundle::new(Vec::new()).is_err());
}
