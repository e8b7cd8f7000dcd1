//! What cells ask of each other's data. CBOR.

use minicbor::{Decode, Encode};
use protocol::{Hash, Problem};

/// Bytes of one part: the most that a slice is asked for.
pub(super) const PART_BYTES: u64 = 512 * 1024;

/// A question: a slice of some data. One that begins behind the end proves how much there is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Ask {
    /// Which data.
    #[n(0)]
    pub(super) hash: Hash,
    /// From which byte on.
    #[n(1)]
    pub(super) from: u64,
    /// How many bytes, at most [`PART_BYTES`].
    #[n(2)]
    pub(super) length: u64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Reply {
    /// The bytes, with the hashes that lead from them to that of the whole: a slice in the encoding of Bao.
    #[n(0)]
    Slice {
        /// See there.
        #[cbor(n(0), with = "minicbor::bytes")]
        slice: Vec<u8>,
    },
    /// Nothing, and why.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        problem: Problem,
    },
}
