//! What stands in the place of hashes and signatures of events. Both are fast and not secure: nobody here looks for collisions, and
//! only the driver of its creator makes an event's signature, so that who sends another one has forged it. Where a machine checks
//! the signature, in the proof of a fork, the real one is put in the place of one that holds.

use std::sync::Arc;

use consensus::gossip::{Draft, Said};
use consensus::hashgraph::{Event, EventId, MemberIndex};
use protocol::Hash;
use protocol::genesis::Genesis;
use protocol::gossip::SignedEvent;
use protocol::signing::Signature;

use crate::cells::{self, Epoch};
use crate::random::mix;
use crate::words::Words;

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

/// By whom an event says to be: a cell, or a place that no member has.
fn signer(creator: MemberIndex, epoch: &Epoch) -> u64 {
    epoch.cell(creator).map_or(u64::from(creator.0) << 16, |cell| cell as u64)
}

fn signature_of(signer: u64, id: &EventId) -> Signature {
    let mut digest = Digest::new(0x6b65_7900_0000 + signer);
    digest.add_all(&id.0);
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&digest.bytes());
    Signature::from_bytes(bytes)
}

fn id_of(epoch: &Epoch, event: &Event, payload: &[u8]) -> EventId {
    let mut digest = Digest::new(0x6964 + (epoch.number << 16));
    digest.add(signer(event.creator, epoch) << 1 | u64::from(event.self_parent.is_some()));
    digest.add(event.time_us);
    // Half of an id is enough to tell it from all others.
    event.parents().for_each(|parent| digest.add_all(&parent.0[..16]));
    digest.add_all(payload);
    EventId(digest.bytes())
}

/// An event of an epoch with this payload, its id and signature made anew.
pub(crate) fn signed(epoch: &Epoch, mut event: Event, payload: Vec<u8>, words: &Words) -> Arc<Said> {
    event.id = id_of(epoch, &event, &payload);
    event.signature = signature_of(signer(event.creator, epoch), &event.id);
    let (orders, changes) = words.contents(&payload, epoch);
    Arc::new(Said { event, orders, changes, payload })
}

/// Whether an event is what its creator has signed in an epoch.
pub(crate) fn is_signed(epoch: &Epoch, said: &Said) -> bool {
    said.event.id == id_of(epoch, &said.event, &said.payload)
        && said.event.signature == signature_of(signer(said.event.creator, epoch), &said.event.id)
}

/// The event of a draft.
pub(crate) fn make(
    epoch: &Epoch,
    creator: MemberIndex,
    draft: Draft,
    payload: Vec<u8>,
    words: &Words,
) -> Arc<Said> {
    let Draft { self_parent, other_parents, time_us } = draft;
    let event = Event {
        id: EventId([0; 32]),
        creator,
        self_parent,
        other_parents,
        time_us,
        signature: Signature::from_bytes([0; 64]),
    };
    signed(epoch, event, payload, words)
}

/// An event as it is signed between cells; nothing of one whose signature here does not hold.
pub(crate) fn as_proof(genesis: &Genesis, epoch: &Epoch, said: &Said) -> Option<SignedEvent> {
    let cell = epoch.cell(said.event.creator).filter(|_| is_signed(epoch, said))?;
    let as_hash = |id: &EventId| Hash::from_bytes(id.0);
    let event = SignedEvent {
        epoch: epoch.number,
        creator: cells::id(cell),
        self_parent: said.event.self_parent.as_ref().map(as_hash),
        other_parents: said.event.other_parents.iter().map(as_hash).collect(),
        time_us: said.event.time_us,
        payload: Hash::of(&said.payload),
        signature: said.event.signature,
    };
    Some(event.sign(cells::key(cell), &genesis.hash()))
}
