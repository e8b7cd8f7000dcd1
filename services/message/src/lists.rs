//! Queries: one message, lists, posts, what two cells share, what waits.
//!
//! A list reads the narrowest index that its filter has: the dead letters, the messages between two
//! cells, or the lanes (way and type) that fit, merged newest first. One call looks at a bounded
//! number of rows and bytes; a page may come back short, or empty, with the cursor to go on from.

use std::iter::Peekable;

use machine::{Context, Fault, Read, answer, refuse};
use protocol::message::{Message, MessageType, QueryBody};
use protocol::messages::{
    Answer, ListMessages, MessageView, PostView, Shared, Status, WaitingMessage, WaitingRequest,
};
use protocol::shared::{ListRequest, Page, page_limit};
use protocol::{CellId, Hash, MessageId};

use crate::body::{self, Body};
use crate::limits::{
    BATCH_MESSAGES_MAX, LIST_BYTES_MAX, POSTS_DEFAULT, POSTS_MAX, ROWS_PER_CALL_MAX, WAITING_BYTES_MAX,
};
use crate::shown::{Receipts, direction_of, show, status_of};
use crate::tables::{
    BODIES, BY_PEER, DEAD, EVERY_POST, IN, LATEST, OUT, OUTBOX, PEERS, POSTS, ROWS, is_of, lane,
    receivers_waiting, topic_of_author, topic_of_tag, way_of,
};
use crate::{Decided, MessageMachine, Refusal};

/// A row of an index: journal index, lane, and the message where the index holds it.
type Found = Result<(u64, u8, Option<Message>), Fault>;
type Source<'a> = Box<dyn Iterator<Item = Found> + 'a>;

pub(crate) fn lookup(view: &dyn Read, id: &MessageId) -> Decided {
    // A message to oneself is both: what was received tells more.
    for way in [IN, OUT] {
        if let Some(row) = ROWS.get(view, &(*id, way))?
            && let Some(message) = BODIES.get(view, &(lane(way, row.kind), row.index))?
        {
            let view = show(view, &mut Receipts::default(), *id, way, message, row)?;
            return answer(Answer::Lookup(Box::new(view)));
        }
    }
    refuse(Refusal::UnknownMessage)
}

pub(crate) fn list(machine: &MessageMachine, view: &dyn Read, asked: &ListMessages) -> Decided {
    let Ok(after) = cursor(asked.cursor.as_ref()) else { return refuse(Refusal::BadCursor) };
    let source = source(machine, view, asked, after);
    let page = page(view, source, page_limit(asked.limit), asked)?;
    answer(Answer::List(page))
}

pub(crate) fn dead(view: &dyn Read, asked: &ListRequest) -> Decided {
    let Ok(after) = cursor(asked.cursor.as_ref()) else { return refuse(Refusal::BadCursor) };
    let page = page(view, dead_letters(view, after), asked.limit(), &ListMessages::default())?;
    answer(Answer::Dead(page))
}

fn dead_letters(view: &dyn Read, after: Option<u64>) -> Source<'_> {
    Box::new(
        DEAD.scan(view, &(), after.as_ref(), true).map(|row| row.map(|(index, lane)| (index, lane, None))),
    )
}

/// The narrowest index for a filter, newest first.
fn source<'a>(
    machine: &MessageMachine,
    view: &'a dyn Read,
    asked: &ListMessages,
    after: Option<u64>,
) -> Source<'a> {
    if matches!(asked.status, Some(Status::Refused | Status::Expired | Status::Cancelled)) {
        return dead_letters(view, after);
    }
    // Every message has this cell at one end: the other end, where it is named, is the peer.
    let other = [asked.from, asked.to].into_iter().flatten().find(|cell| *cell != machine.cell);
    let oneself = asked.from.and(asked.to).filter(|_| other.is_none());
    if let Some(peer) = other.or(oneself) {
        let after = after.map(|index| (peer, index));
        let rows = BY_PEER.scan(view, &peer, after.as_ref(), true);
        return Box::new(rows.map(|row| row.map(|((_, index), lane)| (index, lane, None))));
    }
    let lanes = [OUT, IN].into_iter().flat_map(|way| MessageType::ALL.map(|kind| lane(way, kind)));
    let sources = lanes
        .filter(|lane| fits_lane(asked, *lane))
        .map(|lane| {
            let after = after.map(|index| (lane, index));
            let rows = BODIES.scan(view, &lane, after.as_ref(), true);
            let rows = rows.map(|row| row.map(|((lane, index), message)| (index, lane, Some(message))));
            (Box::new(rows) as Source<'a>).peekable()
        })
        .collect();
    Box::new(Newest { sources })
}

/// Several sources as one, newest first. Each journal entry is in one lane only.
struct Newest<'a> {
    sources: Vec<Peekable<Source<'a>>>,
}

impl Iterator for Newest<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let rank = |source: &mut Peekable<Source<'_>>| match source.peek() {
            None => None,
            Some(Ok((index, ..))) => Some(*index),
            // What cannot be read comes first: it ends the list.
            Some(Err(_)) => Some(u64::MAX),
        };
        let (_, newest) = self
            .sources
            .iter_mut()
            .enumerate()
            .filter_map(|(number, source)| rank(source).map(|index| (index, number)))
            .max()?;
        self.sources[newest].next()
    }
}

fn fits_lane(asked: &ListMessages, lane: u8) -> bool {
    asked.kind.is_none_or(|kind| is_of(lane, kind))
        && asked.direction.is_none_or(|direction| direction == direction_of(way_of(lane)))
}

fn page(
    view: &dyn Read,
    source: Source<'_>,
    limit: usize,
    asked: &ListMessages,
) -> Result<Page<MessageView>, Fault> {
    let mut page = Page { items: Vec::new(), next: None };
    let mut receipts = Receipts::default();
    let mut bytes = 0;
    for (looked, found) in source.enumerate() {
        if page.items.len() == limit || looked == ROWS_PER_CALL_MAX || bytes >= LIST_BYTES_MAX {
            return Ok(page);
        }
        let (index, lane, message) = found?;
        page.next = Some(index.to_string());
        if !fits_lane(asked, lane) {
            continue;
        }
        let message = if message.is_some() { message } else { BODIES.get(view, &(lane, index))? };
        let Some(message) = message else { continue };
        bytes += message.body.len();
        let ends_fit = asked.from.is_none_or(|from| from == message.sender)
            && asked.to.is_none_or(|to| to == message.receiver);
        if !ends_fit {
            continue;
        }
        let (id, way) = (message.id(), way_of(lane));
        let Some(row) = ROWS.get(view, &(id, way))? else { continue };
        if asked.status.is_none_or(|status| status == status_of(way, &row)) {
            page.items.push(show(view, &mut receipts, id, way, message, row)?);
        }
    }
    page.next = None;
    Ok(page)
}

pub(crate) fn posts(view: &dyn Read, query: &QueryBody) -> Decided {
    let limit = query.limit.unwrap_or(POSTS_DEFAULT).clamp(1, POSTS_MAX) as usize;
    let topic = match (&query.tag, &query.author) {
        (Some(tag), _) => topic_of_tag(tag),
        (None, Some(author)) => topic_of_author(author),
        (None, None) => EVERY_POST,
    };
    let mut items = Vec::new();
    let mut bytes = 0;
    for row in POSTS.scan(view, &topic, None, true).take(ROWS_PER_CALL_MAX) {
        if items.len() == limit || bytes >= LIST_BYTES_MAX {
            break;
        }
        let ((_, index), ()) = row?;
        let Some(message) = BODIES.get(view, &(lane(IN, MessageType::Post), index))? else { continue };
        bytes += message.body.len();
        if query.author.is_some_and(|author| author != message.sender) {
            continue;
        }
        if let Ok(Body::Post(post)) = body::parse(MessageType::Post, false, &message.body) {
            items.push(PostView {
                id: message.id(),
                author: message.sender,
                timestamp_ms: message.timestamp_ms,
                content_hash: Hash::of(post.content.to_string().as_bytes()),
                tags: post.tags,
                content: post.content,
            });
        }
    }
    answer(Answer::Posts(Page { items, next: None }))
}

pub(crate) fn shared(view: &dyn Read, with: &CellId) -> Decided {
    let count = PEERS.get(view, with)?.map_or(0, |peer| peer.shared);
    let latest = LATEST.get(view, with)?.unwrap_or_default();
    answer(Answer::GetShared(Shared { count, latest }))
}

pub(crate) fn receivers(view: &dyn Read) -> Decided {
    let items = receivers_waiting(view)?.into_iter().map(|(receiver, _)| receiver).collect();
    answer(Answer::Receivers(Page { items, next: None }))
}

pub(crate) fn waiting(view: &dyn Read, context: &Context, asked: &WaitingRequest) -> Decided {
    let limit =
        usize::try_from(asked.limit).map_or(BATCH_MESSAGES_MAX, |limit| limit.min(BATCH_MESSAGES_MAX));
    let after = asked.after.map(|index| (asked.receiver, index));
    let mut items: Vec<WaitingMessage> = Vec::new();
    let mut bytes = 0;
    let mut last = asked.after;
    for (looked_at, row) in OUTBOX.scan(view, &asked.receiver, after.as_ref(), false).enumerate() {
        let ((_, index), lane) = row?;
        // The sweep will expire what is over; a receiver would refuse it.
        let message = BODIES.get(view, &(lane, index))?.filter(|it| it.expires_ms > context.now_ms);
        bytes += message.as_ref().map_or(0, |message| message.body.len());
        let full = items.len() == limit || (bytes > WAITING_BYTES_MAX && !items.is_empty());
        if full || looked_at == ROWS_PER_CALL_MAX {
            let next = last.map(|index: u64| index.to_string());
            return answer(Answer::Waiting(Page { items, next }));
        }
        items.extend(message.map(|message| WaitingMessage { index, message }));
        last = Some(index);
    }
    answer(Answer::Waiting(Page { items, next: None }))
}

fn cursor(text: Option<&String>) -> Result<Option<u64>, std::num::ParseIntError> {
    text.map(|text| text.parse()).transpose()
}
