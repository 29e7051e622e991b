use super::fault::Fault;
use redb::StorageBackend;
use std::sync::Arc;

/// Names a store, so that files of two stores are not taken for one.
pub type StoreId = [u8; 16];

const MAGIC: [u8; 8] = *b"CLSTWIT1";
const SLOT_BYTES: usize = 36;
/// A slot lies alone in what a disk or a page cache writes as one.
const BLOCK_BYTES: u64 = 4096;
const FILE_BYTES: u64 = 2 * BLOCK_BYTES;

/// The last acknowledged step, kept beside redb. The module's text says why and how.
#[derive(Debug)]
pub struct Witness(Arc<dyn StorageBackend>);

/// What the file says; at least one slot is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Testimony {
    store: StoreId,
    steps: [Option<u64>; 2],
}

impl Witness {
    pub fn new(file: Arc<dyn StorageBackend>) -> Witness {
        Witness(file)
    }

    /// Of a new store, whose first step is 1.
    pub fn create(&self, store: StoreId) -> Result<(), Fault> {
        self.0.set_len(FILE_BYTES).map_err(Fault::of_write)?;
        for step in [0, 1] {
            self.write(store, step)?;
        }
        Ok(())
    }

    /// Durable when it returns.
    pub fn write(&self, store: StoreId, step: u64) -> Result<(), Fault> {
        self.0
            .write(step % 2 * BLOCK_BYTES, &encode(store, step))
            .map_err(Fault::of_write)?;
        self.0.sync_data().map_err(Fault::Io)
    }

    pub fn read(&self) -> Result<Testimony, Fault> {
        let bytes = self.0.len().map_err(Fault::Io)?;
        if bytes != FILE_BYTES {
            return Err(Fault::corrupt(format!(
                "the witness has {bytes} bytes instead of {FILE_BYTES}"
            )));
        }
        let [even, odd] = [self.read_slot(0)?, self.read_slot(1)?];
        let stores = [even, odd].map(|slot| slot.map(|(store, _)| store));
        let (Some(store), true) = (
            stores[0].or(stores[1]),
            stores[0].zip(stores[1]).is_none_or(|(a, b)| a == b),
        ) else {
            return Err(Fault::corrupt(
                "no slot of the witness is whole, or they disagree",
            ));
        };
        Ok(Testimony {
            store,
            steps: [even, odd].map(|slot| slot.map(|(_, step)| step)),
        })
    }

    fn read_slot(&self, number: u64) -> Result<Option<(StoreId, u64)>, Fault> {
        let mut bytes = [0; SLOT_BYTES];
        self.0.read(number * BLOCK_BYTES, &mut bytes).map_err(Fault::Io)?;
        Ok(decode(&bytes).filter(|(_, step)| step % 2 == number))
    }
}

impl Testimony {
    /// Can a store that holds `step` as its last be this one, with nothing lost?
    pub fn allows(&self, store: StoreId, step: u64) -> Result<(), Fault> {
        if store != self.store {
            return Err(Fault::corrupt("log and witness are of two stores"));
        }
        let allowed = match self.steps {
            [Some(even), Some(odd)] if even.abs_diff(odd) == 1 => {
                let newest = even.max(odd);
                newest..=newest + 1
            }
            [Some(whole), None] | [None, Some(whole)] => whole + 1..=whole + 1,
            [Some(_), Some(_)] | [None, None] => {
                return Err(Fault::corrupt("the slots of the witness disagree"));
            }
        };
        if allowed.contains(&step) {
            return Ok(());
        }
        Err(Fault::corrupt(if step < *allowed.start() {
            format!(
                "the disk lost an acknowledged write: the log ends at step {step}, the witness saw {}",
                allowed.start()
            )
        } else {
            format!(
                "the witness saw no step after {}, the log ends at {step}",
                allowed.end()
            )
        }))
    }

    /// Nothing need be written to vouch for this step.
    pub fn vouches_for(&self, step: u64) -> bool {
        self.steps.iter().all(Option::is_some) && self.steps.contains(&Some(step))
    }
}

fn encode(store: StoreId, step: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(&store);
    bytes[24..32].copy_from_slice(&step.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..32]);
    bytes[32..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(StoreId, u64)> {
    let whole = bytes[..8] == MAGIC && bytes[32..] == crc32fast::hash(&bytes[..32]).to_le_bytes();
    let store = bytes[8..24].try_into().expect("16 bytes");
    let step = u64::from_le_bytes(bytes[24..32].try_into().expect("8 bytes"));
    whole.then_some((store, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(steps: [Option<u64>; 2], step: u64) -> bool {
        let store = [7; 16];
        Testimony { store, steps }.allows(store, step).is_ok()
    }

    #[test]
    fn only_what_a_crash_can_leave_is_allowed() {
        let both = [Some(8), Some(7)];
        assert!(!allows(both, 7));
        assert!(allows(both, 8) && allows(both, 9));
        assert!(!allows(both, 10));
        let torn = [Some(8), None];
        assert!(!allows(torn, 7) && !allows(torn, 8) && !allows(torn, 10));
        assert!(allows(torn, 9));
        assert!(!allows([None, None], 0));
        assert!(!allows([Some(8), Some(3)], 8));
    }

    #[test]
    fn another_store_is_refused() {
        let testimony = Testimony {
            store: [1; 16],
            steps: [Some(0), Some(1)],
        };
        assert!(testimony.allows([2; 16], 1).is_err());
    }

    #[test]
    fn any_flipped_bit_spoils_a_slot() {
        let good = encode([7; 16], 12);
        assert_eq!(decode(&good), Some(([7; 16], 12)));
        for bit in 0..SLOT_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
    }
}
