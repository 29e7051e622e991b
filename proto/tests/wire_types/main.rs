//! What nodes say to each other: these bytes, and no damaged ones.

mod check;
mod placing;

use check::{Check, Damage, Golden, Home, Kinds, kinds_at};
use placing::{each_of_placing, each_of_stages, each_of_weights};
use proto::cluster::{Applied, ClusterCommand, ClusterImage, ImageV1, KeyId, Outcome, Proposal, Rejected};
use proto::join::*;
use proto::peer::*;
use proto::raft::*;
use proto::weights::{Holding, ManifestAnswer};
use proto::wire::{self, Header, Kind, WireError};
use proto::{Epoch, NodeId, ReplicaId};
use rkyv::Archived;

/// One message of every kind and variant.
fn each(check: &mut impl Check) {
    let nonce = || Box::new(Nonce { nonce: 0x0102_0304 });
    let asked = Kind::PeerRequest;
    check.check("ping", asked, PeerRequest::Ping(nonce()));
    check.check("read_index", asked, PeerRequest::ReadIndex(Box::default()));
    check.check("authority_key", asked, PeerRequest::AuthorityKey(Box::default()));
    check.check("signed_by", asked, PeerRequest::SignedBy(Box::default()));
    let model = ModelIs { digest: [8; 32] };
    check.check("model_text", asked, PeerRequest::ModelText(Box::new(model)));
    let answered = Kind::PeerAnswer;
    check.check("pong", answered, PeerAnswer::Pong(nonce()));
    let refusal = Refusal {
        reason: "no".to_owned(),
    };
    check.check("refusal", answered, PeerAnswer::Refused(Box::new(refusal)));
    let signed = SignedBy { authority: [6; 32] };
    check.check(
        "signed_by_answer",
        answered,
        PeerAnswer::SignedBy(Box::new(signed)),
    );
    let text = ModelText { frame: vec![1, 2] };
    check.check(
        "model_text_answer",
        answered,
        PeerAnswer::ModelText(Box::new(text)),
    );
    let key = AuthorityKey {
        certificate: vec![3],
        key: "key".to_owned(),
    };
    check.check(
        "authority_key_answer",
        answered,
        PeerAnswer::AuthorityKey(Box::new(key)),
    );
    each_of_raft(check);
    each_of_streams(check);
    each_of_stages(check);
    each_of_joining(check);
    each_that_is_kept(check);
    each_of_placing(check);
    each_of_weights(check);
}

const PLACE: LogId = LogId {
    term: 2,
    leader: NodeId(1),
    index: 7,
};

const VOTE: Vote = Vote {
    term: 3,
    candidate: NodeId(1),
    standing: VoteStanding::Granted,
};

fn proposal() -> Proposal {
    Proposal {
        id: 5,
        command: ClusterCommand::RevokeKey(Box::new(KeyId {
            key_id: "k".to_owned(),
        })),
    }
}

fn snapshot_meta() -> SnapshotMeta {
    SnapshotMeta {
        last: Some(PLACE),
        membership: StoredMembership {
            at: None,
            membership: Membership {
                voters: vec![vec![NodeId(1)], vec![NodeId(1), NodeId(2)]],
                nodes: vec![NodeId(1), NodeId(2)],
            },
        },
        name: "s".to_owned(),
    }
}

fn entry(payload: Payload) -> Entry {
    Entry { id: PLACE, payload }
}

fn each_of_raft(check: &mut impl Check) {
    let raft = |request| PeerRequest::Raft(Box::new(request));
    let append = Append {
        vote: VOTE,
        previous: Some(PLACE),
        entries: vec![
            entry(Payload::Blank),
            entry(Payload::Command(Box::new(proposal()))),
            entry(Payload::Membership(Box::new(
                snapshot_meta().membership.membership,
            ))),
        ],
        committed: None,
    };
    check.check(
        "append",
        Kind::PeerRequest,
        raft(RaftRequest::Append(Box::new(append))),
    );
    let vote = VoteRequest {
        vote: VOTE,
        last: None,
    };
    check.check("vote", Kind::PeerRequest, raft(RaftRequest::Vote(Box::new(vote))));
    let part = SnapshotPart {
        vote: VOTE,
        meta: snapshot_meta(),
        offset: 9,
        data: vec![1, 2, 3],
        place: PartPlace::Last,
    };
    check.check(
        "snapshot",
        Kind::PeerRequest,
        raft(RaftRequest::Snapshot(Box::new(part))),
    );
    check.check(
        "command",
        Kind::PeerRequest,
        PeerRequest::Command(Box::new(proposal())),
    );
    let answer = |answer| PeerAnswer::Raft(Box::new(answer));
    let appended = RaftAnswer::Append(Box::new(AppendAnswer::HigherVote(VOTE)));
    check.check("append_answer", Kind::PeerAnswer, answer(appended));
    let voted = RaftAnswer::Vote(Box::new(VoteAnswer {
        vote: VOTE,
        verdict: Verdict::Refused,
        last: Some(PLACE),
    }));
    check.check("vote_answer", Kind::PeerAnswer, answer(voted));
    let mismatch = SnapshotAnswer::Mismatch {
        expected: 1,
        got: 2,
        name: "s".to_owned(),
    };
    let taken = RaftAnswer::Snapshot(Box::new(mismatch));
    check.check("snapshot_answer", Kind::PeerAnswer, answer(taken));
    let away = || {
        Box::new(Away {
            reason: "no".to_owned(),
        })
    };
    check.check("away", Kind::PeerAnswer, answer(RaftAnswer::Away(away())));
    let outcomes = [
        Ok(Applied::Member(NodeId(4))),
        Err(Rejected::KeyUnknown {
            key_id: "k".to_owned(),
        }),
    ];
    for (name, outcome) in ["committed", "rejected"].into_iter().zip(outcomes) {
        let committed = CommandAnswer::Committed(Box::new(Committed { index: 8, outcome }));
        check.check(name, Kind::PeerAnswer, PeerAnswer::Command(Box::new(committed)));
    }
    let unknown = CommandAnswer::Unknown(away());
    check.check(
        "unknown",
        Kind::PeerAnswer,
        PeerAnswer::Command(Box::new(unknown)),
    );
    let index = ReadAnswer::Index(Box::new(ReadIndex { index: 77 }));
    check.check(
        "read_index_answer",
        Kind::PeerAnswer,
        PeerAnswer::ReadIndex(Box::new(index)),
    );
    let leader = Some(NodeId(2));
    let elsewhere = ReadAnswer::NotLeader(Box::new(NotLeader { leader }));
    check.check(
        "not_leader",
        Kind::PeerAnswer,
        PeerAnswer::ReadIndex(Box::new(elsewhere)),
    );
}

/// What lies on disks: an older program's must be readable by a newer one.
fn each_that_is_kept(check: &mut impl Check) {
    check.check(
        "kept_entry",
        Kind::RaftEntry,
        entry(Payload::Command(Box::new(proposal()))),
    );
    check.check("kept_vote", Kind::RaftVote, VOTE);
    check.check("kept_place", Kind::RaftLogId, PLACE);
    check.check("kept_snapshot_meta", Kind::SnapshotMeta, snapshot_meta());
    let image = ImageV1 {
        cluster: 1,
        version: 2,
        level: 1,
        authorities: vec![vec![3]],
        node_max: NodeId(4),
        drained: vec![NodeId(4)],
        replica_next: 5,
        tenant_next: 6,
        recent: vec![(7, Ok(Applied::Done))],
        ..ImageV1::default()
    };
    let image = ClusterImage::V1(Box::new(image));
    check.check("kept_image", Kind::ClusterImage, image.clone());
    check.check("backup", Kind::Backup, image);
    let identity = NodeIdentity {
        node: NodeId(9),
        members: Vec::new(),
    };
    check.check("kept_identity", Kind::NodeIdentity, identity);
}

fn each_of_streams(check: &mut impl Check) {
    let (replica, epoch) = (ReplicaId(3), Epoch(4));
    check.check(
        "hello_engine",
        Kind::Hello,
        Hello::Engine(Box::new(Replica { replica })),
    );
    let stage = Stage {
        replica,
        epoch,
        stage: 5,
    };
    check.check("hello_stage", Kind::Hello, Hello::Stage(Box::new(stage)));
    let name = "blob".to_owned();
    check.check("hello_blob", Kind::Hello, Hello::Blob(Box::new(Blob { name })));
    let probe = Probe { bytes: 1 << 20 };
    check.check("hello_probe", Kind::Hello, Hello::Probe(Box::new(probe)));
}

fn each_of_joining(check: &mut impl Check) {
    let joining = Joining {
        token_id: [1; 6],
        secret: [2; 16],
        csr: vec![3; 4],
        quic_address: "10.0.0.1:7".to_owned(),
        http_url: "http://a".to_owned(),
        program_version: "0.1.0".to_owned(),
        feature_level: 1,
    };
    check.check("join", Kind::JoinRequest, JoinRequest::V1(Box::new(joining)));
    let welcome = Welcome {
        node: NodeId(9),
        certificate: vec![4; 3],
        authorities: vec![vec![5; 2], vec![6]],
        members: vec![MemberAddress {
            node: NodeId(8),
            quic_address: "10.0.0.2:7".to_owned(),
            spki: [7; 32],
        }],
    };
    check.check(
        "welcome",
        Kind::JoinAnswer,
        JoinAnswer::Welcome(Box::new(welcome)),
    );
    let refused = || {
        Box::new(Refused {
            reason: "no".to_owned(),
        })
    };
    check.check("join_refused", Kind::JoinAnswer, JoinAnswer::Refused(refused()));
    let renewing = Renewing { csr: vec![8; 5] };
    check.check("renew", Kind::RenewRequest, RenewRequest::V1(Box::new(renewing)));
    let renewed = Renewed {
        certificate: vec![9; 3],
        authorities: vec![vec![1]],
    };
    check.check(
        "renewed",
        Kind::RenewAnswer,
        RenewAnswer::Renewed(Box::new(renewed)),
    );
    check.check(
        "renew_refused",
        Kind::RenewAnswer,
        RenewAnswer::Refused(refused()),
    );
}

#[test]
fn every_flipped_bit_and_every_cut_of_every_message_is_an_error() {
    each(&mut Damage);
}

/// N and N−1 must work together: these bytes may only change together with `WIRE_VERSION`; new ones come at the end of
/// their kind.
#[test]
fn golden_bytes() {
    let mut golden = Golden::default();
    each(&mut golden);
    golden.assert_same(include_str!("wire_types.golden"));
}

#[test]
fn no_kind_is_left_out() {
    let mut kinds = Kinds::default();
    each(&mut kinds);
    assert_eq!(kinds.0, kinds_at(Home::Proto));
}

#[test]
fn one_more_variant_changes_no_size() {
    // A tag and a relative pointer, whatever the variants hold.
    const SIZE: usize = 8;
    assert_eq!(size_of::<Archived<PeerRequest>>(), SIZE);
    assert_eq!(size_of::<Archived<PeerAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<Hello>>(), SIZE);
    assert_eq!(size_of::<Archived<JoinRequest>>(), SIZE);
    assert_eq!(size_of::<Archived<JoinAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<RenewRequest>>(), SIZE);
    assert_eq!(size_of::<Archived<RenewAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<RaftRequest>>(), SIZE);
    assert_eq!(size_of::<Archived<RaftAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<CommandAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<ReadAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<Holding>>(), SIZE);
    assert_eq!(size_of::<Archived<ManifestAnswer>>(), SIZE);
    assert_eq!(size_of::<Archived<ClusterCommand>>(), SIZE);
    assert_eq!(size_of::<Archived<Payload>>(), SIZE);
    assert_eq!(size_of::<Archived<ClusterImage>>(), SIZE);
    // Not boxed, and in every image: what is added must not be larger than what was there.
    assert_eq!(size_of::<Archived<Outcome>>(), 24);
    assert_eq!(size_of::<Archived<Rejected>>(), 16);
}

#[test]
fn numbers_of_kinds_are_their_own_and_unknown_ones_are_refused() {
    let mut numbers: Vec<u16> = Kind::ALL.iter().map(|kind| *kind as u16).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), Kind::ALL.len());
    let known = wire::try_header_bytes(Kind::Chunk, 0, &[]).unwrap();
    let parsed = (0..=u16::MAX).filter(|number| {
        let mut header = known;
        header[6..8].copy_from_slice(&number.to_le_bytes());
        let parsed = Header::parse_any(&header);
        let is_known = numbers.contains(number);
        assert_eq!(parsed.is_ok(), is_known, "{number}");
        is_known
    });
    assert_eq!(parsed.count(), numbers.len());
}

#[test]
fn a_length_beyond_its_kind_is_refused_before_a_byte_of_it_is_there() {
    for kind in Kind::ALL {
        let mut header = wire::try_header_bytes(kind, 0, &[]).unwrap();
        let mut parse = |length: usize| {
            header[16..20].copy_from_slice(&(length as u32).to_le_bytes());
            Header::parse_any(&header)
        };
        let length_max = kind.payload_bytes_max();
        assert_eq!(parse(length_max).map(|header| header.length), Ok(length_max));
        assert_eq!(
            parse(length_max + 1),
            Err(WireError::TooLarge {
                length: length_max as u64 + 1,
                length_max: length_max as u64
            })
        );
        assert!(parse(u32::MAX as usize).is_err());
    }
    let long = Hello::Blob(Box::new(Blob {
        name: "x".repeat(5000),
    }));
    assert!(wire::try_frame(Kind::Hello, 0, &long).is_err());
}

#[test]
fn a_secret_is_not_shown() {
    let joining = Joining {
        token_id: [0; 6],
        secret: [201; 16],
        csr: Vec::new(),
        quic_address: String::new(),
        http_url: String::new(),
        program_version: String::new(),
        feature_level: 0,
    };
    assert!(!format!("{joining:?}").contains("201"));
}
