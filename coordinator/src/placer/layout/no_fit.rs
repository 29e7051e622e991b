//! Why a model cannot be laid out, for people.

use super::sizes::{Sizes, nanoseconds};
use super::{Device, LINK_UNMEASURED};
use proto::NodeId;
use proto::cluster::ModelShape;
use std::fmt;

/// Nodes that are named in a message; of more it says how many.
const NAMED_MAX: usize = 8;

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum NoFit {
    #[error("the model has no layers: what was read of its file is wrong")]
    NoLayers,
    #[error(
        "no node can take a part of it: none that takes part and is heard has said yet what it can carry (one that has just \
         come measures itself first): add a node, or resume one that is drained"
    )]
    NoNodes,
    #[error("{ranks} ranks cannot share {heads} attention heads: ask for {heads} or fewer")]
    RanksBeyondHeads { ranks: u32, heads: u32 },
    #[error(
        "{ranks} ranks would have to span nodes, since no node computes with more than {threads} threads: 2 gathers in \
         each of {layers} layers over a round trip of {} ms are {} ms for every token, against {} ms for a hop between \
         two stages; ask for {threads} ranks or fewer",
        millis(*.round_trip_ns), millis(*.token_ns), millis(*.hop_ns)
    )]
    AcrossHosts {
        ranks: u32,
        /// The most that any node has.
        threads: u32,
        layers: u32,
        /// The shortest that was measured.
        round_trip_ns: u64,
        token_ns: u64,
        hop_ns: u64,
    },
    #[error("{0}")]
    NoRoom(NoRoom),
}

/// Too little memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoRoom {
    /// When every node takes a stage.
    pub needed_bytes: u64,
    /// The largest piece that cannot be divided: one layer, with what belongs to an end of the model.
    pub piece_bytes: u64,
    pub free: Vec<(NodeId, u64)>,
}

pub fn across_hosts(shape: &ModelShape, devices: &[Device], ranks: u32) -> NoFit {
    let links = devices.iter().flat_map(|device| &device.links);
    let fastest = links.min_by_key(|link| link.round_trip_ns);
    let link = fastest.copied().unwrap_or(LINK_UNMEASURED);
    let row_bytes = u128::from(shape.hidden) * 4;
    NoFit::AcrossHosts {
        ranks,
        threads: devices.iter().map(|device| device.threads).max().unwrap_or(0),
        layers: shape.layers,
        round_trip_ns: link.round_trip_ns,
        token_ns: link.round_trip_ns.saturating_mul(2 * u64::from(shape.layers)),
        hop_ns: nanoseconds(row_bytes, link.bytes_per_sec).saturating_add(link.round_trip_ns / 2),
    }
}

impl NoRoom {
    pub fn of(sizes: &Sizes<'_>, devices: &[&Device]) -> NoRoom {
        let room = sizes.room_least();
        let stages = devices.len().min(sizes.layers() as usize) as u64;
        let pieces = (0..sizes.layers()).map(|layer| sizes.memory_bytes(&(layer..layer + 1), room));
        NoRoom {
            needed_bytes: sizes.memory_bytes_over(stages),
            piece_bytes: pieces.max().unwrap_or(0),
            free: devices
                .iter()
                .map(|device| (device.node, device.memory_bytes))
                .collect(),
        }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "needs {} MiB in all; ",
            mebibytes_up(self.needed_bytes)
        )?;
        for (index, (node, bytes)) in self.free.iter().take(NAMED_MAX).enumerate() {
            let words = match index {
                0 => "node",
                _ => ", node",
            };
            write!(formatter, "{words} {node} has {} MiB free", bytes >> 20)?;
        }
        if let more @ 1.. = self.free.len().saturating_sub(NAMED_MAX) {
            write!(formatter, ", and {more} more have no room either")?;
        }
        let free_bytes = self
            .free
            .iter()
            .map(|(_, bytes)| *bytes)
            .fold(0, u64::saturating_add);
        if free_bytes >= self.needed_bytes {
            let piece = mebibytes_up(self.piece_bytes);
            write!(
                formatter,
                ", but layers cannot be divided so that each part fits (the largest takes {piece} MiB by itself)"
            )?;
        }
        formatter.write_str(": add a node, or give them more with --memory")
    }
}

pub fn mebibytes_up(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// With two digits behind the point.
pub fn millis(nanoseconds: u64) -> String {
    format!("{:.2}", nanoseconds as f64 / 1e6)
}
