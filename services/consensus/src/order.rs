//! From decided rounds to blocks.
//!
//! Rules:
//!
//! - Every member takes the same transactions of a round into the same blocks: what is left out follows from the blocks
//!   before and from the transaction alone.
//! - A transaction is in one block at most. One whose nonce is not above the last ordered one of its sender is left out, and so is
//!   one that is not for this network, or that no module takes: a member that lies can have put it into its event. Of
//!   those, what waits here is journaled: it has come to its end.
//! - A round fills as many blocks as it takes, each within [`BLOCK_TRANSACTIONS_MAX`] and [`BLOCK_BYTES_MAX`]; all of them are
//!   journaled together. One that has nothing new leaves no trace, so rounds may be given again. Where only the first
//!   blocks of a round were taken over from others, the round fills the rest.
//! - In a network with fees, a round's transactions come by lane: priority, then normal, then bulk, each as it came. Bulk gets into a block
//!   only where no other of its round waits. Nonces of a sender have to rise, so none overtakes an earlier one of its sender: it
//!   takes the place of the slower lane. Elsewhere all lanes are one.
//! - Blocks' times never go back.
//! - Blocks carry the version of the rules that their epoch has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use machine::{At, Fault, Read, Write, answer, commit, refuse};
use minicbor::bytes::ByteVec;
use protocol::block::{Block, BlockHeader};
use protocol::consensus::{Answer, OrderRequest, RecordRequest};
use protocol::shared::Empty;
use protocol::transaction::{Lane, Transaction};
use protocol::{BlockIndex, CellId, Problem, TxId};

use crate::admit::Terms;
use crate::tables::{
    self, BATCHES, BLOCKS, BY_INDEX, BlockRow, CONTENTS, Head, NONCES, ORDERED_NONCES, PLACES, REFUSED, TXS,
    TxRow, WAITING,
};
use crate::{ConsensusMachine, Decided, Effect, Record, Refusal, drawn, epochs, evidence};

/// The most transactions of one block.
pub const BLOCK_TRANSACTIONS_MAX: usize = 1_000;
/// The most bytes of transactions in one block; its first transaction fits in any case.
pub const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a transaction takes beside its names and arguments, in bytes: ids, nonce, signature, framing.
const TRANSACTION_OVERHEAD_BYTES: usize = 192;

pub(crate) fn record(machine: &ConsensusMachine, view: &dyn Read, asked: RecordRequest) -> Decided {
    let head = Head::read(view)?;
    // Whoever cannot execute has no part in the order: nothing that it says can be durable.
    if let Err(refusal) = machine.modules(&head) {
        return refuse(refusal);
    }
    let RecordRequest { epoch, first, events } = asked;
    let next = if epoch > head.epoch { 0 } else { head.events };
    if epoch < head.epoch || first != next {
        return refuse(Refusal::NotNextEvent { first, next });
    }
    if events.is_empty() {
        return answer(Answer::Record(Empty {}));
    }
    let events = events.into_iter().map(ByteVec::from).collect();
    commit(vec![Record::Events { epoch, first, events }], Answer::Record(Empty {}))
}

pub(crate) fn order(machine: &ConsensusMachine, view: &dyn Read, asked: OrderRequest) -> Decided {
    let mut head = Head::read(view)?;
    if let Some(index) = head.diverged {
        return refuse(Refusal::Diverged { index });
    }
    let terms = match Terms::of(machine, &head) {
        Ok(terms) => terms,
        Err(refusal) => return refuse(refusal),
    };
    head.enter(asked.epoch, head.ordered);
    let (network, members) = (machine.genesis.hash(), epochs::members_of(machine, view, head.epoch)?.hash());
    let (mut judged, mut nonces) = (BTreeSet::new(), BTreeMap::new());
    let (mut blocks, mut left_out) = (Vec::new(), Vec::new());
    for round in asked.rounds {
        blocks.extend(drawn::hear(
            &machine.genesis,
            &mut head,
            asked.epoch,
            round.round,
            round.drawn.as_ref(),
        ));
        if (asked.epoch, round.round) < (head.epoch, head.round) {
            continue;
        }
        let (mut taken, mut lanes) = (Vec::new(), Lanes::default());
        for transaction in round.transactions {
            let id = transaction.id();
            if !judged.insert(id) {
                continue;
            }
            match may_be_ordered(&terms, view, &mut nonces, &transaction)? {
                Ok(()) => taken.push((lanes.enter(&transaction), transaction)),
                Err(problem) if waits(view, &id)? => left_out.push((id, problem)),
                // Among these are those that are in a block: each has used its nonce. If the block is one of this round, that was taken
                // over, those behind have their place behind it, as everywhere.
                Err(_) if is_in_round(view, &id, asked.epoch, round.round)? => {
                    lanes.enter(&transaction);
                }
                Err(_) => {}
            }
        }
        if machine.genesis.fees.is_some() {
            taken.sort_by_key(|(lane, _)| *lane);
        }
        let taken = taken.into_iter().map(|(_, transaction)| transaction).collect();
        let time_ms = head.last_time_ms.max(round.time_us / 1_000);
        for transactions in cut(taken) {
            // Only blocks move the time on: a round without any may be missing elsewhere.
            head.last_time_ms = time_ms;
            let header = BlockHeader {
                genesis: network,
                index: BlockIndex(head.ordered),
                time_ms,
                previous: head.last_hash,
                transactions_root: Block::transactions_root(&transactions),
                members,
                rules: head.rules(),
                epoch: asked.epoch,
                round: round.round,
                beacon: head.pending.take(),
            };
            head.ordered += 1;
            head.last_hash = header.hash();
            blocks.push(Record::Ordered { block: Block { header, transactions } });
        }
    }
    let answered = Answer::Order(head.progress());
    let ordered = blocks.iter().filter_map(|record| match record {
        Record::Ordered { block } => Some(block),
        _ => None,
    });
    let evidence = evidence::within(machine, view, ordered)?;
    let mut records = blocks;
    records.extend(evidence);
    if !left_out.is_empty() {
        records.push(Record::LeftOut { items: left_out });
    }
    if records.is_empty() { answer(answered) } else { commit(records, answered) }
}

/// The slowest lane so far of each sender in a round.
#[derive(Default)]
struct Lanes(BTreeMap<CellId, Lane>);

impl Lanes {
    /// The lane that a transaction gets: its own, or that of a slower one before it.
    fn enter(&mut self, transaction: &Transaction) -> Lane {
        let slowest = self.0.entry(transaction.sender).or_insert(Lane::Priority);
        *slowest = transaction.lane().max(*slowest);
        *slowest
    }
}

/// Whether a transaction is in a block of this very round.
fn is_in_round(view: &dyn Read, id: &TxId, epoch: u64, round: u64) -> Result<bool, Fault> {
    let Some(index) = PLACES.get(view, id)? else { return Ok(false) };
    let header = tables::block(view, index)?.header;
    Ok((header.epoch, header.round) == (epoch, round))
}

/// Why a transaction is left out, or that it is not. `nonces` are the last ones of those that this request has taken so far.
fn may_be_ordered(
    terms: &Terms<'_>,
    view: &dyn Read,
    nonces: &mut BTreeMap<CellId, u64>,
    transaction: &Transaction,
) -> Result<Result<(), Problem>, Fault> {
    let last = match nonces.get(&transaction.sender) {
        Some(last) => *last,
        None => ORDERED_NONCES.get(view, &transaction.sender)?.unwrap_or(0),
    };
    if transaction.nonce <= last {
        return Ok(Err(Refusal::NonceUsed { nonce: transaction.nonce, last }.into()));
    }
    let checked = terms.check(transaction);
    if checked.is_ok() {
        nonces.insert(transaction.sender, transaction.nonce);
    }
    Ok(checked)
}

/// Cuts transactions into pieces that fit into a block each.
fn cut(transactions: Vec<Transaction>) -> Vec<Vec<Transaction>> {
    let (mut pieces, mut bytes): (Vec<Vec<Transaction>>, usize) = (Vec::new(), 0);
    for transaction in transactions {
        let more = size(&transaction);
        match pieces.last_mut() {
            Some(piece) if piece.len() < BLOCK_TRANSACTIONS_MAX && bytes + more <= BLOCK_BYTES_MAX => {
                bytes += more;
                piece.push(transaction);
            }
            _ => {
                bytes = more;
                pieces.push(vec![transaction]);
            }
        }
    }
    pieces
}

/// About what a transaction takes, in bytes.
fn size(transaction: &Transaction) -> usize {
    let Transaction { module, call, args, .. } = transaction;
    module.len() + call.len() + args.len() + TRANSACTION_OVERHEAD_BYTES
}

/// Events are journaled; where, is remembered for this epoch and the one before.
pub(crate) fn take_events(
    view: &mut dyn Write,
    head: &mut Head,
    at: At,
    epoch: u64,
    first: u64,
    count: u64,
) -> Result<(), Fault> {
    head.enter(epoch, head.ordered);
    if first == 0 {
        let gone = BATCHES.scan(view, &(), None, false).map(|row| row.map(|(key, _)| key));
        let gone: Vec<_> =
            gone.take_while(|key| key.as_ref().is_ok_and(|(old, _)| old.saturating_add(1) < epoch)).collect();
        for key in gone {
            BATCHES.delete(view, &key?);
        }
    }
    BATCHES.put(view, &(epoch, first), &(at.index, count));
    head.events = first + count;
    Ok(())
}

pub(crate) fn take_block(
    view: &mut dyn Write,
    head: &mut Head,
    at: At,
    block: &Block,
) -> Result<Effect, Fault> {
    let header = &block.header;
    let (mut ids, mut new) = (Vec::with_capacity(block.transactions.len()), Vec::new());
    for transaction in &block.transactions {
        let id = transaction.id();
        let accepted = NONCES.get(view, &transaction.sender)?.unwrap_or(0);
        // Whose nonce is above all that were taken in is not here yet.
        let known = if transaction.nonce > accepted { None } else { TXS.get(view, &id)? };
        match known {
            Some(row) => stop_waiting(view, head, &id, row.index)?,
            None => {
                let transaction = transaction.clone();
                TXS.put(view, &id, &TxRow { transaction, index: at.index, time_ms: Some(at.time_ms) });
                new.push(id);
            }
        }
        if transaction.nonce > accepted {
            NONCES.put(view, &transaction.sender, &transaction.nonce);
        }
        ORDERED_NONCES.put(view, &transaction.sender, &transaction.nonce);
        PLACES.put(view, &id, &header.index.0);
        ids.push(id);
    }
    if !new.is_empty() {
        BY_INDEX.put(view, &at.index, &new);
    }
    CONTENTS.put(view, &header.index.0, &ids);
    head.enter(header.epoch, header.index.0);
    drawn::take_block(view, head, header)?;
    head.ordered = header.index.0 + 1;
    head.last_hash = header.hash();
    head.last_time_ms = header.time_ms;
    // A block that was taken over may be of an epoch that is over.
    if header.epoch == head.epoch {
        head.round = header.round;
    }
    let row = BlockRow {
        header: header.clone(),
        transactions: block.transactions.len() as u64,
        root: None,
        attestations: Vec::new(),
        record: at.index,
        own: None,
        ordered_ms: Some(at.time_ms),
        applied_ms: None,
        finalised_ms: None,
    };
    BLOCKS.put(view, &header.index.0, &row);
    Ok(Effect::Execute(Arc::new(block.clone())))
}

/// What was left out of the order and waits here has come to its end.
pub(crate) fn leave_out(
    view: &mut dyn Write,
    head: &mut Head,
    items: &[(TxId, Problem)],
) -> Result<(), Fault> {
    for (id, problem) in items {
        let row = tables::transaction(view, id)?;
        stop_waiting(view, head, id, row.index)?;
        REFUSED.put(view, id, problem);
    }
    Ok(())
}

fn waits(view: &dyn Read, id: &TxId) -> Result<bool, Fault> {
    let Some(row) = TXS.get(view, id)? else { return Ok(false) };
    Ok(WAITING.get(view, &row.index)? == Some(*id))
}

/// A transaction that came with this entry waits no more, if it did.
fn stop_waiting(view: &mut dyn Write, head: &mut Head, id: &TxId, entry: u64) -> Result<(), Fault> {
    if WAITING.get(view, &entry)? == Some(*id) {
        WAITING.delete(view, &entry);
        head.waiting = head.waiting.saturating_sub(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::GenesisHash;
    use protocol::signing::Signature;

    use super::*;

    fn waiting(args_bytes: &[usize]) -> Vec<Transaction> {
        let transaction = |(nonce, bytes): (u64, &usize)| Transaction {
            genesis: GenesisHash::ZERO,
            sender: CellId::from_bytes([1; 32]),
            nonce,
            module: "kv".into(),
            call: "put".into(),
            args: " ".repeat(*bytes),
            signature: Signature::from_bytes([0; 64]),
            lane: None,
            max_fee: None,
        };
        (1..).zip(args_bytes).map(transaction).collect()
    }

    #[test]
    fn a_block_is_as_full_as_it_may_be() {
        let sizes = |args: &[usize]| cut(waiting(args)).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[1; 2_500]), [1_000, 1_000, 500]);
        assert_eq!(sizes(&[200_000; 21]), [20, 1]);
        assert_eq!(sizes(&[5_000_000, 1]), [1, 1]);
        assert_eq!(sizes(&[]), [0usize; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Block after block, everything is ordered once, as it came, and no block is too large.
        #[test]
        fn blocks_are_what_came_cut_in_pieces(sizes in prop::collection::vec(0usize..262_144, 0..64)) {
            let all = waiting(&sizes);
            let blocks = cut(all.clone());
            for block in &blocks {
                prop_assert!(!block.is_empty());
                prop_assert!(block.len() == 1 || block.iter().map(size).sum::<usize>() <= BLOCK_BYTES_MAX);
            }
            prop_assert_eq!(blocks.concat(), all);
        }
    }
}
