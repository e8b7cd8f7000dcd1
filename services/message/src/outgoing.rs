//! Outgoing messages: into the outbox, and out of it.

use machine::{Context, Fault, Read, answer, commit, refuse};
use protocol::message::{LIFETIME_MS_MAX, Message};
use protocol::messages::{
    Answer, EnqueueRequest, RecordReceiptRequest, RecordRefusalRequest, SendAnswer, Status,
};
use protocol::receipt::batch_root;
use protocol::shared::Empty;
use protocol::{Hash, MessageId};

use crate::tables::{EXPIRIES, FATES, IDS, MESSAGES, OUT, OUTBOX, PEERS, REQUESTS, TOTALS};
use crate::{Decided, MessageMachine, Record, Refusal, body, lists};

/// The most messages that wait for one receiver.
const WAITING_PER_RECEIVER_MAX: u64 = 100_000;
/// The most messages that wait for all receivers.
const WAITING_MAX: u64 = 1_000_000;
/// The most messages that one sweep expires.
const SWEEP_MAX: usize = 1_000;
/// The longest request id, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

pub(crate) fn enqueue(machine: &MessageMachine, view: &dyn Read, context: &Context, asked: EnqueueRequest) -> Decided {
    let EnqueueRequest { message, request_id } = asked;
    if message.sender != machine.cell {
        return refuse(Refusal::NotMine);
    }
    if let Err(refusal) = check(&message, context.now_ms) {
        return refuse(refusal);
    }
    let id = message.id();
    if let Some(request_id) = &request_id {
        if request_id.is_empty() || request_id.len() > REQUEST_ID_BYTES_MAX {
            return refuse(Refusal::BadRequestId);
        }
        match REQUESTS.get(view, request_id)? {
            Some((asked, first)) if asked == fingerprint(&message) => return now(view, &first),
            Some(_) => return refuse(Refusal::RequestIdReused),
            None => {}
        }
    }
    if IDS.get(view, &(id, OUT))?.is_some() {
        return now(view, &id);
    }
    let waiting = PEERS.get(view, &message.receiver)?.map_or(0, |peer| peer.waiting);
    let total = TOTALS.get(view, &())?.map_or(0, |totals| totals.waiting);
    if waiting >= WAITING_PER_RECEIVER_MAX || total >= WAITING_MAX {
        return refuse(Refusal::OutboxFull);
    }
    let queued = SendAnswer { id, status: Status::Queued, reply: None, problem: None };
    commit(vec![Record::Outgoing { message, request_id }], Answer::Enqueue(queued))
}

fn check(message: &Message, now_ms: u64) -> Result<(), Refusal> {
    if message.expires_ms <= now_ms || message.expires_ms > now_ms.saturating_add(LIFETIME_MS_MAX) {
        return Err(Refusal::BadLifetime);
    }
    body::check(message)
}

/// What a request id stands for: everything the caller chose.
pub(crate) fn fingerprint(message: &Message) -> Hash {
    let mut text = message.receiver.as_bytes().to_vec();
    text.push(message.kind as u8);
    text.push(u8::from(message.sealed));
    text.extend_from_slice(message.in_reply_to.unwrap_or_default().as_bytes());
    // Sealing is randomised: two sealed bodies of one text differ, so only their presence counts.
    if !message.sealed {
        text.extend_from_slice(Hash::of(&message.body).as_bytes());
    }
    Hash::of(&text)
}

/// The answer for a message that is there already.
fn now(view: &dyn Read, id: &MessageId) -> Decided {
    match IDS.get(view, &(*id, OUT))? {
        Some(index) => {
            let fate = FATES.get(view, &index)?.unwrap_or_default();
            let status = lists::status_of(false, &fate);
            answer(Answer::Enqueue(SendAnswer { id: *id, status, reply: None, problem: fate.problem }))
        }
        None => refuse(Refusal::UnknownMessage),
    }
}

/// Whether an outgoing message waits for its delivery.
fn is_waiting(view: &dyn Read, index: u64) -> Result<bool, Fault> {
    Ok(FATES.get(view, &index)?.is_none_or(|fate| fate.receipt.is_none() && fate.end.is_none()))
}

pub(crate) fn record_receipt(view: &dyn Read, asked: RecordReceiptRequest) -> Decided {
    let RecordReceiptRequest { head, ids } = asked;
    if head.count != ids.len() as u64 || head.root != batch_root(&ids) {
        return refuse(Refusal::WrongReceipt);
    }
    let mut news = false;
    for id in &ids {
        let Some(index) = IDS.get(view, &(*id, OUT))? else { return refuse(Refusal::WrongReceipt) };
        news |= is_waiting(view, index)?;
    }
    if let Some(first) = ids.first()
        && let Some(index) = IDS.get(view, &(*first, OUT))?
        && MESSAGES.get(view, &index)?.is_none_or(|stored| stored.message.receiver != head.receiver)
    {
        return refuse(Refusal::WrongReceipt);
    }
    if !news {
        return answer(Answer::RecordReceipt(Empty {}));
    }
    commit(vec![Record::Receipted { head, ids }], Answer::RecordReceipt(Empty {}))
}

pub(crate) fn record_refusal(view: &dyn Read, asked: RecordRefusalRequest) -> Decided {
    let Some(index) = IDS.get(view, &(asked.id, OUT))? else { return refuse(Refusal::UnknownMessage) };
    if !is_waiting(view, index)? {
        return answer(Answer::RecordRefusal(Empty {}));
    }
    let record = Record::Refused { id: asked.id, problem: asked.problem };
    commit(vec![record], Answer::RecordRefusal(Empty {}))
}

pub(crate) fn cancel(view: &dyn Read, id: &MessageId) -> Decided {
    let Some(index) = IDS.get(view, &(*id, OUT))? else { return refuse(Refusal::UnknownMessage) };
    if !is_waiting(view, index)? {
        return refuse(Refusal::NotCancellable);
    }
    let cancelled = SendAnswer { id: *id, status: Status::Cancelled, reply: None, problem: None };
    commit(vec![Record::Cancelled { id: *id }], Answer::Cancel(cancelled))
}

pub(crate) fn sweep(view: &dyn Read, context: &Context) -> Decided {
    let mut ids = Vec::new();
    for row in EXPIRIES.scan(view, &(), None, false).take(SWEEP_MAX) {
        let ((expires_ms, index), _) = row?;
        if expires_ms > context.now_ms {
            break;
        }
        if let Some(stored) = MESSAGES.get(view, &index)? {
            ids.push(stored.message.id());
        }
    }
    let records = if ids.is_empty() { Vec::new() } else { vec![Record::Expired { ids }] };
    crate::commit_or_answer(records, Answer::Sweep(Empty {}))
}

/// The key of a waiting message in the outbox, if it waits.
pub(crate) fn outbox_row(view: &dyn Read, index: u64) -> Result<Option<(Message, u64)>, Fault> {
    let Some(stored) = MESSAGES.get(view, &index)? else { return Ok(None) };
    let expires = OUTBOX.get(view, &(stored.message.receiver, index))?;
    Ok(expires.map(|expires_ms| (stored.message, expires_ms)))
}
