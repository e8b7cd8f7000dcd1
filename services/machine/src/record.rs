//! Records, and the journal entry that carries one.

use minicbor::{Decode, Encode};
use protocol::{Problem, codec};

use crate::effect::EffectId;

/// What a service journals. Encodings only ever grow: see `protocol::codec`.
pub trait Record: Encode<()> + for<'b> Decode<'b, ()> + Clone + Send + 'static {
    /// The record as people see it in `cell journal cat`.
    fn describe(&self) -> serde_json::Value;
}

/// Where and when a record was journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The journal entry.
    pub index: u64,
    /// When it was decided, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
}

/// One journal entry: a record, and what every entry carries.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Entry<R> {
    /// When it was decided, in milliseconds since 1970 (UTC).
    #[n(0)]
    pub time_ms: u64,
    /// The epoch of the grant it was written under; readers refuse one below its predecessor's.
    #[n(1)]
    pub epoch: u64,
    /// The effect that this record answers: the high-water mark of its source, journaled with it.
    #[n(2)]
    pub cause: Option<EffectId>,
    /// The record.
    #[n(3)]
    pub record: R,
}

impl<R: Record> Entry<R> {
    /// Its bytes in the journal.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an entry back.
    ///
    /// # Errors
    ///
    /// `codec.malformed`: the journal was written by something else, or by a newer build.
    pub fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        codec::decode(bytes)
    }
}
