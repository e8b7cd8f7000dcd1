//! The Consensus service: one order of transactions. A pure machine.
//!
//! Rules:
//!
//! - A transaction is checked before it is taken in: network, shape, nonce, the module's own check.
//! - [`ordering`] says what the next block holds: the seam behind which hashgraph will stand.
//! - A block is executed by State, attested by members, and final once more than two thirds of the
//!   weight attest one root. Blocks are finalised in order, each once, with one root.
//! - While transactions wait, one [`Effect::Order`] is on its way: released by the first that waits,
//!   and again by each block that leaves some behind. So no burst floods the queue of effects, and none
//!   is left waiting.
//! - At most [`EXECUTION_LAG_BLOCKS_MAX`] blocks are open; ordering goes on when one becomes final
//!   (DESIGN §9, rule 6).
//!
//! [`hashgraph`] and [`gossip`] are pure engines that stand by themselves; they are not wired in yet.
//!
//! Absent: a change of members; gathering the attestations of several members. A genesis with more members than this cell
//! can outweigh orders and executes, and nothing becomes final.

mod admit;
pub mod gossip;
pub mod hashgraph;
pub mod ordering;
mod query;
mod record;
mod tables;

use std::sync::Arc;

use machine::module::Module;
use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write, answer, commit, refuse};
use protocol::block::{Attestation, Block, BlockHeader, RULES_VERSION};
use protocol::consensus::{Answer, FinaliseRequest, Request, Words};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::Applied;
use protocol::transaction::{Transaction, TxReceipt};
use protocol::{BlockIndex, Event};

pub use admit::WAITING_MAX;
pub use record::Record;
use tables::{
    BLOCKS, BY_INDEX, BlockRow, CONTENTS, HEAD, Head, NONCES, PLACES, REFUSED, TXS, TxRow, WAITING,
};

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
        BadReceipts => Invalid, "consensus.bad_receipts",
            ("the receipts are not those of the block's transactions"), "execute the block that was ordered";
        Diverged { index: u64 } => Conflict, "consensus.diverged",
            ("block {index} is final with another root"), "this cell's state differs from what was attested: cell rebuild";
        BadCursor => Invalid, "consensus.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

/// The most blocks that are ordered and not yet final.
pub const EXECUTION_LAG_BLOCKS_MAX: u64 = 16;

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
        let mut head = Head::read(view)?;
        let effects = match record {
            Record::Accepted { transaction } => take_in(view, &mut head, at, transaction),
            Record::Ordered { block } => take_block(view, &mut head, at, block)?,
            Record::Finalised { applied, attestations } => {
                close_block(view, &mut head, applied, attestations)?
            }
        };
        HEAD.put(view, &(), &head);
        Ok(effects)
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        record.events(at)
    }

    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Effect>>, Fault> {
        let mut owed = Vec::new();
        for (index, block) in query::open_blocks(view)? {
            owed.push(Owed { index, ordinal: 0, effect: Effect::Execute(Box::new(block)) });
        }
        if may_order(&Head::read(view)?)
            && let Some(row) = WAITING.scan(view, &(), None, false).next()
        {
            owed.push(Owed { index: row?.0, ordinal: 0, effect: Effect::Order });
        }
        Ok(owed)
    }
}

impl ConsensusMachine {
    fn order(&self, view: &dyn Read, context: &Context) -> Decided {
        let head = Head::read(view)?;
        if !may_order(&head) {
            return answer(Answer::Order(Empty {}));
        }
        let waiting = WAITING
            .scan(view, &(), None, false)
            .map(|row| Ok(tables::transaction(view, &row?.1)?.transaction));
        let transactions = ordering::next_block(waiting)?;
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
        let index = applied.index.0;
        let Some(row) = BLOCKS.get(view, &index)? else { return refuse(Refusal::NotNext { index }) };
        if let Some(root) = row.root {
            let same = root == applied.root;
            return if same {
                answer(Answer::Finalise(Empty {}))
            } else {
                refuse(Refusal::Diverged { index })
            };
        }
        if index != Head::read(view)?.finalised {
            return refuse(Refusal::NotNext { index });
        }
        let weight = self.genesis.weight_of(&attestation.member);
        if weight == 0 || attestation.root != applied.root || !attestation.holds_for(&row.header) {
            return refuse(Refusal::BadAttestation);
        }
        let mut receipts = applied.receipts.iter();
        for place in CONTENTS.scan(view, &index, None, false) {
            let (_, id) = place?;
            let fits = |receipt: &TxReceipt| receipt.id == id && receipt.ok == receipt.error.is_none();
            if !receipts.next().is_some_and(fits) {
                return refuse(Refusal::BadReceipts);
            }
        }
        if receipts.next().is_some() {
            return refuse(Refusal::BadReceipts);
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

/// Whether something waits and another block may be opened.
fn may_order(head: &Head) -> bool {
    head.waiting > 0 && head.open() < EXECUTION_LAG_BLOCKS_MAX
}

fn take_in(view: &mut dyn Write, head: &mut Head, at: At, transaction: &Transaction) -> Vec<Effect> {
    let id = transaction.id();
    TXS.put(view, &id, &TxRow { transaction: transaction.clone(), index: at.index });
    BY_INDEX.put(view, &at.index, &id);
    WAITING.put(view, &at.index, &id);
    NONCES.put(view, &transaction.sender, &transaction.nonce);
    head.waiting += 1;
    // Where others wait already, the order that they wait for takes this one too.
    if head.waiting == 1 && may_order(head) { vec![Effect::Order] } else { Vec::new() }
}

fn take_block(view: &mut dyn Write, head: &mut Head, at: At, block: &Block) -> Result<Vec<Effect>, Fault> {
    let header = &block.header;
    for (place, transaction) in (0u64..).zip(&block.transactions) {
        let id = transaction.id();
        let accepted = tables::transaction(view, &id)?.index;
        WAITING.delete(view, &accepted);
        head.waiting = head.waiting.saturating_sub(1);
        CONTENTS.put(view, &(header.index.0, place), &id);
        PLACES.put(view, &id, &header.index.0);
    }
    head.ordered = header.index.0 + 1;
    head.last_hash = header.hash();
    head.last_time_ms = header.time_ms;
    let transactions = block.transactions.len() as u64;
    let row = BlockRow {
        header: header.clone(),
        transactions,
        root: None,
        attestations: Vec::new(),
        record: at.index,
    };
    BLOCKS.put(view, &header.index.0, &row);
    let mut effects = vec![Effect::Execute(Box::new(block.clone()))];
    if may_order(head) {
        effects.push(Effect::Order);
    }
    Ok(effects)
}

fn close_block(
    view: &mut dyn Write,
    head: &mut Head,
    applied: &Applied,
    attestations: &[Attestation],
) -> Result<Vec<Effect>, Fault> {
    let index = applied.index.0;
    let row =
        BLOCKS.get(view, &index)?.ok_or_else(|| Fault(format!("block {index} is final and not there")))?;
    BLOCKS.put(
        view,
        &index,
        &BlockRow { root: Some(applied.root), attestations: attestations.to_vec(), ..row },
    );
    for receipt in &applied.receipts {
        if let Some(problem) = &receipt.error {
            REFUSED.put(view, &receipt.id, problem);
        }
    }
    let paused = !may_order(head);
    head.finalised = index + 1;
    Ok(if paused && may_order(head) { vec![Effect::Order] } else { Vec::new() })
}
