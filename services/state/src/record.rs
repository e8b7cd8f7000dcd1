//! What State journals.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode, Encoder};
use protocol::state::Applied;
use protocol::{BlockHash, StateRoot};
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

/// A version of the state.
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
        }
    }
}
