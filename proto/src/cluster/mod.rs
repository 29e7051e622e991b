//! What the cluster agrees on: the commands its log holds, the records they are made of, and the state they add up to
//! as it is written down.

mod command;
mod image;
mod outcome;
mod placement;
mod rates;
mod record;

pub use command::{
    Authorities, AuthoritiesStep, FeatureLevel, Founding, MemberAt, MemberIs, PLACING_LEVEL, Proposal,
};
pub use command::{
    ClusterCommand, Drain, KeyId, NewMember, NewTenant, NodeModels, Resume, TenantIs, TokenIs, Undeploy,
    Unplace,
};
pub use image::{ClusterImage, ImageV1, ImageV2};
pub use outcome::{Applied, Outcome, OverBudget, Rejected};
pub use placement::{
    Deployment, KvCacheFormat, LinkProfile, ModelShape, NodeProfile, Placement, Prediction, RowBytes,
    StagePlace, WorkspaceShape,
};
pub use rates::{AttentionRates, InputTerms, MatrixFormat, NodeRates, ProductKind, ProductRates, Products};
pub use record::{KeyRecord, MemberRecord, ModelRecord, ReplicaRecord, Role, TenantRecord, TokenRecord};
