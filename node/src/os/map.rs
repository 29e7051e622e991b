//! Files as memory.

use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::path::Path;

/// A file mapped for reading: a model, from which weights are packed at the first start, or packed weights, which the
/// kernels read where they are for as long as the replica lives.
pub fn read_only(path: &Path) -> std::io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: a mapping is undefined behaviour when somebody truncates the file meanwhile, or writes what is read. Files of
    // the store are written once under a temporary name and never changed after their rename. One that is still coming
    // has its full length from the beginning, each of its parts is written once, and none is read before that
    // (`shard_host/landed.rs`). A part that the disk has damaged is written again, and whoever has mapped the file has been told
    // not to use it (`shard_host/verifier.rs`). For a user's own file we accept what every program that maps files accepts. All reads are
    // bounds-checked against the mapped length.
    unsafe { Mmap::map(&file) }
}

/// Gives back the pages that were read; they are read again where they are looked at again. A refusal costs memory alone.
pub fn forget(mapped: &Mmap) {
    // SAFETY: the mapping is of a file and only read, so its pages hold nothing but what is in the file.
    let _ = unsafe { mapped.unchecked_advise(UncheckedAdvice::DontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_reads_as_its_bytes() {
        let path = std::env::temp_dir().join(format!("cluster-map-{}", std::process::id()));
        std::fs::write(&path, b"weights").unwrap();
        let mapped = read_only(&path).unwrap();
        assert_eq!(&mapped[..], b"weights");
        forget(&mapped);
        assert_eq!(&mapped[..], b"weights", "also after its pages were given back");
        std::fs::remove_file(&path).unwrap();
    }
}
