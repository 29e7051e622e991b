//! The one UDP port of a node: who may open a connection, and as what.

use super::dial::{AddressBook, DialSettings, Dials};
use super::error::{BindError, CloseCode};
use super::gate::{Admission, Gate};
use super::guard::Guard;
use super::links::{Link, Links};
use super::peers::Peers;
use super::protocol::{Class, Protocol, Side};
use super::reset_key::{RandomIds, ResetKey};
use super::service::{Membership, Service};
use super::told::ToldLately;
use super::{question, serve, socket, tls, tuning};
use crate::clock;
use crate::os::port;
use crate::trust::{Bundle, Identity, PeerIdentity};
use proto::NodeId;
use proto::join::{JoinAnswer, Refused, RenewAnswer};
use proto::wire::Kind;
use quinn::crypto::rustls::HandshakeData;
use quinn::{EndpointConfig, TokioRuntime};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Handshakes at once: from hosts where nodes live, and from all others. A flood of the one does not keep out the other.
const HANDSHAKES_OF_MEMBERS_MAX: usize = 64;
const HANDSHAKES_OF_STRANGERS_MAX: usize = 32;
/// From here on, members' hosts too have to show that they receive what is sent to them.
const HANDSHAKES_BEFORE_RETRY: usize = 16;
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Connections that quinn holds before we have looked at them, and bytes for them.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 << 20;
/// Strangers' questions at once, and members': nobody outside can keep a member from renewing its certificate.
const QUESTIONS_MAX: usize = 16;
/// From the handshake to the last byte of the question.
const QUESTION_MAX: Duration = Duration::from_secs(5);
/// For the cluster to agree on the new member.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What a node's port needs to know.
pub struct Settings {
    /// As [`listen`] gives it.
    pub socket: UdpSocket,
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub membership: Arc<dyn Membership>,
    pub service: Arc<dyn Service>,
}

pub(super) struct Shared {
    pub endpoint: quinn::Endpoint,
    pub membership: Arc<dyn Membership>,
    pub service: Arc<dyn Service>,
    pub links: Links,
    pub addresses: AddressBook,
    pub dials: Dials,
    pub dial_settings: DialSettings,
    handshakes_of_members: Arc<Semaphore>,
    handshakes_of_strangers: Arc<Semaphore>,
    questions_of_strangers: Arc<Semaphore>,
    questions_of_members: Arc<Semaphore>,
    gate: Mutex<Gate>,
    /// Nodes that have closed a connection because this one is no member, and have said nothing else since.
    refused_by: Mutex<BTreeSet<NodeId>>,
    /// When somebody came last who has a certificate of this cluster and is no member that this node knows.
    unknown_came: Mutex<Option<Instant>>,
    told_lately: ToldLately,
}

impl Shared {
    pub fn refusals(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.refused_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn unknown_came(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unknown_came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node has said something over this connection, which nobody says to whom it holds for no member.
    pub fn heard(&self, from: &Guard) {
        let mut refused_by = self.refusals();
        // What it said before it closed the connection is older than its refusal.
        if from.connection.close_reason().is_none() {
            refused_by.remove(&from.node);
        }
    }
}

/// Takes the port, so that it can be named before it is served.
pub fn listen(address: SocketAddr) -> Result<UdpSocket, BindError> {
    UdpSocket::bind(address).map_err(|error| BindError::Socket {
        address: address.to_string(),
        reason: error.to_string(),
    })
}

/// As [`listen`], of a port that may become free in a moment.
pub async fn listen_soon(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let bound = port::once_free(async || UdpSocket::bind(address)).await;
    // Who still finds it taken says so.
    bound.or_else(|_| listen(address))
}

/// Serves the port until [`Peers::close`]. Within a tokio runtime.
pub fn bind(settings: Settings) -> Result<Peers, BindError> {
    let address = settings.socket.local_addr();
    let bad_socket = |error: std::io::Error| BindError::Socket {
        address: address
            .as_ref()
            .map_or_else(|error| error.to_string(), SocketAddr::to_string),
        reason: error.to_string(),
    };
    let bound = socket::wrap(settings.socket).map_err(bad_socket)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::accepting(
        settings.identity.clone(),
        settings.bundle.clone(),
    )?));
    server
        .transport_config(Arc::new(tuning::accepting(bound.packet_bytes_max)))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        endpoint_config(&settings.identity, bound.packet_bytes_max)?,
        Some(server),
        bound.socket,
        Arc::new(TokioRuntime),
    )
    .map_err(bad_socket)?;
    let dial_settings = DialSettings::new(&settings.identity, &settings.bundle, bound.packet_bytes_max)?;
    let shared = Arc::new(Shared {
        endpoint,
        membership: settings.membership,
        service: settings.service,
        links: Links::default(),
        addresses: AddressBook::default(),
        dials: Dials::default(),
        dial_settings,
        handshakes_of_members: Arc::new(Semaphore::new(HANDSHAKES_OF_MEMBERS_MAX)),
        handshakes_of_strangers: Arc::new(Semaphore::new(HANDSHAKES_OF_STRANGERS_MAX)),
        questions_of_strangers: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        questions_of_members: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        gate: Mutex::new(Gate::new(Instant::now())),
        refused_by: Mutex::default(),
        unknown_came: Mutex::default(),
        told_lately: ToldLately::default(),
    });
    tokio::spawn(accept(shared.clone()));
    Ok(Peers::new(shared))
}

fn endpoint_config(identity: &Identity, packet_bytes_max: u16) -> Result<EndpointConfig, BindError> {
    let reset_key = ResetKey::new(identity.derived_secret("reset of connections"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(|| Box::new(RandomIds));
    config
        .max_udp_payload_size(packet_bytes_max)
        .map_err(|error| BindError::Tls(error.to_string()))?;
    Ok(config)
}

async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        match seat(&shared, &incoming) {
            Seat::Taken(permit) => {
                tokio::spawn(welcome(shared.clone(), incoming, permit));
            }
            Seat::FirstShowAddress => {
                // Fails only where the address has been shown, which `seat` has looked at.
                let _ = incoming.retry();
            }
            // Silence costs nothing, and the other tries again.
            Seat::None => incoming.ignore(),
        }
    }
}

enum Seat {
    Taken(OwnedSemaphorePermit),
    /// By an answer to a packet that was sent there (Retry): what is sent from forged addresses ends here.
    FirstShowAddress,
    None,
}

fn seat(shared: &Shared, incoming: &quinn::Incoming) -> Seat {
    let of_member = shared.addresses.knows_host(incoming.remote_address().ip());
    let (seats, trusted) = match of_member {
        true => {
            let seats = &shared.handshakes_of_members;
            let taken = HANDSHAKES_OF_MEMBERS_MAX.saturating_sub(seats.available_permits());
            (seats, taken < HANDSHAKES_BEFORE_RETRY)
        }
        false => (&shared.handshakes_of_strangers, false),
    };
    if !trusted && !incoming.remote_address_validated() && incoming.may_retry() {
        return Seat::FirstShowAddress;
    }
    match seats.clone().try_acquire_owned() {
        Ok(permit) => Seat::Taken(permit),
        Err(_) => Seat::None,
    }
}

async fn welcome(shared: Arc<Shared>, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) {
    let from = incoming.remote_address();
    let Ok(connecting) = incoming.accept() else {
        return;
    };
    let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE_MAX, connecting).await else {
        return;
    };
    drop(permit);
    let protocol = protocol_of(&connection);
    let outcome = match (protocol, PeerIdentity::of_connection(&connection)) {
        (None, _) | (_, Err(_)) => refuse(&connection, CloseCode::Protocol),
        (Some(Protocol::Peer(class)), Ok(Some(identity))) => member(&shared, connection, class, identity),
        (Some(Protocol::Renew), Ok(Some(identity))) => renew(&shared, &connection, identity).await,
        (Some(Protocol::Peer(_) | Protocol::Renew), Ok(None)) => {
            refuse(&connection, CloseCode::NoCertificate)
        }
        (Some(Protocol::Join), Ok(None)) => join(&shared, &connection, from).await,
        (Some(Protocol::Join), Ok(Some(_))) => refuse(&connection, CloseCode::Protocol),
    };
    let Err(reason) = outcome else { return };
    match shared.told_lately.is_news(from.ip(), &reason, Instant::now()) {
        true => tracing::info!(%from, ?protocol, reason, "a connection was refused"),
        false => tracing::debug!(%from, ?protocol, reason, "a connection was refused"),
    }
}

fn protocol_of(connection: &quinn::Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Protocol::of_alpn(data.protocol.as_deref()?)
}

/// Until here, no stream could be opened.
fn member(
    shared: &Arc<Shared>,
    connection: quinn::Connection,
    class: Class,
    identity: PeerIdentity,
) -> Result<(), String> {
    if !identity.is_current(clock::unix_secs()) {
        return refuse(&connection, CloseCode::CertificateExpired);
    }
    let Some((node, _)) = shared.membership.member(&identity.spki) else {
        *shared.unknown_came() = Some(Instant::now());
        return refuse(&connection, CloseCode::NotAMember);
    };
    tuning::let_in(&connection, tuning::Limits::of(class));
    let link = Arc::new(Link {
        guard: Guard {
            node,
            spki: identity.spki,
            connection,
            membership: shared.membership.clone(),
        },
        class,
        side: Side::Acceptor,
        since: Instant::now(),
    });
    shared.links.add(link.clone());
    tokio::spawn(serve::peer(shared.clone(), link));
    Ok(())
}

async fn join(shared: &Shared, connection: &quinn::Connection, from: SocketAddr) -> Result<(), String> {
    let Some(_permit) = strangers_permit(shared, from) else {
        return refuse(connection, CloseCode::Busy);
    };
    let (mut send, request) = asked(connection, Kind::JoinRequest).await?;
    let answer = tokio::time::timeout(ANSWER_MAX, shared.service.join(from, request)).await;
    let answer = answer.unwrap_or_else(|_| JoinAnswer::Refused(Box::new(too_slow())));
    question::write(&mut send, Kind::JoinAnswer, &answer).await?;
    serve::close_when_delivered(connection, &send).await;
    Ok(())
}

async fn renew(
    shared: &Shared,
    connection: &quinn::Connection,
    identity: PeerIdentity,
) -> Result<(), String> {
    if shared.membership.member(&identity.spki).is_none() {
        return refuse(connection, CloseCode::NotAMember);
    }
    let Ok(_permit) = shared.questions_of_members.try_acquire() else {
        return refuse(connection, CloseCode::Busy);
    };
    let (mut send, request) = asked(connection, Kind::RenewRequest).await?;
    let answer = tokio::time::timeout(ANSWER_MAX, shared.service.renew(identity.spki, request)).await;
    let answer = answer.unwrap_or_else(|_| RenewAnswer::Refused(Box::new(too_slow())));
    question::write(&mut send, Kind::RenewAnswer, &answer).await?;
    serve::close_when_delivered(connection, &send).await;
    Ok(())
}

fn strangers_permit(shared: &Shared, from: SocketAddr) -> Option<OwnedSemaphorePermit> {
    let mut gate = shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
    match gate.admit(from.ip(), Instant::now()) {
        Admission::Admitted => shared.questions_of_strangers.clone().try_acquire_owned().ok(),
        Admission::TooOften => None,
    }
}

/// The one question of a connection.
async fn asked<T>(connection: &quinn::Connection, kind: Kind) -> Result<(quinn::SendStream, T), String>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    tuning::let_ask(connection);
    let asking = async {
        let (send, mut receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
        let request = question::read(&mut receive, kind).await?;
        Ok((send, request))
    };
    let asked = tokio::time::timeout(QUESTION_MAX, asking).await;
    let asked = asked.unwrap_or_else(|_| Err(format!("nothing was asked within {QUESTION_MAX:?}")));
    if asked.is_err() {
        CloseCode::Protocol.close(connection);
    }
    asked
}

fn too_slow() -> Refused {
    Refused {
        reason: format!(
            "the cluster has not decided within {ANSWER_MAX:?}; look at its status, and try again"
        ),
    }
}

fn refuse(connection: &quinn::Connection, code: CloseCode) -> Result<(), String> {
    code.close(connection);
    Err(format!("{code:?}"))
}
