//! A new authority takes over, and the node that made it is lost on the way.

use serde_json::{Value, json};
use std::fs;
use std::process::Output;
use std::time::Duration;
use tests::{Fleet, Holds, until};

const LOST: usize = 2;
const WORKER: usize = 3;

fn assert_serves(fleet: &Fleet, place: usize) {
    let body = json!({"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0});
    let answer: Value = fleet.client(place).complete(body);
    assert!(
        answer["choices"][0]["text"].to_string().contains("Paris"),
        "{answer}"
    );
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn read(fleet: &Fleet, place: usize, file: &str) -> String {
    let path = fleet.data_folder(place).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Three that may vote and hold the authority, and a worker.
fn fleet() -> Fleet {
    let mut fleet = Fleet::of_three();
    let token = fleet.says(1, &["token", "create", "--role", "worker"]);
    assert_eq!(fleet.join_by(&token), WORKER);
    let holds = |place: usize| fleet.data_folder(place).join("authority/key.pem").exists();
    until(
        "all that may vote hold the authority",
        Duration::from_secs(20),
        || (0..3).all(holds),
    );
    fleet
}

/// The one that began it has signed for all others, and is lost before anybody has its key.
fn lose_the_holder(fleet: &mut Fleet) {
    let chains = |fleet: &Fleet| -> Vec<String> {
        let places = [0, 1, LOST, WORKER];
        places
            .iter()
            .map(|place| read(fleet, *place, "identity/chain.pem"))
            .collect()
    };
    let old = chains(fleet);
    fleet.says(LOST, &["authority", "rotate"]);
    until("all nodes have renewed", Duration::from_secs(30), || {
        let new = chains(fleet);
        old.iter().zip(&new).all(|(old, new)| old != new)
    });
    fleet.kill(LOST);
    for place in [0, 1] {
        fleet.kill(place);
        for file in ["key.pem", "certificate.pem"] {
            let path = fleet.data_folder(place).join("authority/second").join(file);
            fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
    fleet.start_in([0, 1]);
}

#[test]
fn a_rotation_whose_node_is_lost_is_abandoned_and_nobody_is_left_out() {
    let mut fleet = fleet();
    let old = read(&fleet, 0, "authority/certificate.pem");
    lose_the_holder(&mut fleet);
    let lost = number_of_lost(&fleet);
    // There is no way on, and every command says where there is one.
    let refused = errors(&fleet.command(0, &["authority", "rotate"]));
    assert!(refused.contains("--abandon"), "{refused}");
    let refused = errors(&fleet.command(0, &["authority", "rotate", "--finish"]));
    assert!(refused.contains(&format!("cluster node rm {lost}")), "{refused}");
    let refused = errors(&fleet.command(1, &["authority", "rotate", "--abandon"]));
    assert!(refused.contains(&format!("cluster node rm {lost}")), "{refused}");
    until("the old one signs again", Duration::from_secs(20), || {
        read(&fleet, 0, "identity/authorities.pem").starts_with(&old)
    });
    fleet.says(0, &["node", "rm", &lost.to_string()]);
    fleet.says(1, &["authority", "rotate", "--abandon"]);
    for place in [0, 1, WORKER] {
        until("only the old one is believed", Duration::from_secs(20), || {
            read(&fleet, place, "identity/authorities.pem") == old
        });
        fleet.says(place, &["tenant", "add", &format!("after-{place}")]);
        assert_serves(&fleet, place);
    }
    // Connections are made anew with what was renewed, and somebody new comes in.
    for place in [WORKER, 1] {
        fleet.kill(place);
        fleet.start(place);
        assert_serves(&fleet, place);
    }
    let new = fleet.join(Holds::Nothing);
    assert_serves(&fleet, new);
    // And another rotation gets through.
    fleet.says(0, &["authority", "rotate"]);
    until("it is finished", Duration::from_secs(30), || {
        fleet
            .command(1, &["authority", "rotate", "--finish"])
            .status
            .success()
    });
    for place in [0, 1, WORKER, new] {
        until("only the new one is believed", Duration::from_secs(20), || {
            !read(&fleet, place, "identity/authorities.pem").contains(&old)
        });
        assert_serves(&fleet, place);
    }
    let key = fleet.data_folder(0).join("authority/key.pem");
    assert!(
        !key.exists(),
        "the key of an authority that nobody believes is deleted"
    );
}

/// The member that cannot be reached.
fn number_of_lost(fleet: &Fleet) -> u64 {
    let nodes = fleet.json(0, &["node", "list"])["nodes"].clone();
    let nodes = nodes.as_array().expect("a list");
    let running = [0, 1, WORKER].map(|place| fleet.node(place).number());
    let mut others = nodes.iter().filter_map(|node| node["node"].as_u64());
    let lost = others.find(|number| !running.contains(number));
    lost.expect("one member does not run")
}

#[test]
fn a_rotation_is_refused_while_a_member_is_away_and_goes_back_while_all_are_there() {
    let mut fleet = fleet();
    let old = read(&fleet, 0, "identity/authorities.pem");
    fleet.kill(WORKER);
    let refused = errors(&fleet.command(0, &["authority", "rotate"]));
    assert!(refused.contains("cannot be asked"), "{refused}");
    assert_eq!(
        read(&fleet, 0, "identity/authorities.pem"),
        old,
        "nothing has begun"
    );
    let refused = errors(&fleet.command(0, &["authority", "rotate", "--abandon"]));
    assert!(refused.contains("no rotation"), "{refused}");
    fleet.start(WORKER);
    fleet.says(0, &["authority", "rotate"]);
    // Another node, and at once: whoever has renewed does so again.
    fleet.says(1, &["authority", "rotate", "--abandon"]);
    for place in 0..4 {
        until("only the old one is believed", Duration::from_secs(20), || {
            read(&fleet, place, "identity/authorities.pem") == old
        });
        assert_serves(&fleet, place);
    }
    assert!(errors(&fleet.command(2, &["authority", "rotate", "--finish"])).contains("no rotation"));
}
