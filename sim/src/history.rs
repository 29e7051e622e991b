//! What clients of the cluster were told, and whether one state that all of them saw explains it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What several clients did to several registers, and what they heard. Clones are the same history.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    clock: u64,
    deeds: Vec<Deed>,
}

#[derive(Clone, Debug)]
pub struct Deed {
    pub register: String,
    pub action: Action,
    pub invoked: u64,
    /// `None`: nobody heard; it may have happened at any time since, or may yet, or never.
    pub returned: Option<(u64, Answer)>,
    /// Why it certainly never happened.
    pub excuse: Option<String>,
}

/// To a register that is empty or holds one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Only when it is empty.
    Fill(u64),
    /// Only when it is not empty.
    Empty,
    /// Only when it holds this value.
    EmptyOf(u64),
    Look,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    Refused,
    Seen(Option<u64>),
}

/// Of a deed, to tell the history how it ended.
#[derive(Clone, Copy)]
pub struct Invoked(usize);

impl History {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn invoke(&self, register: &str, action: Action) -> Invoked {
        let mut written = self.written();
        written.clock += 1;
        let deed = Deed {
            register: register.to_owned(),
            action,
            invoked: written.clock,
            returned: None,
            excuse: None,
        };
        written.deeds.push(deed);
        Invoked(written.deeds.len() - 1)
    }

    pub fn heard(&self, invoked: Invoked, answer: Answer) {
        let mut written = self.written();
        written.clock += 1;
        let now = written.clock;
        written.deeds[invoked.0].returned = Some((now, answer));
    }

    /// It is certain that it never happened, and never will.
    pub fn did_not_happen(&self, invoked: Invoked, why: &str) {
        let mut written = self.written();
        let deed = &mut written.deeds[invoked.0];
        deed.excuse = Some(why.to_owned());
    }

    pub fn deeds(&self) -> Vec<Deed> {
        self.written().deeds.clone()
    }

    /// How many were answered.
    pub fn heard_count(&self) -> usize {
        let deeds = self.deeds();
        deeds.iter().filter(|deed| deed.returned.is_some()).count()
    }

    /// How many may or may not have happened.
    pub fn unheard_count(&self) -> usize {
        let deeds = self.deeds();
        let is_open = |deed: &&Deed| deed.returned.is_none() && deed.excuse.is_none();
        deeds.iter().filter(is_open).count()
    }

    /// # Panics
    /// When no order of the deeds of some register explains what was heard.
    pub fn assert_linearizable(&self, context: &str) {
        if let Some((register, deeds)) = self.unexplained() {
            let lines: Vec<String> = deeds.iter().map(|deed| format!("{deed:?}")).collect();
            panic!("{context}: no order explains {register}:\n{}", lines.join("\n"));
        }
    }

    /// The first register whose deeds no order explains.
    pub fn unexplained(&self) -> Option<(String, Vec<Deed>)> {
        let mut registers: BTreeMap<String, Vec<Deed>> = BTreeMap::new();
        for deed in self.deeds() {
            registers.entry(deed.register.clone()).or_default().push(deed);
        }
        registers.into_iter().find(|(_, deeds)| !is_linearizable(deeds))
    }
}

/// Wing and Gong, "Testing and Verifying Concurrent Objects" (1993), with the memory of Lowe, "Testing for
/// linearizability" (2017): what has been tried with the same deeds done and the same value is not tried again.
pub fn is_linearizable(deeds: &[Deed]) -> bool {
    let deeds: Vec<&Deed> = deeds.iter().filter(|deed| deed.excuse.is_none()).collect();
    let mut search = Search {
        deeds: &deeds,
        tried: BTreeSet::new(),
    };
    search.explains(&mut vec![false; deeds.len()], None)
}

struct Search<'a> {
    deeds: &'a [&'a Deed],
    tried: BTreeSet<(Vec<bool>, Option<u64>)>,
}

impl Search<'_> {
    /// Can the rest be put into an order that begins with this value?
    fn explains(&mut self, done: &mut Vec<bool>, value: Option<u64>) -> bool {
        let rest = || self.deeds.iter().enumerate().filter(|(at, _)| !done[*at]);
        let Some(first_return) = rest()
            .filter_map(|(_, deed)| deed.returned)
            .map(|(returned, _)| returned)
            .min()
        else {
            // Whatever nobody heard of may never happen.
            return true;
        };
        let open: Vec<usize> = rest()
            .filter(|(_, deed)| deed.invoked < first_return)
            .map(|(at, _)| at)
            .collect();
        if !self.tried.insert((done.clone(), value)) {
            return false;
        }
        open.into_iter().any(|at| {
            let Some(next) = self.deeds[at].follows(value) else {
                return false;
            };
            done[at] = true;
            let explains = self.explains(done, next);
            done[at] = false;
            explains
        })
    }
}

impl Deed {
    /// What the register holds after it; `None`: it cannot have happened here and been answered so.
    fn follows(&self, value: Option<u64>) -> Option<Option<u64>> {
        let (answer, after) = match (self.action, value) {
            (Action::Fill(new), None) => (Answer::Done, Some(new)),
            (Action::Fill(_), Some(_)) => (Answer::Refused, value),
            (Action::Empty, Some(_)) => (Answer::Done, None),
            (Action::Empty, None) => (Answer::Refused, None),
            (Action::EmptyOf(old), _) if value == Some(old) => (Answer::Done, None),
            (Action::EmptyOf(_), _) => (Answer::Refused, value),
            (Action::Look, _) => (Answer::Seen(value), value),
        };
        let fits = self.returned.is_none_or(|(_, heard)| heard == answer);
        fits.then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(invoked, returned, action, answer)`; returned 0: nobody heard.
    fn check(deeds: &[(u64, u64, Action, Answer)]) -> bool {
        let deed = |(invoked, returned, action, answer): &(u64, u64, Action, Answer)| Deed {
            register: String::new(),
            action: *action,
            invoked: *invoked,
            returned: (*returned != 0).then_some((*returned, *answer)),
            excuse: None,
        };
        is_linearizable(&deeds.iter().map(deed).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_in_order_is_explained() {
        assert!(check(&[
            (1, 2, Action::Look, Answer::Seen(None)),
            (3, 4, Action::Fill(7), Answer::Done),
            (5, 6, Action::Fill(8), Answer::Refused),
            (7, 8, Action::Look, Answer::Seen(Some(7))),
            (9, 10, Action::EmptyOf(8), Answer::Refused),
            (11, 12, Action::Empty, Answer::Done),
            (13, 14, Action::Look, Answer::Seen(None)),
        ]));
    }

    #[test]
    fn a_stale_look_is_not() {
        assert!(!check(&[
            (1, 2, Action::Fill(7), Answer::Done),
            (3, 4, Action::Look, Answer::Seen(None)),
        ]));
        let beside = [
            (1, 4, Action::Fill(7), Answer::Done),
            (2, 3, Action::Look, Answer::Seen(None)),
        ];
        assert!(check(&beside), "the look came first");
    }

    #[test]
    fn two_looks_do_not_go_back_in_time() {
        let unheard = (1, 0, Action::Fill(7), Answer::Done);
        let saw = |at, value| (at, at + 1, Action::Look, Answer::Seen(value));
        assert!(check(&[unheard, saw(2, None), saw(4, Some(7))]));
        assert!(check(&[unheard, saw(2, None), saw(4, None)]), "it never happened");
        assert!(!check(&[unheard, saw(2, Some(7)), saw(4, None)]));
    }

    #[test]
    fn what_happened_twice_is_not_explained() {
        assert!(!check(&[
            (1, 2, Action::Fill(7), Answer::Done),
            (3, 4, Action::Fill(8), Answer::Done),
        ]));
        let unheard = (3, 0, Action::Fill(8), Answer::Done);
        let filled = (1, 2, Action::Fill(7), Answer::Done);
        let emptied = (4, 5, Action::Empty, Answer::Done);
        let saw = |at, value| (at, at + 1, Action::Look, Answer::Seen(value));
        assert!(check(&[filled, unheard, emptied, saw(6, Some(8))]));
        let again = (8, 9, Action::Empty, Answer::Done);
        assert!(!check(&[
            filled,
            unheard,
            emptied,
            saw(6, Some(8)),
            again,
            saw(10, Some(8))
        ]));
    }

    #[test]
    fn a_value_that_nobody_wrote_is_not_explained() {
        assert!(!check(&[(1, 2, Action::Look, Answer::Seen(Some(7)))]));
    }
}
