//! What clients see while everything goes wrong.

use super::chaos::Chaos;
use super::client::{Care, Client, tenant_value};
use super::cluster::{Cluster, tenant};
use super::watch::Watch;
use crate::raft::disk::tests::dice::Dice;
use sim::{Action, Answer, History};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

const ROUNDS: u32 = 14;
const CLIENTS: u64 = 4;

/// How many seeds are run: some, or as many as asked for in `SHELL_SEEDS`.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("SHELL_SEEDS")
        .ok()
        .map(|seeds| seeds.parse().unwrap());
    let first = std::env::var("SHELL_FIRST_SEED")
        .ok()
        .map_or(0, |seed| seed.parse().unwrap());
    first..first + asked.unwrap_or(usual)
}

/// The clients' history, everything that was done to the nodes, and what is left.
async fn run(seed: u64, nodes: usize, care: Care) -> (History, Chaos) {
    let cluster = Cluster::of(nodes, seed).await;
    let history = History::default();
    let mut dice = Dice::new(!seed);
    let mut client = || Client {
        network: cluster.network.clone(),
        history: history.clone(),
        dice: Dice::new(dice.roll()),
        care,
    };
    let mut last = client();
    let mut busy = JoinSet::new();
    for _ in 0..CLIENTS {
        busy.spawn(client().run());
    }
    busy.spawn(Watch::of(&cluster.network).run());
    let voters = cluster.member(cluster.network.nodes()[0]).view().voters.len();
    let mut chaos = Chaos::over(cluster);
    tokio::select! {
        () = chaos.reign(ROUNDS) => {}
        ended = busy.join_next() => panic!("{:?}", ended.expect("there are some").err()),
    }
    chaos.end().await;
    busy.shutdown().await;
    chaos.cluster.wait_for_leader().await;
    chaos.cluster.settle(voters).await;
    chaos.cluster.assert_logs_match();
    last.care = Care::Proper;
    for node in chaos.cluster.network.nodes() {
        last.look_at_all(node).await;
    }
    (history, chaos)
}

async fn check(seeds: std::ops::Range<u64>, nodes: usize) {
    let (mut heard, mut tally) = (0, BTreeMap::<&str, u32>::new());
    for seed in seeds {
        eprintln!("seed {seed}, {nodes} nodes");
        let (history, chaos) = run(seed, nodes, Care::Proper).await;
        history.assert_linearizable(&format!("seed {seed}"));
        heard += history.heard_count();
        for (what, count) in chaos.tally {
            *tally.entry(what).or_default() += count;
        }
    }
    eprintln!("{heard} answers of {nodes} nodes explained; {tally:?}");
    assert!(heard > 0);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_are_linearizable_whatever_happens() {
    check(seeds(12), 3).await;
}

#[tokio::test(start_paused = true)]
async fn five_nodes_are_linearizable_whatever_happens() {
    check(seeds(6), 5).await;
}

#[tokio::test(start_paused = true)]
async fn one_node_is_linearizable_whatever_happens() {
    check(seeds(6), 1).await;
}

/// The checker and the faults are good enough to find faults of ours.
#[tokio::test(start_paused = true)]
async fn reading_without_asking_the_leader_is_found_out() {
    assert!(is_found_out(Care::ReadsAsApplied).await);
}

/// The others have elected another one, and it cannot have heard of it.
#[tokio::test(start_paused = true)]
async fn a_leader_that_reads_without_asking_the_others_is_found_out() {
    let careless = reads_of_an_overruled_leader(Care::ReadsAsLeader).await;
    assert!(careless.unexplained().is_some());
    let proper = reads_of_an_overruled_leader(Care::Proper).await;
    assert!(proper.unexplained().is_none());
}

async fn reads_of_an_overruled_leader(care: Care) -> History {
    let mut cluster = Cluster::of(3, 3).await;
    let leader = cluster.wait_for_leader().await;
    let mut others = cluster.network.nodes();
    others.retain(|node| *node != leader);
    cluster.network.part(&[leader], &others);
    let history = History::default();
    let written = history.invoke("a", Action::Fill(7));
    let added = cluster.commit(others[0], tenant("a", 7)).await;
    assert!(matches!(added, Ok(Ok(_))), "{added:?}");
    history.heard(written, Answer::Done);
    let mut client = Client {
        network: cluster.network.clone(),
        history: history.clone(),
        dice: Dice::new(0),
        care,
    };
    client.look(leader, "a", tenant_value).await;
    history
}

#[tokio::test(start_paused = true)]
async fn applying_twice_is_found_out() {
    assert!(is_found_out(Care::ProposesTwice).await);
}

async fn is_found_out(care: Care) -> bool {
    for seed in 0..8 {
        let (history, _) = run(seed, 3, care).await;
        if history.unexplained().is_some() {
            return true;
        }
    }
    false
}
