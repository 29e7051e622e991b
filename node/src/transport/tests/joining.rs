use super::support::*;
use crate::clock;
use crate::transport;
use crate::transport::*;
use crate::trust::{Identity, JoinToken};
use proto::NodeId;
use proto::join::*;
use std::net::SocketAddr;
use std::sync::Arc;

fn token(cluster: &Cluster, addresses: &[SocketAddr]) -> JoinToken {
    JoinToken::draw(Role::Worker, cluster.authority.spki_hash(), addresses.to_vec()).unwrap()
}

fn request(token: &JoinToken, identity: &Identity) -> JoinRequest {
    JoinRequest::V1(Box::new(Joining {
        token_id: token.id,
        secret: token.secret,
        csr: identity.csr().unwrap(),
        quic_address: "127.0.0.1:1".to_owned(),
        http_url: "http://127.0.0.1:2".to_owned(),
        program_version: "0.1.0".to_owned(),
        feature_level: 1,
    }))
}

/// A port where nobody answers.
fn silent() -> std::net::UdpSocket {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_token_becomes_a_member_that_others_speak_with() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let token = token(&cluster, &[two.address()]);
    let identity = Identity::make().unwrap();
    let request = request(&token, &identity);
    let welcome = transport::join(&token, &request).await.unwrap();
    assert_eq!(*two.service.joins.lock().unwrap(), vec![request]);
    assert_eq!(welcome.node, NodeId(77));
    let authority = welcome.authorities[0].clone();
    identity
        .set_chain(vec![welcome.certificate.into(), authority.into()])
        .unwrap();
    let one = cluster.node_with(77, Arc::new(identity), "127.0.0.1:0".parse().unwrap());
    one.knows(&two);
    one.ping(two.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_not_told_to_another_cluster() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (impostor, real) = (theirs.node(2), ours.node(3));
    let identity = Identity::make().unwrap();
    let alone = token(&ours, &[impostor.address()]);
    let error = transport::join(&alone, &request(&alone, &identity))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not belong to the cluster"),
        "{error}"
    );
    assert!(
        error.to_string().contains(&impostor.address().to_string()),
        "{error}"
    );
    // Also not on the way to one that it may be told to.
    let both = token(&ours, &[impostor.address(), real.address()]);
    transport::join(&both, &request(&both, &identity)).await.unwrap();
    assert!(impostor.service.joins.lock().unwrap().is_empty());
    assert_eq!(real.service.joins.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_not_told_to_a_server_that_ran_out() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    cluster.chain_at(&two.identity, 2, clock::unix_secs() - 3 * 24 * 60 * 60);
    let token = token(&cluster, &[two.address()]);
    let identity = Identity::make().unwrap();
    let error = transport::join(&token, &request(&token, &identity))
        .await
        .unwrap_err();
    assert!(matches!(error, JoinError::NobodyAnswered(_)), "{error}");
    assert!(two.service.joins.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_tried_in_turn_and_each_failure_is_told() {
    let cluster = Cluster::new();
    let two = cluster.node(2);
    let nobody = silent();
    let nowhere = nobody.local_addr().unwrap();
    let identity = Identity::make().unwrap();
    let found = token(&cluster, &[nowhere, two.address()]);
    transport::join(&found, &request(&found, &identity))
        .await
        .unwrap();
    let lost = token(&cluster, &[nowhere]);
    let error = transport::join(&lost, &request(&lost, &identity))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&nowhere.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knocks_too_often_is_let_in_later_and_members_at_once() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    let token = token(&cluster, &[two.address()]);
    let identity = Identity::make().unwrap();
    // One network may ask so often at once; those that are too many come back by themselves.
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (token, request) = (token.clone(), request(&token, &identity));
        asking.spawn(async move { transport::join(&token, &request).await });
    }
    let let_in = || two.service.joins.lock().unwrap().len();
    let wait_max = std::time::Duration::from_secs(20);
    until("the first are let in", wait_max, || let_in() >= 8).await;
    one.ping(two.id).await.unwrap();
    let csr = one.identity.csr().unwrap();
    let renew = RenewRequest::V1(Box::new(Renewing { csr }));
    let answer = one.peers.renew(two.id, renew).await.unwrap();
    assert!(matches!(answer, RenewAnswer::Renewed(_)), "{answer:?}");
    while let Some(joined) = asking.join_next().await {
        joined.unwrap().unwrap();
    }
    assert_eq!(let_in(), 10);
}
