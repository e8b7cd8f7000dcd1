//! Incoming messages: what is new and allowed is journaled, what is known is acknowledged again.

use std::collections::BTreeSet;

use machine::{Context, Fault, Read, answer, commit, refuse};
use protocol::message::{CLOCK_SKEW_MS_MAX, LIFETIME_MS_MAX, Message};
use protocol::messages::{Answer, CountersignRequest, ReceiveAnswer, ReceiveRequest, SettleRequest};
use protocol::receipt::{ReceiptHead, batch_root};
use protocol::shared::Empty;
use protocol::{CellId, MessageId, Problem};

use crate::admit::{Door, Sender};
use crate::limits::{BATCH_MESSAGES_MAX, OBSERVE_EVERY_MS};
use crate::tables::{IN, OUT, ROWS, UNSETTLED};
use crate::{Decided, MessageMachine, Record, Refusal, body};

/// The proof that was looked up last: messages of one batch mostly show the same.
type LastProof = Option<(Vec<MessageId>, u32)>;

pub(crate) fn receive(
    machine: &MessageMachine,
    view: &dyn Read,
    context: &Context,
    asked: ReceiveRequest,
) -> Decided {
    let messages = asked.messages.len();
    if messages > BATCH_MESSAGES_MAX {
        return refuse(Refusal::BatchTooLarge { messages, messages_max: BATCH_MESSAGES_MAX });
    }
    let mut sender = Sender::new(view, asked.from, asked.admission)?;
    let mut proof = None;
    let mut records = Vec::new();
    let mut outcomes = Vec::with_capacity(messages);
    let mut ids = Vec::with_capacity(messages);
    let mut taken = BTreeSet::new();
    let mut unreceipted = false;
    for (id, message) in asked.messages {
        // Before anything is acknowledged: a third cell may hold a message, and may not bring it.
        if message.sender != sender.cell || message.receiver != machine.cell {
            outcomes.push(Some(Problem::from(Refusal::NotForMe)));
            continue;
        }
        ids.push(id);
        if taken.contains(&id) {
            outcomes.push(None);
            continue;
        }
        if let Some(row) = ROWS.get(view, &(id, IN))? {
            unreceipted |= row.receipt.is_none();
            outcomes.push(None);
            continue;
        }
        match take(machine, view, context, &mut sender, &mut proof, id, message)? {
            Ok(record) => {
                taken.insert(id);
                unreceipted = true;
                records.push(record);
                outcomes.push(None);
            }
            Err(refusal) => outcomes.push(Some(Problem::from(refusal))),
        }
    }
    let receipt = asked.receipt.filter(|_| outcomes.iter().all(Option::is_none));
    let receipted = receipt.is_some();
    if let Some(head) = receipt {
        if !is_own(machine, &head, &sender.cell) {
            return refuse(Refusal::WrongReceipt);
        }
        if let Err(refusal) = covers(&head, &ids) {
            return refuse(refusal);
        }
        if unreceipted {
            records.push(Record::Countersigned { head, ids });
        }
    }
    crate::commit_or_answer(records, Answer::Receive(ReceiveAnswer { outcomes, receipted }))
}

/// Whether a receipt is this cell's for what that cell has sent.
fn is_own(machine: &MessageMachine, head: &ReceiptHead, sender: &CellId) -> bool {
    head.receiver == machine.cell && head.sender == *sender
}

fn take(
    machine: &MessageMachine,
    view: &dyn Read,
    context: &Context,
    sender: &mut Sender,
    proof: &mut LastProof,
    id: MessageId,
    message: Message,
) -> Result<Result<Record, Refusal>, Fault> {
    if let Err(refusal) = check(context, &message) {
        return Ok(Err(refusal));
    }
    let door = match sender.admit(view, context, &message)? {
        Ok(door) => door,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let due =
        sender.peer.observed_ms.is_none_or(|last| context.now_ms.saturating_sub(last) >= OBSERVE_EVERY_MS);
    let observe = due && sender.cell != machine.cell;
    if observe {
        sender.peer.observed_ms = Some(context.now_ms);
    }
    let displaces = if let Door::Introduction { displaces } = door { displaces } else { None };
    Ok(Ok(Record::Incoming {
        proof_shown: message.proof.len() as u32,
        proof_matching: matching(view, &sender.cell, &message.proof, proof)?,
        observe,
        introduction: matches!(door, Door::Introduction { .. }),
        acquainted: sender.acquainted(),
        displaces,
        id,
        message,
    }))
}

fn check(context: &Context, message: &Message) -> Result<(), Refusal> {
    // Both clocks may be off: the sender's expiry is only over when it is by either.
    if message.expires_ms.saturating_add(CLOCK_SKEW_MS_MAX) < context.now_ms {
        return Err(Refusal::Expired);
    }
    let off_ms = message.timestamp_ms.saturating_sub(context.now_ms);
    if off_ms > CLOCK_SKEW_MS_MAX {
        return Err(Refusal::ClockSkew { off_ms });
    }
    let lifetime_ms = message.expires_ms.saturating_sub(message.timestamp_ms);
    if lifetime_ms == 0 || lifetime_ms > LIFETIME_MS_MAX {
        return Err(Refusal::BadLifetime);
    }
    body::check(message)
}

/// How many of the shown messages are here, shared with that cell, with a receipt; each counts once.
fn matching(view: &dyn Read, with: &CellId, shown: &[MessageId], last: &mut LastProof) -> Result<u32, Fault> {
    if let Some((proof, matching)) = last
        && proof == shown
    {
        return Ok(*matching);
    }
    let mut matching = 0;
    for id in shown.iter().collect::<BTreeSet<_>>() {
        for way in [OUT, IN] {
            if ROWS.get(view, &(*id, way))?.is_some_and(|row| row.peer == *with && row.receipt.is_some()) {
                matching += 1;
                break;
            }
        }
    }
    *last = Some((shown.to_vec(), matching));
    Ok(matching)
}

/// Whether a receipt's head is about these very ids.
pub(crate) fn covers(head: &ReceiptHead, ids: &[MessageId]) -> Result<(), Refusal> {
    if ids.len() > BATCH_MESSAGES_MAX {
        return Err(Refusal::BatchTooLarge { messages: ids.len(), messages_max: BATCH_MESSAGES_MAX });
    }
    if head.count != ids.len() as u64 || head.root != batch_root(ids) {
        return Err(Refusal::WrongReceipt);
    }
    Ok(())
}

pub(crate) fn countersign(machine: &MessageMachine, view: &dyn Read, asked: CountersignRequest) -> Decided {
    let CountersignRequest { head, ids } = asked;
    if let Err(refusal) = covers(&head, &ids) {
        return refuse(refusal);
    }
    let mut news = false;
    for id in &ids {
        let Some(row) = ROWS.get(view, &(*id, IN))? else { return refuse(Refusal::UnknownMessage) };
        if !is_own(machine, &head, &row.peer) {
            return refuse(Refusal::WrongReceipt);
        }
        news |= row.receipt.is_none();
    }
    let records = if news { vec![Record::Countersigned { head, ids }] } else { Vec::new() };
    crate::commit_or_answer(records, Answer::Countersign(Empty {}))
}

pub(crate) fn settle(view: &dyn Read, asked: SettleRequest) -> Decided {
    let Some(row) = ROWS.get(view, &(asked.id, IN))? else { return refuse(Refusal::UnknownMessage) };
    // Settled before, or it asked for nothing.
    if UNSETTLED.get(view, &row.index)?.is_none() {
        return answer(Answer::Settle(Empty {}));
    }
    commit(vec![Record::Settled { id: asked.id, problem: asked.problem }], Answer::Settle(Empty {}))
}
