//! Queries: one message, lists, posts, what two cells share, what waits.

use machine::{Context, Fault, Read, answer, refuse};
use protocol::message::{MessageType, QueryBody};
use protocol::messages::{
    Answer, Direction, ListMessages, MessageView, PostView, Shared, Status, WaitingMessage, WaitingRequest,
};
use protocol::receipt::{Receipt, ShownMessage};
use protocol::shared::{ListRequest, Page, page_limit};
use protocol::{CellId, Hash, MessageId};

use crate::body::{self, Body};
use crate::tables::{
    DEAD, End, FATES, Fate, IDS, IN, MESSAGES, OUT, OUTBOX, PEERS, POSTS, RECEIPTS, REPLIES, Stored,
};
use crate::{Decided, Refusal, first_waiting};

/// How many rows one list call looks at before it gives what it has.
const ROWS_PER_CALL_MAX: usize = 10_000;
/// The most replies shown with a message.
const REPLIES_SHOWN_MAX: usize = 16;
/// The most posts of one answer.
const POSTS_MAX: u32 = 100;
/// How many bytes of bodies one `waiting` answer carries at most, beyond its first message.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

pub(crate) fn status_of(incoming: bool, fate: &Fate) -> Status {
    match (fate.end, fate.receipt.is_some(), incoming) {
        (Some(End::Handled), ..) => Status::Handled,
        (_, true, false) => Status::Delivered,
        (Some(End::Refused), ..) => Status::Refused,
        (Some(End::Expired), ..) => Status::Expired,
        (Some(End::Cancelled), ..) => Status::Cancelled,
        (None, _, true) => Status::Received,
        (None, false, false) => Status::Queued,
    }
}

pub(crate) fn lookup(view: &dyn Read, id: &MessageId) -> Decided {
    // A message to oneself is both: what was received tells more.
    for way in [IN, OUT] {
        if let Some(index) = IDS.get(view, &(*id, way))?
            && let Some(stored) = MESSAGES.get(view, &index)?
        {
            return answer(Answer::Lookup(show(view, index, stored)?));
        }
    }
    refuse(Refusal::UnknownMessage)
}

fn show(view: &dyn Read, index: u64, stored: Stored) -> Result<MessageView, Fault> {
    let fate = FATES.get(view, &index)?.unwrap_or_default();
    let Stored { message, incoming, matching } = stored;
    let id = message.id();
    let replies: Result<Vec<_>, Fault> =
        REPLIES.scan(view, &id, None, false).take(REPLIES_SHOWN_MAX).map(|row| row.map(|(_, reply)| reply)).collect();
    let receipt = receipt_of(view, &fate)?;
    let body = if message.sealed { None } else { serde_json::from_slice(&message.body).ok() };
    Ok(MessageView {
        id,
        direction: if incoming { Direction::In } else { Direction::Out },
        kind: message.kind,
        sender: message.sender,
        receiver: message.receiver,
        timestamp_ms: message.timestamp_ms,
        expires_ms: message.expires_ms,
        status: status_of(incoming, &fate),
        sealed: message.sealed.then(|| hex(&message.body)),
        body,
        in_reply_to: message.in_reply_to,
        replies: replies?,
        signature: message.signature,
        proof: message.proof,
        proof_matching: incoming.then_some(matching),
        receipt,
        problem: fate.problem,
        index,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing into a String cannot fail");
        text
    })
}

fn receipt_of(view: &dyn Read, fate: &Fate) -> Result<Option<Receipt>, Fault> {
    let Some((batch, place)) = fate.receipt else { return Ok(None) };
    let Some((head, ids)) = RECEIPTS.get(view, &batch)? else { return Ok(None) };
    Ok(Receipt::of(&head, &ids, place as usize))
}

pub(crate) fn list(view: &dyn Read, list: &ListMessages) -> Decided {
    let Ok(after) = cursor(list.cursor.as_ref()) else { return refuse(Refusal::BadCursor) };
    let limit = page_limit(list.limit);
    let mut page = Page { items: Vec::new(), next: None };
    for (looked, row) in MESSAGES.scan(view, &(), after.as_ref(), true).enumerate() {
        if page.items.len() == limit || looked == ROWS_PER_CALL_MAX {
            return answer(Answer::List(page));
        }
        let (index, stored) = row?;
        page.next = Some(index.to_string());
        if let Some(shown) = fitting(view, list, index, stored)? {
            page.items.push(shown);
        }
    }
    page.next = None;
    answer(Answer::List(page))
}

fn fitting(view: &dyn Read, list: &ListMessages, index: u64, stored: Stored) -> Result<Option<MessageView>, Fault> {
    let direction = if stored.incoming { Direction::In } else { Direction::Out };
    let fits = list.kind.is_none_or(|kind| kind == stored.message.kind)
        && list.from.is_none_or(|from| from == stored.message.sender)
        && list.to.is_none_or(|to| to == stored.message.receiver)
        && list.direction.is_none_or(|asked| asked == direction);
    if !fits {
        return Ok(None);
    }
    let shown = show(view, index, stored)?;
    Ok(list.status.is_none_or(|status| status == shown.status).then_some(shown))
}

pub(crate) fn dead(view: &dyn Read, list: &ListRequest) -> Decided {
    let Ok(after) = cursor(list.cursor.as_ref()) else { return refuse(Refusal::BadCursor) };
    let rows = DEAD.scan(view, &(), after.as_ref(), true);
    let page = machine::page::collect(rows, list.limit(), |(index, ())| (index, index.to_string()))?;
    let mut items = Vec::new();
    for index in page.items {
        if let Some(stored) = MESSAGES.get(view, &index)? {
            items.push(show(view, index, stored)?);
        }
    }
    answer(Answer::Dead(Page { items, next: page.next }))
}

pub(crate) fn posts(view: &dyn Read, query: &QueryBody) -> Decided {
    let limit = query.limit.unwrap_or(20).clamp(1, POSTS_MAX) as usize;
    let mut items = Vec::new();
    for row in POSTS.scan(view, &(), None, true).take(ROWS_PER_CALL_MAX) {
        let (index, tags) = row?;
        if query.tag.as_ref().is_some_and(|tag| !tags.contains(tag)) {
            continue;
        }
        let Some(stored) = MESSAGES.get(view, &index)? else { continue };
        if query.author.is_some_and(|author| author != stored.message.sender) {
            continue;
        }
        if let Ok(Body::Post(post)) = body::parse(MessageType::Post, false, &stored.message.body) {
            items.push(PostView {
                id: stored.message.id(),
                author: stored.message.sender,
                timestamp_ms: stored.message.timestamp_ms,
                content_hash: Hash::of(post.content.to_string().as_bytes()),
                tags: post.tags,
                content: post.content,
            });
        }
        if items.len() == limit {
            break;
        }
    }
    answer(Answer::Posts(Page { items, next: None }))
}

pub(crate) fn shared(view: &dyn Read, with: &CellId) -> Decided {
    let peer = PEERS.get(view, with)?.unwrap_or_default();
    let mut latest = Vec::new();
    for id in peer.latest {
        for way in [OUT, IN] {
            let Some(index) = IDS.get(view, &(id, way))? else { continue };
            let fate = FATES.get(view, &index)?.unwrap_or_default();
            if let Some(receipt) = receipt_of(view, &fate)? {
                latest.push(ShownMessage { id, receipt });
                break;
            }
        }
    }
    answer(Answer::GetShared(Shared { count: peer.shared, latest }))
}

pub(crate) fn receivers(view: &dyn Read) -> Decided {
    answer(Answer::Receivers(Page { items: receivers_waiting(view)?, next: None }))
}

/// The cells that outgoing messages wait for.
pub(crate) fn receivers_waiting(view: &dyn Read) -> Result<Vec<CellId>, Fault> {
    let mut receivers = Vec::new();
    for row in PEERS.scan(view, &(), None, false) {
        let (cell, peer) = row?;
        if peer.waiting > 0 && first_waiting(view, &cell)?.is_some() {
            receivers.push(cell);
        }
    }
    Ok(receivers)
}

pub(crate) fn waiting(view: &dyn Read, context: &Context, asked: &WaitingRequest) -> Decided {
    let after = asked.after.map(|index| (asked.receiver, index));
    let mut items: Vec<WaitingMessage> = Vec::new();
    let mut bytes = 0;
    for row in OUTBOX.scan(view, &asked.receiver, after.as_ref(), false) {
        let ((_, index), expires_ms) = row?;
        if items.len() as u32 >= asked.limit {
            break;
        }
        // The sweep will expire it; a receiver would refuse it.
        if expires_ms <= context.now_ms {
            continue;
        }
        let Some(Stored { message, .. }) = MESSAGES.get(view, &index)? else { continue };
        bytes += message.body.len();
        if bytes > WAITING_BYTES_MAX && !items.is_empty() {
            break;
        }
        items.push(WaitingMessage { index, message });
    }
    answer(Answer::Waiting(Page { items, next: None }))
}

fn cursor(text: Option<&String>) -> Result<Option<u64>, std::num::ParseIntError> {
    text.map(|text| text.parse()).transpose()
}
