//! What stands in the place of hashes and signatures. Both are fast and not secure: nobody here looks for collisions, and
//! only the driver of its creator makes an event's signature, so that who sends another one has forged it.

use std::sync::Arc;

use consensus::gossip::{Draft, Said};
use consensus::hashgraph::{Event, EventId, MemberIndex};
use protocol::signing::Signature;

use crate::random::mix;

/// What was said, by number.
pub(crate) type Word = u64;

/// A hash of 256 bits, of numbers that come one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    /// Of nothing, for a purpose.
    pub fn new(purpose: u64) -> Self {
        Self([purpose, !purpose, purpose.rotate_left(16), purpose.rotate_right(16)])
    }

    /// Takes in a number.
    pub fn add(&mut self, number: u64) {
        let [a, b, c, d] = self.0;
        let mixed = mix(a.wrapping_add(number) ^ d.rotate_left(23));
        self.0 = [b ^ mixed, c.wrapping_add(mixed.rotate_left(31)), d ^ mixed.rotate_left(47), mixed];
    }

    /// Takes in bytes.
    pub fn add_all(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        self.add(rest.iter().fold(bytes.len() as u64, |number, byte| number << 8 | u64::from(*byte)));
    }

    /// The hash.
    pub fn bytes(mut self) -> [u8; 32] {
        (0..4).for_each(|number| self.add(number));
        let mut bytes = [0; 32];
        bytes.as_chunks_mut().0.iter_mut().zip(self.0).for_each(|(into, word)| *into = word.to_le_bytes());
        bytes
    }
}

/// The words in a payload.
pub(crate) fn words_of(payload: &[u8]) -> impl Iterator<Item = Word> {
    payload.as_chunks().0.iter().map(|bytes| Word::from_le_bytes(*bytes))
}

fn signature_of(creator: MemberIndex, id: &EventId) -> Signature {
    let mut digest = Digest::new(0x6b65_7900 + u64::from(creator.0));
    digest.add_all(&id.0);
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&digest.bytes());
    Signature::from_bytes(bytes)
}

fn id_of(event: &Event, payload: &[u8]) -> EventId {
    let mut digest = Digest::new(0x6964);
    digest.add(u64::from(event.creator.0) << 1 | u64::from(event.self_parent.is_some()));
    digest.add(event.time_us);
    // Half of an id is enough to tell it from all others.
    event.parents().for_each(|parent| digest.add_all(&parent.0[..16]));
    digest.add_all(payload);
    EventId(digest.bytes())
}

/// An event with this payload, its id and signature made anew.
pub(crate) fn signed(mut event: Event, payload: Vec<u8>) -> Arc<Said> {
    event.id = id_of(&event, &payload);
    event.signature = signature_of(event.creator, &event.id);
    Arc::new(Said { event, orders: !payload.is_empty(), changes: false, payload })
}

/// Whether an event is what its creator has signed.
pub(crate) fn is_signed(said: &Said) -> bool {
    said.event.id == id_of(&said.event, &said.payload)
        && said.event.signature == signature_of(said.event.creator, &said.event.id)
}

/// The event of a draft.
pub(crate) fn make(who: usize, draft: Draft, payload: Vec<u8>) -> Arc<Said> {
    let Draft { self_parent, other_parents, time_us } = draft;
    let event = Event {
        id: EventId([0; 32]),
        creator: MemberIndex(who as u16),
        self_parent,
        other_parents,
        time_us,
        signature: Signature::from_bytes([0; 64]),
    };
    signed(event, payload)
}
