//! How long it takes to write again when the leader has died.

use super::cluster::Cluster;
use super::drive::some_loss;
use super::histories::seeds;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const KILLS_OF_A_SEED: u32 = 5;

/// In virtual time: timeouts, elections and messages, without what processors and disks take.
#[tokio::test(start_paused = true)]
async fn a_survivor_commits_soon_after_its_leader_was_killed() {
    let mut waits = Vec::new();
    for seed in seeds(24) {
        let mut cluster = Cluster::of(3, seed).await;
        for kill in 0..KILLS_OF_A_SEED {
            let pause = cluster.dice.below(1_000);
            sleep(Duration::from_millis(pause)).await;
            let leader = cluster.wait_for_leader().await;
            let loss = some_loss(&mut cluster.dice);
            let killed = Instant::now();
            cluster.kill(leader, loss);
            let survivors = cluster.network.nodes();
            let survivor = survivors[cluster.dice.below(2) as usize];
            cluster
                .add_tenant(survivor, &kill.to_string())
                .await
                .unwrap()
                .unwrap();
            waits.push(killed.elapsed());
            cluster.start(leader).await.unwrap();
            cluster.settle(3).await;
        }
    }
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    let (p50, p99, max) = (at(50), at(99), at(100));
    eprintln!(
        "leader killed to next commit: p50 {p50:?}, p99 {p99:?}, max {max:?} of {}",
        waits.len()
    );
    assert!(p50 <= Duration::from_millis(700), "p50 {p50:?}");
    assert!(p99 <= Duration::from_millis(1_200), "p99 {p99:?}");
}
