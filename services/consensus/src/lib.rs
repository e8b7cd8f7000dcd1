//! The Consensus service: one order of transactions. A pure machine.
//!
//! Rules:
//!
//! - A transaction is checked before it is taken in: network, shape, nonce, the module's own check.
//! - [`ordering`] says what the next block holds: the seam behind which hashgraph will stand.
//! - A block is executed by State, attested by members, and final once more than two thirds of the
//!   weight attest one root. Blocks are finalised in order.

mod admit;
pub mod ordering;
mod query;
mod record;
mod tables;

use std::sync::Arc;

use machine::module::Module;
use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit, refuse};
use protocol::block::{Block, BlockHeader, RULES_VERSION};
use protocol::consensus::{Answer, FinaliseRequest, Request, TxStatus, Words};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::{BlockHash, BlockIndex, Event};

pub use record::Record;
use tables::{BLOCKS, BlockRow, HEAD, Head, NONCES, TXS, TxRow, WAITING};

protocol::refusals! {
    /// What Consensus refuses.
    pub enum Refusal {
        WrongNetwork => Invalid, "consensus.wrong_network",
            ("the transaction is signed for another network"), "sign it for this one: cell status shows its genesis";
        BadShape { why: &'static str } => Invalid, "consensus.bad_transaction",
            ("not a transaction: {why}"), "cell tx sign makes one";
        UnknownModule { module: String } => NotFound, "consensus.unknown_module",
            ("there is no module {module:?}"), "one of kv, prana";
        NonceUsed { nonce: u64, last: u64 } => Conflict, "consensus.nonce_used",
            ("nonce {nonce} is not above {last}, the last one of its sender"), "sign it again with a higher nonce, or let the cell choose";
        Full => Busy, "consensus.busy",
            ("too many transactions wait for their place"), "submit it again in a moment";
        UnknownTx => NotFound, "consensus.unknown_tx",
            ("there is no such transaction here"), "cell tx list shows them";
        UnknownBlock { index: u64 } => NotFound, "consensus.unknown_block",
            ("there is no block {index}"), "cell block list shows them";
        NotNext { index: u64 } => Conflict, "consensus.not_next",
            ("block {index} is not the next one to finalise"), "finalise the blocks in order";
        BadAttestation => Invalid, "consensus.bad_attestation",
            ("the attestation is not a member's for this block"), "attest the block that was ordered";
        BadCursor => Invalid, "consensus.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

/// What Consensus asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Transactions wait: order them.
    Order,
    /// A block was ordered: execute and attest it.
    Execute(Box<Block>),
}

/// The Consensus machine of one member.
#[derive(Clone)]
pub struct ConsensusMachine {
    /// The network.
    pub genesis: Arc<Genesis>,
    /// The modules whose checks a transaction has to pass.
    pub modules: Arc<[Arc<dyn Module>]>,
}

type Decided = Result<DecisionOf<ConsensusMachine>, Fault>;

impl Machine for ConsensusMachine {
    type Words = Words;
    type Record = Record;
    type Effect = Effect;

    fn decide(&self, view: &dyn Read, context: &Context, request: Request) -> Decided {
        match request {
            Request::Admit(asked) => admit::admit(self, view, asked.transaction),
            Request::Order(Empty {}) => self.order(view, context),
            Request::Finalise(asked) => self.finalise(view, asked),
            Request::Open(Empty {}) => query::open(view),
            Request::GetNextNonce(asked) => query::next_nonce(view, &asked.cell),
            Request::Tx(asked) => query::tx(view, &asked.id),
            Request::Txs(list) => query::txs(view, &list),
            Request::GetBlock(asked) => query::block(view, asked.index),
            Request::Blocks(list) => query::blocks(view, &list),
            Request::Status(Empty {}) => query::status(self, view),
            Request::Members(list) => query::members(self, &list),
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Effect>, Fault> {
        let mut head = HEAD.get(view, &())?.unwrap_or_default();
        let effects = match record {
            Record::Accepted { transaction } => {
                let id = transaction.id();
                let row = TxRow { transaction: transaction.clone(), index: at.index, block: None };
                TXS.put(view, &id, &row);
                tables::BY_INDEX.put(view, &at.index, &id);
                WAITING.put(view, &at.index, &id);
                NONCES.put(view, &transaction.sender, &transaction.nonce);
                head.waiting += 1;
                vec![Effect::Order]
            }
            Record::Ordered { block } => {
                for (place, transaction) in (0u64..).zip(&block.transactions) {
                    let id = transaction.id();
                    if let Some(row) = TXS.get(view, &id)? {
                        WAITING.delete(view, &row.index);
                        head.waiting = head.waiting.saturating_sub(1);
                        TXS.put(view, &id, &TxRow { block: Some((block.header.index.0, place)), ..row });
                    }
                }
                head.ordered = block.header.index.0 + 1;
                head.last_hash = block.header.hash();
                head.last_time_ms = block.header.time_ms;
                let row = BlockRow { block: block.clone(), applied: None, attestations: Vec::new(), record: at.index };
                BLOCKS.put(view, &block.header.index.0, &row);
                vec![Effect::Execute(Box::new(block.clone()))]
            }
            Record::Finalised { applied, attestations } => {
                if let Some(row) = BLOCKS.get(view, &applied.index.0)? {
                    let attestations = attestations.clone();
                    BLOCKS.put(view, &applied.index.0, &BlockRow { applied: Some(applied.clone()), attestations, ..row });
                }
                head.finalised = applied.index.0 + 1;
                Vec::new()
            }
        };
        HEAD.put(view, &(), &head);
        Ok(effects)
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        record.events(at)
    }

    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Effect>>, Fault> {
        let head = HEAD.get(view, &())?.unwrap_or_default();
        let mut owed = Vec::new();
        for index in head.finalised..head.ordered {
            if let Some(row) = BLOCKS.get(view, &index)? {
                owed.push(Owed { index: row.record, ordinal: 0, effect: Effect::Execute(Box::new(row.block)) });
            }
        }
        if let Some(row) = WAITING.scan(view, &(), None, false).next() {
            owed.push(Owed { index: row?.0, ordinal: 0, effect: Effect::Order });
        }
        Ok(owed)
    }
}

impl ConsensusMachine {
    fn order(&self, view: &dyn Read, context: &Context) -> Decided {
        let mut waiting = Vec::new();
        for row in WAITING.scan(view, &(), None, false).take(ordering::BLOCK_TRANSACTIONS_MAX) {
            let (_, id) = row?;
            if let Some(row) = TXS.get(view, &id)? {
                waiting.push(row.transaction);
            }
        }
        let transactions = ordering::next_block(waiting);
        if transactions.is_empty() {
            return answer(Answer::Order(Empty {}));
        }
        let head = HEAD.get(view, &())?.unwrap_or_default();
        let header = BlockHeader {
            genesis: self.genesis.hash(),
            index: BlockIndex(head.ordered),
            time_ms: context.now_ms.max(head.last_time_ms),
            previous: head.last_hash,
            transactions_root: Block::transactions_root(&transactions),
            members: self.genesis.members_hash(),
            rules: RULES_VERSION,
        };
        commit(vec![Record::Ordered { block: Block { header, transactions } }], Answer::Order(Empty {}))
    }

    fn finalise(&self, view: &dyn Read, asked: FinaliseRequest) -> Decided {
        let FinaliseRequest { applied, attestation } = asked;
        let head = HEAD.get(view, &())?.unwrap_or_default();
        if applied.index.0 < head.finalised {
            return answer(Answer::Finalise(Empty {}));
        }
        let row = match BLOCKS.get(view, &applied.index.0)? {
            Some(row) if applied.index.0 == head.finalised => row,
            _ => return refuse(Refusal::NotNext { index: applied.index.0 }),
        };
        let weight = self.genesis.weight_of(&attestation.member);
        let holds = attestation.root == applied.root && attestation.holds_for(&row.block.header);
        if weight == 0 || !holds || applied.receipts.len() != row.block.transactions.len() {
            return refuse(Refusal::BadAttestation);
        }
        // One member's word decides only where that member is more than two thirds: a network of one.
        // Gathering several is part of the hashgraph's seam.
        if u128::from(weight) * 3 <= u128::from(self.genesis.weight_total()) * 2 {
            return answer(Answer::Finalise(Empty {}));
        }
        let record = Record::Finalised { applied, attestations: vec![attestation] };
        commit(vec![record], Answer::Finalise(Empty {}))
    }
}

impl Default for Head {
    fn default() -> Self {
        Self { ordered: 0, finalised: 0, waiting: 0, last_hash: BlockHash::ZERO, last_time_ms: 0 }
    }
}

/// How far a transaction has come.
fn status_of(view: &dyn Read, row: &TxRow) -> Result<(TxStatus, Option<BlockRow>, u64), Fault> {
    let Some((index, place)) = row.block else { return Ok((TxStatus::Accepted, None, 0)) };
    let Some(block) = BLOCKS.get(view, &index)? else { return Ok((TxStatus::Ordered, None, place)) };
    let receipt = block.applied.as_ref().and_then(|applied| applied.receipts.get(place as usize));
    let status = match receipt {
        None => TxStatus::Ordered,
        Some(receipt) if !receipt.ok => TxStatus::Rejected,
        Some(_) => TxStatus::Finalised,
    };
    Ok((status, Some(block), place))
}
