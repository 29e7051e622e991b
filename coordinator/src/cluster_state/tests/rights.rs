//! Which member may ask for what.

use super::*;
use proto::cluster::{Authorities, Unplace};

/// What decides who is trusted, or where things are placed.
fn of_trust(worker: NodeId) -> Vec<ClusterCommand> {
    let voters_token = TokenRecord {
        token: "v".into(),
        secret_hash: [9; 32],
        role: Role::Voter,
        expires_at_secs: 100,
    };
    vec![
        ClusterCommand::SetAuthorities(Box::new(Authorities {
            certificates: vec![vec![6]],
        })),
        ClusterCommand::AddToken(Box::new(voters_token)),
        join("t", 9, 50),
        remove(FOUNDER),
        ClusterCommand::SetFeatureLevel(Box::new(FeatureLevel { level: 2 })),
        ClusterCommand::Unplace(Box::new(Unplace {
            replica: ReplicaId(worker.0 as u32),
        })),
    ]
}

#[test]
fn a_worker_decides_on_nobodys_trust_and_speaks_for_itself_alone() {
    let mut log = Log::founded();
    let (worker, other, voter) = (
        log.joined(2, Role::Worker),
        log.joined(3, Role::Worker),
        log.joined(4, Role::Voter),
    );
    let state = &log.state;
    for command in of_trust(worker) {
        let refused = Err(Rejected::ForVoters { node: worker });
        assert_eq!(state.may_ask(worker, &command), refused, "{command:?}");
        assert_eq!(state.may_ask(voter, &command), Ok(()), "{command:?}");
    }
    for node in [worker, other, voter] {
        let at = ClusterCommand::MoveMember(Box::new(MemberAt {
            node: other,
            quic: String::new(),
            http: String::new(),
            level: 1,
        }));
        for command in [at, serve(other, &[])] {
            let expected = match node == other {
                true => Ok(()),
                false => Err(Rejected::ForItself { node }),
            };
            assert_eq!(state.may_ask(node, &command), expected, "{command:?}");
        }
    }
}

#[test]
fn people_administer_the_service_on_any_node() {
    let mut log = Log::founded();
    let (worker, other) = (log.joined(2, Role::Worker), log.joined(3, Role::Worker));
    let of_workers = TokenRecord {
        token: "w".into(),
        secret_hash: [9; 32],
        role: Role::Worker,
        expires_at_secs: 100,
    };
    for command in [
        tenant("lab"),
        key("k", DEFAULT_TENANT),
        remove(other),
        ClusterCommand::AddToken(Box::new(of_workers)),
        ClusterCommand::Drain(Box::new(Drain { node: FOUNDER })),
    ] {
        assert_eq!(log.state.may_ask(worker, &command), Ok(()), "{command:?}");
    }
    let stranger = NodeId(99);
    let unknown = Err(Rejected::MemberUnknown { node: stranger });
    assert_eq!(log.state.may_ask(stranger, &tenant("lab")), unknown);
}
