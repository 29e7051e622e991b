//! What the cluster agrees on: the commands its log holds, the records they are made of, and the state they add up to
//! as it is written down.

mod command;
mod image;
mod outcome;
mod record;

pub use command::{Authorities, FeatureLevel, Founding, MemberAt, MemberIs, Proposal};
pub use command::{
    ClusterCommand, Drain, KeyId, NewMember, NewTenant, NodeModels, Resume, TenantIs, TokenIs,
};
pub use image::{ClusterImage, ImageV1};
pub use outcome::{Applied, Outcome, Rejected};
pub use record::{KeyRecord, MemberRecord, ModelRecord, ReplicaRecord, Role, TenantRecord, TokenRecord};
