//! The one binary codec: deterministic CBOR (RFC 8949) with integer keys, by `minicbor`.
//!
//! Rules: fields are numbered with `#[n(…)]` and never renumbered; a new field is an `Option` with a
//! new number, so that older bytes still decode; unknown fields are skipped. Golden bytes are under
//! test in `protocol/tests/golden.rs`.

use minicbor::{Decode, Encode};

use crate::problem::{Problem, ProblemKind};

/// Encodes a value. Encoding into memory cannot fail.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing CBOR into a Vec cannot fail")
}

/// Decodes a value; refuses trailing bytes.
///
/// # Errors
///
/// `codec.malformed` with the place in words. Never panics, and allocates no more than a small
/// multiple of `bytes.len()`.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, Problem> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| malformed(&error.to_string()))?;
    if decoder.position() != bytes.len() {
        return Err(malformed("bytes follow the value"));
    }
    Ok(value)
}

fn malformed(cause: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, "codec.malformed", format!("not a value of this type: {cause}"))
}

/// What is shared is written as it is (`#[cbor(with = …)]`).
pub mod shared {
    use std::sync::Arc;

    use minicbor::encode::Write;
    use minicbor::{Decode, Decoder, Encode, Encoder};

    /// Writes it.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn encode<C, T: Encode<C>, W: Write>(
        value: &Arc<T>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        T::encode(value, encoder, context)
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// When the bytes are no such value.
    pub fn decode<'b, C, T: Decode<'b, C>>(
        decoder: &mut Decoder<'b>,
        context: &mut C,
    ) -> Result<Arc<T>, minicbor::decode::Error> {
        T::decode(decoder, context).map(Arc::new)
    }
}

/// Byte strings in a word of the edge: hex digits in JSON, as they are in CBOR (`#[serde(with = …)]`).
pub mod byte_lists {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::ser::SerializeSeq;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes them.
    ///
    /// # Errors
    ///
    /// The serializer's.
    pub fn serialize<S: Serializer>(lists: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        let readable = serializer.is_human_readable();
        let mut sequence = serializer.serialize_seq(Some(lists.len()))?;
        for bytes in lists {
            match readable {
                true => sequence.serialize_element(&hex::encode(bytes))?,
                false => sequence.serialize_element(&Bytes(bytes.clone()))?,
            }
        }
        sequence.end()
    }

    /// Reads them, in either form.
    ///
    /// # Errors
    ///
    /// For what is no list of byte strings.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let lists = Vec::<Bytes>::deserialize(deserializer)?;
        Ok(lists.into_iter().map(|Bytes(bytes)| bytes).collect())
    }

    struct Bytes(Vec<u8>);

    impl serde::Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Either;
            impl Visitor<'_> for Either {
                type Value = Bytes;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("bytes, or their hex digits")
                }
                fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                    Ok(Bytes(bytes.to_vec()))
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                    hex::decode(text).map(Bytes).map_err(E::custom)
                }
            }
            if deserializer.is_human_readable() {
                deserializer.deserialize_str(Either)
            } else {
                deserializer.deserialize_bytes(Either)
            }
        }
    }
}
