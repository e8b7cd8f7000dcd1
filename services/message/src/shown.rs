//! Messages as people see them: body, status, replies, receipt.

use std::collections::VecDeque;

use machine::{Fault, Read};
use protocol::message::Message;
use protocol::messages::{Direction, MessageView, Status};
use protocol::receipt::{Receipt, ReceiptHead};
use protocol::{Hash, MessageId, merkle};

use crate::limits::REPLIES_SHOWN_MAX;
use crate::tables::{End, IN, RECEIPTS, REPLIES, Row, Way};

/// How many batches' paths are kept while a list is made. Neighbours in a list mostly share a batch.
const BATCHES_KEPT_MAX: usize = 4;

pub(crate) fn status_of(way: Way, row: &Row) -> Status {
    match row.end {
        Some(End::Handled) => Status::Handled,
        Some(End::Refused) => Status::Refused,
        Some(End::Expired) => Status::Expired,
        Some(End::Cancelled) => Status::Cancelled,
        None if way == IN => Status::Received,
        None if row.receipt.is_some() => Status::Delivered,
        None => Status::Queued,
    }
}

pub(crate) fn direction_of(way: Way) -> Direction {
    if way == IN { Direction::In } else { Direction::Out }
}

pub(crate) fn show(
    view: &dyn Read,
    receipts: &mut Receipts,
    id: MessageId,
    way: Way,
    message: Message,
    row: Row,
) -> Result<MessageView, Fault> {
    let replies = REPLIES.scan(view, &id, None, false).take(REPLIES_SHOWN_MAX);
    let replies: Result<Vec<_>, Fault> = replies.map(|row| row.map(|(_, reply)| reply)).collect();
    Ok(MessageView {
        id,
        direction: direction_of(way),
        kind: message.kind,
        sender: message.sender,
        receiver: message.receiver,
        timestamp_ms: message.timestamp_ms,
        expires_ms: message.expires_ms,
        status: status_of(way, &row),
        sealed: message.sealed.then(|| hex(&message.body)),
        body: if message.sealed { None } else { serde_json::from_slice(&message.body).ok() },
        in_reply_to: message.in_reply_to,
        replies: replies?,
        signature: message.signature,
        nonce: message.nonce,
        together: message.together,
        proof: message.proof,
        proof_matching: (way == IN).then_some(row.matching),
        receipt: receipts.of(view, row.receipt)?,
        problem: row.problem,
        index: row.index,
    })
}

/// Receipts, worked out once a batch while a list is made.
#[derive(Default)]
pub(crate) struct Receipts {
    kept: VecDeque<(u64, ReceiptHead, Vec<Vec<Hash>>)>,
}

impl Receipts {
    fn of(&mut self, view: &dyn Read, receipt: Option<(u64, u64)>) -> Result<Option<Receipt>, Fault> {
        let Some((entry, place)) = receipt else { return Ok(None) };
        if !self.kept.iter().any(|(kept, ..)| *kept == entry) {
            let Some(batch) = RECEIPTS.get(view, &entry)? else { return Ok(None) };
            let leaves: Vec<Hash> = batch.ids.iter().map(|id| merkle::leaf(id.as_bytes())).collect();
            self.kept.truncate(BATCHES_KEPT_MAX - 1);
            self.kept.push_front((entry, batch.head, merkle::paths(&leaves).1));
        }
        let kept = self.kept.iter().find(|(kept, ..)| *kept == entry);
        Ok(kept.and_then(|(_, head, paths)| {
            let path = paths.get(usize::try_from(place).ok()?)?.clone();
            Some(Receipt { head: head.clone(), place, path })
        }))
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
