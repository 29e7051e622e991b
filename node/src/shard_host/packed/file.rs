use super::index::{PackedIndex, PackedMatrix};
use crate::os;
use crate::shard_host::frames::{self, FrameError};
use kernels::{Keeper, PackedBytes};
use proto::wire::Kind;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A packed file, mapped.
pub struct PackedFile {
    keeper: Keeper,
    matrices: HashMap<(String, u64, u64), PackedMatrix>,
}

#[derive(thiserror::Error, Debug)]
pub enum PackedFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is cut off")]
    Short,
    #[error("its index cannot be read: {0}")]
    Index(#[from] FrameError),
    #[error("its weights are packed in form {found}, not {expected}")]
    Packing { found: u32, expected: u32 },
}

impl PackedFile {
    /// `None`: there is no such file.
    pub fn open(path: &Path, packing: u32) -> Result<Option<PackedFile>, PackedFileError> {
        let bytes = match os::map::read_only(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let index = read_index(&bytes)?;
        if index.packing != packing {
            return Err(PackedFileError::Packing {
                found: index.packing,
                expected: packing,
            });
        }
        let key = |matrix: PackedMatrix| {
            (
                (matrix.name.clone(), matrix.first_output, matrix.end_output),
                matrix,
            )
        };
        Ok(Some(PackedFile {
            keeper: Arc::new(bytes),
            matrices: index.matrices.into_iter().map(key).collect(),
        }))
    }

    /// `None`: it is not there, or not what was written.
    pub fn find(&self, name: &str, outputs: &Range<usize>) -> Option<PackedBytes> {
        let key = (name.to_owned(), outputs.start as u64, outputs.end as u64);
        let matrix = self.matrices.get(&key)?;
        let end = matrix.offset.checked_add(matrix.bytes)?;
        let range = usize::try_from(matrix.offset).ok()?..usize::try_from(end).ok()?;
        let packed = PackedBytes::new(Arc::clone(&self.keeper), range)?;
        (crc32fast::hash(&packed) == matrix.checksum).then_some(packed)
    }
}

fn read_index(bytes: &[u8]) -> Result<PackedIndex, PackedFileError> {
    let (before, length) = bytes.split_last_chunk::<8>().ok_or(PackedFileError::Short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| PackedFileError::Short)?;
    let start = before.len().checked_sub(length).ok_or(PackedFileError::Short)?;
    frames::read(&mut &before[start..], Kind::PackedIndex)?.ok_or(PackedFileError::Short)
}
