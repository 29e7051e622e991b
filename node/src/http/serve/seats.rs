//! Who may hold a connection. Decides only: no socket and no clock, so order is that of events.
//!
//! Seats are bounded in all and for each neighbourhood (an IPv4 address, the /64 of an IPv6 address). When they run
//! out, whoever has waited longest without a request makes room: idle connections never lock others out.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeatsMax {
    pub total: usize,
    pub per_neighbourhood: usize,
    /// Of one loopback address, behind which a whole reverse proxy may stand.
    pub per_loopback: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeatId(u64);

/// What becomes of a connection that has just arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seating {
    Taken(SeatId),
    /// This one has to go at once; it has left its seat already.
    TakenInsteadOf {
        seat: SeatId,
        gone: SeatId,
    },
    Refused(Crowd),
}

/// Why there is no seat: all that could make room are busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crowd {
    Everywhere,
    Neighbourhood,
}

impl Crowd {
    pub fn name(self) -> &'static str {
        match self {
            Crowd::Everywhere => "everywhere",
            Crowd::Neighbourhood => "address",
        }
    }
}

pub struct Seats {
    max: SeatsMax,
    seats: HashMap<SeatId, Seat>,
    /// All that wait, longest first.
    waiting: BTreeSet<(Turn, SeatId)>,
    waiting_near: BTreeSet<(Neighbourhood, Turn, SeatId)>,
    taken_near: HashMap<Neighbourhood, usize>,
    ids: u64,
    turns: u64,
}

struct Seat {
    near: Neighbourhood,
    /// Since when it has no request; `None`: it has one.
    waiting_since: Option<Turn>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Neighbourhood(IpAddr);

/// Counts up with every change, as a clock that never stands still.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Turn(u64);

impl Seats {
    pub fn new(max: SeatsMax) -> Seats {
        Seats {
            max,
            seats: HashMap::new(),
            waiting: BTreeSet::new(),
            waiting_near: BTreeSet::new(),
            taken_near: HashMap::new(),
            ids: 0,
            turns: 0,
        }
    }

    /// A new connection, which waits for its first request.
    pub fn arrive(&mut self, address: IpAddr) -> Seating {
        let near = Neighbourhood::of(address);
        let gone = match self.to_make_room(near) {
            Ok(gone) => gone,
            Err(crowd) => return Seating::Refused(crowd),
        };
        if let Some(gone) = gone {
            self.leave(gone);
        }
        let seat = self.sit(near);
        match gone {
            Some(gone) => Seating::TakenInsteadOf { seat, gone },
            None => Seating::Taken(seat),
        }
    }

    /// Its request begins. `false`: it has no seat any more, and no request may begin.
    pub fn begin(&mut self, id: SeatId) -> bool {
        self.stop_waiting(id);
        self.seats.contains_key(&id)
    }

    /// Its request has ended, and it waits for the next one.
    pub fn wait(&mut self, id: SeatId) {
        self.stop_waiting(id);
        let since = self.turn();
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.waiting_since = Some(since);
            self.waiting.insert((since, id));
            self.waiting_near.insert((seat.near, since, id));
        }
    }

    /// Again for one that has left is nothing.
    pub fn leave(&mut self, id: SeatId) {
        self.stop_waiting(id);
        let Some(seat) = self.seats.remove(&id) else {
            return;
        };
        let taken = self
            .taken_near
            .get_mut(&seat.near)
            .expect("whoever sits is counted");
        *taken -= 1;
        if *taken == 0 {
            self.taken_near.remove(&seat.near);
        }
    }

    /// Who has to go for a newcomer from there, if somebody has to.
    fn to_make_room(&self, near: Neighbourhood) -> Result<Option<SeatId>, Crowd> {
        let taken_near = self.taken_near.get(&near).copied().unwrap_or(0);
        if taken_near >= self.max_of(near) {
            let own = (near, Turn(0), SeatId(0))..=(near, Turn(u64::MAX), SeatId(u64::MAX));
            let longest = self.waiting_near.range(own).next();
            return longest.map(|(_, _, id)| Some(*id)).ok_or(Crowd::Neighbourhood);
        }
        if self.seats.len() >= self.max.total {
            let longest = self.waiting.first();
            return longest.map(|(_, id)| Some(*id)).ok_or(Crowd::Everywhere);
        }
        Ok(None)
    }

    fn max_of(&self, near: Neighbourhood) -> usize {
        match near.0.is_loopback() {
            true => self.max.per_loopback,
            false => self.max.per_neighbourhood,
        }
    }

    fn sit(&mut self, near: Neighbourhood) -> SeatId {
        self.ids += 1;
        let id = SeatId(self.ids);
        let seat = Seat {
            near,
            waiting_since: None,
        };
        self.seats.insert(id, seat);
        *self.taken_near.entry(near).or_default() += 1;
        self.wait(id);
        id
    }

    fn stop_waiting(&mut self, id: SeatId) {
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        if let Some(since) = seat.waiting_since.take() {
            self.waiting.remove(&(since, id));
            self.waiting_near.remove(&(seat.near, since, id));
        }
    }

    fn turn(&mut self) -> Turn {
        self.turns += 1;
        Turn(self.turns)
    }
}

impl Neighbourhood {
    fn of(address: IpAddr) -> Neighbourhood {
        Neighbourhood(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            canonical => canonical,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: SeatsMax = SeatsMax {
        total: 4,
        per_neighbourhood: 2,
        per_loopback: 3,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn arrive(seats: &mut Seats, from: &str) -> SeatId {
        match seats.arrive(address(from)) {
            Seating::Taken(seat) => seat,
            other => panic!("{from}: {other:?}"),
        }
    }

    #[test]
    fn the_longest_waiting_makes_room_and_a_served_one_never() {
        let mut seats = Seats::new(MAX);
        let [first, second, third, _fourth] =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|from| arrive(&mut seats, from));
        assert!(seats.begin(first));
        assert!(seats.begin(third));
        seats.wait(third);
        let newcomer = seats.arrive(address("10.0.0.5"));
        assert!(matches!(newcomer, Seating::TakenInsteadOf { gone, .. } if gone == second));
        assert!(!seats.begin(second), "who has gone begins nothing");
    }

    #[test]
    fn a_crowded_neighbourhood_makes_room_for_its_own() {
        let mut seats = Seats::new(MAX);
        let _other = arrive(&mut seats, "10.0.0.9");
        let own = arrive(&mut seats, "10.0.0.1");
        let _own_too = arrive(&mut seats, "::ffff:10.0.0.1");
        let newcomer = seats.arrive(address("10.0.0.1"));
        assert!(matches!(newcomer, Seating::TakenInsteadOf { gone, .. } if gone == own));
    }

    #[test]
    fn where_all_are_busy_the_newcomer_is_refused() {
        let mut seats = Seats::new(MAX);
        for from in ["2001:db8::1", "2001:db8::2:3"] {
            let seat = arrive(&mut seats, from);
            assert!(seats.begin(seat));
        }
        let third = seats.arrive(address("2001:db8:0:0:ffff::4"));
        assert_eq!(third, Seating::Refused(Crowd::Neighbourhood));
        for from in ["2001:db8:0:1::", "127.0.0.1"] {
            let seat = arrive(&mut seats, from);
            assert!(seats.begin(seat));
        }
        assert_eq!(
            seats.arrive(address("127.0.0.1")),
            Seating::Refused(Crowd::Everywhere)
        );
    }

    #[test]
    fn loopback_has_a_bound_of_its_own() {
        let mut seats = Seats::new(MAX);
        let first = arrive(&mut seats, "127.0.0.1");
        arrive(&mut seats, "127.0.0.1");
        arrive(&mut seats, "127.0.0.1");
        let fourth = seats.arrive(address("127.0.0.1"));
        assert!(matches!(fourth, Seating::TakenInsteadOf { gone, .. } if gone == first));
    }

    proptest! {
        #[test]
        fn no_bound_is_ever_passed_and_nothing_stays_behind(
            steps in prop::collection::vec((0u8..4, 0u8..6), 0..200)
        ) {
            let mut seats = Seats::new(MAX);
            let mut held: Vec<SeatId> = Vec::new();
            for (step, number) in steps {
                let chosen = held.get(number as usize % held.len().max(1)).copied();
                match (step, chosen) {
                    (0, _) => match seats.arrive(IpAddr::from([10, 0, 0, number])) {
                        Seating::Taken(seat) => held.push(seat),
                        Seating::TakenInsteadOf { seat, gone } => {
                            held.retain(|id| *id != gone);
                            held.push(seat);
                        }
                        Seating::Refused(_) => {}
                    },
                    (1, Some(seat)) => prop_assert!(seats.begin(seat)),
                    (2, Some(seat)) => seats.wait(seat),
                    (_, Some(seat)) => {
                        seats.leave(seat);
                        held.retain(|id| *id != seat);
                    }
                    (_, None) => {}
                }
                prop_assert_eq!(seats.seats.len(), held.len());
                prop_assert!(held.len() <= MAX.total);
                prop_assert!(seats.taken_near.values().all(|taken| *taken <= MAX.per_neighbourhood));
                prop_assert_eq!(seats.waiting.len(), seats.waiting_near.len());
            }
            held.drain(..).for_each(|seat| seats.leave(seat));
            prop_assert!(seats.seats.is_empty() && seats.waiting.is_empty() && seats.taken_near.is_empty());
        }
    }
}
