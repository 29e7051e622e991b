//! One authority takes the place of another, and back, and no living member is left out on the way.
//!
//! ```text
//! [old]        rotate: a new one is made
//! [old, new]   both are believed, the old one signs
//! [new, old]   both are believed, the new one signs     finish: [new]
//! [old, new]   abandoned: the old one signs again       then:   [old]
//! ```
//!
//! The first of them signs. Every step changes one thing, so whoever is a step behind still believes whoever is ahead; and a
//! belief ends only when no member needs it any more, which [`in_the_way_of_dropping`] says. Whoever holds both keys keeps both until
//! then, so the loss of any one node leaves a way out: back to the old one, which all voters hold, or on with the new one
//! where another has it.

use proto::NodeId;
use proto::cluster::Role;
use proto::peer::Papers;
use std::collections::BTreeSet;

/// By the hash of its public key.
pub type AuthorityId = [u8; 32];

/// One that the log names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named {
    pub id: AuthorityId,
    /// Seconds since 1970: of two, the new one is later.
    pub made_secs: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// Make a new one, add it as the second, and then let it sign.
    Make,
    /// It was made already: let it sign.
    LetSecondSign,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abandoning {
    /// First the old one must sign again.
    LetSecondSign,
    /// The old one signs: the new one can go when nobody is in the way.
    DropSecond,
}

/// Why something cannot be done from here, and what can.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    #[error("this node does not hold the authority: ask on a node that may vote")]
    NotHeld,
    #[error(
        "a rotation is under way: finish it with `cluster authority rotate --finish`, or go back with `cluster authority rotate \
         --abandon`"
    )]
    UnderWay,
    #[error(
        "a rotation is under way, and this node does not hold the new authority: go on with `cluster authority rotate` on the \
         node that it was begun on, or go back with `cluster authority rotate --abandon`"
    )]
    NewNotHeld,
    #[error("no rotation is under way: begin one with `cluster authority rotate`")]
    NoneUnderWay,
    #[error(
        "the new authority does not sign yet: go on with `cluster authority rotate` on the node that it was begun on, or go \
         back with `cluster authority rotate --abandon`"
    )]
    OldSigns,
    #[error(
        "this node does not hold the old authority: ask on another one that could vote before the rotation; if there is none, \
         `cluster authority rotate --finish` is the way out"
    )]
    OldNotHeld,
}

/// What a member has said of itself just now, over its connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// It could not be asked.
    Silent,
    Said(Papers),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub node: NodeId,
    pub role: Role,
    pub word: Word,
}

/// Why a step has to wait.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum InTheWay {
    #[error("node {0} cannot be asked: start it, or remove it (`cluster node rm {0}`), and repeat this")]
    Silent(NodeId),
    #[error("node {0} has not heard of the new authority yet; try again in a moment")]
    DoesNotBelieve(NodeId),
    #[error("node {0} has not renewed its certificate yet; try again in a moment")]
    ShowsAnother(NodeId),
    #[error(
        "node {0} does not sign yet with the authority that is to stay: try again in a moment; where no node has its key any \
         more, go the other way (`--finish` or `--abandon`)"
    )]
    SignsWithAnother(NodeId),
}

/// `held`: of which this node has the keys.
pub fn begin(named: &[Named], held: &BTreeSet<AuthorityId>) -> Result<Beginning, Refused> {
    match named {
        [one] if held.contains(&one.id) => Ok(Beginning::Make),
        [first, second] if is_new(second, first) => match held.contains(&second.id) {
            true => Ok(Beginning::LetSecondSign),
            false => Err(Refused::NewNotHeld),
        },
        [_, _] => Err(Refused::UnderWay),
        _ => Err(Refused::NotHeld),
    }
}

/// The second can go when nobody is in the way.
pub fn finish(named: &[Named]) -> Result<(), Refused> {
    match named {
        [first, second] if is_new(second, first) => Err(Refused::OldSigns),
        [_, _] => Ok(()),
        _ => Err(Refused::NoneUnderWay),
    }
}

/// `held`: of which this node has the keys.
pub fn abandon(named: &[Named], held: &BTreeSet<AuthorityId>) -> Result<Abandoning, Refused> {
    match named {
        [first, second] if is_new(second, first) => Ok(Abandoning::DropSecond),
        [_, old] => match held.contains(&old.id) {
            true => Ok(Abandoning::LetSecondSign),
            false => Err(Refused::OldNotHeld),
        },
        _ => Err(Refused::NoneUnderWay),
    }
}

/// Who would not know whom to believe, did this one sign.
pub fn in_the_way_of_signing(second: &AuthorityId, members: &[Member]) -> Option<InTheWay> {
    in_the_way(members, |member, said| match said.believes.contains(second) {
        true => None,
        false => Some(InTheWay::DoesNotBelieve(member.node)),
    })
}

/// Who still needs another authority than this one, which is to be the only one: every member must show a certificate of
/// it, and who may vote must sign with it, so that nobody gets one of the other again.
pub fn in_the_way_of_dropping(kept: &AuthorityId, members: &[Member]) -> Option<InTheWay> {
    in_the_way(members, |member, said| match member.role {
        Role::Voter | Role::Worker if said.shows != Some(*kept) => Some(InTheWay::ShowsAnother(member.node)),
        Role::Voter if said.signs_with != Some(*kept) => Some(InTheWay::SignsWithAnother(member.node)),
        Role::Voter | Role::Worker => None,
    })
}

/// Somebody who is silent comes first: for him somebody has to do something.
fn in_the_way(
    members: &[Member],
    of_said: impl Fn(&Member, &Papers) -> Option<InTheWay>,
) -> Option<InTheWay> {
    let silent = members.iter().find(|member| member.word == Word::Silent);
    let said = |member: &Member| match &member.word {
        Word::Silent => None,
        Word::Said(said) => of_said(member, said),
    };
    match silent {
        Some(member) => Some(InTheWay::Silent(member.node)),
        None => members.iter().find_map(said),
    }
}

/// May the log go from these to those? One is added behind the other, the two change places, or the second one goes.
pub fn is_step<T: PartialEq>(before: &[T], after: &[T]) -> bool {
    match (before, after) {
        ([one], [first, second]) => first == one && second != one,
        ([first, second], [third, fourth]) => (first, second) == (fourth, third),
        ([first, _], [kept]) => kept == first,
        _ => false,
    }
}

fn is_new(one: &Named, other: &Named) -> bool {
    one.made_secs > other.made_secs
}
