//! A cluster's state with a placer beside it: what the placer proposes is applied, and must be accepted when it knew the
//! state.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use coordinator::Machine;
use coordinator::cluster_state::{Applied, ClusterState, FOUNDER, Outcome};
use coordinator::placer::{GROW_AFTER, Placer, PlacerAction, PlacerEvent, View};
use proto::cluster::*;
use proto::{NodeId, Span, Time};

pub const MIB: u64 = 1 << 20;

pub struct Town {
    pub state: ClusterState,
    pub placer: Placer,
    pub now: Time,
    index: u64,
    /// The version of the state that the placer knows.
    seen: u64,
    pub comes_up: ComesUp,
}

/// When what was placed serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComesUp {
    /// Before the placer rests.
    Soon,
    Never,
}

/// What a placer did until it rested.
#[derive(Default, Debug)]
pub struct Doings {
    pub commands: Vec<ClusterCommand>,
    pub explained: Vec<(String, Option<String>)>,
}

impl Town {
    /// One node, which can carry so much.
    pub fn founded(mebibytes: u64) -> Town {
        let mut town = Town {
            state: ClusterState::default(),
            placer: Placer::default(),
            now: Time(1_000_000_000_000),
            index: 0,
            seen: 0,
            comes_up: ComesUp::Soon,
        };
        let founding = Founding {
            cluster: 7,
            spki: [1; 32],
            quic: String::new(),
            http: String::new(),
            level: 2,
            at_secs: 0,
            authority: vec![1],
            salt: [7; 32],
        };
        town.must(ClusterCommand::Found(Box::new(founding)));
        town.profile(FOUNDER, mebibytes);
        town
    }

    pub fn joined(&mut self, mebibytes: u64) -> NodeId {
        let token = format!("t{}", self.index);
        self.must(ClusterCommand::AddToken(Box::new(TokenRecord {
            token: token.clone(),
            secret_hash: [9; 32],
            role: Role::Voter,
            expires_at_secs: 100,
        })));
        let mut spki = [0; 32];
        spki[..8].copy_from_slice(&self.index.to_le_bytes());
        let join = self.must(ClusterCommand::Join(Box::new(NewMember {
            token,
            secret_hash: [9; 32],
            spki,
            quic: String::new(),
            http: String::new(),
            level: 2,
            at_secs: 50,
        })));
        let Applied::Member(node) = join else {
            panic!("{join:?}")
        };
        self.profile(node, mebibytes);
        node
    }

    pub fn profile(&mut self, node: NodeId, mebibytes: u64) {
        self.must(ClusterCommand::Profile(Box::new(NodeProfile {
            node,
            memory_bytes: mebibytes * MIB,
            threads: 4,
            rates: rates(),
            links: vec![],
        })));
    }

    pub fn deploy(&mut self, name: &str, layers: u32, replicas: u32) {
        let deployment = deployment(name, layers, replicas);
        self.must(ClusterCommand::Deploy(Box::new(deployment)));
    }

    pub fn drain(&mut self, node: NodeId) {
        self.must(ClusterCommand::Drain(Box::new(Drain { node })));
    }

    pub fn remove(&mut self, node: NodeId) {
        self.must(ClusterCommand::RemoveMember(Box::new(MemberIs { node })));
    }

    pub fn must(&mut self, command: ClusterCommand) -> Applied {
        let words = format!("{command:?}");
        self.apply(command)
            .unwrap_or_else(|error| panic!("{error}: {words}"))
    }

    pub fn apply(&mut self, command: ClusterCommand) -> Outcome {
        self.index += 1;
        let id = u128::from(self.index);
        self.state.apply(self.index, &Proposal { id, command })
    }

    /// One event, and what came of it at once.
    pub fn tell(&mut self, event: PlacerEvent) -> Vec<PlacerAction> {
        let mut out = Vec::new();
        self.placer.handle(self.now, event, &mut out);
        out
    }

    pub fn see(&mut self) -> Vec<PlacerAction> {
        self.seen = self.state.version();
        let view = Box::new(View::of(&self.state));
        self.tell(PlacerEvent::Cluster(view))
    }

    pub fn silent(&mut self, node: NodeId, millis: u64) -> Vec<PlacerAction> {
        let silent = Span::from_millis(millis);
        self.tell(PlacerEvent::Silent { node, silent })
    }

    /// Shows the placer the state, and carries out what it wants until it rests.
    pub fn settle(&mut self) -> Doings {
        let actions = self.see();
        self.carry_out(actions)
    }

    /// Everything that is placed serves.
    pub fn all_serve(&mut self) -> Vec<PlacerAction> {
        let serving = self.state.placements().map(|placement| placement.replica);
        let serving = serving.collect();
        self.tell(PlacerEvent::Serving(serving))
    }

    /// So long that caches may grow, and what comes of it.
    pub fn rest_long(&mut self) -> Doings {
        self.now = self.now + GROW_AFTER;
        let mut out = Vec::new();
        self.placer.wake(self.now, &mut out);
        self.carry_out(out)
    }

    pub fn carry_out(&mut self, mut actions: Vec<PlacerAction>) -> Doings {
        let mut doings = Doings::default();
        loop {
            if actions.is_empty() && self.comes_up == ComesUp::Soon {
                actions = self.all_serve();
            }
            if actions.is_empty() {
                return doings;
            }
            let mut proposed = None;
            for action in std::mem::take(&mut actions) {
                match action {
                    PlacerAction::Propose(command) => assert!(proposed.replace(command).is_none()),
                    PlacerAction::Explain { model, reason } => doings.explained.push((model, reason)),
                }
            }
            if let Some(command) = proposed {
                actions = self.carry_out_one(command, &mut doings);
            }
        }
    }

    fn carry_out_one(&mut self, command: ClusterCommand, doings: &mut Doings) -> Vec<PlacerAction> {
        let is_fresh = self.seen == self.state.version();
        let outcome = self.apply(command.clone());
        self.check_budgets();
        if let Err(error) = outcome {
            assert!(!is_fresh, "{error}: {command:?}");
            self.tell(PlacerEvent::Refused);
            assert_eq!(self.see(), [], "it rests");
            self.now = self.placer.deadline().expect("it rests");
            let mut out = Vec::new();
            self.placer.wake(self.now, &mut out);
            return out;
        }
        doings.commands.push(command);
        assert!(doings.commands.len() < 100, "goes round in circles: {doings:#?}");
        assert_eq!(self.see(), [], "one proposal at a time");
        self.tell(PlacerEvent::Committed)
    }

    pub fn check_budgets(&self) {
        for profile in self.state.profiles() {
            let taken = self.state.placed_bytes(profile.node);
            assert!(taken <= profile.memory_bytes, "{taken} of {profile:?}");
        }
    }

    pub fn placed(&self, model: &str) -> Vec<&Placement> {
        let placements = self.state.placements();
        placements.filter(|placement| placement.model == model).collect()
    }

    /// The nodes of the only replica of a model.
    pub fn nodes(&self, model: &str) -> Vec<NodeId> {
        let [placement] = self.placed(model)[..] else {
            panic!("{:?}", self.placed(model))
        };
        placement.stages.iter().map(|stage| stage.node).collect()
    }
}

fn rates() -> NodeRates {
    NodeRates {
        products: vec![ProductRates {
            kind: ProductKind::default(),
            with_1_row_per_sec: 10_000_000_000,
            with_16_rows_per_sec: 5_000_000_000,
            with_128_rows_per_sec: 800_000_000,
        }],
        attention: vec![],
    }
}

fn products(weights: u64) -> Products {
    Products {
        kind: ProductKind::default(),
        weights,
    }
}

/// A model of so many layers of 10 MiB, whose least cache takes 1 MiB for each layer and which needs 3 MiB in other ways: 2
/// for embeddings and output matrix, 1 to compute in.
pub fn deployment(name: &str, layers: u32, replicas: u32) -> Deployment {
    Deployment {
        model: ModelRecord {
            name: name.into(),
            spec: "path".into(),
            digest: [1; 32],
            bytes: 1,
            added_at_secs: 0,
        },
        manifest: [0; 32],
        shape: ModelShape {
            layers,
            hidden: 1024,
            heads: 8,
            kv_heads: 8,
            head_dim: 64,
            context_tokens_max: 1024,
            layer_weight_bytes: vec![10 * MIB; layers as usize],
            layer_products: vec![vec![products(10 * MIB)]; layers as usize],
            embedding_bytes: MIB,
            head_bytes: MIB,
            head_products: products(MIB),
            kv_bytes_per_token_layer: 1024,
            kv_cache: KvCacheFormat::Bf16,
            tied_bytes: 0,
            common_bytes: MIB,
            position_bytes: 0,
            workspace: WorkspaceShape::default(),
            block_tokens: 16,
        },
        replicas,
        ranks: 1,
        kv_cache: KvCacheFormat::Bf16,
    }
}
