//! Events of the hashgraph as they are signed, sent and journaled, and the proof that a member has forked.
//!
//! Signed text: `"celluler/event/1\0" || genesis || u64 epoch || creator || u8 has a self-parent ||
//! self-parent (or zeros) || u64 count of other-parents || those || u64 time_us || hash(payload)`. An event's id is the
//! hash of that text, so it stands for all of its ancestors.
//!
//! An event in bytes is its [`SignedEvent`], which proves who made it and on what, and its payload. A fork is proven by two
//! signed events, and by the key that their creator had in their epoch: that of the epoch's members
//! ([`signer_of`](crate::members::MemberSet::signer_of)), or what the module `members` remembers of it.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::beacon::{Dealing, Opening};
use crate::block::Attestation;
use crate::id::{CellId, GenesisHash, Hash};
use crate::signing::{Signature, Signed, SignedText};
use crate::transaction::Transaction;
use crate::{Problem, ProblemKind, codec};

/// The most bytes that an event carries.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// What an event takes beside its payload and parents, in bytes, at most.
pub const EVENT_OVERHEAD_BYTES: usize = 256;

/// An event as its creator signed it, without what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct SignedEvent {
    /// The epoch of the hashgraph it belongs to.
    #[n(0)]
    pub epoch: u64,
    /// Who made it.
    #[n(1)]
    pub creator: CellId,
    /// Its creator's event before it in this epoch.
    #[n(2)]
    pub self_parent: Option<Hash>,
    /// Events of others that it was made on.
    #[n(3)]
    pub other_parents: Vec<Hash>,
    /// Its creator's clock, in microseconds since 1970 (UTC).
    #[n(4)]
    pub time_us: u64,
    /// BLAKE3 over what it carries.
    #[n(5)]
    pub payload: Hash,
    /// Over [`SignedEvent::signed_text`].
    #[n(6)]
    pub signature: Signature,
}

impl SignedEvent {
    /// The bytes that the signature covers.
    pub fn signed_text(&self, genesis: &GenesisHash) -> Vec<u8> {
        let text = SignedText::new("celluler/event/1")
            .bytes32(genesis.as_bytes())
            .u64(self.epoch)
            .bytes32(self.creator.as_bytes())
            .u8(u8::from(self.self_parent.is_some()))
            .bytes32(self.self_parent.unwrap_or(Hash::ZERO).as_bytes())
            .u64(self.other_parents.len() as u64);
        let text = self.other_parents.iter().fold(text, |text, parent| text.bytes32(parent.as_bytes()));
        text.u64(self.time_us).bytes32(self.payload.as_bytes()).finish()
    }

    /// The hash of the signed text.
    pub fn id(&self, genesis: &GenesisHash) -> Hash {
        Hash::of(&self.signed_text(genesis))
    }

    /// Id, and what is to be checked about the signature; `signer` is the creator's in its epoch.
    pub fn to_check(&self, genesis: &GenesisHash, signer: CellId) -> (Hash, Signed) {
        let bytes = self.signed_text(genesis);
        let id = Hash::of(&bytes);
        (id, Signed { signer, bytes, signature: self.signature })
    }

    /// Whether the signature is the creator's, on this network; `signer` is the creator's in its epoch.
    pub fn signature_holds(&self, genesis: &GenesisHash, signer: &CellId) -> bool {
        crate::signing::verify(signer, &self.signed_text(genesis), &self.signature)
    }

    /// Signs an event: everything else is filled in already.
    pub fn sign(mut self, key: &ed25519_dalek::SigningKey, genesis: &GenesisHash) -> Self {
        self.signature = crate::signing::sign(key, &self.signed_text(genesis));
        self
    }
}

/// An event with what it carries: what is sent and journaled.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EventBytes {
    /// The event.
    #[n(0)]
    pub event: SignedEvent,
    /// What it carries; its hash stands in the event.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub payload: Vec<u8>,
}

impl EventBytes {
    /// Reads an event; what it carries has to be what its creator has signed.
    ///
    /// # Errors
    ///
    /// `codec.malformed`, `event.too_large`, `event.bad_payload`.
    pub fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let this: Self = codec::decode(bytes)?;
        if this.payload.len() > PAYLOAD_BYTES_MAX {
            let cause =
                format!("an event carries {} bytes, {PAYLOAD_BYTES_MAX} are allowed", this.payload.len());
            return Err(Problem::new(ProblemKind::TooLarge, "event.too_large", cause));
        }
        if Hash::of(&this.payload) != this.event.payload {
            let cause = "what an event carries is not what its creator has signed";
            return Err(Problem::new(ProblemKind::Invalid, "event.bad_payload", cause));
        }
        Ok(this)
    }
}

/// What a member's event carries, in CBOR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Payload {
    /// To be ordered.
    #[n(0)]
    pub transactions: Vec<Transaction>,
    /// Its creator's word on blocks. They count as soon as they come, wherever their event stands in the order.
    #[n(1)]
    pub attestations: Vec<Attestation>,
    /// Its creator's dealings for the beacon; not there rather than empty.
    #[n(2)]
    pub dealings: Option<Vec<Dealing>>,
    /// Its creator's openings of draws; not there rather than empty.
    #[n(3)]
    pub openings: Option<Vec<Opening>>,
}

/// Proof that a member has forked: two events of one epoch on the same self-parent, both signed by it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
pub struct ForkProof {
    /// One.
    #[n(0)]
    pub one: SignedEvent,
    /// The other.
    #[n(1)]
    pub other: SignedEvent,
}

impl ForkProof {
    /// Checks the proof with the network's genesis hash and the public key that the accused had in the epoch of its events, and gives the
    /// member that forked. Another key proves nothing: whoever has stolen one that was given up forks for nobody in later epochs.
    ///
    /// # Errors
    ///
    /// `fork.not_proven` with the reason.
    pub fn check(&self, genesis: &GenesisHash, signer: &CellId) -> Result<CellId, Problem> {
        let Self { one, other } = self;
        let fail = |why: &str| {
            Err(Problem::new(ProblemKind::Invalid, "fork.not_proven", why)
                .hint("ask for the evidence again: cell call consensus.evidence '{}'"))
        };
        if one.creator != other.creator || one.epoch != other.epoch || one.self_parent != other.self_parent {
            return fail("the two events are not of one member on one self-parent");
        }
        if one.id(genesis) == other.id(genesis) {
            return fail("the two events are one");
        }
        if !one.signature_holds(genesis, signer) || !other.signature_holds(genesis, signer) {
            return fail("a signature does not hold");
        }
        Ok(one.creator)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn event(seed: u8, time_us: u64) -> SignedEvent {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let event = SignedEvent {
            epoch: 1,
            creator: crate::signing::cell_id(&key),
            self_parent: Some(Hash::of(b"before")),
            other_parents: vec![Hash::of(b"other")],
            time_us,
            payload: Hash::of(b""),
            signature: Signature::from_bytes([0; 64]),
        };
        event.sign(&key, &GenesisHash::ZERO)
    }

    #[test]
    fn two_signed_events_on_one_parent_prove_a_fork_and_nothing_less_does() {
        let genesis = GenesisHash::ZERO;
        let check = |one: SignedEvent, other: SignedEvent| {
            let signer = one.creator;
            ForkProof { one, other }.check(&genesis, &signer)
        };
        assert_eq!(check(event(1, 5), event(1, 6)), Ok(event(1, 5).creator));
        let refused = |one: SignedEvent, other: SignedEvent| {
            assert_eq!(check(one, other).expect_err("no fork").code, "fork.not_proven");
        };
        refused(event(1, 5), event(1, 5));
        refused(event(1, 5), event(2, 6));
        refused(event(1, 5), SignedEvent { time_us: 7, ..event(1, 6) });
        refused(event(1, 5), SignedEvent { self_parent: None, ..event(1, 6) });
        refused(event(1, 5), SignedEvent { epoch: 2, ..event(1, 6) });
        let elsewhere = GenesisHash::from_bytes([1; 32]);
        let proof = ForkProof { one: event(1, 5), other: event(1, 6) };
        assert!(proof.check(&elsewhere, &proof.one.creator).is_err());
        assert!(proof.check(&genesis, &event(2, 5).creator).is_err(), "by another key");
    }

    #[test]
    fn an_event_carries_what_was_signed() {
        let good = EventBytes { event: event(1, 5), payload: Vec::new() };
        assert_eq!(EventBytes::read(&codec::encode(&good)), Ok(good.clone()));
        let swapped = EventBytes { payload: b"other".to_vec(), ..good.clone() };
        assert_eq!(
            EventBytes::read(&codec::encode(&swapped)).expect_err("swapped").code,
            "event.bad_payload"
        );
        let large = EventBytes { payload: vec![0; PAYLOAD_BYTES_MAX + 1], ..good };
        assert_eq!(EventBytes::read(&codec::encode(&large)).expect_err("large").code, "event.too_large");
        assert_eq!(EventBytes::read(&[0xff]).expect_err("noise").code, "codec.malformed");
    }
}
