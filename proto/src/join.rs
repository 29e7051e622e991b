//! What somebody who wants to be a node says to the cluster, and what a node says to have its certificate renewed.
//!
//! Variants hold a box, so that one more at the end changes no size. Certificates and requests are DER.

use crate::NodeId;
pub use crate::cluster::Role;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum JoinRequest {
    V1(Box<Joining>),
}

/// Said only to a server whose authority is the one that the token names.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct Joining {
    pub token_id: [u8; 6],
    pub secret: [u8; 16],
    /// PKCS#10. Only its key counts, and that it signed itself.
    pub csr: Vec<u8>,
    /// `ip:port` where the new node's peers reach it.
    pub quic_address: String,
    /// Where its clients reach it.
    pub http_url: String,
    pub program_version: String,
    pub feature_level: u32,
}

/// Without the secret: it must not get into a log.
impl fmt::Debug for Joining {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Joining")
            .field("token_id", &self.token_id)
            .field("quic_address", &self.quic_address)
            .field("http_url", &self.http_url)
            .field("program_version", &self.program_version)
            .field("feature_level", &self.feature_level)
            .finish_non_exhaustive()
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum JoinAnswer {
    Welcome(Box<Welcome>),
    Refused(Box<Refused>),
}

/// The new node is a member from now on.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    pub node: NodeId,
    pub certificate: Vec<u8>,
    /// All that are trusted now: one, or two while the cluster changes its authority.
    pub authorities: Vec<Vec<u8>>,
    /// Some of them, as many as an answer holds; the log names all.
    pub members: Vec<MemberAddress>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct MemberAddress {
    pub node: NodeId,
    /// `ip:port`.
    pub quic_address: String,
    /// SHA-256 of the node's public key (SubjectPublicKeyInfo).
    pub spki: [u8; 32],
}

/// For people: what is wrong, and what to do.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub reason: String,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum RenewRequest {
    V1(Box<Renewing>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Renewing {
    /// PKCS#10, of the key that the cluster knows.
    pub csr: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum RenewAnswer {
    Renewed(Box<Renewed>),
    Refused(Box<Refused>),
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Renewed {
    pub certificate: Vec<u8>,
    /// As in [`Welcome`].
    pub authorities: Vec<Vec<u8>>,
}

/// What a node writes down about itself when it has become one.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    pub node: NodeId,
    /// As the cluster named them when it let this node in; nobody for who has founded it.
    pub members: Vec<MemberAddress>,
}
