//! Effects: what a durable record asks the world to do.

use minicbor::{Decode, Encode};
use protocol::Service;

/// Names one effect for ever: which journal, which of its logs, which entry, which effect of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct EffectId {
    /// The service whose record caused it.
    #[n(0)]
    pub service: Service,
    /// The generation of that service's journal.
    #[n(1)]
    pub generation: u32,
    /// The journal entry.
    #[n(2)]
    pub index: u64,
    /// Its place among the entry's effects.
    #[n(3)]
    pub ordinal: u32,
}

/// An effect that is still to be run, with the place it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed<E> {
    /// The journal entry that caused it.
    pub index: u64,
    /// Its place among the entry's effects.
    pub ordinal: u32,
    /// The effect.
    pub effect: E,
}
