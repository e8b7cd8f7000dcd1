//! What Consensus's view holds.

use machine::Table;
use minicbor::{Decode, Encode};
use protocol::block::{Attestation, Block};
use protocol::state::Applied;
use protocol::transaction::Transaction;
use protocol::{BlockHash, CellId, TxId};

/// Where consensus stands. Counts are of blocks from 0: also the index of the next one.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct Head {
    #[n(0)]
    pub(crate) ordered: u64,
    #[n(1)]
    pub(crate) finalised: u64,
    #[n(2)]
    pub(crate) waiting: u64,
    #[n(3)]
    pub(crate) last_hash: BlockHash,
    #[n(4)]
    pub(crate) last_time_ms: u64,
}

/// A transaction and the block and place it got.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct TxRow {
    #[n(0)]
    pub(crate) transaction: Transaction,
    /// The journal entry it was taken in with.
    #[n(1)]
    pub(crate) index: u64,
    #[n(2)]
    pub(crate) block: Option<(u64, u64)>,
}

/// A block and what became of it.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct BlockRow {
    #[n(0)]
    pub(crate) block: Block,
    #[n(1)]
    pub(crate) applied: Option<Applied>,
    #[n(2)]
    pub(crate) attestations: Vec<Attestation>,
    /// The journal entry it was ordered with.
    #[n(3)]
    pub(crate) record: u64,
}

pub(crate) const HEAD: Table<(), Head> = Table::new(0x10);
pub(crate) const TXS: Table<TxId, TxRow> = Table::new(0x11);
/// Transactions by the journal entry they were taken in with.
pub(crate) const BY_INDEX: Table<u64, TxId> = Table::new(0x12);
/// Those of them that wait.
pub(crate) const WAITING: Table<u64, TxId> = Table::new(0x13);
/// The last nonce of each sender, waiting transactions included.
pub(crate) const NONCES: Table<CellId, u64> = Table::new(0x14);
pub(crate) const BLOCKS: Table<u64, BlockRow> = Table::new(0x15);
