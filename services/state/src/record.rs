//! What State journals.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode, Encoder};
use protocol::state::{Applied, Checkpoint};
use protocol::{BlockHash, Hash, StateRoot};
use serde_json::json;

/// The keys that a block sets (or removes), in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet(pub BTreeMap<String, Option<Vec<u8>>>);

impl<C> Encode<C> for WriteSet {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        for (key, value) in &self.0 {
            let value: Option<ByteVec> = value.clone().map(Into::into);
            (key, value).encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for WriteSet {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let rows: Vec<(String, Option<ByteVec>)> = Vec::decode(d, ctx)?;
        Ok(Self(rows.into_iter().map(|(key, value)| (key, value.map(Into::into))).collect()))
    }
}

/// A version of the state, or what became of others.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// Version 0.
    #[n(0)]
    Genesis {
        /// The first keys.
        #[n(0)]
        writes: WriteSet,
        /// The root they give.
        #[n(1)]
        root: StateRoot,
    },
    /// A block was executed.
    #[n(1)]
    Applied {
        /// Its result.
        #[n(0)]
        applied: Applied,
        /// Its hash.
        #[n(1)]
        hash: BlockHash,
        /// What it wrote.
        #[n(2)]
        writes: WriteSet,
    },
    /// A checkpoint is being fetched, in a generation of its own.
    #[n(2)]
    ResetBegun {
        /// Which generation.
        #[n(0)]
        generation: u32,
        /// Where it is to stand.
        #[n(1)]
        checkpoint: Checkpoint,
    },
    /// A part of it, verified.
    #[n(3)]
    ResetChunk {
        /// Its keys.
        #[n(0)]
        writes: WriteSet,
        /// The last of their hashes; none at the end.
        #[n(1)]
        through: Option<Hash>,
    },
    /// The checkpoint is whole: it is the state now, and what was before it is gone.
    #[n(4)]
    ResetEnded {
        /// The journal entry that began it.
        #[n(0)]
        begun: u64,
        /// Where the state stands.
        #[n(1)]
        checkpoint: Checkpoint,
    },
    /// Old versions were given up.
    #[n(5)]
    Pruned {
        /// The oldest version that is kept.
        #[n(0)]
        oldest: u64,
        /// At most so many rows were removed with it.
        #[n(1)]
        rows_max: u64,
    },
}

impl Record {
    /// The journal entry that a replay may begin at, if nothing before it matters any more: of the newest
    /// record that names one.
    pub fn replay_from(&self) -> Option<u64> {
        match self {
            Self::ResetEnded { begun, .. } => Some(*begun),
            _ => None,
        }
    }
}

impl machine::Record for Record {
    fn describe(&self) -> serde_json::Value {
        match self {
            Self::Genesis { writes, root } => json!({ "genesis": { "root": root, "keys": writes.0.len() } }),
            Self::Applied { applied, hash, writes } => {
                let keys: Vec<&String> = writes.0.keys().collect();
                json!({ "applied": {
                    "index": applied.index, "root": applied.root, "hash": hash, "receipts": applied.receipts, "keys": keys,
                } })
            }
            Self::ResetBegun { generation, checkpoint } => {
                json!({ "reset_begun": { "generation": generation, "checkpoint": checkpoint } })
            }
            Self::ResetChunk { writes, through } => {
                json!({ "reset_chunk": { "keys": writes.0.len(), "through": through } })
            }
            Self::ResetEnded { begun, checkpoint } => {
                json!({ "reset_ended": { "begun": begun, "checkpoint": checkpoint } })
            }
            Self::Pruned { oldest, rows_max } => {
                json!({ "pruned": { "oldest": oldest.checked_sub(1), "rows_max": rows_max } })
            }
        }
    }
}
