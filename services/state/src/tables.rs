//! What State's view holds.

use machine::Table;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::state::Applied;
use protocol::{BlockHash, Hash, StateRoot};

/// Where the state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Head {
    /// 0 for the genesis, i + 1 after block i: also the index of the next block.
    #[n(0)]
    pub(crate) version: u64,
    #[n(1)]
    pub(crate) root: StateRoot,
}

impl Head {
    pub(crate) fn last_block(&self) -> Option<u64> {
        self.version.checked_sub(1)
    }
}

pub(crate) const HEAD: Table<(), Head> = Table::new(0x10);
/// Tree nodes by their encoded key.
pub(crate) const NODES: Table<Vec<u8>, ByteVec> = Table::new(0x11);
/// Every version of every key: by key hash and the version, newest first.
pub(crate) const HISTORY: Table<(Hash, u64), Option<ByteVec>> = Table::new(0x12);
/// The newest values, with the version that wrote each.
pub(crate) const CURRENT: Table<String, (ByteVec, u64)> = Table::new(0x13);
/// The names of all keys that a version has a value for.
pub(crate) const NAMES: Table<String, ()> = Table::new(0x15);
/// Results of blocks, with the block's hash.
pub(crate) const BLOCKS: Table<u64, (Applied, BlockHash)> = Table::new(0x14);
