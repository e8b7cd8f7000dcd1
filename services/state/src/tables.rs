//! What State's view holds.

use machine::Table;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::state::{Applied, Checkpoint};
use protocol::{BlockHash, Hash, StateRoot};

use crate::Refusal;

/// Where the state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Head {
    /// 0 for the genesis, i + 1 after block i: also the index of the next block.
    #[n(0)]
    pub(crate) version: u64,
    #[n(1)]
    pub(crate) root: StateRoot,
    /// The oldest version that can be read and proven.
    #[n(2)]
    pub(crate) oldest: u64,
}

impl Head {
    pub(crate) fn last_block(&self) -> Option<u64> {
        self.version.checked_sub(1)
    }

    /// What a question about an older version is told.
    pub(crate) fn pruned(&self) -> Refusal {
        Refusal::Pruned { oldest: self.oldest.saturating_sub(1) }
    }
}

/// What a version made needless of the versions before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Stale {
    /// Tree nodes, by their encoded keys.
    #[n(0)]
    pub(crate) nodes: Vec<ByteVec>,
    /// Keys that it wrote over.
    #[n(1)]
    pub(crate) keys: Vec<Superseded>,
}

/// A key that a version wrote over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Superseded {
    #[n(0)]
    pub(crate) key: Hash,
    /// The version whose value it replaced.
    #[n(1)]
    pub(crate) previous: Option<u64>,
    /// Whether it deleted the key: then its own row says nothing that an absent one does not.
    #[n(2)]
    pub(crate) gone: bool,
}

/// A reset that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Unfinished {
    /// Where its state is built.
    #[n(0)]
    pub(crate) generation: u32,
    #[n(1)]
    pub(crate) checkpoint: Checkpoint,
    /// The last key hash that is there.
    #[n(2)]
    pub(crate) after: Option<Hash>,
    /// The journal entry that began it.
    #[n(3)]
    pub(crate) begun: u64,
}

// Tables of each generation: 0x10 to 0x1f.

pub(crate) const HEAD: Table<(), Head> = Table::new(0x10);
/// Tree nodes by their encoded key.
pub(crate) const NODES: Table<Vec<u8>, ByteVec> = Table::new(0x11);
/// Every version of every key: by key hash and the version, newest first.
pub(crate) const HISTORY: Table<(Hash, u64), Option<ByteVec>> = Table::new(0x12);
/// The newest values, with the version that wrote each.
pub(crate) const CURRENT: Table<String, (ByteVec, u64)> = Table::new(0x13);
/// The names of all keys that a version which is kept has a value for.
pub(crate) const NAMES: Table<String, ()> = Table::new(0x15);
/// The same names by their key hash.
pub(crate) const HASHED: Table<Hash, String> = Table::new(0x16);
/// Results of blocks, with the block's hash.
pub(crate) const BLOCKS: Table<u64, (Applied, BlockHash)> = Table::new(0x14);
/// The checkpoint that a generation began with, if it did.
pub(crate) const BASE: Table<(), Checkpoint> = Table::new(0x17);
/// What each version made needless.
pub(crate) const STALE: Table<u64, Stale> = Table::new(0x18);

// Tables beside the generations.

/// The live generation; 0 unless told.
pub(crate) const LIVE: Table<(), u32> = Table::new(0x30);
/// The reset that is under way, if one is.
pub(crate) const RESET: Table<(), Unfinished> = Table::new(0x31);
/// Generations that are to be swept away.
pub(crate) const GARBAGE: Table<u32, ()> = Table::new(0x32);
