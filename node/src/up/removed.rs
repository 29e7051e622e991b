/// Starting the node again, as it is, comes to the same.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error(
    "this node has been removed from its cluster; to let it in again, start it with an empty --data-dir and a new token"
)]
pub struct Removed;
