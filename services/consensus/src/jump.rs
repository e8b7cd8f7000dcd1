//! Beginning at a checkpoint: a cell that is new, or far behind, or has diverged takes the state after a final block from others, and goes on
//! from there.
//!
//! Rules:
//!
//! - The block is final and proven, the state under its root is here: whoever asks has checked the one and taken in the other.
//! - It is beyond every block that was ordered here, so that no block is ordered anew by other rules; and it is the last of its round, so
//!   that no round is filled in part by somebody who has not its first blocks.
//! - Its epoch's version of the rules is that of its header, which the members sign. This build may lack it: nothing is executed to get here.
//! - The last nonce of each sender comes from that state: what the order left out before, it leaves out after.
//! - Blocks before are not here. What waits here and is overtaken by its sender's nonce has come to an end that is not known here.

use std::collections::BTreeMap;

use machine::{At, Fault, Read, Write, answer, commit, refuse};
use protocol::block::BlockProof;
use protocol::consensus::{Answer, JumpRequest};
use protocol::members::MemberSet;
use protocol::rules::FIRST;
use protocol::shared::Empty;
use protocol::{CellId, Problem, TxId};

use crate::tables::{
    self, BLOCKS, BlockRow, EPOCHS, EpochRow, Head, NONCES, ORDERED_NONCES, REFUSED, WAITING,
};
use crate::{ConsensusMachine, Decided, Record, Refusal, finality, order};

/// Senders in one record.
const NONCES_MAX: usize = 10_000;

pub(crate) fn jump(machine: &ConsensusMachine, view: &dyn Read, asked: JumpRequest) -> Decided {
    let JumpRequest { proof, nonces } = asked;
    let head = Head::read(view)?;
    let header = &proof.block.header;
    let index = header.index.0;
    if header.genesis != machine.genesis.hash() {
        return refuse(Refusal::WrongNetwork);
    }
    if index + 1 < head.ordered {
        return refuse(Refusal::NotNext { index });
    }
    let known = BLOCKS.get(view, &index)?;
    if known.is_some_and(|row| row.header.hash() != header.hash()) {
        return refuse(Refusal::OtherBlock { index });
    }
    if head.finalised > index && head.diverged.is_none() {
        return answer(Answer::Jump(Empty {}));
    }
    if proof.attestations.is_empty() {
        return refuse(Refusal::NotFinal);
    }
    let nonces: Vec<(CellId, u64)> = nonces.into_iter().map(|last| (last.cell, last.nonce)).collect();
    // The nonces first: of what is cut short nothing is begun, and the cell looks for it when it starts.
    let mut records: Vec<Record> =
        nonces.chunks(NONCES_MAX).map(|items| Record::Nonces { items: items.to_vec() }).collect();
    records.push(Record::Jumped { proof });
    commit(records, Answer::Jump(Empty {}))
}

/// The operator wants a cell that has diverged to go on from what the others have.
pub(crate) fn rejoin(view: &dyn Read) -> Decided {
    let head = Head::read(view)?;
    match head.diverged {
        Some(index) if head.rejoins != Some(index) => {
            commit(vec![Record::Rejoins { index: protocol::BlockIndex(index) }], Answer::Rejoin(Empty {}))
        }
        _ => answer(Answer::Rejoin(Empty {})),
    }
}

pub(crate) fn take_nonces(view: &mut dyn Write, items: &[(CellId, u64)]) -> Result<(), Fault> {
    for (cell, nonce) in items {
        let ordered = ORDERED_NONCES.get(view, cell)?.unwrap_or(0);
        ORDERED_NONCES.put(view, cell, &ordered.max(*nonce));
        let accepted = NONCES.get(view, cell)?.unwrap_or(0);
        NONCES.put(view, cell, &accepted.max(*nonce));
    }
    Ok(())
}

pub(crate) fn take_jump(
    view: &mut dyn Write,
    head: &mut Head,
    at: At,
    proof: &BlockProof,
) -> Result<(), Fault> {
    let BlockProof { block, attestations, handoffs } = proof;
    let index = block.header.index.0;
    let is_other_epoch = block.header.epoch != head.epoch;
    // Its effect is to execute it: there is nothing to execute.
    order::take_block(view, head, at, block)?;
    let row = tables::block(view, index)?;
    let root = attestations.first().map(|word| word.root);
    BLOCKS.put(
        view,
        &index,
        &BlockRow { root, attestations: attestations.clone(), finalised_ms: Some(at.time_ms), ..row },
    );
    for handoff in handoffs {
        let epoch = handoff.header.epoch + 1;
        let named = handoff.proof.value.as_ref().and_then(|value| hex::decode(value).ok());
        let members = named.and_then(|value| MemberSet::from_state(&value).ok());
        if let Some(members) = members
            && EPOCHS.get(view, &epoch)?.is_none()
        {
            EPOCHS.put(view, &epoch, &EpochRow { members, handoff: handoff.clone() });
        }
    }
    (head.executed, head.finalised) = (index + 1, index + 1);
    (head.diverged, head.rejoins) = (None, None);
    head.rules = Some(block.header.rules).filter(|rules| *rules != FIRST);
    // In another epoch, others may be members, by other keys.
    finality::drop_words(view, Some(index).filter(|_| !is_other_epoch))?;
    forget_overtaken(view, head)
}

/// Nothing is known of the end of what waited here and was overtaken.
fn forget_overtaken(view: &mut dyn Write, head: &mut Head) -> Result<(), Fault> {
    let waiting: Vec<Result<(u64, TxId), Fault>> = WAITING.scan(view, &(), None, false).collect();
    let mut last: BTreeMap<CellId, u64> = BTreeMap::new();
    for row in waiting {
        let (entry, id) = row?;
        let transaction = tables::transaction(view, &id)?.transaction;
        let ordered = match last.get(&transaction.sender) {
            Some(ordered) => *ordered,
            None => ORDERED_NONCES.get(view, &transaction.sender)?.unwrap_or(0),
        };
        last.insert(transaction.sender, ordered);
        if transaction.nonce <= ordered {
            WAITING.delete(view, &entry);
            head.waiting = head.waiting.saturating_sub(1);
            REFUSED.put(view, &id, &Problem::from(Refusal::Skipped));
        }
    }
    Ok(())
}
