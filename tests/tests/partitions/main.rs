//! Three real nodes that are paused, killed, parted, and shown a wrong time, while clients change and read what the cluster
//! agrees on: what those hear must be explained by one state that all of them saw.
//!
//! A seed decides the faults and what clients want, not what the system does in between: run a seed that fails some times.
//! `SHELL_SEEDS` and `SHELL_FIRST_SEED` ask for more of them, as with the tests of `node/src/raft`.

mod clients;
mod faults;

use clients::{Client, Known};
use faults::Faults;
use serde_json::json;
use sim::{History, Random};
use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::{Fleet, until};

/// Each kind of fault twice.
const ROUNDS: u32 = 16;
const CLIENTS: u64 = 5;
/// Certificates hold for one.
const DAYS_OFF: i64 = 6;

fn seeds() -> Range<u64> {
    let number = |name: &str| {
        let asked = std::env::var(name).ok();
        asked.map(|number| number.parse().expect("a number"))
    };
    let first = number("SHELL_FIRST_SEED").unwrap_or(0);
    first..first + number("SHELL_SEEDS").unwrap_or(1)
}

#[test]
fn what_clients_hear_of_three_nodes_is_linearizable_whatever_happens() {
    for seed in seeds() {
        play(seed);
    }
}

fn play(seed: u64) {
    let began = Instant::now();
    let fleet = Fleet::of_three_exposed();
    let folders: Vec<_> = (0..3).map(|place| fleet.data_folder(place).to_owned()).collect();
    let (history, known) = (History::default(), Known::default());
    let client = |number| Client {
        folders: folders.clone(),
        history: history.clone(),
        known: known.clone(),
        dice: Random::new(seed, number),
        number,
    };
    let mut faults = Faults::over(fleet, Random::new(seed, CLIENTS));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for number in 0..CLIENTS {
            let client = client(number);
            scope.spawn(|| client.run(&stop));
        }
        faults.reign(ROUNDS);
        faults.end();
    });
    let mut last = client(CLIENTS);
    (0..3).for_each(|place| last.look_at_all(place));
    let (lost, held) = faults.datagrams();
    println!(
        "seed {seed}: {} answers explained, {} deeds that nobody heard of, {lost} datagrams lost, {held} late, {:?}, {:?}",
        history.heard_count(),
        history.unheard_count(),
        faults.tally,
        began.elapsed()
    );
    history.assert_linearizable(&format!("seed {seed}"));
    assert!(history.heard_count() > 0, "clients were heard");
    assert!(lost > 0 && held > 0, "something came between the nodes");
}

/// A thread that panics leaves nobody running.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// It renews its certificate while its clock is ahead: the new one would be of no use for hours.
#[test]
fn a_clock_that_was_ahead_for_a_while_shuts_nobody_out() {
    let mut fleet = Fleet::of_three_exposed();
    let chain = fleet.data_folder(2).join("identity/chain.pem");
    let read = || fs::read(&chain).expect("a certificate");
    let before = read();
    fleet.weather(2).set_clock_ahead(13 * 60 * 60);
    until("it is renewed", Duration::from_secs(20), || read() != before);
    let ahead = read();
    fleet.weather(2).set_clock_ahead(0);
    until("it is renewed again", Duration::from_secs(20), || read() != ahead);
    fleet.kill(2);
    fleet.start(2);
    fleet.says(2, &["tenant", "add", "after"]);
}

/// Those that may vote sign for themselves, and then for the one that may not.
#[test]
fn a_cluster_that_was_off_until_all_certificates_ran_out_comes_back_by_itself() {
    let mut fleet = Fleet::of_three_serving_exposed();
    let token = fleet.says(1, &["token", "create", "--role", "worker"]);
    fleet.join_by(&token);
    fleet.says(0, &["tenant", "add", "before"]);
    let chain = |place: usize| fleet.data_folder(place).join("identity/chain.pem");
    let chains: Vec<_> = (0..4).map(chain).collect();
    let read = || -> Vec<_> {
        let certificates = chains.iter().map(|chain| fs::read(chain).expect("a certificate"));
        certificates.collect()
    };
    let ran_out = read();
    (0..4).for_each(|place| fleet.kill(place));
    (0..4).for_each(|place| fleet.weather(place).set_clock_ahead(DAYS_OFF * 24 * 60 * 60));
    fleet.start_all();
    for place in 0..4 {
        fleet.says(place, &["tenant", "add", &format!("after-{place}")]);
        let tenants = fleet.says(place, &["tenant", "list"]);
        assert!(tenants.contains("before"), "{tenants}");
        let body = json!({"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0});
        let answer = fleet.client(place).complete(body);
        assert!(
            answer["choices"][0]["text"].to_string().contains("Paris"),
            "{answer}"
        );
    }
    let renewed = read();
    let is_new = |place: usize| renewed[place] != ran_out[place];
    assert!((0..4).all(is_new), "every node has another certificate");
}

/// They are not heard, and cannot be thought to agree.
#[test]
fn a_leader_whose_datagrams_are_lost_leads_nobody() {
    let fleet = Fleet::of_three_exposed();
    let leader = fleet.leader();
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let ports: Vec<u16> = others.iter().map(|place| fleet.quic_port(*place)).collect();
    fleet.weather(leader).cut(&ports);
    let refused = fleet.command(leader, &["tenant", "add", "lost"]);
    assert!(!refused.status.success(), "nobody has heard of it");
    // On a host that others use, an election may take a second one.
    until("the others agree", Duration::from_secs(20), || {
        let added = fleet.command(others[0], &["tenant", "add", "agreed"]);
        added.status.success()
    });
    assert!(!fleet.command(leader, &["tenant", "list"]).status.success());
    fleet.weather(leader).clear();
    until("it is told", Duration::from_secs(20), || {
        let told = fleet.command(leader, &["tenant", "list"]);
        String::from_utf8_lossy(&told.stdout).contains("agreed")
    });
}
