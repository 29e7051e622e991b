//! How the cluster's authorities change.

use super::*;
use proto::cluster::{Authorities, AuthoritiesStep};

fn set(certificates: &[u8]) -> ClusterCommand {
    ClusterCommand::SetAuthorities(Box::new(Authorities {
        certificates: certificates.iter().map(|byte| vec![*byte]).collect(),
    }))
}

fn step(after: u64, certificates: &[u8]) -> ClusterCommand {
    ClusterCommand::StepAuthorities(Box::new(AuthoritiesStep {
        after,
        certificates: certificates.iter().map(|byte| vec![*byte]).collect(),
    }))
}

fn at_level_2() -> Log {
    let mut log = Log::founded();
    log.apply(ClusterCommand::MoveMember(Box::new(MemberAt {
        node: FOUNDER,
        quic: String::new(),
        http: String::new(),
        level: 2,
    })))
    .unwrap();
    let level = FeatureLevel { level: 2 };
    log.apply(ClusterCommand::SetFeatureLevel(Box::new(level)))
        .unwrap();
    log
}

#[test]
fn a_rotation_goes_step_by_step_there_and_back() {
    let mut log = at_level_2();
    for next in [&[1, 2][..], &[2, 1], &[1, 2], &[1], &[1, 3], &[3, 1], &[3]] {
        let at = log.state.authorities_at();
        for leap in [&[9][..], &[9, 1], &[1, 9, 3], &[]] {
            assert_eq!(
                log.apply(step(at, leap)),
                Err(Rejected::AuthoritiesLeap),
                "{leap:?}"
            );
        }
        let before = log.state.authorities().to_vec();
        // Who signs never goes at once.
        if let [_, second] = before.as_slice() {
            assert_eq!(log.apply(step(at, second)), Err(Rejected::AuthoritiesLeap));
        }
        log.apply(step(at, next)).unwrap();
        let now: Vec<Vec<u8>> = next.iter().map(|byte| vec![*byte]).collect();
        assert_eq!(log.state.authorities(), now);
        assert_eq!(ClusterState::of_image(log.state.image()), log.state);
    }
}

#[test]
fn a_step_that_comes_after_another_one_counts_no_more() {
    let mut log = at_level_2();
    let at = log.state.authorities_at();
    log.apply(step(at, &[1, 2])).unwrap();
    assert_eq!(log.apply(step(at, &[2, 1])), Err(Rejected::AuthoritiesLeap));
    let seen = log.state.authorities_at();
    log.apply(tenant("between")).unwrap();
    log.apply(step(seen, &[2, 1])).unwrap();
    log.apply(step(log.state.authorities_at(), &[1, 2])).unwrap();
    assert_eq!(
        log.apply(step(seen, &[1])),
        Err(Rejected::AuthoritiesLeap),
        "they are the same as those that were seen, and meanwhile they were others"
    );
}

#[test]
fn below_level_2_they_are_set_and_from_then_on_no_more() {
    let mut log = Log::founded();
    let needed = Rejected::LevelTooLow { needed: 2, level: 1 };
    assert_eq!(log.apply(step(0, &[1, 2])), Err(needed));
    log.apply(set(&[1, 2])).unwrap();
    assert_eq!(log.state.authorities(), [vec![1], vec![2]]);
    assert_eq!(at_level_2().apply(set(&[1, 2])), Err(Rejected::AuthoritiesLeap));
}
