//! The graph: events come in, and each is given its round and what it sees.

use std::collections::{BTreeMap, VecDeque};

use protocol::signing::Signature;
use smallvec::SmallVec;

use super::bits::{Bits, Tally};
use super::event::{Event, EventId, MemberIndex, Round};
use super::order::OrderedRound;
use super::pace::Effort;
use super::rounds::{Fame, Rounds, Witness};
use super::weights::Weights;
use super::{Fork, Rejected, Settings};

/// An event's place in the order it came in, from 1: a parent's is lower than its child's.
pub(super) type Number = u32;
/// No event.
pub(super) const NONE: Number = 0;
/// Stands in the place of a member's latest event where a fork of that member is among the ancestors: nothing of it is
/// seen. The highest, so that it outlasts all others where the highest is taken.
pub(super) const FORKED: Number = Number::MAX;

/// An event in the graph. Its parents are kept by number, which is an eighth of their ids.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: EventId,
    pub(super) creator: MemberIndex,
    pub(super) time_us: u64,
    signature: Signature,
    pub(super) round: u64,
    pub(super) is_witness: bool,
    /// Its self-ancestors of its own round, itself left out.
    pub(super) before_in_round: u32,
    /// The round that has received it; 0 for none.
    pub(super) received: u64,
    /// Its parents, its self-parent first.
    pub(super) parents: SmallVec<[Number; 4]>,
    pub(super) self_parent: Number,
    /// Which of its creator's branches it is on.
    branch: u32,
    /// Of each member, the latest among its ancestors; or [`FORKED`].
    pub(super) latest: Box<[Number]>,
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
        !matches!(self.latest[member], NONE | FORKED)
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

/// A hashgraph: that of one epoch.
#[derive(Debug)]
pub struct Hashgraph {
    pub(super) settings: Settings,
    pub(super) weights: Weights,
    nodes: Vec<Node>,
    numbers: BTreeMap<EventId, Number>,
    /// Each member's events, in the order they came.
    pub(super) of_member: Vec<Vec<Number>>,
    /// The last event of each branch of each member, the one that came last behind. More than one: it has forked.
    pub(super) ends: Vec<SmallVec<[Number; 1]>>,
    /// What each branch was split off from; [`NONE`] for a first event.
    branches: Vec<Number>,
    /// Members of whom a fork is known, in the order it was found.
    pub(super) forked: Vec<MemberIndex>,
    pub(super) efforts: Vec<Effort>,
    pub(super) rounds: Rounds,
    /// The first round that is not decided.
    pub(super) pending: u64,
    /// Each member's events that no round has received, in the order they came.
    pub(super) unreceived: Vec<VecDeque<Number>>,
    pub(super) tally: Tally,
    pub(super) ordered: VecDeque<OrderedRound>,
    forks: VecDeque<Fork>,
}

impl Hashgraph {
    /// An empty graph of members with these weights.
    ///
    /// # Panics
    ///
    /// Without a member, with a weight of 0 or with weights beyond `u64::MAX / 3` in sum once they have no common divisor, with
    /// coin rounds closer than every third, or with no event a round.
    pub fn new(weights: &[u64], settings: Settings) -> Self {
        let Settings { coin_rounds, events_a_round_max } = settings;
        assert!(coin_rounds >= 3 && events_a_round_max > 0, "the settings are in bounds");
        let weights = Weights::new(weights);
        let count = weights.count();
        Self {
            settings,
            weights,
            nodes: Vec::new(),
            numbers: BTreeMap::new(),
            of_member: vec![Vec::new(); count],
            ends: vec![SmallVec::new(); count],
            branches: Vec::new(),
            forked: Vec::new(),
            efforts: vec![Effort::default(); count],
            rounds: Rounds::default(),
            pending: 1,
            unreceived: vec![VecDeque::new(); count],
            tally: Tally::default(),
            ordered: VecDeque::new(),
            forks: VecDeque::new(),
        }
    }

    /// How many members there are.
    pub fn members(&self) -> u16 {
        self.weights.count() as u16
    }

    /// What a member weighs; of all weights the common divisor is taken out.
    pub(crate) fn weight_of(&self, member: MemberIndex) -> u64 {
        self.weights.of(member)
    }

    /// The least weight that is more than two thirds.
    pub(crate) fn supermajority(&self) -> u64 {
        self.weights.supermajority()
    }

    /// The first round that is not decided.
    pub fn pending_round(&self) -> Round {
        Round(self.pending)
    }

    /// Events in the graph.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Events that no round has received.
    pub fn unreceived(&self) -> usize {
        self.unreceived.iter().map(VecDeque::len).sum()
    }

    /// Whether an event is in the graph.
    pub fn contains(&self, id: &EventId) -> bool {
        self.numbers.contains_key(id)
    }

    /// The round in which an event was created; `None` if it is not in the graph.
    pub fn round_of(&self, id: &EventId) -> Option<Round> {
        Some(Round(self.by_id(id)?.round))
    }

    /// The round that has received an event, if one has.
    pub fn round_received(&self, id: &EventId) -> Option<Round> {
        Some(self.by_id(id)?.received).filter(|round| *round > 0).map(Round)
    }

    /// The round in which a member's last event to come was created.
    pub fn tip_round(&self, member: MemberIndex) -> Option<Round> {
        let number = self.ends.get(usize::from(member.0))?.last()?;
        Some(Round(self.node(*number).round))
    }

    /// Who made an event.
    pub fn creator_of(&self, id: &EventId) -> Option<MemberIndex> {
        Some(self.by_id(id)?.creator)
    }

    /// Whether a member is known to have forked.
    pub fn is_forked(&self, member: MemberIndex) -> bool {
        self.ends.get(usize::from(member.0)).is_some_and(|ends| ends.len() > 1)
    }

    /// Whether an event is a witness.
    pub fn is_witness(&self, id: &EventId) -> bool {
        self.by_id(id).is_some_and(|node| node.is_witness)
    }

    /// A witness's fame; `None` for other events.
    pub fn fame_of(&self, id: &EventId) -> Option<Fame> {
        let number = *self.numbers.get(id)?;
        let mut witnesses = self.rounds.witnesses(self.node(number).round);
        witnesses.find(|(_, witness)| witness.number == number).map(|(_, witness)| witness.fame)
    }

    /// The next round that was decided, with what it received. Each is given once.
    pub fn poll_ordered(&mut self) -> Option<OrderedRound> {
        self.ordered.pop_front()
    }

    /// The next fork that was found: one for each member that has forked, as soon as two events show it.
    pub fn poll_fork(&mut self) -> Option<Fork> {
        self.forks.pop_front()
    }

    /// Takes in an event whose signature holds and whose parents are here.
    ///
    /// # Errors
    ///
    /// [`Rejected`] says why not; the graph is unchanged then.
    pub fn insert(&mut self, event: &Event) -> Result<(), Rejected> {
        let (self_parent, parents) = self.check(event)?;
        // Memory ends long before the numbers do.
        let number = self.nodes.len() as Number + 1;
        let mut node = self.see(event, number, self_parent, parents);
        self.divide_rounds(&mut node);
        if node.before_in_round >= self.settings.events_a_round_max {
            return Err(Rejected::Invalid("its creator has too many events in the round"));
        }
        self.enter(node, number);
        Ok(())
    }

    /// The numbers of its self-parent and of all parents.
    fn check(&self, event: &Event) -> Result<(Number, SmallVec<[Number; 4]>), Rejected> {
        if usize::from(event.creator.0) >= self.weights.count() {
            return Err(Rejected::UnknownMember);
        }
        if self.numbers.contains_key(&event.id) {
            return Err(Rejected::Duplicate);
        }
        if event.other_parents.len() >= self.weights.count() {
            return Err(Rejected::Invalid("it has more parents than there are members"));
        }
        let (mut numbers, mut missing) = (SmallVec::new(), Vec::new());
        let mut creators = Bits::default();
        for (place, parent) in event.parents().enumerate() {
            let Some(number) = self.numbers.get(parent).copied() else {
                missing.push(*parent);
                continue;
            };
            let node = self.node(number);
            let is_self = place == 0 && event.self_parent.is_some();
            let creator = u32::from(node.creator.0);
            if is_self != (node.creator == event.creator) || creators.contains(creator) {
                return Err(Rejected::Invalid("each parent is another member's, but for its own"));
            }
            if is_self && node.time_us >= event.time_us {
                return Err(Rejected::Invalid("its time is not after its self-parent's"));
            }
            creators.insert(creator);
            numbers.push(number);
        }
        if !missing.is_empty() {
            return Err(Rejected::MissingParents(missing));
        }
        let self_parent = if event.self_parent.is_some() { numbers[0] } else { NONE };
        Ok((self_parent, numbers))
    }

    /// What an event sees, by what its parents see; its round is that of its parents as yet.
    fn see(
        &self,
        event: &Event,
        number: Number,
        self_parent: Number,
        parents: SmallVec<[Number; 4]>,
    ) -> Node {
        let latest = self.latest(event.creator, number, self_parent, &parents);
        let round = parents.iter().map(|parent| self.node(*parent).round).max().unwrap_or(1);
        let mut node = Node {
            id: event.id,
            creator: event.creator,
            time_us: event.time_us,
            signature: event.signature,
            round,
            is_witness: false,
            before_in_round: 0,
            received: 0,
            parents,
            self_parent,
            branch: 0,
            latest,
            seen: Bits::default(),
            seen_before: Bits::default(),
            heard: Bits::default(),
        };
        for parent in node.parents.iter().map(|parent| self.node(*parent)) {
            if let Some(seen) = parent.sees_of(round) {
                node.seen.join(seen);
            }
            if let Some(seen) = parent.sees_of(round - 1) {
                node.seen_before.join(seen);
            }
            if parent.round == round {
                node.heard.join(&parent.heard);
            }
        }
        if node.latest.contains(&FORKED) {
            self.leave_out_forked(round, &node.latest, &mut node.seen);
            self.leave_out_forked(round - 1, &node.latest, &mut node.seen_before);
        }
        node
    }

    /// Of each member the latest among a new event's ancestors. Later events have higher numbers.
    fn latest(
        &self,
        creator: MemberIndex,
        number: Number,
        self_parent: Number,
        parents: &[Number],
    ) -> Box<[Number]> {
        let mut latest = vec![NONE; self.weights.count()].into_boxed_slice();
        for parent in parents {
            let theirs = &self.node(*parent).latest;
            latest.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
        }
        // Of who has forked, two parents may know different branches.
        for member in self.forked.iter().map(|member| usize::from(member.0)) {
            let theirs = parents.iter().map(|parent| self.node(*parent).latest[member]);
            latest[member] = theirs.fold(NONE, |ours, theirs| self.later(ours, theirs));
        }
        // What it knows of its own creator ends with its self-parent, or there is another branch.
        let own = &mut latest[usize::from(creator.0)];
        *own = if *own == self_parent { number } else { FORKED };
        latest
    }

    /// The later of two latest events of a member; or that they are a fork.
    fn later(&self, one: Number, other: Number) -> Number {
        let (older, newer) = (one.min(other), one.max(other));
        if older == NONE || newer == FORKED || self.is_self_ancestor(older, newer) { newer } else { FORKED }
    }

    /// Whether an event of a member is a self-ancestor of another one of it.
    fn is_self_ancestor(&self, older: Number, newer: Number) -> bool {
        let mut at = newer;
        while at >= older {
            let branch = self.node(at).branch;
            if branch == self.node(older).branch {
                return true;
            }
            at = self.branches[branch as usize];
        }
        false
    }

    /// Takes out those witnesses whose creators' forks are among the ancestors.
    fn leave_out_forked(&self, round: u64, latest: &[Number], seen: &mut Bits) {
        for (slot, witness) in self.rounds.witnesses(round) {
            if latest[usize::from(witness.creator.0)] == FORKED {
                seen.remove(slot);
            }
        }
    }

    /// Gives a new event its round (rule 3), and what it hears in it.
    fn divide_rounds(&mut self, node: &mut Node) {
        let below = node.round;
        let supermajority = self.weights.supermajority();
        // It strongly sees no more than it sees.
        let enough = self.rounds.weight_of(below, &node.seen, &self.weights) >= supermajority;
        let mut strongly = if enough { self.strongly_seen(node, below) } else { Bits::default() };
        let rises = self.rounds.weight_of(below, &strongly, &self.weights) >= supermajority;
        if rises {
            node.round = below + 1;
            node.seen_before = std::mem::take(&mut node.seen);
            node.heard.clear();
        }
        let goes_on = node.self_parent != NONE && self.node(node.self_parent).round == node.round;
        if goes_on {
            node.before_in_round = self.node(node.self_parent).before_in_round + 1;
            return;
        }
        node.is_witness = true;
        if !rises {
            strongly = self.strongly_seen(node, below - 1);
        }
        node.heard.join(&strongly);
    }

    /// The witnesses of a round that a new event strongly sees, out of those that it sees.
    fn strongly_seen(&mut self, node: &Node, round: u64) -> Bits {
        let Self { nodes, tally, weights, .. } = self;
        tally.clear();
        for (member, latest) in node.latest.iter().enumerate().filter(|(member, _)| node.is_seen(*member)) {
            let is_itself = member == usize::from(node.creator.0);
            let of = if is_itself { node } else { &nodes[*latest as usize - 1] };
            if let Some(seen) = of.sees_of(round) {
                tally.add(seen, weights.of(MemberIndex(member as u16)));
            }
        }
        let mut strongly = tally.at_least(weights.supermajority());
        if let Some(seen) = node.sees_of(round) {
            strongly.keep_only(seen);
        }
        strongly
    }

    /// Puts a new event into the graph; a witness votes.
    fn enter(&mut self, mut node: Node, number: Number) {
        let (creator, member) = (node.creator, usize::from(node.creator.0));
        self.numbers.insert(node.id, number);
        self.of_member[member].push(number);
        self.unreceived[member].push_back(number);
        self.note_effort(&node);
        self.note_branch(&mut node, number);
        let (round, is_witness, coin) = (node.round, node.is_witness, node.id.coin());
        let sees_itself = node.is_seen(member);
        self.nodes.push(node);
        if is_witness {
            let slot = self.rounds.add(round, Witness::new(number, creator), self.pending);
            let node = self.node_mut(number);
            if sees_itself {
                node.seen.insert(slot);
            }
            let (votes, heard) = (node.seen_before.clone(), node.heard.clone());
            self.decide_fame(round, slot, votes, &heard, coin);
            self.find_order();
        }
    }

    /// Puts an event on its branch: that of its self-parent, or another one if that goes on already.
    fn note_branch(&mut self, node: &mut Node, number: Number) {
        let member = usize::from(node.creator.0);
        if let Some(end) = self.ends[member].iter().position(|end| *end == node.self_parent) {
            self.ends[member].remove(end);
            node.branch = self.node(node.self_parent).branch;
        } else {
            node.branch = self.branches.len() as u32;
            self.branches.push(node.self_parent);
        }
        self.ends[member].push(number);
        if self.ends[member].len() == 2 && !self.forked.contains(&node.creator) {
            self.forked.push(node.creator);
            let mut earlier = self.of_member[member].iter().map(|number| *number as usize - 1);
            let twin = earlier.find_map(|place| {
                self.nodes.get(place).filter(|other| other.self_parent == node.self_parent)
            });
            let fork = twin.map(|twin| Fork { member: node.creator, events: [twin.id, node.id] });
            self.forks.extend(fork);
        }
    }

    /// An event as it came in.
    pub(super) fn event(&self, node: &Node) -> Event {
        let mut parents = node.parents.iter().map(|parent| self.node(*parent).id);
        Event {
            id: node.id,
            creator: node.creator,
            self_parent: if node.self_parent == NONE { None } else { parents.next() },
            other_parents: parents.collect(),
            time_us: node.time_us,
            signature: node.signature,
        }
    }

    /// A member's last event to come.
    pub(super) fn tip(&self, member: MemberIndex) -> Option<Number> {
        self.ends[usize::from(member.0)].last().copied()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn number_of(&self, id: &EventId) -> Option<Number> {
        self.numbers.get(id).copied()
    }

    pub(super) fn node(&self, number: Number) -> &Node {
        &self.nodes[number as usize - 1]
    }

    pub(super) fn node_mut(&mut self, number: Number) -> &mut Node {
        &mut self.nodes[number as usize - 1]
    }

    fn by_id(&self, id: &EventId) -> Option<&Node> {
        Some(self.node(self.number_of(id)?))
    }
}
