//! What one member has and another one has not: for questions and answers (see [`crate::gossip`]).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::event::{Event, EventId, MemberIndex};
use super::graph::{Hashgraph, NONE, Number};

/// What an answer has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// Places of events, from 0 in the order they came: parents first.
    pub(crate) places: Vec<usize>,
    /// Whether there are more.
    pub(crate) more: bool,
}

impl Hashgraph {
    /// The newest event of each member; of those that have forked, the newest ends of branches. What else there is, is among
    /// the ancestors of these, but for branches in which nobody takes part. No more than [`Hashgraph::tips_max`].
    pub(crate) fn newest(&self) -> Vec<EventId> {
        let unforked = self.ends.iter().filter(|ends| ends.len() == 1).map(|ends| ends[0]);
        let mut newest: Vec<Number> = unforked.collect();
        let mut branches: Vec<Number> =
            self.forked.iter().flat_map(|member| &self.ends[usize::from(member.0)]).copied().collect();
        branches.sort_unstable_by_key(|number| Reverse(*number));
        branches.truncate(self.tips_max() - newest.len());
        newest.append(&mut branches);
        newest.into_iter().map(|number| self.node(number).id).collect()
    }

    /// How many events a question names at most.
    pub(crate) fn tips_max(&self) -> usize {
        4 * self.ends.len()
    }

    /// How many branches are known of a member; and whether an event goes on with one of them.
    pub(crate) fn branches(&self, event: &Event) -> (usize, bool) {
        let Some(ends) = self.ends.get(usize::from(event.creator.0)) else { return (0, false) };
        let self_parent = event.self_parent.and_then(|parent| self.number_of(&parent));
        (ends.len(), self_parent.is_some_and(|parent| ends.contains(&parent)))
    }

    /// The places of a member's events that no round has received.
    pub(crate) fn unreceived_of(&self, member: MemberIndex) -> impl Iterator<Item = usize> {
        self.unreceived[usize::from(member.0)].iter().map(|number| *number as usize - 1)
    }

    /// Of members that have forked, the events that no round has received and that others have built on: on these, directly
    /// or through more events of such members. They will be received, since whatever is made from now on has them as
    /// ancestors.
    pub(crate) fn forked_below(&self, of: impl Iterator<Item = EventId>) -> BTreeSet<EventId> {
        let mut todo: Vec<Number> = of.filter_map(|id| self.number_of(&id)).collect();
        todo.retain(|number| !self.is_forked(self.node(*number).creator));
        let mut found = BTreeSet::new();
        while let Some(number) = todo.pop() {
            for parent in &self.node(number).parents {
                let node = self.node(*parent);
                if node.received == 0 && self.is_forked(node.creator) && found.insert(node.id) {
                    todo.push(*parent);
                }
            }
        }
        found
    }

    /// All events that no round has received.
    pub(crate) fn all_unreceived(&self) -> impl Iterator<Item = EventId> {
        self.unreceived.iter().flatten().map(|number| self.node(*number).id)
    }

    /// An event's place among those in the graph, in the order they came.
    pub(crate) fn place_of(&self, id: &EventId) -> Option<usize> {
        Some(self.number_of(id)? as usize - 1)
    }

    /// What is not among the ancestors of these, and no more events than so many. Of members that have forked, only
    /// what others have built on: nobody needs the rest. Of the asker, all: it may have lost it.
    pub(crate) fn unknown_to(&self, asker: MemberIndex, tips: &[EventId], max: usize) -> Unknown {
        let tips: Vec<Number> = tips.iter().filter_map(|id| self.number_of(id)).collect();
        let numbers = if self.forked.is_empty() {
            self.unknown_to_without_forks(&tips, max + 1)
        } else {
            self.unknown_to_with_forks(asker, &tips)
        };
        let places = numbers.iter().take(max).map(|number| *number as usize - 1);
        Unknown { places: places.collect(), more: numbers.len() > max }
    }

    /// Of each member what comes after the latest; all members' together in the order they came.
    fn unknown_to_without_forks(&self, tips: &[Number], max: usize) -> Vec<Number> {
        let latest = self.latest_among(tips);
        let rest =
            |(numbers, latest): (&Vec<Number>, &Number)| numbers.partition_point(|number| number <= latest);
        let mut next: Vec<usize> = self.of_member.iter().zip(&latest).map(rest).collect();
        let first =
            |(member, next): (usize, &usize)| Some(Reverse((*self.of_member[member].get(*next)?, member)));
        let mut heads: BinaryHeap<_> = next.iter().enumerate().filter_map(first).collect();
        let mut unknown = Vec::new();
        while unknown.len() < max
            && let Some(Reverse((number, member))) = heads.pop()
        {
            unknown.push(number);
            next[member] += 1;
            if let Some(number) = self.of_member[member].get(next[member]) {
                heads.push(Reverse((*number, member)));
            }
        }
        unknown
    }

    /// Of each member that has not forked, the latest among the ancestors of these.
    fn latest_among(&self, tips: &[Number]) -> Vec<Number> {
        let mut latest = vec![NONE; self.ends.len()];
        for tip in tips {
            let theirs = &self.node(*tip).latest;
            latest.iter_mut().zip(theirs).for_each(|(latest, theirs)| *latest = (*latest).max(*theirs));
        }
        latest
    }

    /// One pass from the newest down: parents have lower numbers. It ends where nothing is needed any more that is not
    /// known.
    fn unknown_to_with_forks(&self, asker: MemberIndex, tips: &[Number]) -> Vec<Number> {
        #[derive(Clone, Copy, Default)]
        struct Mark {
            known: bool,
            needed: bool,
        }
        let mut marks = vec![Mark::default(); self.nodes().len() + 1];
        tips.iter().for_each(|tip| marks[*tip as usize].known = true);
        let latest = self.latest_among(tips);
        let unforked = self.ends.iter().zip(&latest).filter(|(ends, _)| ends.len() == 1);
        let new = unforked.filter(|(ends, latest)| ends[0] > **latest).map(|(ends, _)| ends[0]);
        let of_asker = self.ends[usize::from(asker.0)].iter().copied();
        let ends: BTreeSet<Number> = new.chain(of_asker).collect();
        ends.iter().for_each(|end| marks[*end as usize].needed = true);
        let mut open = ends.len();
        let mut unknown = Vec::new();
        let mut number = self.nodes().len();
        while open > 0 && number > 0 {
            let mark = marks[number];
            open -= usize::from(mark.needed);
            if mark.needed && !mark.known {
                unknown.push(number as Number);
            }
            if mark.known || mark.needed {
                for parent in &self.node(number as Number).parents {
                    let theirs = &mut marks[*parent as usize];
                    theirs.known |= mark.known;
                    if mark.needed && !mark.known && !theirs.needed {
                        theirs.needed = true;
                        open += 1;
                    }
                }
            }
            number -= 1;
        }
        unknown.reverse();
        unknown
    }
}
