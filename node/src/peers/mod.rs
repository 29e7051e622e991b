//! This node among the others: how it came into the cluster, whom it believes, what it answers and what it asks.
//!
//! `transport` carries messages and `raft` agrees; here they meet.
//!
//! * [`folder`]: what of all this lies in the data folder.
//! * [`entry`]: how a node comes into its cluster: it founds it, joins it, or is a member already.
//! * [`desk`]: what others ask of this node, and the answers. [`links`]: what Raft asks of others.
//! * [`membership`]: who is a member. [`directory`]: where they are now. [`certificates`]: kept current.
//! * [`custody`]: who holds the authority's key, and how it gets there. [`rotation`]: a new one takes over.
//! * [`papers`]: what has to be whole before a member starts again. [`repair`]: a new one takes its place, and [`former`] is who
//!   that was.
//! * [`attendance`]: says when a member is lost, and when it is back.
//! * [`legacy`]: the log of nodes that knew no others.
//! * [`reseed`]: a cluster of one out of a backup, or out of what is left; [`reseeding`]: what has become of one that broke off.
//! * [`weights`]: models' files, from the stores of other nodes.
//! * [`remote`]: replicas on other nodes, for the router of this one.

mod attendance;
mod certificates;
pub mod custody;
mod desk;
pub mod directory;
pub mod entry;
pub mod folder;
mod former;
pub(crate) mod legacy;
mod links;
mod membership;
pub mod papers;
pub mod probe;
mod reachable;
mod remote;
mod repair;
pub mod reseed;
mod reseeding;
pub mod rotation;
mod texts;
pub mod weights;

pub use desk::Desk;
pub use folder::{DataFolder, is_held};
pub use links::PeerLinks;
pub use remote::{RemoteReplicas, Served};
pub use texts::Texts;
