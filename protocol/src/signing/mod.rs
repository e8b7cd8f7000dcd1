//! What a signature covers, and how it is checked.
//!
//! Rule: bytes are signed, not objects. A signed text is `domain tag || fixed-layout fields`; anything
//! of variable length enters as its BLAKE3 hash. The domain tag makes a signature made for one
//! purpose worthless for another. `check` says when a signature holds.

mod check;

use std::collections::HashMap;

use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::CellId;

/// An ed25519 signature (64 bytes), shown as 128 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Signature(#[cbor(with = "minicbor::bytes")] [u8; 64]);

impl Signature {
    /// Wraps 64 bytes.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({}…)", hex::encode(&self.0[..4]))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0u8; 64];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| serde::de::Error::custom("a signature is 128 hex digits"))?;
        Ok(Self(bytes))
    }
}

impl JsonSchema for Signature {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Signature".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{128}$" })
    }
}

/// The cell id that belongs to a signing key.
pub fn cell_id(key: &SigningKey) -> CellId {
    CellId::from_bytes(key.verifying_key().to_bytes())
}

/// Signs `bytes`, which begin with a domain tag.
pub fn sign(key: &SigningKey, bytes: &[u8]) -> Signature {
    Signature(key.sign(bytes).to_bytes())
}

/// Whether `signature` over `bytes` was made by `signer`'s key. A key that is no curve point, or of
/// small order, has signed nothing.
pub fn verify(signer: &CellId, bytes: &[u8], signature: &Signature) -> bool {
    check::holds(signer, bytes, signature)
}

/// Whether a public key is one that signatures can hold by: a curve point, and not of small order.
pub fn is_key(signer: &CellId) -> bool {
    check::is_key(signer)
}

/// One signature to check: who is said to have signed what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signed {
    /// The signer's public key: a cell's, or a member's ([`crate::genesis::Member::signer`]).
    pub signer: CellId,
    /// What was signed, with its domain tag.
    pub bytes: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// [`verify`] for many at once, at about half the work, with the same verdicts.
///
/// What stands there more than once (messages that were signed together) is checked once.
pub fn verify_all(batch: &[Signed]) -> Vec<bool> {
    let mut places = HashMap::new();
    let mut distinct: Vec<&Signed> = Vec::new();
    let places: Vec<usize> = batch
        .iter()
        .map(|signed| {
            *places.entry(signed).or_insert_with(|| {
                distinct.push(signed);
                distinct.len() - 1
            })
        })
        .collect();
    let hold = check::all(&distinct);
    places.into_iter().map(|place| hold[place]).collect()
}

/// Builds a signed text: a domain tag, then fixed-layout fields.
pub(crate) struct SignedText(Vec<u8>);

impl SignedText {
    pub(crate) fn new(domain: &'static str) -> Self {
        let mut bytes = Vec::with_capacity(320);
        bytes.extend_from_slice(domain.as_bytes());
        bytes.push(0);
        Self(bytes)
    }

    pub(crate) fn bytes32(mut self, bytes: &[u8; 32]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    pub(crate) fn hash_of(self, bytes: &[u8]) -> Self {
        let hash = *blake3::hash(bytes).as_bytes();
        self.bytes32(&hash)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever of a batch are forged, those are found, and no others.
    #[test]
    fn a_batch_is_checked_as_its_parts_are() {
        let key = |seed: u8| SigningKey::from_bytes(&[seed; 32]);
        let signed = |number: u8, forged: bool| {
            let bytes = vec![number; 40];
            let mut signature = sign(&key(number % 3), &bytes);
            signature.0[usize::from(number)] ^= u8::from(forged);
            Signed { signer: cell_id(&key(number % 3)), bytes, signature }
        };
        for forged in [vec![], vec![0], vec![7], vec![3, 15], (0..20).collect::<Vec<u8>>()] {
            for length in [1, 3, 4, 20] {
                let batch: Vec<_> =
                    (0..length).map(|number| signed(number, forged.contains(&number))).collect();
                let expected: Vec<bool> = (0..length).map(|number| !forged.contains(&number)).collect();
                assert_eq!(verify_all(&batch), expected, "{forged:?} of {length}");
            }
        }
        let weak = Signed { signer: CellId::from_bytes([0; 32]), ..signed(1, false) };
        assert_eq!(verify_all(&vec![weak; 5]), vec![false; 5], "a key of small order has signed nothing");
        assert_eq!(verify_all(&[]), Vec::<bool>::new());
    }
}
