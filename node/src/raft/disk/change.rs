/// One thing to be remembered. Several make one step, taken in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Vote(Vec<u8>),
    Committed(Vec<u8>),
    /// Who this node is.
    Identity(Vec<u8>),
    /// Entries from index `first` on, which must be the index after the last.
    Append {
        first: u64,
        entries: Vec<Vec<u8>>,
    },
    /// Forgets the entries from this index on: one in the log, or the one after the last (then nothing happens).
    TruncateFrom(u64),
    /// Forgets the entries up to `index`, for good; `marker` is kept in their place. An index beyond the last entry
    /// needs a snapshot, kept before or earlier in the same step: the log is then empty and goes on at `index + 1`.
    /// Never goes backwards.
    PurgeThrough {
        index: u64,
        marker: Vec<u8>,
    },
    /// Replaces the snapshot.
    Snapshot {
        meta: Vec<u8>,
        data: Vec<u8>,
    },
}
