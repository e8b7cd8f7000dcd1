//! State: the replicated key-value state, its versions, its root, its proofs.

use minicbor::{Decode, Encode};

use super::shared::{Empty, Page};
use crate::block::{Block, BlockProof};
use crate::id::{BlockIndex, CellId, Hash, StateRoot};
use crate::transaction::TxReceipt;

words! {
    /// The next block to apply.
    pub struct ApplyRequest {
        /// The block.
        pub block: Block,
    }

    /// A block's result.
    #[derive(Eq, Encode, Decode)]
    pub struct Applied {
        /// Which block.
        #[n(0)]
        pub index: BlockIndex,
        /// The root after it.
        #[n(1)]
        pub root: StateRoot,
        /// One for each transaction.
        #[n(2)]
        pub receipts: Vec<TxReceipt>,
    }

    /// Which key, and as of which block.
    #[derive(Eq, Hash)]
    #[serde(deny_unknown_fields)]
    pub struct GetRequest {
        /// `MODULE/KEY`, as in `kv/colour`.
        pub key: String,
        /// As of this block; the newest unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<BlockIndex>,
    }

    /// A value.
    #[derive(Eq)]
    pub struct GetAnswer {
        /// The key.
        pub key: String,
        /// The value as text; null if there is none. Bytes that are no text are shown as hex behind `0x`.
        pub value: Option<String>,
        /// The block that last changed it.
        pub changed: Option<BlockIndex>,
        /// The block it was read at; null before the first.
        pub index: Option<BlockIndex>,
    }

    /// Which keys to list, in order.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct ListKeys {
        /// Only keys that begin so, as in `kv/`.
        #[serde(default)]
        pub prefix: String,
        /// At most so many; 20 unless told, 1 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
        /// As of this block; the newest unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<BlockIndex>,
    }

    /// Which data sets, in the order of their hashes. What is not told does not matter.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct DatasetsRequest {
        /// Those that have all of these tags.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub tags: Vec<String>,
        /// Those of this author.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub author: Option<CellId>,
        /// Those of at least so many bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub size_min: Option<u64>,
        /// Those of at most so many bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub size_max: Option<u64>,
        /// At most so many; 20 unless told, 1 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
        /// As of this block; the newest unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<BlockIndex>,
    }

    /// A registered data set.
    #[derive(Eq)]
    pub struct DatasetView {
        /// The key of its record: what `state.prove` proves. Under `dataset/#TAG/HASH` so are its tags.
        pub key: String,
        /// The BLAKE3 hash of the data.
        pub hash: Hash,
        /// Who registered it.
        pub author: CellId,
        /// The data's size, in bytes, as its author says.
        pub size: u64,
        /// Its tags, sorted.
        pub tags: Vec<String>,
        /// The time of the block that registered it, in milliseconds since 1970 (UTC).
        pub registered_ms: u64,
        /// The block it was read at; null before the first.
        pub index: Option<BlockIndex>,
    }

    /// Which key's history, newest first.
    #[serde(deny_unknown_fields)]
    pub struct HistoryRequest {
        /// `MODULE/KEY`.
        pub key: String,
        /// At most so many; 20 unless told, 1 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
    }

    /// One version of a key.
    #[derive(Eq)]
    pub struct Version {
        /// The block that wrote it; null for the genesis.
        pub index: Option<BlockIndex>,
        /// The value; null where it was deleted.
        pub value: Option<String>,
    }

    /// Which root.
    #[derive(Default, Eq, Hash)]
    #[serde(deny_unknown_fields)]
    pub struct RootRequest {
        /// After this block; the newest unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<BlockIndex>,
    }

    /// A state root.
    #[derive(Eq)]
    pub struct RootAnswer {
        /// The block it stands after; null before the first.
        pub index: Option<BlockIndex>,
        /// The root.
        pub root: StateRoot,
    }

    /// That a key has a value (or none) under a state root.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct KeyProof {
        /// `MODULE/KEY`.
        pub key: String,
        /// The value, hex; null proves that there is none.
        pub value: Option<String>,
        /// The block the root stands after; null before the first.
        pub index: Option<BlockIndex>,
        /// The root it is proven under.
        pub root: StateRoot,
        /// The Merkle path, hex of its encoding.
        pub path: String,
    }

    /// A key's proof together with the block that attests the root: all that an offline check needs,
    /// beside the genesis.
    #[serde(deny_unknown_fields)]
    pub struct StateProof {
        /// The key's proof.
        pub proof: KeyProof,
        /// The block whose attestations name the root; null before the first block.
        pub block: Option<BlockProof>,
    }

    /// Whose nonce.
    #[derive(Copy, Eq, Hash)]
    pub struct NonceRequest {
        /// Which sender.
        pub cell: CellId,
    }

    /// A sender's last used nonce.
    #[derive(Copy, Eq)]
    pub struct NonceAnswer {
        /// 0 if it has used none.
        pub last: u64,
    }
}

crate::actions! {
    service State;
    machine {
        /// Writes the genesis state as entry 0; does nothing once it is there.
        Initialise initialise(Empty) -> Empty, Command, Internal;
        /// Applies the next block through its modules; a block that was applied gives the same answer again.
        Apply apply(ApplyRequest) -> Applied, Command, Internal;
        /// A value, now or as of a block.
        Get get(GetRequest) -> GetAnswer, Query, Read, cached;
        /// Keys and values in key order, now or as of a block.
        List list(ListKeys) -> Page<GetAnswer>, Query, Read;
        /// Data sets by tags, author and size; a page may hold fewer than asked for and still have a next one.
        Datasets datasets(DatasetsRequest) -> Page<DatasetView>, Query, Read;
        /// The versions of a key, newest first.
        History history(HistoryRequest) -> Page<Version>, Query, Read;
        /// The state root, now or after a block.
        Root root(RootRequest) -> RootAnswer, Query, Read, cached;
        /// A key's Merkle proof alone.
        ProveKey prove_key(GetRequest) -> KeyProof, Query, Internal;
        /// The last nonce a sender has used.
        Nonce nonce(NonceRequest) -> NonceAnswer, Query, Read, cached;
        /// The newest applied block's result; refused before the first.
        Head head(Empty) -> Applied, Query, Internal, cached;
    }
    front {
        /// A proof that a key has its value (or none), checkable offline.
        Prove prove(GetRequest) -> StateProof, Query, Read;
    }
}
