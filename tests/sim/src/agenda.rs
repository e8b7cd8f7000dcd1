//! What is to happen, by time; what was put in first comes first of what has the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An agenda. Its order is kept apart from what is to happen, which is large.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    times: BinaryHeap<Reverse<(u64, u64, usize)>>,
    things: Vec<Option<T>>,
    free: Vec<usize>,
    count: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { times: BinaryHeap::new(), things: Vec::new(), free: Vec::new(), count: 0 }
    }
}

impl<T> Agenda<T> {
    /// How many were ever put in.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn put(&mut self, at_us: u64, thing: T) {
        self.count += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.things.push(None);
            self.things.len() - 1
        });
        self.things[slot] = Some(thing);
        self.times.push(Reverse((at_us, self.count, slot)));
    }

    /// The next, and when.
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at_us, _, slot)) = self.times.pop()?;
        self.free.push(slot);
        Some((at_us, self.things[slot].take()?))
    }
}
