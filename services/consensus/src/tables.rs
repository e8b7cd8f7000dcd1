//! What Consensus's view holds. A transaction's bytes stand in it once, and no question about one
//! transaction or about a block's summary reads a whole block. Events stand in the journal alone.

use machine::{Fault, Read, Table};
use minicbor::{Decode, Encode};
use protocol::beacon::Drawn;
use protocol::block::{Attestation, Block, BlockHeader};
use protocol::consensus::Progress;
use protocol::gossip::ForkProof;
use protocol::members::{Handoff, MemberSet};
use protocol::rules::FIRST;
use protocol::transaction::Transaction;
use protocol::{Amount, BlockHash, CellId, Hash, Problem, StateRoot, TxId};

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
    #[n(5)]
    pub(crate) executed: u64,
    /// The epoch of the hashgraph, the last round of it that filled a block, and how many of its events are journaled.
    #[n(6)]
    pub(crate) epoch: u64,
    #[n(7)]
    pub(crate) round: u64,
    #[n(8)]
    pub(crate) events: u64,
    /// The block whose root here is not the members'.
    #[n(9)]
    pub(crate) diverged: Option<u64>,
    /// The first block that the epoch may fill: those before belong to epochs before it.
    #[n(10)]
    pub(crate) base: u64,
    /// Where it has diverged, once the operator wants it to go on from what the others have.
    #[n(11)]
    pub(crate) rejoins: Option<u64>,
    /// The last draw of the epoch, and the value that the next block is to have.
    #[n(12)]
    #[cbor(default)]
    pub(crate) drawn: u64,
    #[n(13)]
    pub(crate) pending: Option<Drawn>,
    /// The version of the rules of the epoch; the first unless told.
    #[n(14)]
    pub(crate) rules: Option<u64>,
}

impl Head {
    pub(crate) fn read(view: &dyn Read) -> Result<Self, Fault> {
        let none = Self {
            ordered: 0,
            finalised: 0,
            waiting: 0,
            last_hash: BlockHash::ZERO,
            last_time_ms: 0,
            executed: 0,
            epoch: 0,
            round: 0,
            events: 0,
            diverged: None,
            base: 0,
            rejoins: None,
            drawn: 0,
            pending: None,
            rules: None,
        };
        Ok(HEAD.get(view, &())?.unwrap_or(none))
    }

    /// The version of the rules that the epoch's blocks are executed under.
    pub(crate) fn rules(&self) -> u64 {
        self.rules.unwrap_or(FIRST)
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress { ordered: self.ordered, executed: self.executed, finalised: self.finalised }
    }

    /// Makes an epoch the present one, unless it is. The next block may be its first.
    pub(crate) fn enter(&mut self, epoch: u64, next_block: u64) {
        if epoch > self.epoch {
            (self.epoch, self.round, self.events, self.base) = (epoch, 0, 0, next_block);
            (self.drawn, self.pending) = (0, None);
        }
    }
}

/// A transaction that was taken in, here or with a block.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct TxRow {
    #[n(0)]
    pub(crate) transaction: Transaction,
    /// The journal entry it came with.
    #[n(1)]
    pub(crate) index: u64,
    /// When it was journaled.
    #[n(2)]
    pub(crate) time_ms: Option<u64>,
}

/// A block without its transactions, and what became of it.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct BlockRow {
    #[n(0)]
    pub(crate) header: BlockHeader,
    #[n(1)]
    pub(crate) transactions: u64,
    /// The root after it, once executed here.
    #[n(2)]
    pub(crate) root: Option<StateRoot>,
    /// What makes it final, once it is.
    #[n(3)]
    pub(crate) attestations: Vec<Attestation>,
    /// The journal entry it was ordered with.
    #[n(4)]
    pub(crate) record: u64,
    /// This cell's word for it.
    #[n(5)]
    pub(crate) own: Option<Attestation>,
    /// When it was ordered, executed and final here.
    #[n(6)]
    pub(crate) ordered_ms: Option<u64>,
    /// See `ordered_ms`.
    #[n(7)]
    pub(crate) applied_ms: Option<u64>,
    /// See `ordered_ms`.
    #[n(8)]
    pub(crate) finalised_ms: Option<u64>,
}

/// A change of members.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct EpochRow {
    #[n(0)]
    pub(crate) members: MemberSet,
    #[n(1)]
    pub(crate) handoff: Handoff,
}

impl BlockRow {
    pub(crate) fn is_final(&self) -> bool {
        !self.attestations.is_empty()
    }
}

pub(crate) const HEAD: Table<(), Head> = Table::new(0x10);
pub(crate) const TXS: Table<TxId, TxRow> = Table::new(0x11);
/// Transactions by the journal entry they came with.
pub(crate) const BY_INDEX: Table<u64, Vec<TxId>> = Table::new(0x12);
/// Those that were taken in here and wait.
pub(crate) const WAITING: Table<u64, TxId> = Table::new(0x13);
/// The last nonce of each sender, waiting transactions included.
pub(crate) const NONCES: Table<CellId, u64> = Table::new(0x14);
pub(crate) const BLOCKS: Table<u64, BlockRow> = Table::new(0x15);
/// A block's transactions.
pub(crate) const CONTENTS: Table<u64, Vec<TxId>> = Table::new(0x16);
/// The block that a transaction is in.
pub(crate) const PLACES: Table<TxId, u64> = Table::new(0x17);
/// Why those were refused that were: by their modules, or by the order.
pub(crate) const REFUSED: Table<TxId, Problem> = Table::new(0x18);
/// The last nonce of each sender in the order.
pub(crate) const ORDERED_NONCES: Table<CellId, u64> = Table::new(0x19);
/// What members say of blocks that are not final here.
pub(crate) const WORDS: Table<(u64, CellId), Attestation> = Table::new(0x1a);
/// The journal entry of the events from a number of an epoch on, and how many are in it.
pub(crate) const BATCHES: Table<(u64, u64), (u64, u64)> = Table::new(0x1b);
/// Members that have forked.
pub(crate) const EVIDENCE: Table<CellId, ForkProof> = Table::new(0x1c);

/// The epochs that began with other members than the one before.
pub(crate) const EPOCHS: Table<u64, EpochRow> = Table::new(0x1d);

/// Draws of the beacon by epoch and number: the round, and the value.
pub(crate) const DRAWS: Table<(u64, u64), (u64, Hash)> = Table::new(0x1e);

/// What those paid that paid a fee.
pub(crate) const FEES: Table<TxId, Amount> = Table::new(0x1f);

/// A transaction that has to be there, since another table names it.
pub(crate) fn transaction(view: &dyn Read, id: &TxId) -> Result<TxRow, Fault> {
    TXS.get(view, id)?.ok_or_else(|| Fault(format!("the transaction {id} is named and not there")))
}

/// A block that has to be there.
pub(crate) fn block(view: &dyn Read, index: u64) -> Result<BlockRow, Fault> {
    BLOCKS.get(view, &index)?.ok_or_else(|| Fault(format!("block {index} is counted and not there")))
}

/// A block with its transactions.
pub(crate) fn whole_block(view: &dyn Read, header: BlockHeader) -> Result<Block, Fault> {
    let mut transactions = Vec::new();
    for id in CONTENTS.get(view, &header.index.0)?.unwrap_or_default() {
        transactions.push(transaction(view, &id)?.transaction);
    }
    Ok(Block { header, transactions })
}
