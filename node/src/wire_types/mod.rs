//! What this crate itself says in frames of `proto`: these bytes, and no damaged ones. Other kinds are looked at in `proto`.

#[path = "../../../proto/tests/wire_types/check.rs"]
pub mod check;

use crate::config::low::KvCache;
use crate::shard_host::setup::{FileState, LinkMember, LinkSetup, PlacedSetup, ShardSetup};
use crate::text::TokenizerSource;
use crate::{peers, shard_host};
use check::{Check, Damage, Golden, Home, Kinds, kinds_at};
use proto::join::Role;
use proto::stage::StagePart;
use proto::wire::Kind;
use proto::{Epoch, NodeId, ReplicaId};

/// One message of every kind and variant.
fn each(check: &mut impl Check) {
    peers::legacy::tests::each(check);
    each_setup(check);
    shard_host::packed::tests::each(check);
    check.check("model_text", Kind::ModelText, text());
}

fn setup() -> ShardSetup {
    ShardSetup {
        replica: ReplicaId(1),
        epoch: Epoch(2),
        model: "m".to_owned(),
        model_path: "/m.gguf".to_owned(),
        file: FileState::Here,
        manifest: vec![1, 2],
        packed: "/p".to_owned(),
        ranks: 3,
        threads: 4,
        kv_cache: KvCache::Bf16,
        memory_bytes_max: None,
        cpu_level: None,
        placed: None,
    }
}

fn each_setup(check: &mut impl Check) {
    check.check("setup", Kind::ShardSetup, setup());
    let link = LinkSetup {
        node: NodeId(5),
        ip: "10.0.0.5".to_owned(),
        key: "key".to_owned(),
        chain: vec![vec![1], vec![2]],
        authorities: vec![vec![3]],
        members: vec![LinkMember {
            node: NodeId(6),
            spki: [7; 32],
            role: Role::Worker,
        }],
    };
    let part = StagePart {
        layer_first: 8,
        layer_end: 9,
        blocks: 10,
        step_tokens_max: 11,
    };
    let placed = PlacedSetup {
        parts: vec![part],
        stage: 0,
        link: Some(link),
    };
    let setup = ShardSetup {
        file: FileState::Coming,
        kv_cache: KvCache::Int8,
        memory_bytes_max: Some(12),
        cpu_level: Some("avx2".to_owned()),
        placed: Some(placed),
        ..setup()
    };
    check.check("setup_placed", Kind::ShardSetup, setup);
}

fn text() -> TokenizerSource {
    TokenizerSource {
        model: "gpt2".to_owned(),
        pre: Some("llama-bpe".to_owned()),
        tokens: vec!["a".to_owned(), "b".to_owned()],
        token_types: vec![1, 3],
        merges: vec!["a b".to_owned()],
        bos: Some(1),
        eos: Some(2),
        eot: None,
        unknown: Some(3),
        padding: Some(4),
        add_bos: true,
        add_eos: false,
        chat_template: Some("{{ messages }}".to_owned()),
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_every_message_is_an_error() {
    each(&mut Damage);
}

/// Nodes of N and N−1 tell each other the texts of models, and read the logs and packed weights of each other.
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
    assert_eq!(kinds.0, kinds_at(Home::Node));
}
