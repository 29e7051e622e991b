//! Nodes with stores of their own, within this process, on loopback.

use crate::clock;
use crate::hex;
use crate::peers::weights::{Fetched, Fetcher, Patience, Shelf, Wanted, Which};
use crate::store::chunks::{self, Manifest};
use crate::store::testing::store_without_sources;
use crate::transport::tests::support::Cluster;
use crate::transport::*;
use crate::trust::{Bundle, SpkiHash};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proto::NodeId;
use proto::join::*;
use proto::peer::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub const CHUNK: u32 = 16 << 10;
/// Not whole chunks.
const BYTES: usize = 200 * CHUNK as usize + 77;

/// A file, and what is known of it.
pub struct Model {
    pub bytes: Vec<u8>,
    pub digest: [u8; 32],
    pub manifest: Manifest,
}

impl Model {
    pub fn of(bytes: Vec<u8>) -> Model {
        let digests = bytes
            .chunks(CHUNK as usize)
            .map(|chunk| Sha256::digest(chunk).into());
        Model {
            digest: Sha256::digest(&bytes).into(),
            manifest: Manifest {
                file_bytes: bytes.len() as u64,
                chunk_bytes: CHUNK,
                digests: digests.collect(),
            },
            bytes,
        }
    }

    pub fn some() -> Model {
        Model::of((0..BYTES).map(|at| (at * 31 + at / 509) as u8).collect())
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn wanted(&self, which: Which) -> Wanted {
        Wanted {
            digest: self.digest,
            file_bytes: self.len(),
            manifest: Some(self.manifest.digest()),
            which,
        }
    }
}

/// How a node behaves that gives files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// It says that it has the file, and then nothing.
    Silent,
}

pub struct Host {
    pub id: NodeId,
    pub peers: Peers,
    pub shelf: Shelf,
    folder: PathBuf,
}

impl Host {
    pub fn new(cluster: &Cluster, id: u64) -> Host {
        Host::with(cluster, id, Manner::Honest)
    }

    /// Another process on the same host.
    pub fn beside(cluster: &Cluster, id: u64, other: &Host) -> Host {
        Host::at(cluster, id, Manner::Honest, other.folder.clone())
    }

    pub fn with(cluster: &Cluster, id: u64, manner: Manner) -> Host {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cluster-weights-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        Host::at(cluster, id, manner, folder)
    }

    fn at(cluster: &Cluster, id: u64, manner: Manner, folder: PathBuf) -> Host {
        let identity = cluster.identity(id);
        cluster.roster.add(identity.spki_hash(), id, Role::Voter);
        let shelf = Shelf::new(store_without_sources(&folder));
        let peers = bind(Settings {
            socket: listen("127.0.0.1:0".parse().unwrap()).unwrap(),
            identity,
            bundle: Arc::new(Bundle::new(vec![cluster.authority.certificate().clone()]).unwrap()),
            membership: cluster.roster.clone(),
            service: Arc::new(Giver {
                shelf: shelf.clone(),
                manner,
            }),
        })
        .unwrap();
        Host {
            id: NodeId(id),
            peers,
            shelf,
            folder,
        }
    }

    /// As if it had fetched it earlier.
    pub fn hold(self, model: &Model) -> Host {
        fs::write(self.blob(model), &model.bytes).unwrap();
        let manifest = chunks::place(&self.folder, &hex::encode(&model.digest));
        chunks::keep(&manifest, &model.manifest).unwrap();
        self
    }

    pub fn blob(&self, model: &Model) -> PathBuf {
        self.folder.join("blobs").join(hex::encode(&model.digest))
    }

    pub fn assert_holds(&self, model: &Model) {
        assert!(
            fs::read(self.blob(model)).unwrap() == model.bytes,
            "node {}",
            self.id
        );
    }

    pub fn fetcher(&self) -> Fetcher {
        Fetcher {
            own: self.id,
            peers: self.peers.clone(),
            shelf: self.shelf.clone(),
            patience: Patience {
                stall: Duration::from_secs(2),
                look_every: Duration::from_millis(100),
            },
        }
    }

    pub async fn fetch(&self, model: &Model, from: &[&Host]) -> Result<Fetched, String> {
        let candidates: Vec<NodeId> = from.iter().map(|host| host.id).collect();
        let wanted = model.wanted(Which::All);
        let fetched = self.fetcher().fetch(&wanted, &candidates, &mut |_, _| {}).await;
        fetched.map_err(|error| error.to_string())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// All know where the others are.
pub fn acquaint(hosts: &[&Host]) {
    for one in hosts {
        for other in hosts.iter().filter(|other| other.id != one.id) {
            one.peers
                .set_address(other.id, other.peers.local_address().unwrap());
        }
    }
}

struct Giver {
    shelf: Shelf,
    manner: Manner,
}

impl Service for Giver {
    fn call(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'_, PeerAnswer> {
        async move {
            match request {
                PeerRequest::Holds(model) => {
                    PeerAnswer::Holds(Box::new(self.shelf.holds(from, model.digest).await))
                }
                PeerRequest::Manifest(model) => {
                    PeerAnswer::Manifest(Box::new(self.shelf.manifest(model.digest).await))
                }
                other => panic!("nobody asks {other:?} here at {}", clock::unix_secs()),
            }
        }
        .boxed()
    }

    fn stream(
        &self,
        from: NodeId,
        class: Class,
        hello: Hello,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> BoxFuture<'_, ()> {
        async move {
            let Hello::Blob(blob) = hello else {
                panic!("a stream of class {class:?} for something else");
            };
            match self.manner {
                Manner::Honest => drop(self.shelf.serve(from, &blob.name, sender, receiver).await),
                Manner::Silent => sender.stopped().await,
            }
        }
        .boxed()
    }

    fn join(&self, _from: SocketAddr, _request: JoinRequest) -> BoxFuture<'_, JoinAnswer> {
        panic!("nobody joins here")
    }

    fn renew(&self, _spki: SpkiHash, _request: RenewRequest) -> BoxFuture<'_, RenewAnswer> {
        panic!("nobody renews here")
    }
}
