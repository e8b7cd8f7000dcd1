//! Folding records into the view. Nothing here looks at the limits: what was decided stands.

use machine::{At, Fault, Write};
use protocol::message::{Message, MessageType, PROOF_ITEMS_MAX};
use protocol::receipt::{Receipt, ReceiptHead, ShownMessage};
use protocol::{CellId, MessageId, Problem, merkle};

use crate::body::{self, Body};
use crate::limits::stored_bytes;
use crate::outgoing::fingerprint;
use crate::tables::{
    BODIES, BY_PEER, Batch, DEAD, EVERY_POST, EXPIRIES, End, IN, LATEST, OUT, OUTBOX, PEERS, POSTS, Peer,
    RECEIPTS, REPLIES, REQUESTS, ROWS, Row, STRANGERS, TOTALS, Totals, UNSETTLED, Unsettled, Way, lane,
    topic_of_author, topic_of_tag,
};
use crate::{Effect, Record, asks};

pub(crate) fn apply(
    me: &CellId,
    view: &mut dyn Write,
    at: At,
    record: &Record,
) -> Result<Vec<Effect>, Fault> {
    match record {
        Record::Outgoing { message, request_id, id } => outgoing(view, at, id, message, request_id.as_ref()),
        Record::Incoming { .. } => incoming(view, at, record),
        Record::Receipted { head, ids, .. } => receipted(me, view, at, head, ids, OUT),
        Record::Countersigned { head, ids } => receipted(me, view, at, head, ids, IN),
        Record::Refused { id, problem } => die(view, id, End::Refused, Some(problem)),
        Record::Cancelled { id } => {
            die(view, id, End::Cancelled, None)?;
            // Who holds it in memory to carry it over looks again.
            let receiver = ROWS.get(view, &(*id, OUT))?.map(|row| row.peer);
            Ok(receiver.into_iter().map(Effect::look_again).collect())
        }
        Record::Expired { ids } => {
            for id in ids {
                die(view, id, End::Expired, None)?;
            }
            Ok(Vec::new())
        }
        Record::Settled { id, problem } => settled(view, id, problem.as_ref()),
    }
}

fn store(view: &mut dyn Write, way: Way, id: &MessageId, message: &Message, row: &Row) {
    let lane = lane(way, message.kind);
    BODIES.put(view, &(lane, row.index), message);
    ROWS.put(view, &(*id, way), row);
    BY_PEER.put(view, &(row.peer, row.index), &lane);
}

fn row_of(at: At, peer: CellId, message: &Message, matching: u32) -> Row {
    Row {
        index: at.index,
        peer,
        kind: message.kind,
        expires_ms: message.expires_ms,
        bytes: stored_bytes(message),
        matching,
        receipt: None,
        end: None,
        problem: None,
    }
}

fn outgoing(
    view: &mut dyn Write,
    at: At,
    id: &MessageId,
    message: &Message,
    request_id: Option<&String>,
) -> Result<Vec<Effect>, Fault> {
    let receiver = message.receiver;
    store(view, OUT, id, message, &row_of(at, receiver, message, 0));
    OUTBOX.put(view, &(receiver, at.index), &lane(OUT, message.kind));
    EXPIRIES.put(view, &(message.expires_ms, at.index), id);
    if let Some(request_id) = request_id {
        REQUESTS.put(view, request_id, &(fingerprint(message), *id));
    }
    let (mut peer, mut totals) = counters(view, &receiver)?;
    totals.receivers += u64::from(peer.waiting == 0);
    totals.waiting += 1;
    peer.waiting += 1;
    count(view, &receiver, &peer, &totals);
    Ok(vec![Effect::deliver(id, message)])
}

fn incoming(view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Effect>, Fault> {
    let Record::Incoming {
        message,
        id,
        proof_shown,
        proof_matching,
        observe,
        introduction,
        acquainted,
        displaces,
    } = record
    else {
        return Ok(Vec::new());
    };
    let sender = message.sender;
    let row = row_of(at, sender, message, *proof_matching);
    store(view, IN, id, message, &row);
    if let Some(asked) = &message.in_reply_to {
        REPLIES.put(view, &(*asked, at.index), id);
    }
    publish(view, at, message);
    let (mut peer, mut totals) = counters(view, &sender)?;
    peer.bytes += row.bytes;
    totals.bytes += row.bytes;
    let mut effects = Vec::new();
    if asks(message) {
        UNSETTLED.put(view, &at.index, &Unsettled { id: *id, kind: message.kind });
        peer.unsettled += 1;
        peer.unsettled_bytes += row.bytes;
        totals.unsettled_bytes += row.bytes;
        effects.push(Effect::Handle(*id, Box::new(message.clone())));
    }
    if *acquainted {
        end_pending(view, &sender, &mut peer, &mut totals);
    }
    if *introduction {
        if let Some(displaced) = displaces {
            let mut other = PEERS.get(view, displaced)?.unwrap_or_default();
            end_pending(view, displaced, &mut other, &mut totals);
            PEERS.put(view, displaced, &other);
        }
        if peer.introductions == 0 {
            peer.pending_since_ms = Some(at.time_ms);
            STRANGERS.put(view, &(at.time_ms, sender), &());
            totals.strangers += 1;
        }
        peer.introductions += 1;
    }
    if *observe {
        peer.observed_ms = Some(at.time_ms);
        let (shown, matching) = (*proof_shown, *proof_matching);
        effects.push(Effect::Observe { cell: sender, shown, matching, shared: peer.shared });
    }
    count(view, &sender, &peer, &totals);
    Ok(effects)
}

/// A post that is not sealed can be found by its author and its tags from now on.
fn publish(view: &mut dyn Write, at: At, message: &Message) {
    if message.kind != MessageType::Post || message.sealed || message.in_reply_to.is_some() {
        return;
    }
    if let Ok(Body::Post(post)) = body::parse(message.kind, false, &message.body) {
        POSTS.put(view, &(EVERY_POST, at.index), &());
        POSTS.put(view, &(topic_of_author(&message.sender), at.index), &());
        for tag in &post.tags {
            POSTS.put(view, &(topic_of_tag(tag), at.index), &());
        }
    }
}

fn end_pending(view: &mut dyn Write, stranger: &CellId, peer: &mut Peer, totals: &mut Totals) {
    if let Some(since_ms) = peer.pending_since_ms.take() {
        STRANGERS.delete(view, &(since_ms, *stranger));
        totals.strangers = totals.strangers.saturating_sub(1);
    }
}

/// Messages of a batch are shared from now on: they carry a receipt.
fn receipted(
    me: &CellId,
    view: &mut dyn Write,
    at: At,
    head: &ReceiptHead,
    ids: &[MessageId],
    way: Way,
) -> Result<Vec<Effect>, Fault> {
    let with = if way == OUT { head.receiver } else { head.sender };
    RECEIPTS.put(view, &at.index, &Batch { head: head.clone(), ids: ids.to_vec() });
    let (mut peer, mut totals) = counters(view, &with)?;
    let mut fresh = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        let Some(mut row) = ROWS.get(view, &(*id, way))? else { continue };
        if row.receipt.is_some() || row.peer != with {
            continue;
        }
        if way == OUT {
            leave_outbox(view, &row, &mut peer, &mut totals);
            // It had expired, or was cancelled, while it was under way.
            if row.end.take().is_some() {
                row.problem = None;
                DEAD.delete(view, &row.index);
            }
        }
        row.receipt = Some((at.index, place as u64));
        ROWS.put(view, &(*id, way), &row);
        fresh.push(place);
    }
    if with != *me {
        peer.shared += fresh.len() as u64;
        keep_latest(view, &with, head, ids, &fresh)?;
    }
    count(view, &with, &peer, &totals);
    Ok(Vec::new())
}

/// Keeps the newest of a batch with their receipts, so that a proof is one read.
fn keep_latest(
    view: &mut dyn Write,
    with: &CellId,
    head: &ReceiptHead,
    ids: &[MessageId],
    fresh: &[usize],
) -> Result<(), Fault> {
    if fresh.is_empty() {
        return Ok(());
    }
    let leaves: Vec<_> = ids.iter().map(|id| merkle::leaf(id.as_bytes())).collect();
    let (_, mut paths) = merkle::paths(&leaves);
    let mut latest: Vec<ShownMessage> = fresh
        .iter()
        .rev()
        .take(PROOF_ITEMS_MAX)
        .map(|&place| {
            let path = std::mem::take(&mut paths[place]);
            let receipt = Receipt { head: head.clone(), place: place as u64, path };
            ShownMessage { id: ids[place], receipt }
        })
        .collect();
    latest.extend(LATEST.get(view, with)?.unwrap_or_default());
    latest.truncate(PROOF_ITEMS_MAX);
    LATEST.put(view, with, &latest);
    Ok(())
}

fn die(
    view: &mut dyn Write,
    id: &MessageId,
    end: End,
    problem: Option<&Problem>,
) -> Result<Vec<Effect>, Fault> {
    if let Some(mut row) = ROWS.get(view, &(*id, OUT))?
        && row.waits()
    {
        let (mut peer, mut totals) = counters(view, &row.peer)?;
        leave_outbox(view, &row, &mut peer, &mut totals);
        count(view, &row.peer, &peer, &totals);
        row.end = Some(end);
        row.problem = problem.cloned();
        DEAD.put(view, &row.index, &lane(OUT, row.kind));
        ROWS.put(view, &(*id, OUT), &row);
    }
    Ok(Vec::new())
}

fn settled(view: &mut dyn Write, id: &MessageId, problem: Option<&Problem>) -> Result<Vec<Effect>, Fault> {
    if let Some(mut row) = ROWS.get(view, &(*id, IN))?
        && row.end.is_none()
    {
        let (mut peer, mut totals) = counters(view, &row.peer)?;
        peer.unsettled = peer.unsettled.saturating_sub(1);
        peer.unsettled_bytes = peer.unsettled_bytes.saturating_sub(row.bytes);
        totals.unsettled_bytes = totals.unsettled_bytes.saturating_sub(row.bytes);
        count(view, &row.peer, &peer, &totals);
        UNSETTLED.delete(view, &row.index);
        row.end = Some(End::Handled);
        row.problem = problem.cloned();
        ROWS.put(view, &(*id, IN), &row);
    }
    Ok(Vec::new())
}

fn leave_outbox(view: &mut dyn Write, row: &Row, peer: &mut Peer, totals: &mut Totals) {
    if !row.waits() {
        return;
    }
    OUTBOX.delete(view, &(row.peer, row.index));
    EXPIRIES.delete(view, &(row.expires_ms, row.index));
    peer.waiting = peer.waiting.saturating_sub(1);
    totals.waiting = totals.waiting.saturating_sub(1);
    totals.receivers = totals.receivers.saturating_sub(u64::from(peer.waiting == 0));
}

fn counters(view: &dyn Write, cell: &CellId) -> Result<(Peer, Totals), Fault> {
    Ok((PEERS.get(view, cell)?.unwrap_or_default(), TOTALS.get(view, &())?.unwrap_or_default()))
}

fn count(view: &mut dyn Write, cell: &CellId, peer: &Peer, totals: &Totals) {
    PEERS.put(view, cell, peer);
    TOTALS.put(view, &(), totals);
}
