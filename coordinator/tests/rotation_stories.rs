//! Rotations of the authority that meet losses, restarts, late proposals and each other: whatever happens, no member that
//! lives is left out, and there is always a way back to one authority.

use coordinator::rotation::{self, Abandoning, AuthorityId, Beginning, Member, Named, Word};
use proptest::prelude::*;
use proto::NodeId;
use proto::cluster::Role;
use proto::peer::Papers;
use std::collections::BTreeSet;
use std::fmt;

const NODES_MAX: usize = 6;

fn id(number: u8) -> AuthorityId {
    [number; 32]
}

/// The later one was made later.
fn named(set: &[AuthorityId]) -> Vec<Named> {
    let named = |id: &AuthorityId| Named {
        id: *id,
        made_secs: u64::from(id[0]),
    };
    set.iter().map(named).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Being {
    Up,
    Down,
    /// For good, and removed.
    Gone,
}

#[derive(Clone, Debug)]
struct Node {
    role: Role,
    being: Being,
    /// How much of the log it has.
    heard: usize,
    believes: Vec<AuthorityId>,
    shows: AuthorityId,
    holds: BTreeSet<AuthorityId>,
}

impl Node {
    fn signs_with(&self) -> Option<AuthorityId> {
        self.believes.iter().find(|id| self.holds.contains(*id)).copied()
    }
}

struct World {
    nodes: Vec<Node>,
    log: Vec<Vec<AuthorityId>>,
    made: u8,
    /// Found that nobody was in the way of this being the only one, and not proposed yet.
    about_to_keep: Option<(AuthorityId, usize)>,
    /// All that was, and after how many steps.
    proposed: Vec<(Vec<AuthorityId>, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Hear(usize),
    Renew(usize),
    Fetch(usize),
    Stop(usize),
    Start(usize),
    Lose(usize),
    Join(usize, Role),
    Begin(usize),
    /// Looks, and proposes at some later time.
    Finish(usize),
    Abandon(usize),
    Keep,
    /// What was proposed at some time arrives again.
    Late(usize),
}

/// Authorities by their numbers.
impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |set: &[AuthorityId]| set.iter().map(|id| id[0]).collect::<Vec<u8>>();
        writeln!(
            formatter,
            "log {:?}",
            self.log.iter().map(|set| numbers(set)).collect::<Vec<_>>()
        )?;
        for (place, node) in self.nodes.iter().enumerate() {
            let held: Vec<AuthorityId> = node.holds.iter().copied().collect();
            writeln!(
                formatter,
                "node {place} {:?} {:?}: heard {}, believes {:?}, shows {}, holds {:?}",
                node.role,
                node.being,
                node.heard,
                numbers(&node.believes),
                node.shows[0],
                numbers(&held)
            )?;
        }
        Ok(())
    }
}

impl World {
    /// Voters that hold the one authority, and a worker.
    fn founded() -> World {
        let node = |role| Node {
            role,
            being: Being::Up,
            heard: 1,
            believes: vec![id(1)],
            shows: id(1),
            holds: match role {
                Role::Voter => [id(1)].into(),
                Role::Worker => BTreeSet::new(),
            },
        };
        World {
            nodes: vec![
                node(Role::Voter),
                node(Role::Voter),
                node(Role::Voter),
                node(Role::Worker),
            ],
            log: vec![vec![id(1)]],
            made: 1,
            about_to_keep: None,
            proposed: Vec::new(),
        }
    }

    fn committed(&self) -> Vec<AuthorityId> {
        self.log.last().cloned().unwrap_or_default()
    }

    fn commit(&mut self, set: Vec<AuthorityId>) {
        self.propose(set, self.log.len());
    }

    /// To a node that leads, which has heard everything. Without one nothing is agreed on.
    fn propose(&mut self, set: Vec<AuthorityId>, after: usize) {
        self.proposed.push((set.clone(), after));
        let leads = |place: &usize| self.is_up(*place) && self.nodes[*place].heard == self.log.len();
        if let Some(leader) = (0..self.nodes.len()).find(leads)
            && after == self.log.len()
            && rotation::is_step(&self.committed(), &set)
        {
            self.log.push(set);
            self.take(leader, self.log.len());
        }
    }

    fn is_up(&self, place: usize) -> bool {
        self.nodes.get(place).is_some_and(|node| node.being == Being::Up)
    }

    fn meet(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.nodes[one], &self.nodes[other]);
        self.is_up(one) && self.is_up(other) && a.believes.contains(&b.shows) && b.believes.contains(&a.shows)
    }

    /// Of whoever has more of the log. Keys of those that it believed and believes no more are deleted.
    fn hear(&mut self, place: usize) {
        let of =
            |other: &usize| self.meet(place, *other) && self.nodes[*other].heard > self.nodes[place].heard;
        let told = (0..self.nodes.len())
            .filter(of)
            .max_by_key(|other| self.nodes[*other].heard);
        // What was agreed on is on the disks of voters, also where those who had applied it are gone.
        let is_known = self
            .nodes
            .iter()
            .any(|node| node.being != Being::Gone && node.heard == self.log.len());
        match (told, self.nodes[place].role) {
            (Some(other), _) => self.take(place, self.nodes[other].heard),
            (None, Role::Voter) if !is_known => self.take(place, self.log.len()),
            (None, Role::Voter | Role::Worker) => {}
        }
    }

    fn take(&mut self, place: usize, heard: usize) {
        let set = self.log[heard - 1].clone();
        let node = &mut self.nodes[place];
        let before = std::mem::replace(&mut node.believes, set.clone());
        node.heard = heard;
        node.holds.retain(|id| set.contains(id) || !before.contains(id));
    }

    fn renew(&mut self, place: usize) {
        let signing = match self.nodes[place].signs_with() {
            Some(own) => Some(own),
            None => (0..self.nodes.len())
                .filter(|other| self.meet(place, *other))
                .find_map(|other| self.nodes[other].signs_with()),
        };
        let node = &mut self.nodes[place];
        if let Some(signing) = signing.filter(|signing| node.believes.contains(signing)) {
            node.shows = signing;
        }
    }

    fn fetch(&mut self, place: usize) {
        let node = &self.nodes[place];
        let wanted = node.believes[0];
        let has = |other: usize| self.meet(place, other) && self.nodes[other].signs_with() == Some(wanted);
        if node.role == Role::Voter && (0..self.nodes.len()).any(has) {
            self.nodes[place].holds.insert(wanted);
        }
    }

    /// Somebody who votes has to be left.
    fn lose(&mut self, place: usize) {
        let others =
            (0..self.nodes.len()).filter(|other| *other != place && self.nodes[*other].being != Being::Gone);
        if others
            .filter(|other| self.nodes[*other].role == Role::Voter)
            .count()
            > 1
        {
            self.nodes[place].being = Being::Gone;
        }
    }

    fn join(&mut self, by: usize, role: Role) {
        let signing = self.nodes[by].signs_with();
        if let Some(signing) =
            signing.filter(|id| *id == self.nodes[by].believes[0] && self.nodes.len() < NODES_MAX)
        {
            self.nodes.push(Node {
                role,
                being: Being::Up,
                heard: self.nodes[by].heard,
                believes: self.nodes[by].believes.clone(),
                shows: signing,
                holds: BTreeSet::new(),
            });
        }
    }

    fn members(&self, asking: usize) -> Vec<Member> {
        let living = (0..self.nodes.len()).filter(|place| self.nodes[*place].being != Being::Gone);
        let member = |place: usize| {
            let node = &self.nodes[place];
            let said = || Papers {
                shows: node.believes.contains(&node.shows).then_some(node.shows),
                believes: node.believes.clone(),
                signs_with: node.signs_with(),
            };
            Member {
                node: NodeId(place as u64),
                role: node.role,
                word: match place == asking || self.meet(asking, place) {
                    true => Word::Said(said()),
                    false => Word::Silent,
                },
            }
        };
        living.map(member).collect()
    }

    fn begin(&mut self, place: usize) {
        let committed = self.committed();
        match rotation::begin(&named(&committed), &self.nodes[place].holds) {
            Ok(Beginning::Make) => {
                self.made += 1;
                let new = id(self.made);
                self.nodes[place].holds.insert(new);
                self.commit(vec![committed[0], new]);
            }
            Ok(Beginning::LetSecondSign) => {
                let in_the_way = rotation::in_the_way_of_signing(&committed[1], &self.members(place));
                if in_the_way.is_none() {
                    self.commit(vec![committed[1], committed[0]]);
                }
            }
            Err(_) => {}
        }
    }

    fn abandon(&mut self, place: usize) {
        let committed = self.committed();
        match rotation::abandon(&named(&committed), &self.nodes[place].holds) {
            Ok(Abandoning::LetSecondSign) => self.commit(vec![committed[1], committed[0]]),
            Ok(Abandoning::DropSecond) => self.look(place),
            Err(_) => {}
        }
    }

    fn look(&mut self, place: usize) {
        let kept = self.committed()[0];
        if rotation::in_the_way_of_dropping(&kept, &self.members(place)).is_none() {
            self.about_to_keep = Some((kept, self.log.len()));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Hear(place) if self.is_up(place) => self.hear(place),
            Event::Renew(place) if self.is_up(place) => self.renew(place),
            Event::Fetch(place) if self.is_up(place) => self.fetch(place),
            Event::Stop(place) if self.is_up(place) => self.nodes[place].being = Being::Down,
            Event::Start(place) => {
                let node = self.nodes.get_mut(place);
                if let Some(node) = node.filter(|node| node.being == Being::Down) {
                    node.being = Being::Up;
                }
            }
            Event::Lose(place) if place < self.nodes.len() => self.lose(place),
            Event::Join(place, role) if self.catches_up(place) => self.join(place, role),
            Event::Begin(place) if self.catches_up(place) => self.begin(place),
            Event::Finish(place) if self.catches_up(place) => {
                if rotation::finish(&named(&self.committed())).is_ok() {
                    self.look(place);
                }
            }
            Event::Abandon(place) if self.catches_up(place) => self.abandon(place),
            Event::Keep => {
                if let Some((kept, after)) = self.about_to_keep.take() {
                    self.propose(vec![kept], after);
                }
            }
            Event::Late(place) => {
                if let Some((set, after)) = self.proposed.get(place).cloned() {
                    self.propose(set, after);
                }
            }
            // Whoever is not there does nothing.
            Event::Hear(_)
            | Event::Renew(_)
            | Event::Fetch(_)
            | Event::Stop(_)
            | Event::Lose(_)
            | Event::Join(..)
            | Event::Begin(_)
            | Event::Finish(_)
            | Event::Abandon(_) => {}
        }
    }

    /// Whoever changes something asks first for what was agreed on before.
    fn catches_up(&mut self, place: usize) -> bool {
        if self.is_up(place) {
            self.hear(place);
        }
        self.is_up(place) && self.nodes[place].heard == self.log.len()
    }

    /// Everybody is started who can be, and all is done that nodes do by themselves.
    fn settle(&mut self) {
        for node in &mut self.nodes {
            if node.being == Being::Down {
                node.being = Being::Up;
            }
        }
        for _ in 0..4 * self.nodes.len() {
            for place in (0..self.nodes.len())
                .filter(|place| self.nodes[*place].being == Being::Up)
                .collect::<Vec<_>>()
            {
                self.hear(place);
                self.fetch(place);
                self.renew(place);
            }
        }
    }

    /// Somebody goes back to the old one, or on with the new one where all that held the old one are lost.
    fn give_up(&mut self) {
        for way in [Event::Abandon, Event::Abandon, Event::Begin, Event::Finish] {
            for place in 0..self.nodes.len() {
                if self.committed().len() == 2 {
                    self.happen(way(place));
                    self.settle();
                    self.happen(Event::Keep);
                    self.settle();
                }
            }
        }
    }

    /// Where nobody who is left can sign, there is no authority to go back to.
    fn has_a_key(&self) -> bool {
        let living = self.nodes.iter().filter(|node| node.being != Being::Gone);
        living.filter_map(Node::signs_with).count() > 0
    }

    fn assert_nobody_is_left_out(&self) {
        let committed = self.committed();
        for node in self.nodes.iter().filter(|node| node.being != Being::Gone) {
            assert_eq!(node.heard, self.log.len(), "it has heard everything: {self:?}");
            assert!(committed.contains(&node.shows), "it is believed: {self:?}");
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let place = 0..NODES_MAX;
    let role = prop_oneof![Just(Role::Voter), Just(Role::Worker)];
    let event = prop_oneof![
        6 => place.clone().prop_map(Event::Hear),
        6 => place.clone().prop_map(Event::Renew),
        4 => place.clone().prop_map(Event::Fetch),
        1 => place.clone().prop_map(Event::Stop),
        2 => place.clone().prop_map(Event::Start),
        1 => place.clone().prop_map(Event::Lose),
        1 => (place.clone(), role).prop_map(|(place, role)| Event::Join(place, role)),
        4 => place.clone().prop_map(Event::Begin),
        3 => place.clone().prop_map(Event::Finish),
        3 => place.prop_map(Event::Abandon),
        3 => Just(Event::Keep),
        1 => (0..8_usize).prop_map(Event::Late),
    ];
    proptest::collection::vec(event, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_living_member_is_ever_left_out_and_there_is_a_way_back(events in events()) {
        let mut world = World::founded();
        for event in events {
            world.happen(event);
        }
        world.settle();
        world.assert_nobody_is_left_out();
        world.give_up();
        world.assert_nobody_is_left_out();
        prop_assert!(world.committed().len() == 1 || !world.has_a_key(), "{:?}", world);
    }
}
