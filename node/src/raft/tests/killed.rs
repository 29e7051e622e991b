//! A node that is killed at every sync: what it had acknowledged is there, and it goes on.

use super::cluster::tenant;
use super::drive::Drive;
use super::network::{MemoryLinks, Network};
use crate::raft::disk::tests::dice::Dice;
use crate::raft::disk::tests::machine::{Crash, LOSSES, Machine, each_crash};
use crate::raft::disk::{Disk, DiskError};
use crate::raft::kept::{Kept, WrittenState};
use crate::raft::{AppliedState, Member, OpenDisk, propose};
use coordinator::cluster_state::{ClusterState, FOUNDER};
use std::sync::Arc;

/// More than make Raft take a snapshot and cut its log.
const CHANGES: u64 = 1_020;
/// At so many of the syncs a node is also started anew and asked to go on.
const START_EVERY: usize = 20;

fn open(machine: &Machine) -> Result<Disk, DiskError> {
    Disk::open_on(machine.log(), machine.witness())
}

/// A node by itself on this machine.
async fn start(machine: &Machine) -> Member<MemoryLinks> {
    let links = Network::new(0).links(FOUNDER, &Drive::new(0));
    let disks = machine.clone();
    let open: OpenDisk = Arc::new(move || open(&disks));
    let started = Member::start(FOUNDER, AppliedState::default(), links, open).await;
    started.unwrap().0
}

async fn add(member: &Member<MemoryLinks>, number: u64) -> u64 {
    let added = member.commit(propose(tenant(&number.to_string(), number))).await;
    let added = added.unwrap();
    added.outcome.unwrap();
    added.index
}

/// How many changes the state holds, of which none before the last is missing, and none is another.
fn count(state: &ClusterState, context: &str) -> u64 {
    let mut numbers: Vec<u64> = state
        .tenants()
        .filter_map(|tenant| {
            let number = tenant.name.parse().ok()?;
            assert_eq!(
                tenant.salt[..8],
                u64::to_le_bytes(number),
                "{context}: {tenant:?}"
            );
            Some(number)
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{context}");
    numbers.len() as u64
}

/// One of the losses at every sync, in turns.
#[tokio::test(start_paused = true)]
async fn a_node_killed_at_any_sync_has_all_that_it_acknowledged_and_goes_on() {
    let machine = Machine::new(Default::default());
    Disk::create_on(machine.log(), machine.witness()).unwrap();
    machine.take_journal();
    let empty = machine.images();
    let member = start(&machine).await;
    member.found().await.unwrap();
    let mut indices = Vec::new();
    for number in 0..CHANGES {
        indices.push(add(&member, number).await);
        machine.acknowledge();
    }
    member.stop().await;
    let (mut kills, mut to_be_started, mut cut_logs) = (0, Vec::new(), 0);
    each_crash(&empty, &machine.take_journal(), |crash| {
        let loss = LOSSES[crash.number % LOSSES.len()];
        let context = format!("{loss:?} at sync {}", crash.number);
        let images = crash.image(loss, &mut Dice::new(crash.number as u64));
        let is_cut = check(&Machine::new(images.clone()), &crash, &indices, &context);
        cut_logs += u32::from(is_cut);
        if crash.number.is_multiple_of(START_EVERY) && crash.acknowledged > 0 {
            to_be_started.push((images, crash.acknowledged as u64, context));
        }
        kills += 1;
    });
    println!("{kills} kills, {} starts", to_be_started.len());
    assert!(kills as u64 > 2 * CHANGES && cut_logs > 0, "{kills}, {cut_logs}");
    for (images, acknowledged, context) in to_be_started {
        let member = start(&Machine::new(images)).await;
        member.linearize().await.unwrap();
        let found = count(&member.applied.read(), &context);
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{context}");
        add(&member, found).await;
        assert_eq!(count(&member.applied.read(), &context), found + 1);
        member.stop().await;
    }
}

/// What is read without starting Raft. Gives whether the log has been cut.
fn check(machine: &Machine, crash: &Crash, indices: &[u64], context: &str) -> bool {
    let disk = open(machine).unwrap_or_else(|error| panic!("{context}: {error}"));
    let is_cut = disk.purged().is_some();
    let kept = Kept::read(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    if let Some(last) = crash.acknowledged.checked_sub(1).map(|last| indices[last]) {
        let reign = kept.log.reign(FOUNDER);
        assert!(
            reign.is_some_and(|reign| reign.last_index >= last),
            "{context}: {reign:?}, {last} was acknowledged"
        );
    }
    let found = count(&WrittenState::of(&kept).state, context);
    let acknowledged = crash.acknowledged as u64;
    assert!(
        (acknowledged..=acknowledged + 1).contains(&found),
        "{context}: {found} are there, {acknowledged} were acknowledged"
    );
    is_cut
}
