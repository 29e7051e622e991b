//! Reaching another node: one attempt at a time for each node and class, and pauses after failures.

use super::endpoint::Shared;
use super::error::{BindError, CloseCode, LinkError, PeerError};
use super::guard::Guard;
use super::links::Link;
use super::protocol::{Class, Protocol, Side};
use super::{serve, tls, tuning};
use crate::clock;
use crate::trust::{PeerIdentity, SERVER_NAME};
use proto::NodeId;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A handshake on a LAN takes some milliseconds; a host under load, some tens.
const DIAL_MAX: Duration = Duration::from_secs(2);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// A node that comes back is found again within this.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Where nodes are.
#[derive(Default)]
pub(super) struct AddressBook {
    addresses: Mutex<BTreeMap<NodeId, SocketAddr>>,
}

impl AddressBook {
    /// A node that serves all addresses of its host, and does not know which of them others reach, cannot be dialled: what was
    /// known of it stays.
    pub fn set(&self, node: NodeId, address: SocketAddr) {
        if address.ip().is_unspecified() {
            return;
        }
        self.lock().insert(node, address);
    }

    pub fn forget(&self, node: NodeId) {
        self.lock().remove(&node);
    }

    pub fn find(&self, node: NodeId) -> Option<SocketAddr> {
        self.lock().get(&node).copied()
    }

    /// Does a node live on this host?
    pub fn knows_host(&self, host: IpAddr) -> bool {
        let host = host.to_canonical();
        self.lock()
            .values()
            .any(|known| known.ip().to_canonical() == host)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, SocketAddr>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// quinn's settings for dialling, made once.
pub(super) struct DialSettings {
    peer: [quinn::ClientConfig; Class::ALL.len()],
    renew: quinn::ClientConfig,
}

impl DialSettings {
    pub fn new(
        identity: &Arc<crate::trust::Identity>,
        bundle: &Arc<crate::trust::Bundle>,
        packet_bytes_max: u16,
    ) -> Result<DialSettings, BindError> {
        let config = |protocol, transport| {
            let crypto = tls::dialling(identity.clone(), bundle.clone(), protocol)?;
            let mut config = quinn::ClientConfig::new(Arc::new(crypto));
            config.transport_config(Arc::new(transport));
            Ok(config)
        };
        let peer = |class| config(Protocol::Peer(class), tuning::dialling(class, packet_bytes_max));
        Ok(DialSettings {
            peer: [
                peer(Class::Control)?,
                peer(Class::Bulk)?,
                peer(Class::Activations)?,
            ],
            renew: config(Protocol::Renew, tuning::asking())?,
        })
    }

    fn of(&self, protocol: Protocol) -> Option<&quinn::ClientConfig> {
        match protocol {
            Protocol::Peer(Class::Control) => Some(&self.peer[0]),
            Protocol::Peer(Class::Bulk) => Some(&self.peer[1]),
            Protocol::Peer(Class::Activations) => Some(&self.peer[2]),
            Protocol::Renew => Some(&self.renew),
            // By who is no node yet: `join.rs`.
            Protocol::Join => None,
        }
    }
}

/// Attempts for each node and class.
#[derive(Default)]
pub(super) struct Dials {
    slots: Mutex<BTreeMap<(NodeId, Class), Slot>>,
}

/// Held while an attempt is made.
type Slot = Arc<tokio::sync::Mutex<Pause>>;

impl Dials {
    fn slot(&self, node: NodeId, class: Class) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry((node, class)).or_default().clone()
    }

    /// The other closed a connection because this node is no member for it: dialling went well, and to dial at once would only
    /// be refused again.
    pub async fn refused(&self, node: NodeId, class: Class, error: LinkError) {
        let slot = self.slot(node, class);
        slot.lock().await.refuse(error.into());
    }

    pub fn forget(&self, node: NodeId) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|(known, _), _| *known != node);
    }
}

/// After failures in a row.
#[derive(Default)]
struct Pause {
    failures: u32,
    last: Option<(Instant, PeerError)>,
}

impl Pause {
    /// What the last attempt gave, while it is too early for another one.
    fn too_early(&self, address: SocketAddr) -> Option<PeerError> {
        let (at, error) = self.last.as_ref()?;
        let pause = PAUSE_FIRST
            .saturating_mul(1 << self.failures.saturating_sub(1).min(8))
            .min(PAUSE_MAX);
        // A node that has moved is tried at once.
        let moved = matches!(error, PeerError::Unreachable { address: tried, .. } if *tried != address);
        (!moved && at.elapsed() < pause).then(|| error.clone())
    }

    /// The longest pause.
    fn refuse(&mut self, error: PeerError) {
        self.failures = u32::MAX;
        self.last = Some((Instant::now(), error));
    }

    fn note<T>(&mut self, outcome: &Result<T, PeerError>) {
        match outcome {
            Ok(_) => *self = Pause::default(),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.last = Some((Instant::now(), error.clone()));
            }
        }
    }
}

/// A connection to the node: one that is there, or a new one.
pub(super) async fn link(shared: &Arc<Shared>, node: NodeId, class: Class) -> Result<Arc<Link>, PeerError> {
    if let Some(link) = shared.links.usable(node, class) {
        return Ok(link);
    }
    // In a task of its own: who gives up waiting does not stop it, so a slow node is reached in the end.
    let dialling = tokio::spawn(link_once(shared.clone(), node, class));
    match dialling.await {
        Ok(outcome) => outcome,
        Err(error) => Err(PeerError::Link(LinkError::Closed {
            node,
            reason: error.to_string(),
        })),
    }
}

async fn link_once(shared: Arc<Shared>, node: NodeId, class: Class) -> Result<Arc<Link>, PeerError> {
    let slot = shared.dials.slot(node, class);
    let mut pause = slot.lock().await;
    if let Some(link) = shared.links.usable(node, class) {
        return Ok(link);
    }
    let address = shared.addresses.find(node).ok_or(PeerError::NoAddress(node))?;
    if let Some(error) = pause.too_early(address) {
        return Err(error);
    }
    let outcome = dial_peer(&shared, node, address, class).await;
    pause.note(&outcome);
    outcome
}

async fn dial_peer(
    shared: &Arc<Shared>,
    node: NodeId,
    address: SocketAddr,
    class: Class,
) -> Result<Arc<Link>, PeerError> {
    let (connection, identity) = dial(shared, node, address, Protocol::Peer(class)).await?;
    if !identity.is_current(clock::unix_secs()) {
        CloseCode::CertificateExpired.close(&connection);
        return Err(PeerError::Unreachable {
            node,
            address,
            reason: "its certificate does not hold now; let it renew, and compare the clocks".to_owned(),
        });
    }
    let guard = Guard {
        node,
        spki: identity.spki,
        connection,
        membership: shared.membership.clone(),
    };
    tuning::let_in(&guard.connection, tuning::Limits::of(class));
    let link = Arc::new(Link {
        guard,
        class,
        side: Side::Opener,
        since: Instant::now(),
    });
    shared.links.add(link.clone());
    tokio::spawn(serve::peer(shared.clone(), link.clone()));
    Ok(link)
}

/// A connection to exactly this member, whose certificate may have run out.
pub(super) async fn dial(
    shared: &Shared,
    node: NodeId,
    address: SocketAddr,
    protocol: Protocol,
) -> Result<(quinn::Connection, PeerIdentity), PeerError> {
    let unreachable = |reason: String| PeerError::Unreachable {
        node,
        address,
        reason,
    };
    let settings = shared.dial_settings.of(protocol);
    let settings = settings.ok_or_else(|| unreachable("members do not join".to_owned()))?;
    let connecting = shared
        .endpoint
        .connect_with(settings.clone(), address, SERVER_NAME)
        .map_err(|error| unreachable(error.to_string()))?;
    let connection = tokio::time::timeout(DIAL_MAX, connecting)
        .await
        .map_err(|_| unreachable(format!("no answer within {DIAL_MAX:?}")))?
        .map_err(|error| unreachable(error.to_string()))?;
    let identity =
        PeerIdentity::of_connection(&connection).map_err(|error| unreachable(error.to_string()))?;
    let known = identity.filter(|identity| {
        let member = shared.membership.member(&identity.spki);
        member.is_some_and(|(member, _)| member == node)
    });
    match known {
        Some(identity) => Ok((connection, identity)),
        None => {
            CloseCode::AnotherNode.close(&connection);
            Err(unreachable(
                "another key than the member's answers there".to_owned(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_refused_after_dialling_well_does_not_dial_at_once() {
        let address = "127.0.0.1:1".parse().unwrap();
        let mut pause = Pause::default();
        pause.note(&Ok::<_, PeerError>(()));
        assert_eq!(pause.too_early(address).map(|error| error.to_string()), None);
        let refusal = LinkError::CutOff { node: NodeId(7) };
        pause.refuse(refusal.clone().into());
        let error = pause.too_early(address).map(|error| error.to_string());
        assert_eq!(error, Some(PeerError::from(refusal).to_string()));
    }
}
