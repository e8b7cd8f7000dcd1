//! What a replica asks and a source answers. Pure: bytes in, bytes out.
//!
//! A replica first asks how the log has *grown*, and gets a signed proof; then for *entries* below a node
//! that it has checked, and gets them with the nodes that lead from them up to it ([`Slice`]). So entries
//! may come from any source, a shorter one too, in any order, and need no signature of their own.
//!
//! Encoding: CBOR, with numbered fields. Bounds: an answer has at most [`SLICE_ENTRIES_MAX`] entries and
//! [`SLICE_BYTES_MAX`] bytes of them, or one entry.

use minicbor::{Decode, Encode};

use super::slice::Slice;
use crate::error::{Error, Result};
use crate::proof::Proof;
use crate::reader::Reader;
use crate::tree;

/// The most entries of an answer.
pub const SLICE_ENTRIES_MAX: u64 = 1024;
/// The most bytes of an answer's entries, unless one entry has more.
pub const SLICE_BYTES_MAX: u64 = 1024 * 1024;

/// What a replica asks of a source.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// How the log has grown.
    #[n(0)]
    Grow {
        /// The fork it is of.
        #[n(0)]
        fork: u64,
        /// Out of which length.
        #[n(1)]
        since: u64,
    },
    /// Entries from `first` up to `end` (excluded), as many from the first on as one answer takes.
    #[n(1)]
    Entries {
        /// The fork they are of.
        #[n(0)]
        fork: u64,
        /// The node that they are to be proven to lie below.
        #[n(1)]
        under: u64,
        /// The first.
        #[n(2)]
        first: u64,
        /// One past the last.
        #[n(3)]
        end: u64,
    },
}

/// What a source answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// How the log has grown. At a newer fork than was asked about, `since` is absent.
    #[n(0)]
    Grown(#[n(0)] Proof),
    /// The log has not grown.
    #[n(1)]
    Same,
    /// The source has a shorter log, or an older fork; nobody need believe it.
    #[n(2)]
    Behind {
        /// Its fork.
        #[n(0)]
        fork: u64,
        /// Its length.
        #[n(1)]
        length: u64,
    },
    /// Entries.
    #[n(3)]
    Entries(#[n(0)] Slice),
    /// The source keeps none of the entries up to `end` (excluded).
    #[n(4)]
    Absent {
        /// One past the last of those that it lacks.
        #[n(0)]
        end: u64,
    },
}

/// Answers from a log.
///
/// # Errors
///
/// [`Error::BadRequest`] for a question that makes no sense; those of reading.
pub fn answer(reader: &Reader, request: &Request) -> Result<Answer> {
    let (fork, length) = reader.head();
    let behind = Answer::Behind { fork, length };
    match *request {
        Request::Grow { fork: asked, since } if asked == fork => match since.cmp(&length) {
            std::cmp::Ordering::Equal => Ok(Answer::Same),
            std::cmp::Ordering::Greater => Ok(behind),
            std::cmp::Ordering::Less => reader.prove_range(0, 0, Some(since)).map(Answer::Grown),
        },
        Request::Grow { fork: asked, .. } if asked < fork && length > 0 => {
            reader.prove_range(0, 0, None).map(Answer::Grown)
        }
        Request::Entries { fork: asked, under, first, end } if asked == fork => {
            let (from, to) = tree::span(under);
            if !(from <= first && first < end && end <= to && tree::level(under) < 40) {
                return Err(Error::BadRequest("the entries do not lie below the node"));
            }
            if to > length {
                return Ok(behind);
            }
            let end = end.min(first + SLICE_ENTRIES_MAX);
            match Slice::of(reader, under, first, end) {
                Err(Error::Absent { .. }) => Ok(Answer::Absent { end: first_kept(reader, first + 1, end)? }),
                slice => slice.map(Answer::Entries),
            }
        }
        Request::Grow { .. } | Request::Entries { .. } => Ok(behind),
    }
}

/// The first entry from `first` on that is kept, or `end`.
fn first_kept(reader: &Reader, first: u64, end: u64) -> Result<u64> {
    for index in first..end {
        if !reader.is_absent(index)? {
            return Ok(index);
        }
    }
    Ok(end)
}

/// Encodes a question or an answer.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).unwrap_or_else(|never: minicbor::encode::Error<std::convert::Infallible>| {
        unreachable!("memory takes everything: {never}")
    })
}

/// Decodes a question or an answer; nothing may follow it.
///
/// # Errors
///
/// [`Error::BadRequest`].
pub fn decode<'a, T: Decode<'a, ()>>(bytes: &'a [u8]) -> Result<T> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode().map_err(|_| Error::BadRequest("it is not CBOR of this shape"))?;
    if decoder.position() < bytes.len() {
        return Err(Error::BadRequest("something follows it"));
    }
    Ok(message)
}
