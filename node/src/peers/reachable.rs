//! Where others reach this node: found out from the host's routes where it is served on all of its addresses, and told to the
//! cluster whenever it has changed.
//!
//! A program may run before its host has addresses and routes, and a host may have several of them. So an address that others know is kept
//! for as long as it is one of this host, and where none can be found out nothing is told.

use super::entry::FEATURE_LEVEL;
use crate::raft::CommitError;
use crate::state::{NodeState, StateError};
use coordinator::cluster_state::ClusterState;
use proto::NodeId;
use proto::cluster::{ClusterCommand, MemberAt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const ASK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a node is bound to.
#[derive(Clone, Debug)]
pub struct Bound {
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub http_scheme: &'static str,
}

/// As members are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reachable {
    pub quic: String,
    pub http: String,
}

/// What a host says of itself.
trait Host {
    /// From which of its addresses it would speak to that one. `None`: there is no way there.
    fn source_towards(&self, there: SocketAddr) -> Option<IpAddr>;

    fn has(&self, address: IpAddr) -> bool;
}

struct ThisHost;

impl Host for ThisHost {
    fn source_towards(&self, there: SocketAddr) -> Option<IpAddr> {
        let any: IpAddr = match there {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        // Only the route is asked for: nothing is sent.
        socket.connect(there).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    fn has(&self, address: IpAddr) -> bool {
        UdpSocket::bind((address, 0)).is_ok()
    }
}

impl Bound {
    /// `towards`: where other nodes are, as far as that is known. `known`: where others reach this node as they were told.
    ///
    /// `None`: it is served on all addresses, and none can be found out.
    pub fn reachable(&self, towards: &[SocketAddr], known: Option<IpAddr>) -> Option<Reachable> {
        self.reachable_on(&ThisHost, towards, known)
    }

    /// Before anything is known of the host that others could use.
    pub fn as_bound(&self) -> Reachable {
        self.at(self.quic.ip(), self.http.ip())
    }

    fn reachable_on(
        &self,
        host: &impl Host,
        towards: &[SocketAddr],
        known: Option<IpAddr>,
    ) -> Option<Reachable> {
        let ip_of = |bound: IpAddr| match bound.is_unspecified() {
            true => own_ip(host, bound, towards, known),
            false => Some(bound),
        };
        Some(self.at(ip_of(self.quic.ip())?, ip_of(self.http.ip())?))
    }

    fn at(&self, quic: IpAddr, http: IpAddr) -> Reachable {
        let quic = SocketAddr::new(quic, self.quic.port());
        let http = SocketAddr::new(http, self.http.port());
        Reachable {
            quic: quic.to_string(),
            http: format!("{}://{http}", self.http_scheme),
        }
    }
}

/// Of a port that is open on all addresses of the host.
fn own_ip(host: &impl Host, bound: IpAddr, towards: &[SocketAddr], known: Option<IpAddr>) -> Option<IpAddr> {
    let is_kept = |ip: &IpAddr| is_of_use(*ip) && ip.is_ipv4() == bound.is_ipv4() && host.has(*ip);
    if let Some(kept) = known.filter(is_kept) {
        return Some(kept);
    }
    // Addresses for documentation (RFC 5737, RFC 3849) stand for the world.
    let world: SocketAddr = match bound {
        IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    };
    let others = towards
        .iter()
        .copied()
        .filter(|there| there.is_ipv4() == bound.is_ipv4() && !there.ip().is_unspecified());
    let sources = others
        .chain([world])
        .filter_map(|there| host.source_towards(there));
    let sources: Vec<IpAddr> = sources.filter(|source| !source.is_unspecified()).collect();
    let of_use = sources.iter().find(|source| is_of_use(**source));
    of_use.or(sources.first()).copied()
}

/// By a node on another host.
fn is_of_use(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback()
}

/// For as long as the node lives, the log says where it is and what it understands, as far as that is known.
pub async fn tell_where(state: Arc<NodeState>, bound: Bound) {
    loop {
        let pause = match untold(&state, &bound) {
            None => LOOK_AGAIN,
            Some(at) => match state.commit(ClusterCommand::MoveMember(Box::new(at))).await {
                Ok(_) => LOOK_AGAIN,
                Err(StateError::Commit(
                    CommitError::NoLeader | CommitError::Unknown(_) | CommitError::Away(_),
                )) => ASK_AGAIN,
                Err(StateError::Rejected(error)) => {
                    tracing::error!(%error, "this node could not say where it is");
                    return;
                }
            },
        };
        sleep(pause).await;
    }
}

/// `None`: what is told is as it is, or nothing better is known.
fn untold(state: &NodeState, bound: &Bound) -> Option<MemberAt> {
    let node = state.node();
    let applied = state.applied();
    let told = applied.member(node);
    let told_ip = told.and_then(|told| Some(told.quic.parse::<SocketAddr>().ok()?.ip()));
    let as_told = || {
        told.map(|told| Reachable {
            quic: told.quic.clone(),
            http: told.http.clone(),
        })
    };
    // What this program understands is told wherever it is.
    let now = bound
        .reachable(&others(&applied, node), told_ip)
        .or_else(as_told)?;
    let is_told = told
        .is_some_and(|told| told.quic == now.quic && told.http == now.http && told.level == FEATURE_LEVEL);
    (!is_told).then_some(MemberAt {
        node,
        quic: now.quic,
        http: now.http,
        level: FEATURE_LEVEL,
    })
}

fn others(applied: &ClusterState, own: NodeId) -> Vec<SocketAddr> {
    let others = applied.members().filter(|member| member.node != own);
    others.filter_map(|member| member.quic.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Its addresses, and from which it speaks to whom.
    #[derive(Default)]
    struct Pretended {
        own: Vec<IpAddr>,
        routes: Vec<(IpAddr, IpAddr)>,
        asked: RefCell<Vec<IpAddr>>,
    }

    impl Host for Pretended {
        fn source_towards(&self, there: SocketAddr) -> Option<IpAddr> {
            self.asked.borrow_mut().push(there.ip());
            let mut routes = self.routes.iter();
            routes.find(|(to, _)| *to == there.ip()).map(|(_, from)| *from)
        }

        fn has(&self, address: IpAddr) -> bool {
            self.own.contains(&address)
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bound(address: &str) -> Bound {
        Bound {
            quic: SocketAddr::new(ip(address), 8001),
            http: SocketAddr::new(ip(address), 8000),
            http_scheme: "http",
        }
    }

    fn quic(host: &Pretended, towards: &[&str], known: Option<&str>) -> Option<String> {
        let towards: Vec<SocketAddr> = towards.iter().map(|text| text.parse().unwrap()).collect();
        let reachable = bound("0.0.0.0").reachable_on(host, &towards, known.map(ip));
        reachable.map(|reachable| reachable.quic)
    }

    #[test]
    fn an_address_that_was_given_is_told_whatever_the_host_says() {
        let reachable = bound("10.0.0.1").reachable_on(&Pretended::default(), &[], Some(ip("10.0.0.2")));
        let expected = Reachable {
            quic: "10.0.0.1:8001".to_owned(),
            http: "http://10.0.0.1:8000".to_owned(),
        };
        assert_eq!(reachable, Some(expected));
    }

    #[test]
    fn of_all_addresses_it_is_the_one_towards_another_node_or_else_towards_the_world() {
        let world = (ip("192.0.2.1"), ip("10.0.0.9"));
        let host = Pretended {
            routes: vec![(ip("10.1.0.2"), ip("10.1.0.1")), world],
            ..Pretended::default()
        };
        assert_eq!(
            quic(&host, &["10.1.0.2:8001"], None).as_deref(),
            Some("10.1.0.1:8001")
        );
        assert_eq!(
            quic(&host, &["10.2.0.2:1", "10.1.0.2:8001"], None).as_deref(),
            Some("10.1.0.1:8001"),
            "one is enough"
        );
        assert_eq!(quic(&host, &[], None).as_deref(), Some("10.0.0.9:8001"));
        let host = Pretended {
            routes: vec![
                (ip("127.0.0.1"), ip("127.0.0.1")),
                (ip("10.1.0.2"), ip("10.1.0.1")),
            ],
            ..Pretended::default()
        };
        let towards = ["127.0.0.1:8003", "10.1.0.2:8001"];
        assert_eq!(
            quic(&host, &towards, None).as_deref(),
            Some("10.1.0.1:8001"),
            "nodes of other hosts too"
        );
        assert_eq!(
            quic(&host, &towards[..1], None).as_deref(),
            Some("127.0.0.1:8001")
        );
    }

    #[test]
    fn where_the_host_has_no_way_out_nothing_is_told() {
        let host = Pretended::default();
        assert_eq!(
            quic(&host, &["0.0.0.0:8001", "10.1.0.2:8001"], Some("10.0.0.9")),
            None
        );
        assert!(!host.asked.borrow().contains(&ip("0.0.0.0")));
    }

    #[test]
    fn what_others_know_stays_while_it_is_an_address_of_this_host() {
        let mut host = Pretended {
            own: vec![ip("10.0.0.9"), ip("127.0.0.1"), ip("0.0.0.0")],
            ..Pretended::default()
        };
        assert_eq!(
            quic(&host, &[], Some("10.0.0.9")).as_deref(),
            Some("10.0.0.9:8001")
        );
        host.routes = vec![(ip("10.1.0.2"), ip("10.1.0.1"))];
        let towards = ["10.1.0.2:8001"];
        assert_eq!(
            quic(&host, &towards, Some("10.0.0.9")).as_deref(),
            Some("10.0.0.9:8001")
        );
        for of_no_use in ["127.0.0.1", "0.0.0.0", "10.0.0.8"] {
            assert_eq!(
                quic(&host, &towards, Some(of_no_use)).as_deref(),
                Some("10.1.0.1:8001"),
                "{of_no_use}"
            );
        }
    }
}
