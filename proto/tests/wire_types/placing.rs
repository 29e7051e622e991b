//! Of models over several nodes: where they are placed, what their stages say to each other, and how files come there.

use super::{Check, entry};
use proto::cluster::{
    AttentionRates, AuthoritiesStep, ClusterCommand, ClusterImage, Deployment, ImageV1, ImageV2, InputTerms,
    KvCacheFormat, LinkProfile, MatrixFormat, ModelRecord, ModelShape, NodeProfile, NodeRates, OverBudget,
    Placement, Prediction, ProductKind, ProductRates, Products, Proposal, Rejected, RowBytes, StagePlace,
    Undeploy, Unplace, WorkspaceShape,
};
use proto::engine::{FromEngine, PipelineUse, ToEngine};
use proto::peer::*;
use proto::raft::Payload;
use proto::stage::*;
use proto::step::{Slice, SliceOutput, StepPlan};
use proto::weights::*;
use proto::wire::Kind;
use proto::{AdapterId, BlockId, Epoch, GroupId, NodeId, ReplicaId, SequenceId, Span, StepId};

pub fn each_of_weights(check: &mut impl Check) {
    let model = || Box::new(ModelIs { digest: [8; 32] });
    check.check("holds", Kind::PeerRequest, PeerRequest::Holds(model()));
    check.check("manifest", Kind::PeerRequest, PeerRequest::Manifest(model()));
    let parts = HeldParts {
        file_bytes: 9,
        here: vec![1],
        coming: vec![6],
    };
    let holdings = [
        ("holds_nothing", Holding::Nothing),
        (
            "holds_whole",
            Holding::Whole(Box::new(WholeFile { file_bytes: 9 })),
        ),
        ("holds_parts", Holding::Parts(Box::new(parts))),
    ];
    for (name, holding) in holdings {
        check.check(name, Kind::PeerAnswer, PeerAnswer::Holds(Box::new(holding)));
    }
    let bytes = ManifestBytes { bytes: vec![7, 8] };
    let manifests = [
        ("no_manifest", ManifestAnswer::Nothing),
        ("manifest_in_the_making", ManifestAnswer::InTheMaking),
        ("manifest_answer", ManifestAnswer::Manifest(Box::new(bytes))),
    ];
    for (name, answer) in manifests {
        check.check(name, Kind::PeerAnswer, PeerAnswer::Manifest(Box::new(answer)));
    }
    let wanted = WantChunks { chunks: vec![3, 1] };
    check.check("want_chunks", Kind::WantChunks, wanted);
}

fn rates() -> NodeRates {
    let kinds = MatrixFormat::ALL.into_iter().zip(3..);
    NodeRates {
        products: kinds
            .map(|(format, rate)| ProductRates {
                kind: ProductKind {
                    format,
                    inputs: InputTerms::Two,
                },
                with_1_row_per_sec: rate,
                with_16_rows_per_sec: 10 * rate,
                with_128_rows_per_sec: 100 * rate,
            })
            .collect(),
        attention: vec![AttentionRates {
            kv_cache: KvCacheFormat::Int8,
            prompt_per_sec: 9,
            decode_per_sec: 10,
        }],
    }
}

fn products(weights: u64) -> Products {
    Products {
        kind: ProductKind {
            format: MatrixFormat::Q4_0,
            inputs: InputTerms::One,
        },
        weights,
    }
}

fn profile() -> NodeProfile {
    NodeProfile {
        node: NodeId(9),
        memory_bytes: 1,
        threads: 2,
        rates: rates(),
        links: vec![LinkProfile {
            to: NodeId(8),
            bytes_per_sec: 5,
            round_trip_ns: 6,
        }],
    }
}

fn deployment() -> Deployment {
    Deployment {
        model: ModelRecord {
            name: "m".to_owned(),
            spec: "s".to_owned(),
            digest: [1; 32],
            bytes: 2,
            added_at_secs: 3,
        },
        manifest: [2; 32],
        shape: ModelShape {
            layers: 1,
            hidden: 2,
            heads: 3,
            kv_heads: 4,
            head_dim: 14,
            context_tokens_max: 5,
            layer_weight_bytes: vec![6],
            layer_products: vec![vec![products(7)]],
            embedding_bytes: 8,
            head_bytes: 9,
            head_products: products(10),
            kv_bytes_per_token_layer: 11,
            kv_cache: KvCacheFormat::Bf16,
            tied_bytes: 15,
            common_bytes: 16,
            position_bytes: 17,
            workspace: WorkspaceShape {
                row: row(18),
                logit_row: row(19),
                logit_rows_max: 12,
            },
            block_tokens: 13,
        },
        replicas: 14,
        ranks: 1,
        kv_cache: KvCacheFormat::Bf16,
    }
}

fn row(each: u64) -> RowBytes {
    RowBytes {
        each,
        cut: 20,
        gathered: 21,
        collected: 22,
    }
}

fn placement() -> Placement {
    Placement {
        model: "m".to_owned(),
        replica: ReplicaId(3),
        stages: vec![StagePlace {
            node: NodeId(9),
            layer_first: 0,
            layer_end: 1,
            ranks: 2,
            threads: 3,
            memory_bytes: 4,
        }],
        blocks: 5,
        step_tokens_max: 12,
        predicted: Prediction {
            decode_1_millitokens_per_sec: 6,
            decode_16_millitokens_per_sec: 7,
            decode_128_millitokens_per_sec: 8,
            prefill_millitokens_per_sec: 9,
            first_token_micros: 10,
            bubble_per_mille: 11,
        },
    }
}

pub fn each_of_placing(check: &mut impl Check) {
    let (model, replica) = ("m".to_owned(), ReplicaId(3));
    let step = AuthoritiesStep {
        after: 6,
        certificates: vec![vec![1], vec![2]],
    };
    let commands = [
        ("profile", ClusterCommand::Profile(Box::new(profile()))),
        ("deploy", ClusterCommand::Deploy(Box::new(deployment()))),
        ("undeploy", ClusterCommand::Undeploy(Box::new(Undeploy { model }))),
        ("place", ClusterCommand::Place(Box::new(placement()))),
        ("unplace", ClusterCommand::Unplace(Box::new(Unplace { replica }))),
        (
            "step_authorities",
            ClusterCommand::StepAuthorities(Box::new(step)),
        ),
    ];
    for (name, command) in commands {
        let kept = entry(Payload::Command(Box::new(Proposal { id: 5, command })));
        check.check(name, Kind::RaftEntry, kept);
    }
    let over = OverBudget {
        node: NodeId(9),
        needed_bytes: 2,
        budget_bytes: 1,
    };
    let image = ImageV2 {
        first: ImageV1 {
            recent: vec![(7, Err(Rejected::OverBudget(Box::new(over))))],
            ..ImageV1::default()
        },
        deployments: vec![deployment()],
        profiles: vec![profile()],
        placements: vec![placement()],
        authorities_at: 8,
    };
    check.check(
        "kept_image_2",
        Kind::ClusterImage,
        ClusterImage::V2(Box::new(image)),
    );
}

pub fn each_of_stages(check: &mut impl Check) {
    let address = StageAddress {
        node: NodeId(7),
        quic: "10.0.0.7:4000".to_owned(),
    };
    let next = address.clone();
    let part = StagePart {
        layer_first: 3,
        layer_end: 9,
        blocks: 512,
        step_tokens_max: 80,
    };
    check.check("stage_begin", Kind::StageBegin, StageBegin { next, part });
    let ready = StageReady {
        numerics: 5,
        fixed_secs: 1e-3,
        per_token_secs: 2e-4,
        per_context_secs: 3e-8,
    };
    check.check("stage_ready", Kind::StageReady, ready);
    let slice = Slice {
        sequence: SequenceId(3),
        adapter: AdapterId(0),
        start: 16,
        count: 2,
        new_blocks: vec![(GroupId(0), BlockId(9))],
        output: SliceOutput::Sample,
    };
    let plan = StepPlan {
        epoch: Epoch(2),
        step: StepId(8),
        slices: vec![slice],
        ..StepPlan::default()
    };
    let tokens = vec![11, 12];
    check.check("stage_step", Kind::StageStep, StageStep { plan, tokens });
    let asked = PeerRequest::StageAt(Box::new(Replica {
        replica: ReplicaId(4),
    }));
    check.check("stage_at", Kind::PeerRequest, asked);
    let found = PeerAnswer::StageAt(Box::new(address.clone()));
    check.check("stage_at_answer", Kind::PeerAnswer, found);
    outlook(check);
    let stages = vec![address.clone()];
    let stages = ToEngine::Stages(Box::new(StageAddresses { stages }));
    check.check("stages", Kind::ToEngine, stages);
    let trust = StageTrust {
        chain: vec![vec![1, 2]],
        authorities: vec![vec![3]],
    };
    check.check("stage_trust", Kind::ToEngine, ToEngine::Trust(Box::new(trust)));
    let parts = vec![FilePart { start: 4, end: 9 }];
    let landed = ToEngine::Landed(Box::new(Landed::Parts(parts)));
    check.check("landed", Kind::ToEngine, landed);
    let landed = ToEngine::Landed(Box::new(Landed::All));
    check.check("landed_all", Kind::ToEngine, landed);
    let listening = FromEngine::Listening(Box::new(address));
    check.check("listening", Kind::FromEngine, listening);
    let used = PipelineUse {
        occupied: Span(30),
        least: Span(26),
        computed: vec![Span(24), Span(25)],
    };
    check.check("pipeline", Kind::FromEngine, FromEngine::Pipeline(Box::new(used)));
    check.check("alive", Kind::FromEngine, FromEngine::Alive);
    let damaged = FromEngine::Damaged {
        reason: "bits".to_owned(),
    };
    check.check("damaged", Kind::FromEngine, damaged);
}

fn outlook(check: &mut impl Check) {
    let asked = PeerRequest::Outlook(Box::new(ReadRequest {}));
    check.check("outlook", Kind::PeerRequest, asked);
    let obstacle = Obstacle {
        model: "a".into(),
        reason: "no room".into(),
    };
    let outlook = Outlook {
        lost: vec![NodeId(4)],
        obstacles: vec![obstacle],
    };
    let answer = PeerAnswer::Outlook(Box::new(outlook));
    check.check("outlook_answer", Kind::PeerAnswer, answer);
    let asked = PeerRequest::Papers(Box::new(ReadRequest {}));
    check.check("papers", Kind::PeerRequest, asked);
    let papers = Papers {
        shows: Some([7; 32]),
        believes: vec![[7; 32], [8; 32]],
        signs_with: None,
    };
    let answer = PeerAnswer::Papers(Box::new(papers));
    check.check("papers_answer", Kind::PeerAnswer, answer);
}
