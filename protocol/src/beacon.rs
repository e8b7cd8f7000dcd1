//! The beacon's words: dealings of secrets and openings of shares, as they are signed, sent and journaled. What they mean is
//! checked by `consensus::beacon`; here is their form.
//!
//! Signed texts: `"celluler/dealing/1\0" || genesis || u64 epoch || u64 draw || dealer || hash(shares) || challenge ||
//! hash(responses)`, and `"celluler/opening/1\0" || genesis || u64 epoch || u64 draw || member || dealings || hash(shares) ||
//! challenge || response`. Both are signed by themselves, so that a bad one is evidence without the event that carried it.

use ed25519_dalek::SigningKey;
use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode, Encoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CellId, GenesisHash, Hash};
use crate::signing::{self, Signature, SignedText};

/// A value that the beacon has drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// Which draw of its epoch, from 1.
    #[n(0)]
    pub draw: u64,
    /// The value.
    #[n(1)]
    pub value: Hash,
    /// The round that fixed it, where the network elects (`Genesis::elected`): nobody knew the value before that round was over.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<u64>,
}

/// The most shares that there are in a draw, and so the most [`Elements`] in one list.
pub const SHARES_MAX: usize = 256;

/// Encoded points or numbers of 32 bytes each, at most [`SHARES_MAX`]; in CBOR one string of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements(Vec<[u8; 32]>);

impl Elements {
    /// Those of a list, unless there are too many.
    pub fn new(elements: Vec<[u8; 32]>) -> Option<Self> {
        (elements.len() <= SHARES_MAX).then_some(Self(elements))
    }

    /// In their order.
    pub fn as_slice(&self) -> &[[u8; 32]] {
        &self.0
    }
}

impl<C> Encode<C> for Elements {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(self.0.as_flattened())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Elements {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        let (elements, rest) = decoder.bytes()?.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Error::message("elements have 32 bytes each"));
        }
        if elements.len() > SHARES_MAX {
            return Err(Error::message("too many elements"));
        }
        Ok(Self(elements.to_vec()))
    }
}

/// A secret, dealt to all members of an epoch: each share is encrypted to the member that holds it, with a proof that
/// they are shares of one secret.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Dealing {
    /// The epoch whose members hold the shares.
    #[n(0)]
    pub epoch: u64,
    /// Which draw of the epoch it is for, from 1.
    #[n(1)]
    pub draw: u64,
    /// Who dealt.
    #[n(2)]
    pub dealer: CellId,
    /// The encrypted shares, in the order of their numbers.
    #[n(3)]
    pub shares: Elements,
    /// Of the proof.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub challenge: [u8; 32],
    /// Of the proof: the coefficients of a polynomial, the constant one first.
    #[n(5)]
    pub responses: Elements,
    /// Over [`Dealing::signed_text`].
    #[n(6)]
    pub signature: Signature,
}

impl Dealing {
    /// The bytes that the signature covers.
    pub fn signed_text(&self, genesis: &GenesisHash) -> Vec<u8> {
        SignedText::new("celluler/dealing/1")
            .bytes32(genesis.as_bytes())
            .u64(self.epoch)
            .u64(self.draw)
            .bytes32(self.dealer.as_bytes())
            .hash_of(self.shares.0.as_flattened())
            .bytes32(&self.challenge)
            .hash_of(self.responses.0.as_flattened())
            .finish()
    }

    /// The hash of the signed text.
    pub fn id(&self, genesis: &GenesisHash) -> Hash {
        Hash::of(&self.signed_text(genesis))
    }

    /// Signs a dealing: everything else is filled in already.
    #[must_use]
    pub fn sign(mut self, key: &SigningKey, genesis: &GenesisHash) -> Self {
        self.signature = signing::sign(key, &self.signed_text(genesis));
        self
    }

    /// Whether the signature is the dealer's, on this network; `signer` is the dealer's in the epoch.
    pub fn signature_holds(&self, genesis: &GenesisHash, signer: &CellId) -> bool {
        signing::verify(signer, &self.signed_text(genesis), &self.signature)
    }
}

/// A member's shares of a draw, decrypted, with a proof that they are what was dealt to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Opening {
    /// The epoch.
    #[n(0)]
    pub epoch: u64,
    /// Which draw of the epoch.
    #[n(1)]
    pub draw: u64,
    /// Whose shares.
    #[n(2)]
    pub member: CellId,
    /// Which dealings the order has fixed for the draw: the hash of their ids.
    #[n(3)]
    pub dealings: Hash,
    /// The shares, in the order of their numbers.
    #[n(4)]
    pub shares: Elements,
    /// Of the proof.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub challenge: [u8; 32],
    /// Of the proof.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub response: [u8; 32],
    /// Over [`Opening::signed_text`].
    #[n(7)]
    pub signature: Signature,
}

impl Opening {
    /// The bytes that the signature covers.
    pub fn signed_text(&self, genesis: &GenesisHash) -> Vec<u8> {
        SignedText::new("celluler/opening/1")
            .bytes32(genesis.as_bytes())
            .u64(self.epoch)
            .u64(self.draw)
            .bytes32(self.member.as_bytes())
            .bytes32(self.dealings.as_bytes())
            .hash_of(self.shares.0.as_flattened())
            .bytes32(&self.challenge)
            .bytes32(&self.response)
            .finish()
    }

    /// Signs an opening: everything else is filled in already.
    #[must_use]
    pub fn sign(mut self, key: &SigningKey, genesis: &GenesisHash) -> Self {
        self.signature = signing::sign(key, &self.signed_text(genesis));
        self
    }

    /// Whether the signature is the member's, on this network; `signer` is the member's in the epoch.
    pub fn signature_holds(&self, genesis: &GenesisHash, signer: &CellId) -> bool {
        signing::verify(signer, &self.signed_text(genesis), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn dealing() -> Dealing {
        let elements = |bytes: &[u8]| Elements::new(bytes.iter().map(|byte| [*byte; 32]).collect());
        Dealing {
            epoch: 2,
            draw: 3,
            dealer: signing::cell_id(&key()),
            shares: elements(&[1, 2, 3]).expect("few"),
            challenge: [4; 32],
            responses: elements(&[5, 6]).expect("few"),
            signature: Signature::from_bytes([0; 64]),
        }
        .sign(&key(), &GenesisHash::ZERO)
    }

    fn opening() -> Opening {
        Opening {
            epoch: 2,
            draw: 3,
            member: signing::cell_id(&key()),
            dealings: Hash::of(b"dealings"),
            shares: Elements::new(vec![[1; 32]]).expect("few"),
            challenge: [4; 32],
            response: [5; 32],
            signature: Signature::from_bytes([0; 64]),
        }
        .sign(&key(), &GenesisHash::ZERO)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = codec::encode(&dealing());
        assert_eq!(codec::decode::<Dealing>(&bytes), Ok(dealing()));
        assert_eq!(codec::decode::<Opening>(&codec::encode(&opening())), Ok(opening()));
        for cut in 0..bytes.len() {
            assert!(codec::decode::<Dealing>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn elements_are_whole_and_bounded() {
        let read = |bytes: usize| {
            codec::decode::<Elements>(&codec::encode(&minicbor::bytes::ByteVec::from(vec![9; bytes])))
        };
        assert_eq!(read(64), Ok(Elements(vec![[9; 32]; 2])));
        assert_eq!(read(0), Ok(Elements::default()));
        assert_eq!(read(63).expect_err("torn").code, "codec.malformed");
        assert_eq!(read(32 * SHARES_MAX).map(|elements| elements.0.len()), Ok(SHARES_MAX));
        assert_eq!(read(32 * SHARES_MAX + 32).expect_err("too many").code, "codec.malformed");
        assert_eq!(Elements::new(vec![[0; 32]; SHARES_MAX + 1]), None);
    }

    #[test]
    fn every_field_is_signed() {
        let genesis = GenesisHash::ZERO;
        let signer = signing::cell_id(&key());
        assert!(dealing().signature_holds(&genesis, &signer) && opening().signature_holds(&genesis, &signer));
        let elements = Elements::new(vec![[8; 32]]).expect("few");
        let other = signing::cell_id(&SigningKey::from_bytes(&[8; 32]));
        for changed in [
            Dealing { epoch: 9, ..dealing() },
            Dealing { draw: 9, ..dealing() },
            Dealing { dealer: other, ..dealing() },
            Dealing { shares: elements.clone(), ..dealing() },
            Dealing { challenge: [9; 32], ..dealing() },
            Dealing { responses: elements.clone(), ..dealing() },
        ] {
            assert!(!changed.signature_holds(&genesis, &signer), "{changed:?}");
            assert_ne!(changed.id(&genesis), dealing().id(&genesis));
        }
        for changed in [
            Opening { epoch: 9, ..opening() },
            Opening { draw: 9, ..opening() },
            Opening { member: other, ..opening() },
            Opening { dealings: Hash::ZERO, ..opening() },
            Opening { shares: elements.clone(), ..opening() },
            Opening { challenge: [9; 32], ..opening() },
            Opening { response: [9; 32], ..opening() },
        ] {
            assert!(!changed.signature_holds(&genesis, &signer), "{changed:?}");
        }
        let elsewhere = GenesisHash::from_bytes([1; 32]);
        assert!(!dealing().signature_holds(&elsewhere, &signer));
        assert!(!opening().signature_holds(&elsewhere, &signer));
        assert!(!dealing().signature_holds(&genesis, &other) && !opening().signature_holds(&genesis, &other));
    }
}
