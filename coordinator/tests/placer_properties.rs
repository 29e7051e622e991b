//! Whatever nodes and people do in whatever order: no node carries more than it can, and the placer comes to rest with
//! everything placed or explained.

mod placing;

use coordinator::Machine;
use coordinator::placer::{PlacerAction, PlacerEvent};
use placing::{Doings, Town};
use proptest::prelude::*;
use proto::NodeId;
use proto::cluster::{ClusterCommand, Drain, MemberIs, Resume, Undeploy};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Happening {
    Join(u64),
    /// It restarts, maybe with another budget.
    Budget(usize, u64),
    Silent(usize),
    Heard(usize),
    Drain(usize),
    Resume(usize),
    Remove(usize),
    Deploy(usize, u32, u32),
    Undeploy(usize),
    /// The next proposal comes to nothing.
    Refuse,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (20..250_u64).prop_map(Happening::Join),
        1 => (0..8_usize, 20..250_u64).prop_map(|(node, mebibytes)| Happening::Budget(node, mebibytes)),
        2 => (0..8_usize).prop_map(Happening::Silent),
        2 => (0..8_usize).prop_map(Happening::Heard),
        1 => (0..8_usize).prop_map(Happening::Drain),
        1 => (0..8_usize).prop_map(Happening::Resume),
        1 => (0..8_usize).prop_map(Happening::Remove),
        4 => (0..4_usize, 1..30_u32, 0..4_u32)
            .prop_map(|(name, layers, replicas)| Happening::Deploy(name, layers, replicas)),
        1 => (0..4_usize).prop_map(Happening::Undeploy),
        1 => Just(Happening::Refuse),
    ]
}

struct Story {
    town: Town,
    silent: BTreeSet<NodeId>,
    explained: BTreeMap<String, String>,
}

impl Story {
    fn node(&self, number: usize) -> NodeId {
        let members: Vec<NodeId> = self.town.state.members().map(|member| member.node).collect();
        members[number % members.len()]
    }

    fn happen(&mut self, happening: &Happening) {
        let town = &mut self.town;
        match *happening {
            Happening::Join(mebibytes) => {
                town.joined(mebibytes);
            }
            Happening::Budget(number, mebibytes) => {
                let node = self.node(number);
                self.town.profile(node, mebibytes);
            }
            Happening::Silent(number) => {
                let node = self.node(number);
                self.silent.insert(node);
                let actions = self.town.silent(node, 10_000);
                let doings = self.town.carry_out(actions);
                self.note(doings);
            }
            Happening::Heard(number) => {
                let node = self.node(number);
                self.silent.remove(&node);
                let actions = self.town.tell(PlacerEvent::Heard { node });
                let doings = self.town.carry_out(actions);
                self.note(doings);
            }
            Happening::Drain(number) => {
                let node = self.node(number);
                self.town.must(ClusterCommand::Drain(Box::new(Drain { node })));
            }
            Happening::Resume(number) => {
                let node = self.node(number);
                self.town.must(ClusterCommand::Resume(Box::new(Resume { node })));
            }
            Happening::Remove(number) => {
                let node = self.node(number);
                let remove = ClusterCommand::RemoveMember(Box::new(MemberIs { node }));
                // The last one is kept.
                let _ = self.town.apply(remove);
            }
            Happening::Deploy(name, layers, replicas) => town.deploy(NAMES[name], layers, replicas),
            Happening::Undeploy(name) => {
                let model = NAMES[name].to_owned();
                // Maybe it is not deployed.
                let _ = town.apply(ClusterCommand::Undeploy(Box::new(Undeploy { model })));
            }
            Happening::Refuse => self.refuse(),
        }
        self.town.check_budgets();
    }

    fn refuse(&mut self) {
        let actions = self.town.see();
        if matches!(actions[..], [PlacerAction::Propose(_)]) {
            assert_eq!(self.town.tell(PlacerEvent::Refused), []);
            self.town.now = self.town.placer.deadline().expect("it rests");
        } else {
            let doings = self.town.carry_out(actions);
            self.note(doings);
        }
    }

    fn note(&mut self, doings: Doings) {
        for (model, reason) in doings.explained {
            match reason {
                Some(reason) => self.explained.insert(model, reason),
                None => self.explained.remove(&model),
            };
        }
    }

    fn rest(&mut self) {
        let doings = self.town.settle();
        self.note(doings);
        let mut rounds = 0;
        while !self.town.rest_long().commands.is_empty() {
            rounds += 1;
            assert!(rounds < 100, "caches grow for ever");
        }
        let again = self.town.settle();
        assert!(
            again.commands.is_empty() && again.explained.is_empty(),
            "{again:?}"
        );
        let state = &self.town.state;
        self.silent.retain(|node| state.member(*node).is_some());
        for deployment in state.deployments() {
            let name = &deployment.model.name;
            let placed = self.town.placed(name);
            assert!(placed.len() <= deployment.replicas as usize);
            let is_well = |node: NodeId| {
                state.profile(node).is_some() && !state.is_drained(node) && !self.silent.contains(&node)
            };
            let well = placed
                .iter()
                .filter(|placement| placement.stages.iter().all(|stage| is_well(stage.node)));
            let is_whole = well.count() == deployment.replicas as usize;
            assert_eq!(
                is_whole,
                !self.explained.contains_key(name),
                "{name}: {:?}",
                self.explained
            );
        }
        let is_deployed = |name: &String| state.deployment(name).is_some();
        assert!(self.explained.keys().all(is_deployed), "{:?}", self.explained);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_is_overloaded_and_the_placer_comes_to_rest(
        happenings in prop::collection::vec((happenings(), any::<bool>()), 1..40),
    ) {
        let mut story = Story {
            town: Town::founded(100),
            silent: BTreeSet::new(),
            explained: BTreeMap::new(),
        };
        story.rest();
        for (happening, rests) in &happenings {
            story.happen(happening);
            if *rests {
                story.rest();
            }
        }
        story.rest();
    }
}
