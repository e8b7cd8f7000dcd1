//! What Consensus's view holds. A transaction's bytes stand in it once, and no question about one
//! transaction or about a block's summary reads a whole block.

use machine::{Fault, Read, Table};
use minicbor::{Decode, Encode};
use protocol::block::{Attestation, Block, BlockHeader};
use protocol::transaction::Transaction;
use protocol::{BlockHash, CellId, Problem, StateRoot, TxId};

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

impl Head {
    pub(crate) fn read(view: &dyn Read) -> Result<Self, Fault> {
        let none = Self { ordered: 0, finalised: 0, waiting: 0, last_hash: BlockHash::ZERO, last_time_ms: 0 };
        Ok(HEAD.get(view, &())?.unwrap_or(none))
    }

    /// Blocks that are ordered and not yet final.
    pub(crate) fn open(&self) -> u64 {
        self.ordered.saturating_sub(self.finalised)
    }
}

/// A transaction that was taken in.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct TxRow {
    #[n(0)]
    pub(crate) transaction: Transaction,
    /// The journal entry it was taken in with.
    #[n(1)]
    pub(crate) index: u64,
}

/// A block without its transactions, and what became of it.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct BlockRow {
    #[n(0)]
    pub(crate) header: BlockHeader,
    #[n(1)]
    pub(crate) transactions: u64,
    /// The root after it, once final.
    #[n(2)]
    pub(crate) root: Option<StateRoot>,
    #[n(3)]
    pub(crate) attestations: Vec<Attestation>,
    /// The journal entry it was ordered with.
    #[n(4)]
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
/// A block's transactions, by block and place.
pub(crate) const CONTENTS: Table<(u64, u64), TxId> = Table::new(0x16);
/// The block that a transaction is in.
pub(crate) const PLACES: Table<TxId, u64> = Table::new(0x17);
/// Why the modules refused those that they refused.
pub(crate) const REFUSED: Table<TxId, Problem> = Table::new(0x18);

/// A transaction that has to be there, since another table names it.
pub(crate) fn transaction(view: &dyn Read, id: &TxId) -> Result<TxRow, Fault> {
    TXS.get(view, id)?.ok_or_else(|| Fault(format!("the transaction {id} is named and not there")))
}

/// A block with its transactions.
pub(crate) fn whole_block(view: &dyn Read, header: BlockHeader) -> Result<Block, Fault> {
    let mut transactions = Vec::new();
    for row in CONTENTS.scan(view, &header.index.0, None, false) {
        transactions.push(transaction(view, &row?.1)?.transaction);
    }
    Ok(Block { header, transactions })
}
