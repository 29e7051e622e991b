mod authorities;
mod placing;
mod rights;

use super::*;
use proto::cluster::{Drain, FeatureLevel, KeyId, MemberIs, NewTenant, TenantIs, TokenIs};

/// Applies what it is told at ascending places of a log.
struct Log {
    state: ClusterState,
    index: u64,
}

impl Log {
    fn founded() -> Log {
        let mut log = Log {
            state: ClusterState::default(),
            index: 1,
        };
        log.apply(ClusterCommand::Found(Box::new(Founding {
            cluster: 7,
            spki: [1; 32],
            quic: "10.0.0.1:7000".into(),
            http: "http://10.0.0.1:8000".into(),
            level: 1,
            at_secs: 0,
            authority: vec![1],
            salt: [7; 32],
        })))
        .unwrap();
        log
    }

    fn apply(&mut self, command: ClusterCommand) -> Result<Applied, Rejected> {
        self.index += 1;
        let id = u128::from(self.index);
        self.state.apply(self.index, &Proposal { id, command })
    }

    fn token(&mut self, token: &str, role: Role) {
        self.apply(ClusterCommand::AddToken(Box::new(TokenRecord {
            token: token.into(),
            secret_hash: [9; 32],
            role,
            expires_at_secs: 100,
        })))
        .unwrap();
    }

    fn joined(&mut self, key: u8, role: Role) -> NodeId {
        let token = format!("t{key}");
        self.token(&token, role);
        match self.apply(join(&token, key, 50)) {
            Ok(Applied::Member(node)) => node,
            other => panic!("{other:?}"),
        }
    }
}

fn join(token: &str, key: u8, at_secs: u64) -> ClusterCommand {
    ClusterCommand::Join(Box::new(NewMember {
        token: token.into(),
        secret_hash: [9; 32],
        spki: [key; 32],
        quic: "10.0.0.2:7000".into(),
        http: "http://10.0.0.2:8000".into(),
        level: 1,
        at_secs,
    }))
}

fn tenant(name: &str) -> ClusterCommand {
    ClusterCommand::AddTenant(Box::new(NewTenant {
        name: name.into(),
        salt: [3; 32],
    }))
}

fn key(key_id: &str, tenant: TenantId) -> ClusterCommand {
    ClusterCommand::AddKey(Box::new(KeyRecord {
        key_id: key_id.into(),
        secret_hash: [1; 32],
        tenant,
        created_at_secs: 0,
        name: None,
    }))
}

fn serve(node: NodeId, models: &[(&str, u8)]) -> ClusterCommand {
    let record = |(name, digest): &(&str, u8)| ModelRecord {
        name: (*name).into(),
        spec: "path".into(),
        digest: [*digest; 32],
        bytes: 1,
        added_at_secs: 0,
    };
    ClusterCommand::ServeModels(Box::new(NodeModels {
        node,
        models: models.iter().map(record).collect(),
    }))
}

fn remove(node: NodeId) -> ClusterCommand {
    ClusterCommand::RemoveMember(Box::new(MemberIs { node }))
}

#[test]
fn a_cluster_is_founded_once_and_has_a_tenant() {
    let mut log = Log::founded();
    assert_eq!(
        log.state.tenant(DEFAULT_TENANT).map(|tenant| &*tenant.name),
        Some("default")
    );
    let again = ClusterCommand::Found(Box::new(Founding {
        cluster: 8,
        spki: [2; 32],
        quic: String::new(),
        http: String::new(),
        level: 1,
        at_secs: 0,
        authority: vec![],
        salt: [0; 32],
    }));
    assert_eq!(log.apply(again), Err(Rejected::Founded));
    assert_eq!(log.state.cluster(), 7);
}

#[test]
fn a_token_lets_one_node_in_and_its_id_is_its_place_in_the_log() {
    let mut log = Log::founded();
    log.token("t", Role::Worker);
    assert_eq!(log.apply(join("t", 2, 99)), Ok(Applied::Member(NodeId(4))));
    assert_eq!(
        log.state.member_by_key(&[2; 32]).map(|member| member.role),
        Some(Role::Worker)
    );
    assert_eq!(
        log.apply(join("t", 3, 99)),
        Err(Rejected::TokenUnfit),
        "it was used"
    );
    assert_eq!(
        log.apply(join("t", 2, 99)),
        Ok(Applied::Member(NodeId(4))),
        "the answer was lost"
    );
}

#[test]
fn a_token_is_refused_when_it_expired_or_the_secret_is_another() {
    let mut log = Log::founded();
    log.token("t", Role::Voter);
    assert_eq!(log.apply(join("t", 2, 100)), Err(Rejected::TokenUnfit));
    let ClusterCommand::Join(mut wrong) = join("t", 2, 1) else {
        unreachable!("made above")
    };
    wrong.secret_hash = [8; 32];
    assert_eq!(log.apply(ClusterCommand::Join(wrong)), Err(Rejected::TokenUnfit));
    let token = Box::new(TokenIs { token: "t".into() });
    log.apply(ClusterCommand::RevokeToken(token)).unwrap();
    assert_eq!(log.apply(join("t", 2, 1)), Err(Rejected::TokenUnfit));
}

#[test]
fn ids_are_never_given_twice() {
    let mut log = Log::founded();
    let second = log.joined(2, Role::Voter);
    log.apply(remove(second)).unwrap();
    let again = log.joined(2, Role::Voter);
    assert!(again > second);
    let restored = ClusterState::of_image(log.state.image());
    assert_eq!(restored, log.state);
}

#[test]
fn the_last_node_that_may_vote_stays() {
    let mut log = Log::founded();
    log.joined(2, Role::Worker);
    let last = Err(Rejected::LastVoter { node: FOUNDER });
    assert_eq!(log.apply(remove(FOUNDER)), last);
    log.joined(3, Role::Voter);
    assert_eq!(log.apply(remove(FOUNDER)), Ok(Applied::Done));
    assert_eq!(
        log.apply(remove(FOUNDER)),
        Err(Rejected::MemberUnknown { node: FOUNDER })
    );
}

#[test]
fn a_replica_keeps_its_id_over_restarts_and_its_epochs_go_up() {
    let mut log = Log::founded();
    let Ok(Applied::Replicas(first)) = log.apply(serve(FOUNDER, &[("a", 1), ("b", 1)])) else {
        panic!("accepted")
    };
    let Ok(Applied::Replicas(second)) = log.apply(serve(FOUNDER, &[("b", 2)])) else {
        panic!("accepted")
    };
    assert_eq!(second[0].replica, first[1].replica);
    assert!(second[0].epoch.0 >= first[1].epoch.0 + EPOCHS_OF_A_RUN);
    assert_eq!(log.state.model("b").map(|model| model.digest), Some([2; 32]));
    assert_eq!(log.state.model("a"), None, "nobody serves it");
}

#[test]
fn a_name_means_one_file_on_all_nodes() {
    let mut log = Log::founded();
    let other = log.joined(2, Role::Worker);
    log.apply(serve(FOUNDER, &[("a", 1)])).unwrap();
    let differs = Rejected::ModelDiffers { name: "a".into() };
    assert_eq!(log.apply(serve(other, &[("a", 2)])), Err(differs));
    assert!(log.apply(serve(other, &[("a", 1)])).is_ok());
    log.apply(remove(FOUNDER)).unwrap_err();
    assert_eq!(log.state.replicas().count(), 2);
}

#[test]
fn a_removed_node_takes_its_replicas_along() {
    let mut log = Log::founded();
    let other = log.joined(2, Role::Worker);
    log.apply(serve(other, &[("a", 1)])).unwrap();
    log.apply(ClusterCommand::Drain(Box::new(Drain { node: other })))
        .unwrap();
    assert!(log.state.is_drained(other));
    log.apply(remove(other)).unwrap();
    assert_eq!((log.state.replicas().count(), log.state.model("a")), (0, None));
    assert!(!log.state.is_drained(other));
}

#[test]
fn a_tenant_goes_when_its_last_key_has_gone() {
    let mut log = Log::founded();
    let Ok(Applied::Tenant(id)) = log.apply(tenant("a")) else {
        panic!("accepted")
    };
    log.apply(key("k1", id)).unwrap();
    let remove = || ClusterCommand::RemoveTenant(Box::new(TenantIs { tenant: id }));
    assert_eq!(log.apply(remove()), Err(Rejected::TenantHasKeys { id, keys: 1 }));
    let revoke = KeyId { key_id: "k1".into() };
    log.apply(ClusterCommand::RevokeKey(Box::new(revoke))).unwrap();
    log.apply(remove()).unwrap();
    assert_eq!(log.apply(remove()), Err(Rejected::TenantUnknown { id }));
    let Ok(Applied::Tenant(next)) = log.apply(tenant("b")) else {
        panic!("accepted")
    };
    assert!(next > id, "ids are not given twice");
}

#[test]
fn the_feature_level_is_what_every_member_understands() {
    let mut log = Log::founded();
    let other = log.joined(2, Role::Worker);
    let level = |level| ClusterCommand::SetFeatureLevel(Box::new(FeatureLevel { level }));
    let at = |node, level| {
        ClusterCommand::MoveMember(Box::new(MemberAt {
            node,
            quic: "a:1".into(),
            http: "http://a:2".into(),
            level,
        }))
    };
    assert_eq!(log.apply(level(2)), Err(Rejected::LevelUnfit { level: 2 }));
    log.apply(at(FOUNDER, 2)).unwrap();
    assert_eq!(log.apply(level(2)), Err(Rejected::LevelUnfit { level: 2 }));
    log.apply(at(other, 3)).unwrap();
    log.apply(level(2)).unwrap();
    assert_eq!(log.state.feature_level(), 2);
    let too_low = Rejected::LevelTooLow { needed: 2, level: 1 };
    assert_eq!(
        log.apply(at(other, 1)),
        Err(too_low.clone()),
        "it could not read the log"
    );
    log.token("t", Role::Worker);
    assert_eq!(log.apply(join("t", 9, 50)), Err(too_low), "nor could a new one");
    assert!(log.state.token("t").is_some(), "it may come with another program");
}

#[test]
fn an_invalid_command_is_rejected_and_changes_nothing_but_the_version() {
    let mut log = Log::founded();
    log.apply(key("k1", DEFAULT_TENANT)).unwrap();
    let unknown = NodeId(99);
    let cases = [
        (
            tenant("default"),
            Rejected::TenantExists {
                name: "default".into(),
            },
        ),
        (
            key("k2", TenantId(9)),
            Rejected::TenantUnknown { id: TenantId(9) },
        ),
        (
            key("k1", DEFAULT_TENANT),
            Rejected::KeyExists { key_id: "k1".into() },
        ),
        (
            ClusterCommand::RevokeKey(Box::new(KeyId { key_id: "x".into() })),
            Rejected::KeyUnknown { key_id: "x".into() },
        ),
        (remove(unknown), Rejected::MemberUnknown { node: unknown }),
        (serve(unknown, &[]), Rejected::MemberUnknown { node: unknown }),
        (
            ClusterCommand::SetAuthorities(Box::default()),
            Rejected::AuthoritiesUnfit { count: 0 },
        ),
    ];
    for (command, rejected) in cases {
        let before = log.state.clone();
        assert_eq!(log.apply(command), Err(rejected));
        log.state.version -= 1;
        log.state.recent.pop_back();
        assert_eq!(log.state, before);
    }
}

#[test]
fn a_proposal_that_comes_twice_counts_once() {
    let mut log = Log::founded();
    let proposal = Proposal {
        id: u128::MAX,
        command: tenant("a"),
    };
    let first = log.state.apply(10, &proposal);
    let tenants = log.state.tenants().count();
    assert_eq!(log.state.apply(11, &proposal), first);
    assert_eq!(log.state.tenants().count(), tenants);
    for number in 0..RECENT_MAX {
        log.apply(tenant(&format!("t{number}"))).unwrap();
    }
    let forgotten = Err(Rejected::TenantExists { name: "a".into() });
    assert_eq!(log.state.apply(900, &proposal), forgotten);
    assert_eq!(ClusterState::of_image(log.state.image()), log.state);
}

#[test]
fn a_state_reborn_keeps_tenants_keys_and_models_and_gives_no_id_twice() {
    let mut log = Log::founded();
    let other = log.joined(2, Role::Voter);
    log.apply(serve(other, &[("a", 1)])).unwrap();
    log.apply(key("k1", DEFAULT_TENANT)).unwrap();
    log.token("t", Role::Voter);
    let before = log.state.clone();
    let node = before.id_above(3);
    assert!(node > other);
    let state = before.clone().reborn(&Sole {
        node,
        spki: [2; 32],
        authority: vec![9],
        level: 1,
        at_secs: 0,
    });
    assert_eq!(
        state.members().map(|member| member.node).collect::<Vec<_>>(),
        [node]
    );
    assert_eq!((state.replicas().count(), state.token("t")), (0, None));
    assert_eq!(
        state.model("a"),
        before.model("a"),
        "the sole node is to serve it"
    );
    assert_eq!(ClusterState::of_image(state.image()), state);
    assert_eq!(state.key("k1"), before.key("k1"));
    assert_eq!(state.tenants().count(), before.tenants().count());
    assert_eq!(state.cluster(), before.cluster());
}
