//! QUIC as nodes use it: a long-lived stream of the class for activations.

use crate::Way;
use crate::ends::{End, Here};
use bytes::Bytes;
use node::transport::{Class, FrameReceiver, FrameSender, Peers, Settings, bind};
use proto::peer::{Hello, Stage};
use proto::{Epoch, ReplicaId};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub struct Tuned {
    peers: Peers,
    sender: FrameSender,
    receiver: FrameReceiver,
}

pub fn listen(here: Here, address: SocketAddr) -> Peers {
    bind(Settings {
        socket: node::transport::listen(address).unwrap(),
        identity: here.identity,
        bundle: here.bundle,
        membership: here.members,
        service: crate::echoing(),
    })
    .expect("a port")
}

pub async fn connect(here: Here, address: SocketAddr) -> Tuned {
    let peers = listen(here, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    peers.set_address(End::Listening.node(), address);
    let hello = Hello::Stage(Box::new(Stage {
        replica: ReplicaId(1),
        epoch: Epoch(1),
        stage: 0,
    }));
    let opened = peers.open(End::Listening.node(), Class::Activations, hello).await;
    let (sender, receiver) = opened.expect("a stream");
    Tuned {
        peers,
        sender,
        receiver,
    }
}

impl Way for Tuned {
    fn name(&self) -> &'static str {
        "QUIC, tuned"
    }

    async fn round(&mut self, bytes: &Bytes, echo: &mut [u8]) {
        self.sender
            .send_chunk(1, bytes.clone())
            .await
            .expect("it is sent");
        self.receiver.next_into(echo).await.expect("it comes back");
    }

    fn remark(&self) -> String {
        format!("tuned: {:?}", self.peers.links())
    }
}
