//! The graph: events come in, and each is given its round and what it sees.

use std::collections::{BTreeMap, VecDeque};

use smallvec::SmallVec;

use super::bits::{Bits, Tally};
use super::event::{Event, EventId, MemberIndex, Round};
use super::order::OrderedRound;
use super::rounds::{Fame, Rounds, Witness};
use super::weights::Weights;
use super::{Fork, Rejected, Settings};

/// An event's place in the order it came in, from 1: a parent's is lower than its child's.
pub(super) type Number = u64;
/// No event.
pub(super) const NONE: Number = 0;

/// The latest that an event has among its ancestors of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Latest {
    /// The event; on a fork, that of the later birth.
    number: Number,
    /// Its birth round.
    birth: u64,
    /// 0 without a fork. Else the latest round in which two branches live: when that is out of the window, the fork is.
    fork: u64,
}

/// An event in the graph.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) event: Event,
    pub(super) round: u64,
    pub(super) is_witness: bool,
    /// Whether a round has received it.
    pub(super) is_received: bool,
    /// Its parents that are not out of its window, its self-parent among them.
    pub(super) parents: SmallVec<[Number; 4]>,
    pub(super) self_parent: Number,
    /// Of each member, the latest among its ancestors.
    pub(super) latest: Box<[Number]>,
    /// Of each member, [`Latest::fork`]; `None` where no fork is among its ancestors.
    forks: Option<Box<[u64]>>,
    /// The witnesses of its round that it sees.
    seen: Bits,
    /// The witnesses of the round before that it sees.
    seen_before: Bits,
    /// The witnesses of the round before that it hears.
    heard: Bits,
}

impl Node {
    /// Whether a member is seen: there is an event of it among the ancestors, and no fork.
    fn is_seen(&self, member: usize) -> bool {
        self.latest[member] != NONE && self.forks.as_ref().is_none_or(|forks| forks[member] == 0)
    }

    /// The witnesses of a round that it sees; of rounds further back nobody asks.
    fn sees_of(&self, round: u64) -> Option<&Bits> {
        match self.round.checked_sub(round) {
            Some(0) => Some(&self.seen),
            Some(1) => Some(&self.seen_before),
            _ => None,
        }
    }
}

/// A hashgraph.
#[derive(Debug)]
pub struct Hashgraph {
    pub(super) settings: Settings,
    pub(super) weights: Weights,
    /// From `base` on.
    nodes: VecDeque<Node>,
    base: Number,
    numbers: BTreeMap<EventId, Number>,
    /// Each member's last event to come.
    tips: Vec<Option<(Number, EventId)>>,
    /// Members of whom a fork is known.
    pub(super) forked: Vec<bool>,
    pub(super) any_forked: bool,
    pub(super) rounds: Rounds,
    /// The first round that is not decided.
    pub(super) pending: u64,
    /// Each member's events that no round has received, in the order they came.
    pub(super) unreceived: Vec<VecDeque<Number>>,
    pub(super) tally: Tally,
    pub(super) ordered: VecDeque<OrderedRound>,
    forks: VecDeque<Fork>,
    stale: VecDeque<EventId>,
}

impl Hashgraph {
    /// An empty graph of members with these weights.
    ///
    /// # Panics
    ///
    /// Without a member, with a weight of 0 or weights beyond `u64::MAX / 3` in sum, with coin rounds closer than
    /// every third, or with a window of no more than two of them.
    pub fn new(weights: &[u64], settings: Settings) -> Self {
        let Settings { coin_rounds, window_rounds } = settings;
        assert!(coin_rounds >= 3 && window_rounds / 2 > coin_rounds, "the settings are in bounds");
        let weights = Weights::new(weights);
        let count = weights.count();
        Self {
            settings,
            weights,
            nodes: VecDeque::new(),
            base: 1,
            numbers: BTreeMap::new(),
            tips: vec![None; count],
            forked: vec![false; count],
            any_forked: false,
            rounds: Rounds::default(),
            pending: 1,
            unreceived: vec![VecDeque::new(); count],
            tally: Tally::default(),
            ordered: VecDeque::new(),
            forks: VecDeque::new(),
            stale: VecDeque::new(),
        }
    }

    /// The first round that is not decided: the birth round of an event made now.
    pub fn pending_round(&self) -> Round {
        Round(self.pending)
    }

    /// Events in memory.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no event in memory.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether an event is in memory.
    pub fn contains(&self, id: &EventId) -> bool {
        self.numbers.contains_key(id)
    }

    /// The round in which an event was created; `None` if it is not in memory.
    pub fn round_of(&self, id: &EventId) -> Option<Round> {
        Some(Round(self.by_id(id)?.round))
    }

    /// Who made an event.
    pub fn creator_of(&self, id: &EventId) -> Option<MemberIndex> {
        Some(self.by_id(id)?.event.creator)
    }

    /// Whether a member is known to have forked.
    pub fn is_forked(&self, member: MemberIndex) -> bool {
        self.forked.get(usize::from(member.0)).is_some_and(|forked| *forked)
    }

    /// Whether an event is a witness.
    pub fn is_witness(&self, id: &EventId) -> bool {
        self.by_id(id).is_some_and(|node| node.is_witness)
    }

    /// A witness's fame; `None` for other events.
    pub fn fame_of(&self, id: &EventId) -> Option<Fame> {
        let number = *self.numbers.get(id)?;
        let mut witnesses = self.rounds.witnesses(self.known(number)?.round);
        witnesses.find(|(_, witness)| witness.number == number).map(|(_, witness)| witness.fame)
    }

    /// The next round that was decided, with what it received. Each is given once.
    pub fn poll_ordered(&mut self) -> Option<OrderedRound> {
        self.ordered.pop_front()
    }

    /// The next fork that was found, one a member.
    pub fn poll_fork(&mut self) -> Option<Fork> {
        self.forks.pop_front()
    }

    /// The next event that was forgotten and received by no round. What it carried may be sent again.
    pub fn poll_stale(&mut self) -> Option<EventId> {
        self.stale.pop_front()
    }

    /// The newest event of each member that is in memory; of one that has forked, the newest of each branch. What else there
    /// is, is among their ancestors.
    pub fn newest(&self) -> Vec<EventId> {
        let unforked = self.tips.iter().zip(&self.forked).filter(|(_, forked)| !**forked);
        let tips = unforked.filter_map(|(tip, _)| *tip).filter(|(number, _)| *number >= self.base);
        let mut newest: Vec<EventId> = tips.map(|(_, id)| id).collect();
        if self.any_forked {
            let of_forked = |node: &&Node| self.forked[usize::from(node.event.creator.0)];
            let mut goes_on = vec![false; self.nodes.len()];
            for node in self.nodes.iter().filter(of_forked).filter(|node| node.self_parent >= self.base) {
                goes_on[(node.self_parent - self.base) as usize] = true;
            }
            let ends = self.nodes.iter().zip(goes_on).filter(|(node, goes_on)| of_forked(node) && !goes_on);
            newest.extend(ends.map(|(node, _)| node.event.id));
        }
        newest
    }

    /// An event's place among those in memory, in the order they came.
    pub fn place_of(&self, id: &EventId) -> Option<usize> {
        usize::try_from(self.numbers.get(id)? - self.base).ok()
    }

    /// The places of events in memory that are not among the ancestors of any of these, parents first, and no more than
    /// so many.
    pub fn not_among_ancestors(&self, of: &[EventId], max: usize) -> Vec<usize> {
        let of = of.iter().filter_map(|id| self.numbers.get(id)).copied();
        let numbers = self.base..self.base + self.nodes.len() as u64;
        let place = |number: Number| (number - self.base) as usize;
        let of: Vec<Number> = of.collect();
        let mut latest = vec![NONE; self.weights.count()];
        for node in of.iter().map(|number| self.node(*number)) {
            latest.iter_mut().zip(&node.latest).for_each(|(latest, theirs)| *latest = (*latest).max(*theirs));
        }
        let mut reached = vec![false; if self.any_forked { self.nodes.len() } else { 0 }];
        if self.any_forked {
            of.iter().for_each(|number| reached[place(*number)] = true);
            // Parents have lower numbers: one pass from the newest down reaches all.
            for number in numbers.clone().rev() {
                if reached[place(number)] {
                    let parents = self.node(number).parents.iter().filter(|parent| **parent >= self.base);
                    parents.for_each(|parent| reached[place(*parent)] = true);
                }
            }
        }
        let is_new = |number: &Number| {
            let creator = usize::from(self.node(*number).event.creator.0);
            if self.forked[creator] { !reached[place(*number)] } else { *number > latest[creator] }
        };
        numbers.filter(is_new).take(max).map(place).collect()
    }

    /// Takes in an event whose signature holds and whose parents are here or ancient.
    ///
    /// # Errors
    ///
    /// [`Rejected`] says why not; the graph is unchanged then.
    pub fn insert(&mut self, event: Event) -> Result<(), Rejected> {
        let (self_parent, parents) = self.check(&event)?;
        let number = self.base + self.nodes.len() as u64;
        let creator = event.creator;
        self.note_fork(&event, number);
        self.numbers.insert(event.id, number);
        self.unreceived[usize::from(creator.0)].push_back(number);
        let node = self.see(event, number, self_parent, parents);
        self.nodes.push_back(node);
        self.divide_rounds(number);
        Ok(())
    }

    /// The numbers of its self-parent and of all parents that are not out of its window.
    fn check(&self, event: &Event) -> Result<(Number, SmallVec<[Number; 4]>), Rejected> {
        if usize::from(event.creator.0) >= self.weights.count() {
            return Err(Rejected::UnknownMember);
        }
        if self.numbers.contains_key(&event.id) {
            return Err(Rejected::Duplicate);
        }
        if event.birth.0 > self.pending {
            return Err(Rejected::Future { pending: Round(self.pending) });
        }
        if event.birth.0 == 0 {
            return Err(Rejected::Invalid("rounds begin with 1"));
        }
        if self.is_forgotten(event.birth.0) {
            return Err(Rejected::Ancient);
        }
        if event.other_parents.len() >= self.weights.count() {
            return Err(Rejected::Invalid("it has more parents than there are members"));
        }
        let (mut numbers, mut missing) = (SmallVec::new(), Vec::new());
        let mut self_parent = NONE;
        let mut creators: SmallVec<[MemberIndex; 8]> = SmallVec::new();
        for (place, parent) in event.parents().enumerate() {
            if parent.birth > event.birth {
                return Err(Rejected::Invalid("a parent was born in a later round"));
            }
            if self.is_out(parent.birth.0, event.birth.0) || self.is_forgotten(parent.birth.0) {
                continue;
            }
            let Some(number) = self.numbers.get(&parent.id) else {
                missing.push(parent.id);
                continue;
            };
            let node = &self.nodes[(number - self.base) as usize];
            if node.event.birth != parent.birth {
                return Err(Rejected::Invalid("a parent's birth round is another"));
            }
            let is_self = place == 0 && event.self_parent.is_some();
            if is_self != (node.event.creator == event.creator) || creators.contains(&node.event.creator) {
                return Err(Rejected::Invalid("each parent is another member's, but for its own"));
            }
            if is_self && node.event.time_us >= event.time_us {
                return Err(Rejected::Invalid("its time is not after its self-parent's"));
            }
            if is_self {
                self_parent = *number;
            }
            creators.push(node.event.creator);
            numbers.push(*number);
        }
        if missing.is_empty() { Ok((self_parent, numbers)) } else { Err(Rejected::MissingParents(missing)) }
    }

    /// Whether what was born then is out of the window of what was born now.
    pub(super) fn is_out(&self, then: u64, now: u64) -> bool {
        then.saturating_add(self.settings.window_rounds) <= now
    }

    /// Whether what was born then is in no window of what may still come.
    pub(crate) fn is_forgotten(&self, birth: u64) -> bool {
        self.is_out(birth.saturating_add(self.settings.window_rounds), self.pending)
    }

    /// Remembers its creator's last event, and a fork if this one does not follow it.
    fn note_fork(&mut self, event: &Event, number: Number) {
        let member = usize::from(event.creator.0);
        let before = self.tips[member].replace((number, event.id));
        let follows = |(tip, id): (Number, EventId)| {
            event.self_parent.is_some_and(|parent| parent.id == id) || tip < self.base
        };
        if self.forked[member] || before.is_none_or(follows) {
            return;
        }
        self.forked[member] = true;
        self.any_forked = true;
        let parent = event.self_parent.map(|parent| parent.id);
        let twin = self.nodes.iter().find(|node| {
            node.event.creator == event.creator && node.event.self_parent.map(|parent| parent.id) == parent
        });
        if let Some(twin) = twin {
            self.forks.push_back(Fork { member: event.creator, events: [twin.event.id, event.id] });
        }
    }

    /// What an event sees, by what its parents see; its round is that of its parents as yet.
    fn see(&self, event: Event, number: Number, self_parent: Number, parents: SmallVec<[Number; 4]>) -> Node {
        let (latest, forks) = match self.any_forked {
            false => (self.latest_of(&event, number, &parents), None),
            true => self.latest_with_forks(&event, number, self_parent, &parents),
        };
        let round = parents.iter().map(|parent| self.node(*parent).round).max().unwrap_or(1);
        let mut node = Node {
            event,
            round,
            is_witness: false,
            is_received: false,
            parents,
            self_parent,
            latest,
            forks,
            seen: Bits::default(),
            seen_before: Bits::default(),
            heard: Bits::default(),
        };
        node.seen = self.seen_by_parents(&node, number, round);
        node.seen_before = self.seen_by_parents(&node, number, round - 1);
        for parent in
            node.parents.iter().map(|parent| self.node(*parent)).filter(|parent| parent.round == round)
        {
            node.heard.join(&parent.heard);
        }
        node
    }

    /// Of each member the latest among a new event's ancestors, while nobody has forked: later events have
    /// higher numbers.
    fn latest_of(&self, event: &Event, number: Number, parents: &[Number]) -> Box<[Number]> {
        let mut latest = vec![NONE; self.weights.count()].into_boxed_slice();
        for parent in parents {
            for (ours, theirs) in latest.iter_mut().zip(&self.node(*parent).latest) {
                *ours = (*ours).max(*theirs);
            }
        }
        for latest in latest.iter_mut().filter(|latest| **latest != NONE) {
            if self.known(*latest).is_none_or(|node| self.is_out(node.event.birth.0, event.birth.0)) {
                *latest = NONE;
            }
        }
        latest[usize::from(event.creator.0)] = number;
        latest
    }

    /// The same where somebody has, and which forks are in the event's window.
    fn latest_with_forks(
        &self,
        event: &Event,
        number: Number,
        self_parent: Number,
        parents: &[Number],
    ) -> (Box<[Number]>, Option<Box<[u64]>>) {
        let birth = event.birth.0;
        let mut all = vec![Latest::default(); self.weights.count()];
        for parent in parents.iter().map(|parent| self.node(*parent)) {
            for (member, ours) in all.iter_mut().enumerate() {
                let number = parent.latest[member];
                let birth = self.known(number).map_or(0, |node| node.event.birth.0);
                let fork = parent.forks.as_ref().map_or(0, |forks| forks[member]);
                *ours = self.later(member, *ours, Latest { number, birth, fork });
            }
        }
        for latest in &mut all {
            if self.is_out(latest.birth, birth) {
                *latest = Latest::default();
            } else if self.is_out(latest.fork, birth) {
                latest.fork = 0;
            }
        }
        let creator = usize::from(event.creator.0);
        let itself = Latest { number, birth, fork: 0 };
        all[creator] = match all[creator] {
            before if self_parent != NONE && before.number == self_parent => {
                Latest { fork: before.fork, ..itself }
            }
            before => self.later_of(creator, before, itself, self_parent),
        };
        let forks = all.iter().any(|latest| latest.fork != 0);
        let forks = forks.then(|| all.iter().map(|latest| latest.fork).collect());
        (all.iter().map(|latest| latest.number).collect(), forks)
    }

    /// The later of two events of a member, both ancestors of one; and whether that makes a fork visible.
    fn later(&self, member: usize, a: Latest, b: Latest) -> Latest {
        if !self.forked[member] {
            return if a.number >= b.number { a } else { b };
        }
        if a.number == NONE || b.number == NONE || a.number == b.number {
            let fork = a.fork.max(b.fork);
            return Latest { fork, ..if a.number == NONE { b } else { a } };
        }
        let (older, newer) = if a.number < b.number { (a, b) } else { (b, a) };
        let fork = a.fork.max(b.fork);
        if self.is_self_ancestor(older.number, newer.number) {
            return Latest { fork, ..newer };
        }
        let fork = fork.max(a.birth.min(b.birth));
        Latest { fork, ..if older.birth > newer.birth { older } else { newer } }
    }

    /// The same with an event that is not in the graph yet.
    fn later_of(&self, member: usize, before: Latest, itself: Latest, self_parent: Number) -> Latest {
        let follows = before.number == NONE
            || !self.forked[member]
            || self_parent != NONE && self.is_self_ancestor(before.number, self_parent);
        if follows {
            return Latest { fork: before.fork, ..itself };
        }
        let fork = before.fork.max(before.birth.min(itself.birth));
        Latest { fork, ..if before.birth > itself.birth { before } else { itself } }
    }

    /// Whether one event of a member is a self-ancestor of another.
    pub(super) fn is_self_ancestor(&self, older: Number, newer: Number) -> bool {
        let mut at = newer;
        while at > older
            && let Some(node) = self.known(at)
        {
            at = node.self_parent;
        }
        at == older
    }

    /// The witnesses of a round that a new event sees because its parents do.
    fn seen_by_parents(&self, node: &Node, number: Number, round: u64) -> Bits {
        let mut seen = Bits::default();
        for parent in &node.parents {
            if let Some(theirs) = self.node(*parent).sees_of(round) {
                seen.join(theirs);
            }
        }
        if self.any_forked {
            self.mend_forked(&mut seen, node, number, round);
        }
        let birth = node.event.birth.0;
        if self.is_out(self.rounds.least_birth(round), birth) {
            for (slot, witness) in self.rounds.witnesses(round) {
                if self.is_out(witness.birth, birth) {
                    seen.remove(slot);
                }
            }
        }
        seen
    }

    /// What is seen of members that have forked does not follow from the parents alone: two of them may see different
    /// branches, and a fork may have left the window.
    fn mend_forked(&self, seen: &mut Bits, node: &Node, number: Number, round: u64) {
        for (slot, witness) in self.rounds.witnesses(round) {
            let member = usize::from(witness.creator.0);
            if !self.forked[member] {
                continue;
            }
            let latest = node.latest[member];
            let from = if latest == number { node.self_parent } else { latest };
            let is_seen = node.is_seen(member) && self.is_self_ancestor(witness.number, from);
            if is_seen { seen.insert(slot) } else { seen.remove(slot) }
        }
    }

    /// The witnesses of a round that an event strongly sees, out of those that it sees.
    fn strongly_seen(&mut self, number: Number, round: u64) -> Bits {
        let Self { nodes, base, tally, weights, .. } = self;
        let node = &nodes[(number - *base) as usize];
        tally.clear();
        for (member, latest) in node.latest.iter().enumerate().filter(|(member, _)| node.is_seen(*member)) {
            let of = latest.checked_sub(*base).and_then(|place| nodes.get(place as usize));
            if let Some(seen) = of.and_then(|of| of.sees_of(round)) {
                tally.add(seen, weights.of(MemberIndex(member as u16)));
            }
        }
        let mut strongly = tally.at_least(weights.supermajority());
        if let Some(seen) = node.sees_of(round) {
            strongly.keep_only(seen);
        }
        strongly
    }

    /// Gives a new event its round; a witness votes.
    fn divide_rounds(&mut self, number: Number) {
        let node = self.node(number);
        let (below, seen) = (node.round, &node.seen);
        let supermajority = self.weights.supermajority();
        // It strongly sees no more than it sees.
        let enough = self.rounds.weight_of(below, seen, &self.weights) >= supermajority;
        let strongly = if enough { self.strongly_seen(number, below) } else { Bits::default() };
        let rises = self.rounds.weight_of(below, &strongly, &self.weights) >= supermajority;
        let round = if rises { below + 1 } else { below };
        let node = self.node(number);
        let self_round = if node.self_parent == NONE { 0 } else { self.node(node.self_parent).round };
        let is_witness = round > self_round;
        let node = self.node_mut(number);
        node.round = round;
        node.is_witness = is_witness;
        if rises {
            node.seen_before = std::mem::take(&mut node.seen);
            node.heard.clear();
        }
        if !is_witness {
            return;
        }
        let (creator, birth, coin) = (node.event.creator, node.event.birth.0, node.event.coin());
        let sees_itself = node.is_seen(usize::from(creator.0));
        let votes = node.seen_before.clone();
        let strongly = match rises {
            true => strongly,
            false if round > 1 => self.strongly_seen(number, round - 1),
            false => Bits::default(),
        };
        let node = self.node_mut(number);
        node.heard.join(&strongly);
        let heard = node.heard.clone();
        let witness = Witness::new(number, creator, birth);
        let Some(slot) = self.rounds.add(round, witness, self.pending) else { return };
        if sees_itself {
            self.node_mut(number).seen.insert(slot);
        }
        self.decide_fame(round, slot, votes, &heard, coin);
        self.find_order();
    }

    /// Forgets events that are in no window any more.
    pub(super) fn forget(&mut self) {
        while let Some(node) = self.nodes.front()
            && self.is_forgotten(node.event.birth.0)
        {
            let waiting = &mut self.unreceived[usize::from(node.event.creator.0)];
            if waiting.front() == Some(&self.base) {
                waiting.pop_front();
                self.stale.push_back(node.event.id);
            }
            self.numbers.remove(&node.event.id);
            self.nodes.pop_front();
            self.base += 1;
        }
        let kept = self.pending.saturating_sub(self.settings.window_rounds.saturating_mul(2));
        self.rounds.forget_before(kept);
    }

    /// A member's last event, if it is in memory.
    pub(super) fn tip(&self, member: MemberIndex) -> Option<Number> {
        self.tips[usize::from(member.0)].map(|(number, _)| number).filter(|number| *number >= self.base)
    }

    pub(super) fn known(&self, number: Number) -> Option<&Node> {
        self.nodes.get(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    pub(super) fn node(&self, number: Number) -> &Node {
        &self.nodes[(number - self.base) as usize]
    }

    pub(super) fn node_mut(&mut self, number: Number) -> &mut Node {
        &mut self.nodes[(number - self.base) as usize]
    }

    fn by_id(&self, id: &EventId) -> Option<&Node> {
        self.known(*self.numbers.get(id)?)
    }
}
