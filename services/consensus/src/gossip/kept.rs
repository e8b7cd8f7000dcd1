//! What the events of the graph carry, and where it is: in memory, or in the journal alone.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Held, Said};

/// What the events of the graph carry, in its order: an event's number in the journal is its place here.
#[derive(Debug)]
pub(super) struct Kept {
    slots: Vec<Slot>,
    /// Events from the first on that are durable.
    durable: u64,
    /// What is in memory, in bytes, and how much of it there should be at most.
    bytes: usize,
    bytes_max: usize,
    /// Places of events that are durable and were given out in their order: these may leave memory, the oldest first.
    given_out: VecDeque<usize>,
}

#[derive(Debug)]
struct Slot {
    said: Option<Arc<Said>>,
    place: u64,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { slots: Vec::new(), durable: 0, bytes: 0, bytes_max, given_out: VecDeque::new() }
    }

    /// Takes in the next event and gives its number.
    pub(super) fn push(&mut self, said: Arc<Said>) -> u64 {
        let bytes = said.bytes();
        self.bytes += bytes;
        self.slots.push(Slot { said: Some(said), place: 0, bytes });
        self.slots.len() as u64 - 1
    }

    /// An event was written there and is durable. In their order; whether this was the next.
    pub(super) fn is_durable_at(&mut self, number: u64, place: u64) -> bool {
        if number != self.durable || number >= self.len() {
            return false;
        }
        self.slots[number as usize].place = place;
        self.durable += 1;
        true
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An event, and what it carries in bytes.
    pub(super) fn held(&self, place: usize) -> (Held, usize) {
        let slot = &self.slots[place];
        let held = match &slot.said {
            Some(said) => Held::Here(Arc::clone(said)),
            None => Held::Recorded(slot.place),
        };
        (held, slot.bytes)
    }

    /// An event that was not given out in its order.
    ///
    /// # Panics
    ///
    /// If it was.
    pub(super) fn unordered(&self, place: usize) -> Arc<Said> {
        let Some(said) = &self.slots[place].said else {
            unreachable!("only what was given out leaves memory")
        };
        Arc::clone(said)
    }

    /// These durable events were given out in their order.
    pub(super) fn give_out(&mut self, places: Vec<usize>) {
        self.given_out.extend(places);
        while self.bytes > self.bytes_max
            && let Some(place) = self.given_out.pop_front()
        {
            let slot = &mut self.slots[place];
            slot.said = None;
            self.bytes -= slot.bytes;
        }
    }
}
