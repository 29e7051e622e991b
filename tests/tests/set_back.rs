//! Data folders that are put back as a whole from an older copy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::{Fleet, TempFolder, until};

/// Two of three know nothing any more of what was acknowledged, and agree on something else. The third one does know.
#[test]
fn who_remembers_what_the_others_forgot_says_so_and_is_repaired() {
    let mut fleet = Fleet::of_three();
    let copies = TempFolder::new();
    let before = copies.path().join("before");
    fleet.kill(2);
    copy(fleet.data_folder(2), &before);
    fleet.start(2);
    fleet.until_voters(3);
    fleet.kill(1);
    // That one is agreed on is written down with the next one.
    for name in ["acked", "acked-too", "acked-as-well"] {
        fleet.says(0, &["tenant", "add", name]);
    }
    assert!(fleet.says(2, &["tenant", "list"]).contains("acked"));
    fleet.kill(0);
    fleet.kill(2);
    std::fs::remove_dir_all(fleet.data_folder(2)).expect("its folder goes");
    copy(&before, fleet.data_folder(2));
    fleet.start_in([1, 2]);
    fleet.says(1, &["tenant", "add", "other"]);
    assert!(
        !fleet.says(1, &["tenant", "list"]).contains("acked"),
        "nobody here knows"
    );
    fleet.start(0);
    // Of the three, those two know what they agree on, or that one: whose term was higher. Nobody follows the other.
    let trouble = |place| fleet.json(place, &["status"])["raft"]["trouble"].to_string();
    until("somebody sees it", Duration::from_secs(30), || {
        let troubles: Vec<String> = (0..3).map(trouble).collect();
        println!("{troubles:?}");
        troubles.iter().any(|trouble| trouble.contains("was set back"))
    });
    let contradicted: Vec<usize> = (0..3)
        .filter(|place| trouble(*place).contains("was set back"))
        .collect();
    println!("contradicted: {contradicted:?}");
    let first = contradicted[0];
    fleet.kill(first);
    let refused = fleet.up_of(first, &[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("was set back"),
        "{told}"
    );
    if contradicted == [0] {
        let token = fleet.says(1, &["token", "create"]);
        fleet.start_with(0, &["--join", &token]);
        fleet.until_voters(3);
        assert!(fleet.says(0, &["tenant", "list"]).contains("other"));
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}
