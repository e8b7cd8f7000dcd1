//! Graphs drawn as text.
//!
//! `draw("A1 B1; A2(B1) B2@9(A2,C1) D2'")`: a creator's letter and a height, one event after the other;
//! blanks and semicolons part them. The self-parent is the creator's event of one less height. Other-parents
//! stand in parentheses. A `'` makes another event of that height, on another branch: an equivocation. Its
//! self-parent is the event below it on its own branch if there is one, else that with a `'` less. The time
//! is the place in the list, from 1, or what stands behind an `@`.
//!
//! An event's signature is its creator's number (A is 1), its height times 16 plus its `'`s, then zeroes: so
//! that a tie can be worked out by hand.

use std::collections::BTreeMap;

use consensus::hashgraph::{Event, EventId, MemberIndex};
use protocol::signing::Signature;

/// What was drawn.
pub(crate) struct Drawing {
    /// The events as they were drawn.
    pub(crate) events: Vec<Event>,
    names: BTreeMap<EventId, String>,
}

impl Drawing {
    /// The event's name.
    pub(crate) fn name(&self, id: &EventId) -> &str {
        &self.names[id]
    }

    /// The names of events, with blanks between.
    pub(crate) fn names<'a>(&self, ids: impl IntoIterator<Item = &'a EventId>) -> String {
        ids.into_iter().map(|id| self.name(id)).collect::<Vec<_>>().join(" ")
    }
}

/// The graph of `text`.
pub(crate) fn draw(text: &str) -> Drawing {
    let mut drawing = Drawing { events: Vec::new(), names: BTreeMap::new() };
    for token in text.split([' ', '\n', ';']).filter(|token| !token.is_empty()) {
        let (head, parents) = token.split_once('(').unwrap_or((token, ")"));
        let (name, time) = head.split_once('@').unwrap_or((head, ""));
        let parents = parents.strip_suffix(')').expect("a closing parenthesis, without blanks before it");
        let place = drawing.events.len() as u64 + 1;
        let event = Event {
            id: id(name),
            creator: MemberIndex(u16::from(number(name)) - 1),
            self_parent: self_parent(&drawing, name),
            other_parents: parents
                .split(',')
                .filter(|parent| !parent.is_empty())
                .map(|parent| known(&drawing, parent).unwrap_or_else(|| panic!("{token}: no {parent} yet")))
                .collect(),
            time_us: if time.is_empty() { place } else { time.parse().expect("a time") },
            signature: signature(name),
        };
        assert!(drawing.names.insert(event.id, name.to_owned()).is_none(), "{name} is there twice");
        drawing.events.push(event);
    }
    drawing
}

fn id(name: &str) -> EventId {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    EventId(bytes)
}

fn number(name: &str) -> u8 {
    name.as_bytes()[0] - b'A' + 1
}

fn height(name: &str) -> u8 {
    name[1..].trim_end_matches('\'').parse().expect("a letter, a height")
}

fn primes(name: &str) -> usize {
    name.matches('\'').count()
}

fn signature(name: &str) -> Signature {
    let mut bytes = [0; 64];
    bytes[0] = number(name);
    bytes[1] = height(name) * 16 + u8::try_from(primes(name)).expect("few branches");
    Signature::from_bytes(bytes)
}

fn known(drawing: &Drawing, name: &str) -> Option<EventId> {
    drawing.names.contains_key(&id(name)).then(|| id(name))
}

fn self_parent(drawing: &Drawing, name: &str) -> Option<EventId> {
    let below = height(name) - 1;
    let branch = |primes| format!("{}{below}{}", &name[..1], "'".repeat(primes));
    let parent = (0..=primes(name)).rev().find_map(|primes| known(drawing, &branch(primes)));
    assert_eq!(parent.is_some(), below > 0, "{name} has nothing below it");
    parent
}
