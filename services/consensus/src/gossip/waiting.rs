//! Events that wait for a parent.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Said;
use crate::hashgraph::{EventId, MemberIndex};

/// Events that came before their parents: each stands under the first that is missing, and no member has more than so
/// many here.
#[derive(Debug)]
pub(super) struct Waiting {
    events: BTreeMap<EventId, Arc<Said>>,
    under: BTreeMap<EventId, Vec<EventId>>,
    of_member: Vec<usize>,
    of_member_max: usize,
}

impl Waiting {
    pub(super) fn new(members: u16, of_member_max: usize) -> Self {
        let of_member = vec![0; usize::from(members)];
        Self { events: BTreeMap::new(), under: BTreeMap::new(), of_member, of_member_max }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.under.is_empty() && self.of_member.iter().all(|waiting| *waiting == 0)
    }

    pub(super) fn contains(&self, id: &EventId) -> bool {
        self.events.contains_key(id)
    }

    /// The last event of a member that waits.
    pub(super) fn last_of(&self, member: MemberIndex) -> Option<Arc<Said>> {
        if self.of_member[usize::from(member.0)] == 0 {
            return None;
        }
        let of_member = self.events.values().filter(|said| said.event.creator == member);
        of_member.max_by_key(|said| said.event.time_us).cloned()
    }

    /// Whether an event is waited for.
    pub(super) fn is_for(&self, id: &EventId) -> bool {
        self.under.contains_key(id)
    }

    /// Lets an event of a member wait for a parent, unless it does already or too many of its creator do.
    pub(super) fn put(&mut self, said: Arc<Said>, parent: EventId) {
        let id = said.event.id;
        let of_creator = &mut self.of_member[usize::from(said.event.creator.0)];
        if *of_creator < self.of_member_max && !self.events.contains_key(&id) {
            *of_creator += 1;
            self.events.insert(id, said);
            self.under.entry(parent).or_default().push(id);
        }
    }

    /// Takes out what waited for this event.
    pub(super) fn take(&mut self, parent: &EventId) -> Vec<Arc<Said>> {
        let ids = self.under.remove(parent).unwrap_or_default();
        let taken: Vec<_> = ids.iter().filter_map(|id| self.events.remove(id)).collect();
        for said in &taken {
            self.of_member[usize::from(said.event.creator.0)] -= 1;
        }
        taken
    }

    /// Drops what waited for an event that nobody can take in, and what waited for that.
    pub(super) fn drop_all_on(&mut self, parent: &EventId) {
        let mut todo = vec![*parent];
        while let Some(parent) = todo.pop() {
            todo.extend(self.take(&parent).iter().map(|said| said.event.id));
        }
    }
}
