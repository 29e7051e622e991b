use crate::raft::disk::{Change, Disk, DiskError, Snapshot};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// What a store must hold, kept plainly.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub vote: Option<Vec<u8>>,
    pub committed: Option<Vec<u8>>,
    pub identity: Option<Vec<u8>>,
    pub purged: Option<(u64, Vec<u8>)>,
    pub entries: BTreeMap<u64, Rc<Vec<u8>>>,
    pub snapshot: Option<Rc<Snapshot>>,
}

impl Model {
    /// What the store says it holds.
    pub fn of(disk: &mut Disk) -> Result<Model, DiskError> {
        let indices = disk.log();
        let entries = disk.entries(indices.clone())?;
        assert_eq!(entries.len() as u64, indices.end - indices.start);
        assert_eq!(disk.first_index().is_none(), entries.is_empty());
        let snapshot = disk.snapshot()?;
        assert_eq!(
            disk.snapshot_meta(),
            snapshot.as_ref().map(|snapshot| snapshot.meta.as_slice())
        );
        let purged = disk.purged().map(|purged| (purged.index, purged.marker.to_vec()));
        assert_eq!(indices.start, purged.as_ref().map_or(0, |(index, _)| index + 1));
        Ok(Model {
            vote: disk.vote().map(<[u8]>::to_vec),
            committed: disk.committed().map(<[u8]>::to_vec),
            identity: disk.identity().map(<[u8]>::to_vec),
            purged,
            entries: indices.zip(entries.into_iter().map(Rc::new)).collect(),
            snapshot: snapshot.map(Rc::new),
        })
    }

    pub fn log(&self) -> Range<u64> {
        let first = self.purged.as_ref().map_or(0, |(index, _)| index + 1);
        first..first + self.entries.len() as u64
    }

    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Vote(bytes) => self.vote = Some(bytes.clone()),
                Change::Committed(bytes) => self.committed = Some(bytes.clone()),
                Change::Identity(bytes) => self.identity = Some(bytes.clone()),
                Change::Append { first, entries } => self
                    .entries
                    .extend((*first..).zip(entries.iter().cloned().map(Rc::new))),
                Change::TruncateFrom(index) => {
                    self.entries.split_off(index);
                }
                Change::PurgeThrough { index, marker } => {
                    self.entries = self.entries.split_off(&(index + 1));
                    self.purged = Some((*index, marker.clone()));
                }
                Change::Snapshot { meta, data } => {
                    self.snapshot = Some(Rc::new(Snapshot {
                        meta: meta.clone(),
                        data: data.clone(),
                    }));
                }
            }
        }
    }
}
