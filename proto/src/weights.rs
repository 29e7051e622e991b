//! How a model's file goes from node to node, in chunks whose digests are known beforehand.
//!
//! On a stream that [`crate::peer::Hello::Blob`] has opened, named by the file's SHA-256 in hexadecimal, the opener sends
//! [`WantChunks`] as often as it likes. For each chunk, in the order asked, the other sends one frame of `Kind::Chunk` whose epoch
//! is the chunk's index. An empty one says: not here. One with the epoch [`STILL_WAITING`], also empty, answers nothing: it says
//! that the chunk is on its way here itself.

use rkyv::{Archive, Deserialize, Serialize};

/// No file has so many chunks.
pub const STILL_WAITING: u64 = u64::MAX;
/// Nothing asks for more at once.
pub const WANTED_MAX: usize = 4096;

/// What a node has of a model's file.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Holding {
    Nothing,
    Whole(Box<WholeFile>),
    Parts(Box<HeldParts>),
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct WholeFile {
    pub file_bytes: u64,
}

/// A bit for each chunk, the first one lowest.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct HeldParts {
    pub file_bytes: u64,
    pub here: Vec<u8>,
    /// The node is fetching these: whoever asks for them gets them when they have come.
    pub coming: Vec<u8>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum ManifestAnswer {
    Nothing,
    /// The file is being read; ask again.
    InTheMaking,
    Manifest(Box<ManifestBytes>),
}

/// What each chunk of a file must be.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ManifestBytes {
    /// Its canonical bytes, whose SHA-256 is the manifest's digest.
    pub bytes: Vec<u8>,
}

/// By their indices; at most [`WANTED_MAX`].
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct WantChunks {
    pub chunks: Vec<u32>,
}

/// What has come of a model's file, for a process on the same host that reads it.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Landed {
    /// These bytes are there and verified, besides those that were told before.
    Parts(Vec<FilePart>),
    /// All that was to come is there, and will still be after a crash.
    All,
}

/// From its first byte to the one after its last.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePart {
    pub start: u64,
    pub end: u64,
}
