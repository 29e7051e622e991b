//! What can go wrong between nodes.

use proto::NodeId;
use proto::wire::{Kind, WireError};
use std::net::SocketAddr;
use std::time::Duration;

/// On a stream. After any of them the stream is of no use any more.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    #[error("the connection to node {node} ended: {reason}")]
    Closed { node: NodeId, reason: String },
    #[error("node {node} speaks wrongly: {error}")]
    Wire { node: NodeId, error: WireError },
    #[error("a message of kind {kind:?} has no place here (node {node})")]
    NotAllowed { node: NodeId, kind: Kind },
    #[error("node {node} is no member of the cluster any more")]
    CutOff { node: NodeId },
    #[error("node {node} sent {found} bytes where {expected} were due")]
    Length {
        node: NodeId,
        found: usize,
        expected: usize,
    },
    #[error("a message to node {node} was given up half sent")]
    HalfSent { node: NodeId },
}

/// Of a call, or of opening a stream.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum PeerError {
    #[error("no address of node {0} is known")]
    NoAddress(NodeId),
    #[error("node {node} at {address} cannot be reached: {reason}")]
    Unreachable {
        node: NodeId,
        address: SocketAddr,
        reason: String,
    },
    #[error("node {node} has not answered within {after:?}")]
    Deadline { node: NodeId, after: Duration },
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Of binding the port.
#[derive(thiserror::Error, Debug)]
pub enum BindError {
    #[error("the QUIC port {address} cannot be opened ({reason}): choose another one with --quic")]
    Socket { address: String, reason: String },
    #[error("QUIC cannot be set up: {0}")]
    Tls(String),
}

/// Of joining a cluster.
#[derive(thiserror::Error, Debug)]
pub enum JoinError {
    #[error(
        "no node of the cluster could be asked:{}\nwhere there was no answer, see that a node runs there, and that UDP gets there from here",
        listed(.0)
    )]
    NobodyAnswered(Vec<(SocketAddr, String)>),
    #[error(
        "the cluster was asked for two minutes, and too many others ask it at once: the token is as good as before, so start \
         this node again later:{}",
        listed(.0)
    )]
    Busy(Vec<(SocketAddr, String)>),
    #[error("the cluster refuses: {0}")]
    Refused(String),
    #[error(
        "{address} answered wrongly after it had been told the token: {reason}; draw a new token before you try again"
    )]
    Broken { address: SocketAddr, reason: String },
}

/// A reason that several have is told once.
fn listed(failures: &[(SocketAddr, String)]) -> String {
    let mut told: Vec<(String, &str)> = Vec::new();
    for (address, reason) in failures {
        match told.iter_mut().find(|(_, known)| known == reason) {
            Some((addresses, _)) => addresses.push_str(&format!(", {address}")),
            None => told.push((address.to_string(), reason)),
        }
    }
    let lines = told.iter();
    lines
        .map(|(addresses, reason)| format!("\n  {addresses}: {reason}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_several_addresses_have_is_told_once() {
        let failure = |port, reason: &str| (SocketAddr::from(([10, 0, 0, 1], port)), reason.to_owned());
        let failures = vec![
            failure(1, "no answer"),
            failure(2, "not here"),
            failure(3, "no answer"),
        ];
        let told = JoinError::NobodyAnswered(failures).to_string();
        let listed = "no node of the cluster could be asked:\n  10.0.0.1:1, 10.0.0.1:3: no answer\n  10.0.0.1:2: not here\n";
        assert!(told.starts_with(listed), "{told}");
        assert!(told.contains("UDP"), "{told}");
    }

    #[test]
    fn who_was_asked_and_is_busy_is_not_said_to_be_out_of_reach() {
        let failures = vec![(
            SocketAddr::from(([10, 0, 0, 1], 1)),
            "too many ask it at once".to_owned(),
        )];
        let told = JoinError::Busy(failures).to_string();
        assert!(
            !told.contains("could be asked") && told.contains("10.0.0.1:1"),
            "{told}"
        );
        assert!(told.contains("again later"), "{told}");
    }
}

/// Why a connection is closed; the other side is told the number and the words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum CloseCode {
    Done = 0,
    NoCertificate = 1,
    CertificateExpired = 2,
    NotAMember = 3,
    Protocol = 4,
    Busy = 5,
    Replaced = 6,
    ShuttingDown = 7,
    AnotherNode = 8,
}

impl CloseCode {
    pub fn close(self, connection: &quinn::Connection) {
        connection.close(quinn::VarInt::from_u32(self as u32), self.words().as_bytes());
    }

    /// Did the other side close with this code?
    pub fn is_why(self, end: &quinn::ConnectionError) -> bool {
        match end {
            quinn::ConnectionError::ApplicationClosed(close) => {
                close.error_code == quinn::VarInt::from_u32(self as u32)
            }
            _ => false,
        }
    }

    fn words(self) -> &'static str {
        match self {
            CloseCode::Done => "done",
            CloseCode::NoCertificate => "a certificate of the cluster is needed here",
            CloseCode::CertificateExpired => {
                "the certificate does not hold now; renew it, and compare the clocks"
            }
            CloseCode::NotAMember => "no member of the cluster has this key",
            CloseCode::Protocol => "that is not how nodes speak",
            CloseCode::Busy => "too many at once; try again later",
            CloseCode::Replaced => "there is a newer connection",
            CloseCode::ShuttingDown => "the node is stopping",
            CloseCode::AnotherNode => "this is not the node that was dialled",
        }
    }
}
