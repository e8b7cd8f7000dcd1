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
