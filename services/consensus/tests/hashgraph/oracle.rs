//! The hashgraph a second time, slow and simple: each rule of [`consensus::hashgraph`] as its sentence says it.
//!
//! It shares the type of an event with the engine and nothing else, and the two are compared. So a fault must
//! be made twice, in two quite different ways, to go unseen. Every question is answered by recursion over the
//! events; what has been answered is kept, since without that the recursion would not end in a lifetime.
//!
//! Two things that the rules leave open are settled here so:
//!
//! - An event is no witness for its own round: which round it is in is only being found out (rule 3).
//! - A round of which no witness is known is not decided (rule 5).

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use consensus::hashgraph::{Event, EventId, MemberIndex};

/// A round that is decided, with what it receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OracleRound {
    /// Which, from 1.
    pub(crate) round: u64,
    /// Its judges, sorted.
    pub(crate) judges: Vec<EventId>,
    /// What it receives, in order, with the consensus timestamps in microseconds.
    pub(crate) events: Vec<(EventId, u64)>,
}

/// A voter's vote on the fame of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    /// What it votes.
    pub(crate) yes: bool,
    /// Whether this decides the fame.
    pub(crate) decides: bool,
    /// Whether it voted in a coin round.
    pub(crate) coin_round: bool,
    /// Whether there the coin said what it votes.
    pub(crate) coin_thrown: bool,
}

/// An event's place in the list.
type Place = usize;

/// The answers to one question about two events.
struct Answers<T> {
    width: usize,
    known: RefCell<Vec<Option<T>>>,
}

impl<T: Copy> Answers<T> {
    fn new(width: usize) -> Self {
        Self { width, known: RefCell::new(vec![None; width * width]) }
    }

    fn of(&self, x: Place, y: Place, work_out: impl FnOnce() -> T) -> T {
        let index = x * self.width + y;
        let known = self.known.borrow()[index];
        known.unwrap_or_else(|| {
            let answer = work_out();
            self.known.borrow_mut()[index] = Some(answer);
            answer
        })
    }
}

/// All that can be asked of a list of events, parents before children.
pub(crate) struct Oracle<'a> {
    events: &'a [Event],
    weights: &'a [u64],
    coin_rounds: u64,
    parents: Vec<Vec<Place>>,
    self_parent: Vec<Option<Place>>,
    by_creator: Vec<Vec<Place>>,
    ancestor: Answers<bool>,
    self_ancestor: Answers<bool>,
    sees_fork: Answers<bool>,
    strongly_sees: Answers<bool>,
    hears: Answers<bool>,
    round: Answers<u64>,
    vote: Answers<Vote>,
    decider: Answers<Option<(Place, bool)>>,
}

impl<'a> Oracle<'a> {
    /// Of `events`, each after its parents, among members that weigh `weights`.
    pub(crate) fn new(events: &'a [Event], weights: &'a [u64], coin_rounds: u64) -> Self {
        let width = events.len().max(weights.len());
        let places: BTreeMap<EventId, Place> =
            events.iter().enumerate().map(|(place, event)| (event.id, place)).collect();
        let place = |parent: &EventId| places[parent];
        let by_creator = |member: usize| {
            let is_its = |&x: &Place| usize::from(events[x].creator.0) == member;
            (0..events.len()).filter(is_its).collect()
        };
        Self {
            events,
            weights,
            coin_rounds,
            parents: events.iter().map(|event| event.parents().map(place).collect()).collect(),
            self_parent: events.iter().map(|event| event.self_parent.as_ref().map(place)).collect(),
            by_creator: (0..weights.len()).map(by_creator).collect(),
            ancestor: Answers::new(width),
            self_ancestor: Answers::new(width),
            sees_fork: Answers::new(width),
            strongly_sees: Answers::new(width),
            hears: Answers::new(width),
            round: Answers::new(width),
            vote: Answers::new(width),
            decider: Answers::new(width),
        }
    }

    // The graph.

    fn all(&self) -> std::ops::Range<Place> {
        0..self.events.len()
    }

    fn creator(&self, x: Place) -> MemberIndex {
        self.events[x].creator
    }

    fn events_of(&self, member: MemberIndex) -> &[Place] {
        &self.by_creator[usize::from(member.0)]
    }

    fn weight(&self, creators: impl Iterator<Item = MemberIndex>) -> u64 {
        creators.map(|creator| self.weights[usize::from(creator.0)]).sum()
    }

    /// More than two thirds of all weight.
    fn supermajority(&self, weight: u64) -> bool {
        3 * weight > 2 * self.weights.iter().sum::<u64>()
    }

    // Rule 1.

    /// Whether `y` is an ancestor of `x`: `x` itself, its parents, theirs, and so on.
    pub(crate) fn ancestor(&self, x: Place, y: Place) -> bool {
        x == y || self.ancestor.of(x, y, || self.parents[x].iter().any(|&parent| self.ancestor(parent, y)))
    }

    /// Whether `y` is an ancestor of `x` along self-parents only.
    pub(crate) fn self_ancestor(&self, x: Place, y: Place) -> bool {
        x == y
            || self
                .self_ancestor
                .of(x, y, || self.self_parent[x].is_some_and(|parent| self.self_ancestor(parent, y)))
    }

    /// Two events of one creator, neither a self-ancestor of the other.
    pub(crate) fn fork(&self, x: Place, y: Place) -> bool {
        self.creator(x) == self.creator(y) && !self.self_ancestor(x, y) && !self.self_ancestor(y, x)
    }

    // Rule 2.

    /// Whether two ancestors of `x` are a fork of `creator`'s.
    pub(crate) fn sees_fork(&self, x: Place, creator: MemberIndex) -> bool {
        self.sees_fork.of(x, usize::from(creator.0), || {
            let its = self.events_of(creator).iter().filter(|&&z| self.ancestor(x, z));
            let its: Vec<Place> = its.copied().collect();
            its.iter().any(|&z| its.iter().any(|&other| self.fork(z, other)))
        })
    }

    /// Whether `y` is an ancestor of `x`, and no two ancestors of `x` are a fork of `y`'s creator.
    pub(crate) fn sees(&self, x: Place, y: Place) -> bool {
        self.ancestor(x, y) && !self.sees_fork(x, self.creator(y))
    }

    /// Whether `x` sees `y`, and the members of whom it sees an event that sees `y` are a supermajority.
    pub(crate) fn strongly_sees(&self, x: Place, y: Place) -> bool {
        self.strongly_sees.of(x, y, || {
            let between = |&member: &MemberIndex| {
                self.events_of(member).iter().any(|&z| self.sees(x, z) && self.sees(z, y))
            };
            self.sees(x, y) && self.supermajority(self.weight(self.members().filter(between)))
        })
    }

    fn members(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        let members = u16::try_from(self.weights.len()).expect("few members");
        (0..members).map(MemberIndex)
    }

    // Rule 3.

    /// The round that `x` was created in.
    pub(crate) fn round(&self, x: Place) -> u64 {
        self.round.of(x, x, || {
            let Some(highest) = self.parents[x].iter().map(|&parent| self.round(parent)).max() else {
                return 1;
            };
            let strongly_seen = |&creator: &MemberIndex| {
                self.events_of(creator).iter().any(|&w| {
                    w != x
                        && self.ancestor(x, w)
                        && self.is_witness_of(w, highest)
                        && self.strongly_sees(x, w)
                })
            };
            let weight = self.weight(self.members().filter(strongly_seen));
            if self.supermajority(weight) { highest + 1 } else { highest }
        })
    }

    /// Whether `x` has no self-parent, or is in a later round than that.
    pub(crate) fn is_witness(&self, x: Place) -> bool {
        self.self_parent[x].is_none_or(|parent| self.round(x) > self.round(parent))
    }

    fn is_witness_of(&self, x: Place, round: u64) -> bool {
        self.round(x) == round && self.is_witness(x)
    }

    // Rule 4.

    /// Whether `y` hears `w`, a witness of the round before its own: it is a witness and strongly sees it, or a
    /// parent of its own round hears it.
    pub(crate) fn hears(&self, y: Place, w: Place) -> bool {
        self.hears.of(y, w, || {
            let own_round = |&&parent: &&Place| self.round(parent) == self.round(y);
            self.is_witness(y) && self.strongly_sees(y, w)
                || self.parents[y].iter().filter(own_round).any(|&parent| self.hears(parent, w))
        })
    }

    /// How the witness `y` votes on the fame of the witness `x` of an earlier round.
    pub(crate) fn vote(&self, y: Place, x: Place) -> Vote {
        self.vote.of(y, x, || {
            let distance = self.round(y) - self.round(x);
            let coin_round = distance.is_multiple_of(self.coin_rounds);
            let vote = |yes| Vote { yes, decides: false, coin_round, coin_thrown: false };
            if distance == 1 {
                return vote(self.sees(y, x));
            }
            // Of a creator, an event hears at most one witness of a round: two would be a fork.
            let heard: Vec<Place> =
                (0..y).filter(|&w| self.is_witness_of(w, self.round(y) - 1) && self.hears(y, w)).collect();
            let weight_of = |yes: bool| {
                self.weight(heard.iter().filter(|&&w| self.vote(w, x).yes == yes).map(|&w| self.creator(w)))
            };
            let (yes, no) = (weight_of(true), weight_of(false));
            let settled = self.supermajority(yes.max(no));
            match (coin_round, settled) {
                (true, false) => Vote { coin_thrown: true, ..vote(self.events[y].coin()) },
                (true, true) => vote(yes >= no),
                (false, _) => Vote { decides: settled, ..vote(yes >= no) },
            }
        })
    }

    /// All witnesses whose vote decides the fame of `x`, with what they vote.
    pub(crate) fn deciders(&self, x: Place) -> impl Iterator<Item = (Place, bool)> {
        let votes = move |y: Place| (y, self.vote(y, x));
        self.all()
            .filter(move |&y| self.is_witness(y) && self.round(y) > self.round(x) + 1)
            .map(votes)
            .filter(|(_, vote)| vote.decides)
            .map(|(y, vote)| (y, vote.yes))
    }

    /// Whether the witness `x` is famous, as far as the first `known` events tell.
    pub(crate) fn fame(&self, x: Place, known: usize) -> Option<bool> {
        let first = self.decider.of(x, x, || self.deciders(x).next());
        first.filter(|&(y, _)| y < known).map(|(_, yes)| yes)
    }

    // Rule 5.

    /// The witnesses of `round` among the first `known` events.
    pub(crate) fn witnesses(&self, round: u64, known: usize) -> Vec<Place> {
        (0..known).filter(|&x| self.is_witness_of(x, round)).collect()
    }

    /// The judges of `round`, if the first `known` events decide the fame of all its witnesses among them.
    fn judges(&self, round: u64, known: usize) -> Option<Vec<Place>> {
        let witnesses = self.witnesses(round, known);
        let fame: Vec<bool> = witnesses.iter().map(|&x| self.fame(x, known)).collect::<Option<_>>()?;
        let famous: Vec<Place> =
            witnesses.iter().zip(fame).filter(|(_, famous)| *famous).map(|(&x, _)| x).collect();
        let alone =
            |x: &Place| famous.iter().filter(|&&other| self.creator(other) == self.creator(*x)).count() == 1;
        (!witnesses.is_empty()).then(|| famous.iter().copied().filter(alone).collect())
    }

    // Rule 6.

    /// The median, by weight and the lower of two, of when the judges first knew of `x`.
    fn timestamp(&self, x: Place, judges: &[Place]) -> u64 {
        let first_knew = |&judge: &Place| {
            let knew = self.all().filter(|&z| self.self_ancestor(judge, z) && self.ancestor(z, x));
            let first = knew.min_by_key(|&z| self.events[z].time_us).expect("the judge itself knows it");
            (self.events[first].time_us, self.weight(std::iter::once(self.creator(judge))))
        };
        let mut times: Vec<(u64, u64)> = judges.iter().map(first_knew).collect();
        times.sort_unstable();
        let total = self.weight(judges.iter().map(|&judge| self.creator(judge)));
        let mut weight = 0;
        let reaches_half = |(_, more): &&(u64, u64)| {
            weight += more;
            2 * weight >= total
        };
        times.iter().find(reaches_half).expect("a round that receives has a judge").0
    }

    // Rule 7.

    /// `received` in their order.
    fn order(&self, received: &[Place], judges: &[Place]) -> Vec<(EventId, u64)> {
        let timestamps: BTreeMap<Place, u64> =
            received.iter().map(|&x| (x, self.timestamp(x, judges))).collect();
        let mut left = received.to_vec();
        let mut order = Vec::new();
        while !left.is_empty() {
            let earliest = left.iter().map(|x| timestamps[x]).min().expect("some are left");
            let tied: Vec<Place> = left.iter().copied().filter(|x| timestamps[x] == earliest).collect();
            let free = |x: &Place| !tied.iter().any(|&other| other != *x && self.ancestor(*x, other));
            let next = tied.iter().copied().filter(free).min_by(|&x, &y| self.in_a_tie(x, y, judges));
            let next = next.expect("some event of any has no ancestor among them");
            order.push((self.events[next].id, earliest));
            left.retain(|&x| x != next);
        }
        order
    }

    fn in_a_tie(&self, x: Place, y: Place, judges: &[Place]) -> Ordering {
        let whitened = |x: Place| {
            let mut bytes = self.events[x].id.0;
            for &judge in judges {
                let mask = self.events[judge].id.0;
                bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
            }
            bytes
        };
        whitened(x).cmp(&whitened(y))
    }

    /// The rounds that are decided, in order, as the events become known one by one.
    pub(crate) fn ordered_rounds(&self) -> Vec<OracleRound> {
        let mut rounds: Vec<OracleRound> = Vec::new();
        let mut received = vec![false; self.events.len()];
        for known in 1..=self.events.len() {
            while let Some(judges) = self.judges(rounds.len() as u64 + 1, known) {
                let all_have = |x: Place| judges.iter().all(|&judge| self.ancestor(judge, x));
                let now: Vec<Place> =
                    (0..known).filter(|&x| !judges.is_empty() && !received[x] && all_have(x)).collect();
                now.iter().for_each(|&x| received[x] = true);
                let mut ids: Vec<EventId> = judges.iter().map(|&judge| self.events[judge].id).collect();
                ids.sort_unstable();
                rounds.push(OracleRound {
                    round: rounds.len() as u64 + 1,
                    judges: ids,
                    events: self.order(&now, &judges),
                });
            }
        }
        rounds
    }
}
