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
    /// It and those of its self-ancestors that no round has received before, oldest first: what a round has received knows of
    /// nothing that it has not.
    chain: Vec<Knower>,
}

/// An event, to be asked what it knows of.
struct Knower {
    number: Number,
    /// Its ancestors that no round has received before, where some member has forked: of such a member, the
    /// latest alone does not say which others are.
    ancestors: Option<BTreeSet<Number>>,
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
        let judges = self.judges(round);
        let received = self.receive(&judges);
        let mut timed: Vec<(u64, Number)> =
            received.iter().map(|number| (self.consensus_time(&judges, *number), *number)).collect();
        timed.sort_unstable();
        let mut whitener = [0; 32];
        for judge in &judges {
            xor(&mut whitener, &self.node(judge.number).event.id.0);
        }
        let mut events = Vec::with_capacity(timed.len());
        for tied in timed.chunk_by(|(a, _), (b, _)| a == b) {
            for number in self.in_tie(tied, &whitener) {
                events.push(Ordered { id: self.node(number).event.id, time_us: tied[0].0 });
            }
        }
        for number in received {
            self.node_mut(number).is_received = true;
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
                chain: self.chain(witness.number),
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
                    && (!self.forked[member] || judges.iter().all(|judge| self.judge_knows(judge, *number)));
                if is_in {
                    received.push(*number);
                }
                !is_in
            });
            self.unreceived[member] = waiting;
        }
        received
    }

    /// An event's self-ancestors that no round has received.
    fn chain(&self, judge: Number) -> Vec<Knower> {
        let mut chain = Vec::new();
        let mut at = judge;
        while let Some(node) = self.known(at)
            && !node.is_received
        {
            let ancestors = self.any_forked.then(|| self.unreceived_ancestors(at));
            chain.push(Knower { number: at, ancestors });
            at = node.self_parent;
        }
        chain.reverse();
        chain
    }

    /// Whether an event that no round has received is an ancestor of one.
    fn knows(&self, knower: &Knower, number: Number) -> bool {
        let creator = self.creator(number);
        match &knower.ancestors {
            Some(ancestors) if self.forked[creator] => ancestors.contains(&number),
            _ => self.node(knower.number).latest[creator] >= number,
        }
    }

    fn judge_knows(&self, judge: &Judge, number: Number) -> bool {
        judge.chain.last().is_some_and(|itself| self.knows(itself, number))
    }

    /// An event's ancestors that no round has received. What is received has none.
    fn unreceived_ancestors(&self, of: Number) -> BTreeSet<Number> {
        let birth = self.node(of).event.birth.0;
        let (mut todo, mut found) = (vec![of], BTreeSet::new());
        while let Some(number) = todo.pop() {
            let node = self.known(number).filter(|node| !node.is_received);
            if let Some(node) = node.filter(|node| !self.is_out(node.event.birth.0, birth))
                && found.insert(number)
            {
                todo.extend(&node.parents);
            }
        }
        found
    }

    /// The median, by weight and the lower of two, of the times at which the judges' creators first knew of an event.
    fn consensus_time(&self, judges: &[Judge], number: Number) -> u64 {
        let mut times: Vec<(u64, u64)> = judges
            .iter()
            .map(|judge| {
                let first = judge.chain.partition_point(|knower| !self.knows(knower, number));
                let knower = judge.chain.get(first).map_or(judge.number, |knower| knower.number);
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
            let mut whitened = self.node(number).event.id.0;
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

    fn creator(&self, number: Number) -> usize {
        usize::from(self.node(number).event.creator.0)
    }
}

fn xor(into: &mut [u8; 32], other: &[u8; 32]) {
    into.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}
