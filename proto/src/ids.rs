//! Names of things. Every id is a newtype, so that a block is never mistaken for a sequence.

use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}", self.0)
            }
        }
    };
}

id!(/// A node of the cluster. Allocated once, never reused.
    NodeId(u64));
id!(/// One running copy of a model; the home of one `Engine`.
    ReplicaId(u32));
id!(/// A generation of a replica. Messages of an older epoch are dropped at the door.
    Epoch(u64));
id!(/// A customer whose load, cache and quota are kept apart from the others'.
    TenantId(u32));
id!(/// Which fine-tuned variant of the base model a slice uses; 0 is the base model itself.
    AdapterId(u32));
id!(/// A sequence inside one engine. Never reused within an epoch.
    SequenceId(u64));
id!(/// A page of KV cache; the same number on every rank of a replica.
    BlockId(u32));
id!(/// A KV cache group: layers that keep their cache by the same rule (full attention, window, …).
    GroupId(u8));
id!(/// A step of one engine, counted from 0 in each epoch.
    StepId(u64));
id!(/// How often a stream was submitted to an engine; tokens of an older attempt are dropped.
    Attempt(u32));
id!(/// A place in a stream's *output*: the first generated token is at position 0.
    Position(u32));

/// One HTTP request. Random, drawn by the gateway; printed as 32 hexadecimal digits.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// One stream of tokens: a choice of a request. Choice index = prompt · n + k.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct StreamId {
    pub request: RequestId,
    pub choice: u32,
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.request, self.choice)
    }
}
