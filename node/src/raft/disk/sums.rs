use std::io;

/// redb's pages are multiples of this, and lie on multiples of it.
const BLOCK_BYTES: u64 = 4096;

/// What every block of a file was when it was last read or written.
///
/// redb verifies pages when it opens and believes them afterwards: one that changes under an open store makes it panic,
/// even in destructors, which ends the process. So a changed block must not reach it.
#[derive(Debug, Default)]
pub struct Sums(Vec<Option<u32>>);

impl Sums {
    /// An error if a block is not what it was. A block that is read for the first time is believed: redb verifies it.
    pub fn read(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        for (block, bytes) in whole_blocks(offset, data) {
            let sum = crc32fast::hash(bytes);
            let known = *self.at(block).get_or_insert(sum);
            if known != sum {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the page at byte {} is not what it was", block * BLOCK_BYTES),
                ));
            }
        }
        Ok(())
    }

    /// A block that is written in part, as redb's header is, is not known until it is read.
    pub fn written(&mut self, offset: u64, data: &[u8]) {
        self.forget(offset, data.len() as u64);
        for (block, bytes) in whole_blocks(offset, data) {
            *self.at(block) = Some(crc32fast::hash(bytes));
        }
    }

    pub fn forget(&mut self, offset: u64, bytes: u64) {
        let end = (offset + bytes).div_ceil(BLOCK_BYTES).min(self.0.len() as u64);
        for block in offset / BLOCK_BYTES..end {
            *self.at(block) = None;
        }
    }

    /// The file was cut or grew.
    pub fn resized(&mut self, bytes: u64) {
        self.0.truncate((bytes / BLOCK_BYTES) as usize);
    }

    fn at(&mut self, block: u64) -> &mut Option<u32> {
        let block = block as usize;
        if self.0.len() <= block {
            self.0.resize(block + 1, None);
        }
        &mut self.0[block]
    }
}

fn whole_blocks(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = offset.div_ceil(BLOCK_BYTES);
    let skipped = (first * BLOCK_BYTES - offset).min(data.len() as u64);
    (first..).zip(data[skipped as usize..].chunks_exact(BLOCK_BYTES as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_changed_is_found_and_a_rewritten_one_is_not() {
        let mut sums = Sums::default();
        let (before, after) = ([1; 8192], [2; 8192]);
        sums.read(4096, &before).unwrap();
        sums.read(4096, &before).unwrap();
        assert!(sums.read(4096, &after).is_err());
        assert!(sums.read(8192, &after[..4096]).is_err());
        sums.written(8192, &after[..4096]);
        sums.read(8192, &after[..4096]).unwrap();
        assert!(sums.read(4096, &after).is_err());
    }

    #[test]
    fn a_block_written_in_part_is_learnt_anew() {
        let mut sums = Sums::default();
        sums.read(0, &[1; 4096]).unwrap();
        sums.written(0, &[2; 320]);
        sums.read(0, &[3; 4096]).unwrap();
        assert!(sums.read(0, &[1; 4096]).is_err());
        sums.resized(0);
        sums.read(0, &[1; 4096]).unwrap();
    }
}
