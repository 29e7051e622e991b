//! Models' files from the stores of other nodes: whole, or the parts that a stage needs.
//!
//! * [`shelf`]: what this node can give, of what it has and of what it is fetching itself. [`serve`]: giving it.
//! * [`fetch`]: getting a file, from whoever has it. [`sources`]: whom to ask for which chunk. [`run`]: one fetch
//!   under way. [`missing`]: which chunk next. [`lane`]: one stream to one node.
//! * [`stage`]: which parts of a file a stage needs, found out from the file's beginning.
//!
//! Nodes that fetch the same file at once form a chain: each takes from the one just before it, which passes on what it has
//! just got. So whoever holds the file sends it once, however many want it.

mod error;
mod fetch;
mod lane;
mod missing;
mod run;
mod serve;
mod shelf;
mod sources;
mod stage;
#[cfg(test)]
mod tests;

pub use error::FetchError;
pub use fetch::{Fetched, Fetcher, Patience, Progress, Wanted, Which};
pub use shelf::Shelf;
pub use stage::BegunStage;
