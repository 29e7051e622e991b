//! The protocols of one QUIC port. Which one a connection speaks is settled in its handshake (ALPN).

/// Traffic that must not wait for other traffic has a connection of its own: QUIC shares a congestion window and a
/// send queue among the streams of one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Calls, Raft, heartbeats, tokens.
    Control,
    /// Weights and KV cache.
    Bulk,
    /// Activations from stage to stage.
    Activations,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Control, Class::Bulk, Class::Activations];

    pub fn name(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Bulk => "bulk",
            Class::Activations => "activations",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Between members, who both show a current certificate.
    Peer(Class),
    /// For who has only a token.
    Join,
    /// For a member, whose certificate may have run out.
    Renew,
}

impl Protocol {
    pub const ALL: [Protocol; 5] = [
        Protocol::Peer(Class::Control),
        Protocol::Peer(Class::Bulk),
        Protocol::Peer(Class::Activations),
        Protocol::Join,
        Protocol::Renew,
    ];

    /// As it stands in the handshake. The number is that of the rules around the frames; these have their own.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Protocol::Peer(Class::Control) => b"cluster-peer/1",
            Protocol::Peer(Class::Bulk) => b"cluster-peer-bulk/1",
            Protocol::Peer(Class::Activations) => b"cluster-peer-activations/1",
            Protocol::Join => b"cluster-join/1",
            Protocol::Renew => b"cluster-renew/1",
        }
    }

    pub fn of_alpn(alpn: &[u8]) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.alpn() == alpn)
    }
}

/// Who has dialled, or who has opened a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    Opener,
    Acceptor,
}
