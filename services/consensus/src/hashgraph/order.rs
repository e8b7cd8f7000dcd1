//! From decided rounds to one order: who is received, when, and before whom (rules 5 to 7).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::event::{EventId, Round};
use super::graph::{Hashgraph, NONE, Number};
use super::rounds::{Fame, Witness};

/// A round that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderedRound {
    /// Which.
    pub round: Round,
    /// Its judges.
    pub judges: Vec<EventId>,
    /// The events that it received, in their order.
    pub events: Vec<Ordered>,
}

/// An event in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Which.
    pub id: EventId,
    /// Its consensus timestamp, in microseconds since 1970 (UTC).
    pub time_us: u64,
}

/// A judge while its round's events are ordered.
struct Judge {
    number: Number,
    weight: u64,
    /// It and those of its self-ancestors that no round has received before, oldest first: what a round has received knows of
    /// nothing that it has not.
    chain: Vec<Number>,
    /// Of members that have forked, each event that it has as an ancestor and no round has received: the place in the chain of
    /// the first that has. Of others, what is the latest says it.
    first_of_forked: BTreeMap<Number, usize>,
}

impl Hashgraph {
    /// Orders what decided rounds receive, as far as rounds are decided.
    pub(super) fn find_order(&mut self) {
        while self.rounds.is_decided(self.pending) {
            let ordered = self.order_round(self.pending);
            self.ordered.push_back(ordered);
            self.rounds.forget_votes(self.pending);
            self.pending += 1;
        }
    }

    fn order_round(&mut self, round: u64) -> OrderedRound {
        let judges = self.judges(round);
        let received = self.receive(&judges);
        let mut timed: Vec<(u64, Number)> =
            received.iter().map(|number| (self.consensus_time(&judges, *number), *number)).collect();
        timed.sort_unstable();
        let mut whitener = [0; 32];
        for judge in &judges {
            xor(&mut whitener, &self.node(judge.number).id.0);
        }
        let mut events = Vec::with_capacity(timed.len());
        for tied in timed.chunk_by(|(a, _), (b, _)| a == b) {
            for number in self.in_tie(tied, &whitener) {
                events.push(Ordered { id: self.node(number).id, time_us: tied[0].0 });
            }
        }
        for number in received {
            self.node_mut(number).received = round;
        }
        let judges = judges.iter().map(|judge| self.node(judge.number).id).collect();
        OrderedRound { round: Round(round), judges, events }
    }

    /// The famous witnesses whose creator has no other famous one in the round.
    pub(super) fn judges_of(&self, round: u64) -> impl Iterator<Item = &Witness> {
        let famous = move || {
            self.rounds
                .witnesses(round)
                .map(|(_, witness)| witness)
                .filter(|witness| witness.fame == Fame::Famous)
        };
        famous().filter(move |witness| famous().filter(|other| other.creator == witness.creator).count() == 1)
    }

    fn judges(&self, round: u64) -> Vec<Judge> {
        let judge = |witness: &Witness| {
            let chain = self.chain(witness.number);
            Judge {
                number: witness.number,
                weight: self.weights.of(witness.creator),
                first_of_forked: self.first_of_forked(&chain),
                chain,
            }
        };
        self.judges_of(round).map(judge).collect()
    }

    /// An event and those of its self-ancestors that no round has received, oldest first.
    fn chain(&self, judge: Number) -> Vec<Number> {
        let mut chain = Vec::new();
        let mut at = judge;
        while at != NONE && self.node(at).received == 0 {
            chain.push(at);
            at = self.node(at).self_parent;
        }
        chain.reverse();
        chain
    }

    /// See [`Judge::first_of_forked`]. Each event is gone through once, for the first of the chain that reaches it.
    fn first_of_forked(&self, chain: &[Number]) -> BTreeMap<Number, usize> {
        let mut first = BTreeMap::new();
        if self.forked.is_empty() {
            return first;
        }
        let mut reached = BTreeSet::new();
        for (place, knower) in chain.iter().enumerate() {
            let mut todo = vec![*knower];
            while let Some(number) = todo.pop() {
                let node = self.node(number);
                if node.received > 0 || !reached.insert(number) {
                    continue;
                }
                if self.is_forked(node.creator) {
                    first.insert(number, place);
                }
                todo.extend(&node.parents);
            }
        }
        first
    }

    /// Takes out what all judges have as an ancestor and no round has received, each member's events together, oldest first.
    fn receive(&mut self, judges: &[Judge]) -> Vec<Number> {
        let mut received = Vec::new();
        let Some((one, _)) = judges.split_first() else { return received };
        for member in 0..self.weights.count() {
            let mut waiting = std::mem::take(&mut self.unreceived[member]);
            if self.ends[member].len() > 1 {
                waiting.retain(|number| {
                    let is_in = judges.iter().all(|judge| judge.first_of_forked.contains_key(number));
                    if is_in {
                        received.push(*number);
                    }
                    !is_in
                });
            } else {
                let latest = |judge: &Judge| self.node(judge.number).latest[member];
                let upto = judges.iter().map(latest).fold(latest(one), Number::min);
                while let Some(number) = waiting.pop_front_if(|number| *number <= upto) {
                    received.push(number);
                }
            }
            self.unreceived[member] = waiting;
        }
        received
    }

    /// Where in a judge's chain the first event is that has another one as an ancestor.
    fn first_knower(&self, judge: &Judge, number: Number) -> usize {
        let first = judge.first_of_forked.get(&number).copied();
        let creator = usize::from(self.node(number).creator.0);
        first.unwrap_or_else(|| {
            judge.chain.partition_point(|knower| self.node(*knower).latest[creator] < number)
        })
    }

    /// The median, by weight and the lower of two, of the times at which the judges' creators first knew of an event.
    fn consensus_time(&self, judges: &[Judge], number: Number) -> u64 {
        let mut times: Vec<(u64, u64)> = judges
            .iter()
            .map(|judge| {
                let knower = judge.chain[self.first_knower(judge, number)];
                (self.node(knower).time_us, judge.weight)
            })
            .collect();
        times.sort_unstable();
        let total: u64 = times.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0;
        let median = times.iter().find(|(_, weight)| {
            sum += weight;
            sum * 2 >= total
        });
        median.map_or(0, |(time, _)| *time)
    }

    /// Events of one timestamp: parents first, then by whitened id.
    fn in_tie(&self, tied: &[(u64, Number)], whitener: &[u8; 32]) -> Vec<Number> {
        if let [(_, only)] = tied {
            return vec![*only];
        }
        let members: BTreeSet<Number> = tied.iter().map(|(_, number)| *number).collect();
        let mut waits: BTreeMap<Number, usize> = BTreeMap::new();
        let mut children: BTreeMap<Number, Vec<Number>> = BTreeMap::new();
        for number in &members {
            let parents = self.node(*number).parents.iter().filter(|parent| members.contains(parent));
            for parent in parents {
                *waits.entry(*number).or_default() += 1;
                children.entry(*parent).or_default().push(*number);
            }
        }
        let key = |number: Number| {
            let mut whitened = self.node(number).id.0;
            xor(&mut whitened, whitener);
            Reverse((whitened, number))
        };
        let mut free: BinaryHeap<_> =
            members.iter().filter(|number| !waits.contains_key(number)).map(|number| key(*number)).collect();
        let mut order = Vec::with_capacity(members.len());
        while let Some(Reverse((_, number))) = free.pop() {
            order.push(number);
            for child in children.get(&number).into_iter().flatten() {
                if let Some(waits) = waits.get_mut(child) {
                    *waits -= 1;
                    if *waits == 0 {
                        free.push(key(*child));
                    }
                }
            }
        }
        order
    }
}

fn xor(into: &mut [u8; 32], other: &[u8; 32]) {
    into.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}
