//! What the hashgraph knows of an event: who made it, on what, when; not what it carries.

use std::cmp::Ordering;
use std::fmt;

use protocol::signing::Signature;

/// An event's id: the hash of what its creator has signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId(pub [u8; 32]);

impl Ord for EventId {
    /// The order of the bytes. Looking events up is much of what one costs, and eight bytes nearly always decide.
    fn cmp(&self, other: &Self) -> Ordering {
        let first = |id: &Self| id.0.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        first(self).cmp(&first(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for EventId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl EventId {
    /// The coin that the event throws where votes decide nothing: the middle bit of its id.
    pub(super) fn coin(&self) -> bool {
        self.0[16] & 1 == 1
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A member's place in the list of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIndex(pub u16);

/// A round, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event, its signature checked already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The hash of what is signed.
    pub id: EventId,
    /// Who made it.
    pub creator: MemberIndex,
    /// Its creator's event before it; `None` for the first.
    pub self_parent: Option<EventId>,
    /// Events of others, each of another creator.
    pub other_parents: Vec<EventId>,
    /// Its creator's clock, in microseconds since 1970 (UTC); rises from its self-parent's.
    pub time_us: u64,
    /// The creator's signature over the id.
    pub signature: Signature,
}

impl Event {
    /// All events that it was made on, its creator's own first.
    pub fn parents(&self) -> impl Iterator<Item = &EventId> {
        self.self_parent.iter().chain(&self.other_parents)
    }

    /// The coin that it throws where votes decide nothing.
    pub fn coin(&self) -> bool {
        self.id.coin()
    }
}
