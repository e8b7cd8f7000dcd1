//! The Consensus service: one order of transactions, and proof of what they came to. A pure machine.
//!
//! Rules:
//!
//! - A transaction is checked before it is taken in: network, shape, nonce, the module's own check.
//! - What members say to each other are events of the [`hashgraph`]. They are journaled here before anybody else hears of
//!   them ([`Record::Events`]); how they spread is [`gossip`]'s. Both engines are pure, and are driven by `cell`.
//! - What a decided round has received becomes blocks (`order`): the same on every member, since it is a
//!   function of the blocks before and of the round alone. A network of one orders by itself.
//! - A block is executed by State. Each member gives its word for the root; a block is final once more than two thirds of
//!   the weight gave it for the root that came out here (`finality`). Blocks are finalised in order, each once.
//! - If more than two thirds gave it for another root, this cell has diverged: it keeps the evidence, and takes no more in.
//! - Execution runs behind the order: [`EXECUTION_LAG_BLOCKS_MAX`] open blocks pause what this member adds to the order
//!   (DESIGN §9, rule 6), not the order.
//! - Members change between epochs, as the state says once all blocks of an epoch are final (`epochs`); who they become is voted on by
//!   transactions of the module [`members`].
//! - Rules change with the epoch as members do. Of an epoch whose version this build lacks it records nothing, orders nothing and takes nothing over:
//!   all that is refused as `consensus.upgrade_required`, and what was before can still be read (ADR 0022).

mod admit;
pub mod beacon;
mod drawn;
mod epochs;
mod evidence;
mod finality;
pub mod gossip;
pub mod hashgraph;
mod jump;
pub mod members;
mod order;
mod query;
mod record;
mod tables;

use std::sync::Arc;

use machine::module::{Module, RuleSets};
use machine::{At, Context, DecisionOf, Fault, Machine, Owed, Read, Write};
use protocol::block::{Attestation, Block};
use protocol::consensus::{Request, Waiting, Words};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::{Amount, BlockIndex, Event};

pub use admit::WAITING_MAX;
pub use order::{BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX};
pub use record::Record;
use tables::{EVIDENCE, HEAD, Head, WAITING};

protocol::refusals! {
    /// What Consensus refuses.
    pub enum Refusal {
        WrongNetwork => Invalid, "consensus.wrong_network",
            ("the transaction is signed for another network"), "sign it for this one: cell status shows its genesis";
        BadShape { why: &'static str } => Invalid, "consensus.bad_transaction",
            ("not a transaction: {why}"), "cell tx sign makes one";
        FeeTooLow { max_fee: Amount, fee_min: Amount } => Invalid, "consensus.fee_too_low",
            ("the sender pays {max_fee} at most, and no such transaction costs less than {fee_min}"),
            "sign it again with a higher --max-fee, or for another lane; cell tx fees shows what they cost";
        UnknownModule { module: String } => NotFound, "consensus.unknown_module",
            ("there is no module {module:?}"), "the cell's README lists the modules: kv, prana, members and others";
        NonceUsed { nonce: u64, last: u64 } => Conflict, "consensus.nonce_used",
            ("nonce {nonce} is not above {last}, the last one of its sender"), "sign it again with a higher nonce, or let the cell choose";
        Full => Busy, "consensus.busy",
            ("too many transactions wait for their place"), "submit it again in a moment";
        UnknownTx => NotFound, "consensus.unknown_tx",
            ("there is no such transaction here"), "cell tx list shows them";
        NotFinal => Unavailable, "consensus.not_final",
            ("the transaction is in no final block yet"), "wait for it: cell tx show ID tells how far it has come";
        UnknownBlock { index: u64 } => NotFound, "consensus.unknown_block",
            ("there is no block {index}"), "cell block list shows them";
        UnknownEvent { epoch: u64, number: u64 } => NotFound, "consensus.unknown_event",
            ("event {number} of epoch {epoch} is not journaled here"), "it was of an epoch that is over";
        NotNext { index: u64 } => Conflict, "consensus.not_next",
            ("block {index} is not the next one"), "take blocks in order";
        NotNextEvent { first: u64, next: u64 } => Conflict, "consensus.not_next_event",
            ("event {first} is not the next one to record, {next} is"), "record events in order";
        BadAttestation => Invalid, "consensus.bad_attestation",
            ("the attestation is not this cell's for this block, by the key that its epoch's members name"), "attest the block that was ordered";
        BadReceipts => Invalid, "consensus.bad_receipts",
            ("the receipts are not those of the block's transactions"), "execute the block that was ordered";
        Diverged { index: u64 } => Conflict, "consensus.diverged",
            ("block {index} came to another root here than more than two thirds of the members attest"), "stop the cell, run cell rebuild, and start it: it takes the state from the others";
        Skipped => Conflict, "consensus.outcome_unknown",
            ("it was ordered, or overtaken by a later one of its sender, in a block that this cell has skipped"), "look whether what it was to change has changed: cell state get KEY";
        EpochBegun { epoch: u64 } => Conflict, "consensus.epoch_begun",
            ("epoch {epoch} has begun here with other members"), "a third of the members or more are faulty, or this journal is of another network";
        EpochOpen { epoch: u64 } => Conflict, "consensus.epoch_open",
            ("blocks of epoch {epoch} are not final yet"), "begin the next one when they are";
        UpgradeRequired { rules: u64 } => Unavailable, "consensus.upgrade_required",
            ("the network executes under version {rules} of the rules, which this build does not have"),
            "install a newer version and start the cell again: it goes on where it stands";
        BadRules => Invalid, "consensus.bad_rules",
            ("the version of the rules is not the one that the state names after the last block"), "take it from the state: cell state get members/rules";
        BadMembers => Invalid, "consensus.bad_members",
            ("the members are not those that the state names after the last block"), "take them from the state: cell state get members/set";
        OtherBlock { index: u64 } => Conflict, "consensus.other_block",
            ("block {index} is another one here"), "a third of the members or more are faulty, or this journal is of another network";
        BadCursor => Invalid, "consensus.bad_cursor",
            ("the cursor was not made by this list"), "send back the \"next\" of the page before";
    }
}

/// The most blocks that are ordered and not yet final while this member adds to the order.
pub const EXECUTION_LAG_BLOCKS_MAX: u64 = 16;

/// What Consensus asks of the world.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Effect {
    /// A transaction was taken in: put it into an event.
    #[n(0)]
    Say(#[cbor(n(0), with = "protocol::codec::shared")] Arc<Waiting>),
    /// A block was ordered: execute it.
    #[n(1)]
    Execute(#[cbor(n(0), with = "protocol::codec::shared")] Arc<Block>),
    /// This cell's word for a block: put it into an event.
    #[n(2)]
    Attest(#[n(0)] Box<Attestation>),
    /// Blocks up to this one are final.
    #[n(3)]
    Final(#[n(0)] BlockIndex),
}

/// The Consensus machine of one cell.
#[derive(Clone)]
pub struct ConsensusMachine {
    /// The network.
    pub genesis: Arc<Genesis>,
    /// The versions of the rules that this build has, with the modules whose checks a transaction has to pass.
    pub rules: RuleSets,
}

impl ConsensusMachine {
    /// The modules of the rules in force.
    fn modules(&self, head: &Head) -> Result<&[Arc<dyn Module>], Refusal> {
        let rules = head.rules();
        self.rules.modules(rules).ok_or(Refusal::UpgradeRequired { rules })
    }
}

type Decided = Result<DecisionOf<ConsensusMachine>, Fault>;

impl Machine for ConsensusMachine {
    type Words = Words;
    type Record = Record;
    type Effect = Effect;

    const LAYOUT: u32 = 1;

    fn decide(&self, view: &dyn Read, context: &Context, request: Request) -> Decided {
        match request {
            Request::Admit(asked) => admit::admit(self, view, context.now_ms, asked.transaction),
            Request::AdmitAll(asked) => admit::admit_all(self, view, asked.transactions),
            Request::Record(asked) => order::record(self, view, asked),
            Request::Order(asked) => order::order(self, view, asked),
            Request::Executed(asked) => finality::executed(self, view, asked),
            Request::Attested(asked) => finality::attested(self, view, asked),
            Request::Adopt(asked) => finality::adopt(self, view, asked),
            Request::Enter(asked) => epochs::enter(self, view, asked),
            Request::Jump(asked) => jump::jump(self, view, asked),
            Request::Rejoin(Empty {}) => jump::rejoin(view),
            Request::Accuse(proof) => evidence::accuse(self, view, proof),
            Request::Open(Empty {}) => query::open(view),
            Request::OwnWords(Empty {}) => query::own_words(view),
            Request::Waits(list) => query::waits(view, &list),
            Request::GetEpoch(Empty {}) => query::epoch(self, view),
            Request::FindRecorded(asked) => query::recorded(view, &asked),
            Request::ListEvidence(list) => query::evidence(view, &list),
            Request::Draws(list) => drawn::list(view, &list),
            Request::GetNextNonce(asked) => query::next_nonce(view, &asked.cell),
            Request::Tx(asked) => query::tx(view, &asked.id),
            Request::Txs(list) => query::txs(view, &list),
            Request::ProveTx(asked) => query::prove(view, &asked.id),
            Request::GetBlock(asked) => query::block(view, asked.index),
            Request::Blocks(list) => query::blocks(view, &list),
            Request::Status(Empty {}) => query::status(self, view),
            Request::Members(asked) => query::members(self, view, &asked),
        }
    }

    fn apply(&self, view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Effect>, Fault> {
        let mut head = Head::read(view)?;
        let mut effects = Vec::new();
        match record {
            Record::Accepted { transaction } => {
                effects.push(admit::take_in(view, &mut head, at, transaction));
            }
            Record::Events { epoch, first, events } => {
                order::take_events(view, &mut head, at, *epoch, *first, events.len() as u64)?;
            }
            Record::Ordered { block } => {
                effects.push(order::take_block(view, &mut head, at, block)?);
            }
            Record::LeftOut { items } => order::leave_out(view, &mut head, items)?,
            Record::Executed { applied, attestation } => {
                effects.extend(finality::take_result(view, &mut head, at, applied, attestation.as_ref())?);
            }
            Record::Attested { attestations } => finality::take_words(view, attestations),
            Record::Finalised { index, attestations, .. } => {
                effects.push(finality::close_block(view, &mut head, at, *index, attestations)?);
            }
            Record::Diverged { index, .. } => head.diverged = Some(index.0),
            Record::Forked { proof } => EVIDENCE.put(view, &proof.one.creator, proof),
            Record::Drawn { epoch, round, drawn } => {
                drawn::take_drawn(view, &mut head, *epoch, *round, drawn)?;
            }
            Record::Nonces { items } => jump::take_nonces(view, items)?,
            Record::Jumped { proof } => jump::take_jump(view, &mut head, at, proof)?,
            Record::Rejoins { index } => head.rejoins = Some(index.0),
            Record::Epoch { epoch, members, handoff, rules } => {
                epochs::take_epoch(view, &mut head, *epoch, members, handoff)?;
                head.rules = *rules;
            }
        }
        HEAD.put(view, &(), &head);
        Ok(effects)
    }

    fn events(at: At, record: &Record) -> Vec<Event> {
        record.events(at)
    }

    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Effect>>, Fault> {
        let mut owed = Vec::new();
        // The first of them: those that follow are owed once these are executed.
        for (index, block) in query::open_blocks(view)? {
            owed.push(Owed { index, ordinal: 0, effect: Effect::Execute(Arc::new(block)) });
        }
        for (index, attestation) in query::open_words(view)? {
            owed.push(Owed { index, ordinal: 0, effect: Effect::Attest(Box::new(attestation)) });
        }
        for row in WAITING.scan(view, &(), None, false) {
            let (entry, id) = row?;
            let transaction = tables::transaction(view, &id)?.transaction;
            owed.push(Owed {
                index: entry,
                ordinal: 0,
                effect: Effect::Say(Arc::new(Waiting { entry, transaction })),
            });
        }
        Ok(owed)
    }
}
