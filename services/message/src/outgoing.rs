//! Outgoing messages: into the outbox, and out of it.

use machine::{Context, Fault, Read, answer, commit, refuse};
use protocol::message::{LIFETIME_MS_MAX, Message};
use protocol::messages::{
    Answer, EnqueueRequest, RecordReceiptRequest, RecordRefusalRequest, SendAnswer, Status,
};
use protocol::shared::Empty;
use protocol::{CellId, Hash, MessageId};

use crate::limits::{RECEIVERS_MAX, REQUEST_ID_BYTES_MAX, SWEEP_MAX, WAITING_MAX, WAITING_PER_RECEIVER_MAX};
use crate::receive::covers;
use crate::tables::{EXPIRIES, OUT, PEERS, REQUESTS, ROWS, TOTALS};
use crate::{Decided, MessageMachine, Record, Refusal, body, shown};

pub(crate) fn enqueue(
    machine: &MessageMachine,
    view: &dyn Read,
    context: &Context,
    asked: EnqueueRequest,
) -> Decided {
    let EnqueueRequest { id, message, request_id } = asked;
    if message.sender != machine.cell {
        return refuse(Refusal::NotMine);
    }
    // What is known is answered as before, whatever has become of its lifetime by now.
    if let Some(request_id) = &request_id {
        if request_id.is_empty() || request_id.len() > REQUEST_ID_BYTES_MAX {
            return refuse(Refusal::BadRequestId);
        }
        match REQUESTS.get(view, request_id)? {
            Some((asked, first)) if asked == fingerprint(&message) => return as_it_stands(view, &first),
            Some(_) => return refuse(Refusal::RequestIdReused),
            None => {}
        }
    }
    if ROWS.get(view, &(id, OUT))?.is_some() {
        return as_it_stands(view, &id);
    }
    if let Err(refusal) = check(&message, context.now_ms) {
        return refuse(refusal);
    }
    if let Some(waiting) = full(view, &message.receiver)? {
        return refuse(Refusal::OutboxFull { waiting });
    }
    let queued = SendAnswer { id, status: Status::Queued, reply: None, problem: None };
    commit(vec![Record::Outgoing { message, request_id, id }], Answer::Enqueue(queued))
}

fn check(message: &Message, now_ms: u64) -> Result<(), Refusal> {
    let lifetime_ms = message.expires_ms.saturating_sub(message.timestamp_ms);
    if message.expires_ms <= now_ms || lifetime_ms == 0 || lifetime_ms > LIFETIME_MS_MAX {
        return Err(Refusal::BadLifetime);
    }
    body::check(message)
}

/// How many messages wait, if that is too many for one more to this receiver.
fn full(view: &dyn Read, receiver: &CellId) -> Result<Option<u64>, Fault> {
    let waiting = PEERS.get(view, receiver)?.map_or(0, |peer| peer.waiting);
    let totals = TOTALS.get(view, &())?.unwrap_or_default();
    if waiting >= WAITING_PER_RECEIVER_MAX {
        return Ok(Some(waiting));
    }
    let full = totals.waiting >= WAITING_MAX || (waiting == 0 && totals.receivers >= RECEIVERS_MAX);
    Ok(full.then_some(totals.waiting))
}

/// What a request id stands for: everything the caller chose.
pub(crate) fn fingerprint(message: &Message) -> Hash {
    let mut text = message.receiver.as_bytes().to_vec();
    text.push(message.kind as u8);
    text.push(u8::from(message.sealed));
    text.extend_from_slice(message.in_reply_to.unwrap_or_default().as_bytes());
    if message.sealed {
        // Sealing is randomised: of two ciphertexts of one text only the length is the same.
        text.extend_from_slice(&(message.body.len() as u64).to_le_bytes());
    } else {
        text.extend_from_slice(Hash::of(&message.body).as_bytes());
    }
    Hash::of(&text)
}

/// The answer for a message that is there already.
fn as_it_stands(view: &dyn Read, id: &MessageId) -> Decided {
    let Some(row) = ROWS.get(view, &(*id, OUT))? else { return refuse(Refusal::UnknownMessage) };
    let status = shown::status_of(OUT, &row);
    answer(Answer::Enqueue(SendAnswer { id: *id, status, reply: None, problem: row.problem }))
}

pub(crate) fn record_receipt(
    machine: &MessageMachine,
    view: &dyn Read,
    asked: RecordReceiptRequest,
) -> Decided {
    let RecordReceiptRequest { head, ids } = asked;
    if head.sender != machine.cell {
        return refuse(Refusal::WrongReceipt);
    }
    if let Err(refusal) = covers(&head, &ids) {
        return refuse(refusal);
    }
    let mut stale = Vec::new();
    for (place, id) in (0u64..).zip(&ids) {
        match ROWS.get(view, &(*id, OUT))? {
            Some(row) if row.peer != head.receiver => return refuse(Refusal::WrongReceipt),
            Some(row) if row.receipt.is_none() => {}
            _ => stale.push(place),
        }
    }
    let news = stale.len() < ids.len();
    let records = if news { vec![Record::Receipted { head, ids, stale }] } else { Vec::new() };
    crate::commit_or_answer(records, Answer::RecordReceipt(Empty {}))
}

pub(crate) fn record_refusal(view: &dyn Read, asked: RecordRefusalRequest) -> Decided {
    let Some(row) = ROWS.get(view, &(asked.id, OUT))? else { return refuse(Refusal::UnknownMessage) };
    if !row.waits() {
        return answer(Answer::RecordRefusal(Empty {}));
    }
    let record = Record::Refused { id: asked.id, problem: asked.problem };
    commit(vec![record], Answer::RecordRefusal(Empty {}))
}

pub(crate) fn cancel(view: &dyn Read, id: &MessageId) -> Decided {
    let Some(row) = ROWS.get(view, &(*id, OUT))? else { return refuse(Refusal::UnknownMessage) };
    if !row.waits() {
        return refuse(Refusal::NotCancellable);
    }
    let cancelled = SendAnswer { id: *id, status: Status::Cancelled, reply: None, problem: None };
    commit(vec![Record::Cancelled { id: *id }], Answer::Cancel(cancelled))
}

pub(crate) fn sweep(view: &dyn Read, context: &Context) -> Decided {
    let mut ids = Vec::new();
    for row in EXPIRIES.scan(view, &(), None, false).take(SWEEP_MAX) {
        let ((expires_ms, _), id) = row?;
        if expires_ms > context.now_ms {
            break;
        }
        ids.push(id);
    }
    let records = if ids.is_empty() { Vec::new() } else { vec![Record::Expired { ids }] };
    crate::commit_or_answer(records, Answer::Sweep(Empty {}))
}
