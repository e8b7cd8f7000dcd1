//! State: the replicated key-value state, its versions, its root, its proofs.

use minicbor::{Decode, Decoder, Encode, Encoder};

use super::shared::{Empty, ListRequest, Page};
use crate::amount::Amount;
use crate::block::{Block, BlockProof};
use crate::id::{BlockHash, BlockIndex, CellId, Hash, StateRoot};
use crate::transaction::{Lane, TxReceipt};

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
        /// The block that last changed it; null if that is not known: before the first block, or before a
        /// checkpoint that this cell began with.
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

    /// A data set, and the proof of its record.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct ProvenDataset {
        /// The data set.
        pub dataset: DatasetView,
        /// That its record is so, under the root that the block attests.
        pub proof: KeyProof,
    }

    /// Data sets with their proofs, and the block that attests the root of all of them: checkable offline by the genesis. That there are no others
    /// is not proven.
    #[serde(deny_unknown_fields)]
    pub struct ProvenDatasets {
        /// One page of them.
        pub items: Vec<ProvenDataset>,
        /// The cursor of the next page.
        pub next: Option<String>,
        /// The block; null before the first.
        pub block: Option<BlockProof>,
    }

    /// Which data to take from other cells.
    #[serde(deny_unknown_fields)]
    pub struct FetchRequest {
        /// Its BLAKE3 hash.
        pub hash: Hash,
        /// From this cell alone, by its id or a contact's name; from whoever is connected and has it, unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub from: Option<String>,
        /// The longest wait, in milliseconds; 60 000 unless told, and at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait_ms: Option<u64>,
    }

    /// Data that lies here now.
    #[derive(Eq)]
    pub struct Fetched {
        /// Its hash.
        pub hash: Hash,
        /// Its size, in bytes.
        pub size: u64,
        /// Who gave parts of it; none if it was here already.
        pub from: Vec<CellId>,
    }

    /// Data that lies here.
    #[derive(Copy, Eq)]
    pub struct DataView {
        /// Its BLAKE3 hash.
        pub hash: Hash,
        /// Its size, in bytes.
        pub size: u64,
    }

    /// Names data.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct DataRef {
        /// Its BLAKE3 hash.
        pub hash: Hash,
    }

    /// Data to keep here.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct KeepRequest {
        /// The data, in hex. More than one request can carry is added by `cell data add`.
        #[serde(with = "hex::serde")]
        #[schemars(with = "String")]
        pub content: Vec<u8>,
    }

    /// Which part of the data that lies here.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct ReadRequest {
        /// The data's BLAKE3 hash.
        pub hash: Hash,
        /// From this byte on; from the first unless told.
        #[serde(default)]
        pub offset: u64,
        /// At most so many bytes; a mebibyte unless told, and at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub length: Option<u64>,
    }

    /// Part of some data, checked against its hash.
    #[derive(Eq)]
    pub struct DataPart {
        /// The data's hash.
        pub hash: Hash,
        /// The size of all of it, in bytes.
        pub size: u64,
        /// Where the part begins.
        pub offset: u64,
        /// The bytes, in hex; fewer than asked for at the end.
        #[serde(with = "hex::serde")]
        #[schemars(with = "String")]
        pub content: Vec<u8>,
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
        /// The block that wrote it; null for the genesis, and for what a checkpoint brought.
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
    #[derive(Eq, minicbor::Encode, minicbor::Decode)]
    #[serde(deny_unknown_fields)]
    pub struct KeyProof {
        /// `MODULE/KEY`.
        #[n(0)]
        pub key: String,
        /// The value, hex; null proves that there is none.
        #[n(1)]
        pub value: Option<String>,
        /// The block the root stands after; null before the first.
        #[n(2)]
        pub index: Option<BlockIndex>,
        /// The root it is proven under.
        #[n(3)]
        pub root: StateRoot,
        /// The Merkle path, hex of its encoding.
        #[n(4)]
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

    /// Which state others may begin with.
    #[derive(Default, Eq, Hash)]
    #[serde(deny_unknown_fields)]
    pub struct CheckpointRequest {
        /// After this block; the newest unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub at: Option<BlockIndex>,
    }

    /// The state after a block, as a place to begin at. The block's attestations are what makes its root
    /// one to trust.
    #[derive(Eq, Encode, Decode)]
    #[serde(deny_unknown_fields)]
    pub struct Checkpoint {
        /// The block.
        #[n(0)]
        pub index: BlockIndex,
        /// Its hash: what the block after it names.
        #[n(1)]
        pub block: BlockHash,
        /// The root after it.
        #[n(2)]
        pub root: StateRoot,
        /// How many keys there are, by the word of whoever tells: for progress alone.
        #[n(3)]
        pub keys: u64,
    }

    /// Which part of a state.
    #[derive(Eq, Hash)]
    #[serde(deny_unknown_fields)]
    pub struct ChunkRequest {
        /// After this block.
        pub at: BlockIndex,
        /// Keys whose hash (SHA-256) is above this one; from the lowest unless told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub after: Option<Hash>,
        /// At most so many bytes of keys and values, but one pair at least; a mebibyte unless told, and at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bytes_max: Option<u64>,
    }

    /// A key and its value.
    #[derive(Eq, Encode, Decode)]
    #[serde(deny_unknown_fields)]
    pub struct Pair {
        /// `MODULE/KEY`.
        #[n(0)]
        pub key: String,
        /// The value; hex in JSON.
        #[cbor(n(1), with = "minicbor::bytes")]
        #[serde(with = "hex::serde")]
        #[schemars(with = "String")]
        pub value: Vec<u8>,
    }

    /// All keys of a range of key hashes: from where it was asked for, to its last pair or to the end.
    #[derive(Eq, Encode, Decode)]
    #[serde(deny_unknown_fields)]
    pub struct Chunk {
        /// In the order of their key hashes.
        #[n(0)]
        pub pairs: Vec<Pair>,
        /// Whether nothing comes after them.
        #[n(1)]
        pub end: bool,
        /// The tree around the range, each node before those below it, left before right.
        #[n(2)]
        pub proof: Vec<Around>,
    }

    /// A node of the tree that is not wholly in a chunk's range. Its binary form is a byte string: a tag, and
    /// the hashes that stand here, so there is one spelling of it.
    #[derive(Copy, Eq)]
    #[serde(rename_all = "snake_case")]
    pub enum Around {
        /// An edge of the range runs through it, and it has nodes below.
        Split,
        /// An edge runs through it, and it holds nothing beside the chunk's own pair, if that.
        Ends,
        /// An edge runs through it, and it holds one key, outside of the range.
        Leaf {
            /// The key's hash.
            key: Hash,
            /// The value's hash (SHA-256).
            value: Hash,
        },
        /// It is wholly outside.
        Hash(Hash),
    }

    /// Part of the state that a reset is building.
    #[derive(Eq)]
    pub struct ResetChunkRequest {
        /// The `after` it was asked for with.
        pub after: Option<Hash>,
        /// The part.
        pub chunk: Chunk,
    }

    /// How far a reset has come.
    #[derive(Copy, Eq)]
    pub struct ResetAnswer {
        /// The `after` of the chunk that comes next.
        pub after: Option<Hash>,
        /// Whether the state stands at the checkpoint.
        pub done: bool,
    }

    /// How much of the past to keep.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct PruneRequest {
        /// The states after so many of the newest blocks; at least 1.
        pub keep_blocks: u64,
    }

    /// What pruning came to.
    #[derive(Copy, Eq)]
    pub struct PruneAnswer {
        /// The oldest block whose state can be read; null if that is the genesis.
        pub oldest: Option<BlockIndex>,
        /// How many rows were removed.
        pub removed: u64,
        /// Whether there may be more to remove: then ask again.
        pub more: bool,
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

    /// What transactions cost in the next block, in PRANA.
    #[derive(Eq)]
    pub struct FeesAnswer {
        /// The base fee of a unit: a byte, and 4 096 units for each transaction. Null where the network has no fees.
        pub base: Option<Amount>,
        /// What the base fee never falls below.
        pub base_min: Option<Amount>,
        /// The units of a block above which the base fee rises, and below which it falls.
        pub target_units: Option<u64>,
        /// What a transaction of next to no bytes costs, by lane.
        pub lanes: Vec<LaneFee>,
        /// The block it stands after; null before the first.
        pub index: Option<BlockIndex>,
    }

    /// What a transaction of next to no bytes costs.
    #[derive(Copy, Eq)]
    pub struct LaneFee {
        /// In which lane.
        pub lane: Lane,
        /// How much PRANA.
        pub fee: Amount,
    }
}

impl<C> Encode<C> for Around {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Split => e.bytes(&[0])?,
            Self::Ends => e.bytes(&[1])?,
            Self::Leaf { key, value } => {
                e.bytes(&[&[2], key.as_bytes().as_slice(), value.as_bytes()].concat())?
            }
            Self::Hash(hash) => e.bytes(&[&[3], hash.as_bytes().as_slice()].concat())?,
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Around {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let (tag, hashes) = d.bytes()?.split_first().map_or((u8::MAX, &[][..]), |(tag, rest)| (*tag, rest));
        let (hashes, rest) = hashes.as_chunks::<32>();
        match (tag, hashes, rest) {
            (0, [], []) => Ok(Self::Split),
            (1, [], []) => Ok(Self::Ends),
            (2, [key, value], []) => {
                Ok(Self::Leaf { key: Hash::from_bytes(*key), value: Hash::from_bytes(*value) })
            }
            (3, [hash], []) => Ok(Self::Hash(Hash::from_bytes(*hash))),
            _ => Err(minicbor::decode::Error::message("not a node around a chunk")),
        }
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
        /// What transactions cost.
        GetFees fees(Empty) -> FeesAnswer, Query, Read, cached;
        /// The newest applied block's result; refused before the first.
        Head head(Empty) -> Applied, Query, Internal, cached;
        /// A state that others may begin with.
        GetCheckpoint checkpoint(CheckpointRequest) -> Checkpoint, Query, Read;
        /// Part of the state after a block, in the order of key hashes, with what proves it under the root.
        GetChunk chunk(ChunkRequest) -> Chunk, Query, Read;
        /// Begins to replace the state by a checkpoint whose root is attested, or says how far that has come.
        Reset reset(Checkpoint) -> ResetAnswer, Command, Internal;
        /// Takes in the next chunk of a reset; with the last one the state stands at the checkpoint.
        ResetChunk reset_chunk(ResetChunkRequest) -> ResetAnswer, Command, Internal;
        /// Gives up states before the newest ones, some 10 000 rows a call.
        Prune prune(PruneRequest) -> PruneAnswer, Command, Admin;
    }
    front {
        /// A proof that a key has its value (or none), checkable offline.
        Prove prove(GetRequest) -> StateProof, Query, Read;
        /// Data sets by tags, author and size, each with a proof, checkable offline.
        FindDatasets find_datasets(DatasetsRequest) -> ProvenDatasets, Query, Read;
        /// Takes the data of a hash from connected cells that have it, each part checked.
        Fetch fetch(FetchRequest) -> Fetched, Command, Write;
        /// Keeps data here, for whoever may have it.
        Keep keep(KeepRequest) -> DataView, Command, Write;
        /// Gives data up that lies here.
        Discard discard(DataRef) -> DataView, Command, Write;
        /// The data that lies here, by hash.
        Kept kept(ListRequest) -> Page<DataView>, Query, Read;
        /// Part of the data that lies here.
        ReadData read(ReadRequest) -> DataPart, Query, Read;
    }
    stream {
        /// The data that lies here, from the first byte to the last. The stream breaks off where it turns out not to be what its hash says.
        GetData data(DataRef) -> Vec<u8>, Bytes, Read;
    }
}
