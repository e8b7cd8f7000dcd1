//! Identifiers: fixed-width newtypes, shown as text at the edge and as bytes inside.
//!
//! A [`CellId`] is an ed25519 public key, shown as a `did:key` (`did`). Every other 32-byte id is shown as 64 hex digits.

mod did;

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::{Problem, ProblemKind};

/// A cell's ed25519 public key (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct CellId(#[cbor(with = "minicbor::bytes")] [u8; 32]);

impl CellId {
    /// Wraps the 32 bytes of an ed25519 public key; whether it is a usable key is checked where
    /// a signature is (see [`crate::signing::verify`]).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The last eight characters of the did: enough for a person to tell the cells of a table apart.
    pub fn short(&self) -> String {
        let did = self.to_string();
        did[did.len() - 8..].to_owned()
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&did::write(self))
    }
}

impl fmt::Debug for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CellId(…{})", self.short())
    }
}

impl FromStr for CellId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        did::read(text).ok_or_else(|| {
            Problem::new(ProblemKind::Invalid, "id.bad_cell", format!("{text:?} is not a cell id"))
                .hint("a cell id looks like did:key:z6Mk… ; `cell identity show` prints this cell's own")
        })
    }
}

impl Serialize for CellId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CellId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|problem: Problem| serde::de::Error::custom(problem.cause))
    }
}

impl JsonSchema for CellId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CellId".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^did:key:z6Mk[1-9A-HJ-NP-Za-km-z]+$",
            "description": "a cell's ed25519 public key as a did:key"
        })
    }
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] [u8; 32]);

        impl $name {
            /// All zero bytes: "none yet".
            pub const ZERO: Self = Self([0; 32]);

            /// Wraps 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), hex::encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = Problem;
            fn from_str(text: &str) -> Result<Self, Problem> {
                let mut bytes = [0u8; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| {
                    let shown: String = text.chars().take(80).collect();
                    Problem::new(
                        ProblemKind::Invalid,
                        "id.bad_hash",
                        format!("{shown:?} is not a {}", stringify!($name)),
                    )
                    .hint("expected 64 hex digits")
                })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|problem: Problem| serde::de::Error::custom(problem.cause))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" })
            }
        }
    };
}

hash_id!(
    /// A BLAKE3 hash of content (32 bytes).
    Hash
);
hash_id!(
    /// The hash of the bytes that a message's signature covers.
    MessageId
);
hash_id!(
    /// The hash of the bytes that a transaction's signature covers.
    TxId
);
hash_id!(
    /// The hash of a block's header.
    BlockHash
);
hash_id!(
    /// The hash of a network's genesis: every event, transaction, block and attestation signs it.
    GenesisHash
);
hash_id!(
    /// The Merkle root of the replicated state after a block.
    StateRoot
);
hash_id!(
    /// An ed25519 public key that a member has beside its cell's own ([`crate::genesis::Member::key`]).
    MemberKey
);

hash_id!(
    /// The ed25519 public key of a host: one process of a cell, among several.
    HostId
);

impl Hash {
    /// The BLAKE3 hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// A block's place in the order; the first block has index 0.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct BlockIndex(#[n(0)] pub u64);

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_id_reads_back_as_it_is_shown() {
        let id = CellId::from_bytes([7; 32]);
        let shown = id.to_string();
        assert!(shown.starts_with("did:key:z6Mk"), "{shown}");
        assert_eq!(shown.parse::<CellId>().expect("own output"), id);
    }

    #[test]
    fn wrong_cell_ids_are_refused_with_a_code() {
        for text in ["", "bob", "did:key:z", "did:key:z6Mk0OIl", "did:web:x", &"did:key:z6Mk".repeat(900)] {
            let problem = text.parse::<CellId>().expect_err(text);
            assert_eq!(problem.code, "id.bad_cell");
        }
    }
}
