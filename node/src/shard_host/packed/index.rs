//! What a packed file holds, and where.

use rkyv::{Archive, Deserialize, Serialize};

/// Where matrices begin.
pub const ALIGNMENT: u64 = 64;

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct PackedIndex {
    /// The device's number for the form.
    pub packing: u32,
    pub matrices: Vec<PackedMatrix>,
}

#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct PackedMatrix {
    /// Of the tensor.
    pub name: String,
    /// Its rows.
    pub first_output: u64,
    pub end_output: u64,
    /// From the start of the file.
    pub offset: u64,
    pub bytes: u64,
    /// CRC-32.
    pub checksum: u32,
}
