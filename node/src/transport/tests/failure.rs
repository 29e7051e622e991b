use super::support::*;
use crate::transport::*;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// Passes packets on, both ways, until it is told to swallow them.
struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Wire {
    async fn to(target: SocketAddr) -> Wire {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (address, cut) = (near.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let is_cut = cut.clone();
        tokio::spawn(async move {
            let mut dialler = None;
            let (mut from_near, mut from_far) = (vec![0; 65_536], vec![0; 65_536]);
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut from_near) => {
                        dialler = Some(from);
                        if !is_cut.load(Ordering::Relaxed) {
                            let _ = far.send_to(&from_near[..length], target).await;
                        }
                    }
                    Ok((length, _)) = far.recv_from(&mut from_far) => {
                        if let Some(dialler) = dialler.filter(|_| !is_cut.load(Ordering::Relaxed)) {
                            let _ = near.send_to(&from_far[..length], dialler).await;
                        }
                    }
                }
            }
        });
        Wire { address, cut }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_noticed_by_both_sides() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    let wire = Wire::to(two.address()).await;
    one.peers.set_address(two.id, wire.address);
    one.ping(two.id).await.unwrap();
    // Longer than the idle time: an idle connection is kept.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!((one.peers.links().len(), two.peers.links().len()), (1, 1));
    wire.cut.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let limit = Duration::from_millis(2_500);
    until("the one who dialled notices", limit, || {
        one.peers.links().is_empty()
    })
    .await;
    until("the other notices", limit, || two.peers.links().is_empty()).await;
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_back_at_its_address_is_found_at_once() {
    let cluster = Cluster::new();
    let one = cluster.node(1);
    let identity = cluster.identity(2);
    cluster
        .roster
        .add(identity.spki_hash(), 2, proto::join::Role::Voter);
    // In a runtime of its own, which is torn down without a farewell, as a process that is killed.
    let life = |address: SocketAddr| {
        let (cluster, identity) = (&cluster, identity.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let node = cluster.node_with(2, identity, address);
        drop(guard);
        (runtime, node)
    };
    let (runtime, first) = life("127.0.0.1:0".parse().unwrap());
    let address = first.address();
    one.peers.set_address(first.id, address);
    one.ping(first.id).await.unwrap();
    drop(first);
    runtime.shutdown_background();

    let second = rebound(&life, address).await;
    // It says that it has forgotten the connection, so nobody waits until that has been idle for too long (2 s).
    let start = Instant::now();
    while let Err(error) = one.ping(second.1.id).await {
        assert!(error.to_string().contains("reset by peer"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10), "still not found");
    }
    assert_eq!(second.1.service.calls.lock().unwrap().len(), 1);
    second.0.shutdown_background();
}

/// The old socket may take a moment to be gone.
async fn rebound(
    life: &impl Fn(SocketAddr) -> (tokio::runtime::Runtime, Node),
    address: SocketAddr,
) -> (tokio::runtime::Runtime, Node) {
    let start = Instant::now();
    while std::net::UdpSocket::bind(address).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "the address is not free again"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    life(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_an_address_is_said_soon_and_does_not_stop_others() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ghost = proto::NodeId(66);
    one.knows(&two);
    assert_eq!(one.ping(ghost).await, Err(PeerError::NoAddress(ghost)));
    one.peers.set_address(ghost, nobody.local_addr().unwrap());
    let (lost, found) = tokio::join!(one.ping(ghost), one.ping(two.id));
    found.unwrap();
    assert!(matches!(lost, Err(PeerError::Unreachable { .. })), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_says_so() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node(1), cluster.node(2));
    one.knows(&two);
    let (_sender, mut receiver) = one.echo_stream(two.id, Class::Control).await;
    two.peers.close().await;
    let error = receiver.next().await.unwrap_err();
    assert_closed_with(&error.to_string(), "stopping");
}
