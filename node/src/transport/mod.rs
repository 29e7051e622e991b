//! How nodes speak with each other: QUIC on one UDP port.
//!
//! A connection is let in by the certificate that its other side shows, and only for what its protocol allows; between
//! members, nothing is read before the other's key is known to be a committed member's, and that is asked again on
//! every message. Read in this order: `protocol`, `service`, `endpoint`, `serve`, `frames`, `acl`, `peers`, `dial`;
//! `tuning` and `socket` are about speed.

pub mod acl;
pub mod protocol;
pub mod service;
pub mod tuning;

mod dial;
mod endpoint;
mod error;
mod frames;
mod gate;
mod guard;
mod join;
mod links;
mod peers;
mod question;
mod reset_key;
mod room;
mod serve;
mod socket;
mod tls;
mod told;

pub use endpoint::{Settings, bind, listen, listen_soon};
pub use error::{BindError, CloseCode, JoinError, LinkError, PeerError};
pub use frames::{Frame, FrameReceiver, FrameSender};
pub use join::join;
pub use links::LinkView;
pub use peers::{Peers, deadline_of};
pub use protocol::{Class, Protocol, Side};
pub use service::{Membership, Service};

#[cfg(test)]
pub(crate) mod tests;
