use super::support::*;
use crate::transport::*;
use bytes::Bytes;
use proto::engine::{FromEngine, ToEngine};
use proto::wire::Kind;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_asks_another_and_is_answered() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    one.ping(two.id).await.unwrap();
    let request = raft(&[5; 100_000]);
    let answer = one.peers.call(two.id, request.clone()).await.unwrap();
    assert_eq!(answer, echo(&[5; 100_000]));
    assert_eq!(two.service.calls.lock().unwrap().last(), Some(&(one.id, request)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_dialled_asks_over_the_same_connection() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    one.ping(two.id).await.unwrap();
    // It has no address of node 1.
    two.ping(one.id).await.unwrap();
    assert_eq!(one.peers.links().len(), 1);
    assert_eq!(two.peers.links().len(), 1);
    assert_eq!(two.peers.links()[0].side, Side::Acceptor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_at_once_dial_once() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    let calls = (0..100).map(|_| one.ping(two.id));
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    assert_eq!(one.peers.links().len(), 1);
    assert_eq!(two.service.calls.lock().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_every_class_carry_frames_both_ways() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    for class in [Class::Bulk, Class::Activations] {
        let (mut sender, mut receiver) = one.echo_stream(two.id, class).await;
        for (epoch, length) in [0, 1, 1500, 65_536, 3 << 20].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|n: usize| (n % 251) as u8).collect();
            sender
                .send_chunk(epoch as u64, Bytes::from(bytes.clone()))
                .await
                .unwrap();
            let frame = receiver.next().await.unwrap().unwrap();
            assert_eq!((frame.kind, frame.epoch), (Kind::Chunk, epoch as u64));
            assert_eq!(frame.payload, bytes);
        }
        let mut buffer = [0; 300];
        sender.send_chunk(9, Bytes::from_static(&[3; 300])).await.unwrap();
        assert_eq!(receiver.next_into(&mut buffer).await, Ok(Some(9)));
        assert_eq!(buffer, [3; 300]);
        sender
            .send_chunk(10, Bytes::from_static(&[4; 300]))
            .await
            .unwrap();
        assert_eq!(receiver.next_chunk().await, Ok(Some((10, vec![4; 300]))));
        sender.send_chunk(11, Bytes::from_static(&[5; 20])).await.unwrap();
        assert_eq!(receiver.next_chunk().await, Ok(Some((11, vec![5; 20]))));
        sender.send_chunk(12, Bytes::from_static(&[6; 10])).await.unwrap();
        assert_eq!(receiver.next().await.unwrap().unwrap().payload, [6; 10]);
        sender.finish();
        assert!(receiver.next().await.unwrap().is_none());
    }
    let (mut sender, mut receiver) = one.echo_stream(two.id, Class::Control).await;
    sender.send(Kind::ToEngine, 4, &ToEngine::Drain).await.unwrap();
    let answer: Option<FromEngine> = receiver.next_message(Kind::FromEngine).await.unwrap();
    assert_eq!(answer, Some(FromEngine::Drained));
    sender.send(Kind::ToEngine, 5, &ToEngine::Drain).await.unwrap();
    let refused = receiver.next_chunk().await.unwrap_err();
    let (node, kind) = (two.id, Kind::FromEngine);
    assert_eq!(refused, LinkError::NotAllowed { node, kind });
    let streams = two.service.streams.lock().unwrap();
    assert_eq!(streams.len(), 3);
    assert_eq!(streams[0], (one.id, Class::Bulk, hello(Class::Bulk)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_is_worked_for_no_longer() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    let request = never();
    one.ping(two.id).await.unwrap();
    let after = Duration::from_secs(1);
    let answer = one.peers.call_within(two.id, request, after).await;
    assert_eq!(answer, Err(PeerError::Deadline { node: two.id, after }));
    assert_eq!(two.service.calls.lock().unwrap().len(), 2);
    until("the call is given up", Duration::from_secs(2), || {
        *two.service.under_way.lock().unwrap() == 0
    })
    .await;
    one.ping(two.id).await.unwrap();
}
