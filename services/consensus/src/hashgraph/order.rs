//! From decided rounds to one order: who is received, when, and before whom (rules 5 to 7).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::event::{EventId, Round};
use super::graph::{Hashgraph, NONE, Number};
use super::rounds::Fame;

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
    /// It and those of its self-ancestors that may be the first to know of an event, oldest first.
    chain: Vec<Number>,
}

impl Hashgraph {
    /// Orders what decided rounds receive, as far as rounds are decided.
    pub(super) fn find_order(&mut self) {
        while self.rounds.is_decided(self.pending) {
            let ordered = self.order_round(self.pending);
            self.ordered.push_back(ordered);
            self.pending += 1;
            self.forget();
        }
    }

    fn order_round(&mut self, round: u64) -> OrderedRound {
        let mut judges = self.judges(round);
        let received = self.receive(&judges);
        let mut first_of: BTreeMap<usize, Number> = BTreeMap::new();
        for number in &received {
            let creator = self.creator(*number);
            first_of.entry(creator).and_modify(|first| *first = (*first).min(*number)).or_insert(*number);
        }
        for judge in &mut judges {
            judge.chain = self.chain(judge.number, &first_of);
        }
        let mut timed: Vec<(u64, Number)> =
            received.iter().map(|number| (self.consensus_time(&judges, *number), *number)).collect();
        timed.sort_unstable();
        let mut whitener = [0; 64];
        for judge in &judges {
            xor(&mut whitener, self.node(judge.number).event.signature.as_bytes());
        }
        let mut events = Vec::with_capacity(timed.len());
        for tied in timed.chunk_by(|(a, _), (b, _)| a == b) {
            for number in self.in_tie(tied, &whitener) {
                events.push(Ordered { id: self.node(number).event.id, time_us: tied[0].0 });
            }
        }
        let judges = judges.iter().map(|judge| self.node(judge.number).event.id).collect();
        OrderedRound { round: Round(round), judges, events }
    }

    /// The famous witnesses whose creator has no other famous one in the round.
    fn judges(&self, round: u64) -> Vec<Judge> {
        let famous = || {
            self.rounds
                .witnesses(round)
                .map(|(_, witness)| witness)
                .filter(|witness| witness.fame == Fame::Famous)
        };
        famous()
            .filter(|witness| famous().filter(|other| other.creator == witness.creator).count() == 1)
            .map(|witness| Judge {
                number: witness.number,
                weight: self.weights.of(witness.creator),
                chain: Vec::new(),
            })
            .collect()
    }

    /// Takes out what all judges have as an ancestor and no round has received, each member's events together, oldest first.
    fn receive(&mut self, judges: &[Judge]) -> Vec<Number> {
        if judges.is_empty() {
            return Vec::new();
        }
        let latest_birth =
            judges.iter().map(|judge| self.node(judge.number).event.birth.0).max().unwrap_or(0);
        let mut received = Vec::new();
        for member in 0..self.weights.count() {
            let upto = match self.forked[member] {
                true => Number::MAX,
                false => {
                    let latest = |judge: &Judge| self.node(judge.number).latest[member];
                    judges.iter().map(latest).min().unwrap_or(NONE)
                }
            };
            let mut waiting = std::mem::take(&mut self.unreceived[member]);
            waiting.retain(|number| {
                let is_in = *number <= upto
                    && !self.is_out(self.node(*number).event.birth.0, latest_birth)
                    && (!self.forked[member]
                        || judges.iter().all(|judge| self.is_ancestor(*number, judge.number)));
                if is_in {
                    received.push(*number);
                }
                !is_in
            });
            self.unreceived[member] = waiting;
        }
        received
    }

    /// Whether an event is an ancestor of another.
    fn is_ancestor(&self, older: Number, newer: Number) -> bool {
        let (older_node, newer_node) = (self.node(older), self.node(newer));
        if self.is_out(older_node.event.birth.0, newer_node.event.birth.0) {
            return false;
        }
        let creator = usize::from(older_node.event.creator.0);
        if !self.forked[creator] {
            return newer_node.latest[creator] >= older;
        }
        let (mut todo, mut seen) = (vec![newer], BTreeSet::new());
        while let Some(number) = todo.pop() {
            if number == older {
                return true;
            }
            if number > older
                && seen.insert(number)
                && let Some(node) = self.known(number)
            {
                todo.extend(&node.parents);
            }
        }
        false
    }

    /// An event's self-ancestors back to the first that knows of none of these.
    fn chain(&self, judge: Number, first_of: &BTreeMap<usize, Number>) -> Vec<Number> {
        let birth = self.node(judge).event.birth.0;
        let mut chain = Vec::new();
        let mut at = judge;
        while let Some(node) = self.known(at)
            && !self.is_out(node.event.birth.0, birth)
        {
            let knows =
                |(member, first): (&usize, &Number)| self.forked[*member] || node.latest[*member] >= *first;
            if !first_of.iter().any(knows) {
                break;
            }
            chain.push(at);
            at = node.self_parent;
        }
        chain.reverse();
        chain
    }

    /// The median, by weight and the lower of two, of the times at which the judges' creators first knew of an event.
    fn consensus_time(&self, judges: &[Judge], number: Number) -> u64 {
        let mut times: Vec<(u64, u64)> = judges
            .iter()
            .map(|judge| {
                let first = judge.chain.partition_point(|knower| !self.is_ancestor(number, *knower));
                let knower = judge.chain.get(first).copied().unwrap_or(judge.number);
                (self.node(knower).event.time_us, judge.weight)
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

    /// Events of one timestamp: parents first, then by whitened signature.
    fn in_tie(&self, tied: &[(u64, Number)], whitener: &[u8; 64]) -> Vec<Number> {
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
            let event = &self.node(number).event;
            let mut whitened = *event.signature.as_bytes();
            xor(&mut whitened, whitener);
            Reverse((whitened, event.id, number))
        };
        let mut free: BinaryHeap<_> =
            members.iter().filter(|number| !waits.contains_key(number)).map(|number| key(*number)).collect();
        let mut order = Vec::with_capacity(members.len());
        while let Some(Reverse((_, _, number))) = free.pop() {
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

    fn creator(&self, number: Number) -> usize {
        usize::from(self.node(number).event.creator.0)
    }
}

fn xor(into: &mut [u8; 64], other: &[u8; 64]) {
    into.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}
