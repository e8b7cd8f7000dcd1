//! Folding records into the view.

use machine::{At, Fault, Read, Write};
use protocol::message::{Message, MessageType, PROOF_ITEMS_MAX};
use protocol::receipt::ReceiptHead;
use protocol::{CellId, MessageId, Problem};

use crate::body::{self, Body};
use crate::outgoing::{fingerprint, outbox_row};
use crate::tables::{
    DEAD, End, EXPIRIES, FATES, Fate, IDS, IN, MESSAGES, OUT, OUTBOX, PEERS, POSTS, Peer, RECEIPTS, REPLIES, REQUESTS,
    Stored, TOTALS, UNSETTLED,
};
use crate::{Effect, Record, asks};

pub(crate) fn apply(view: &mut dyn Write, at: At, record: &Record) -> Result<Vec<Effect>, Fault> {
    match record {
        Record::Outgoing { message, request_id } => outgoing(view, at, message, request_id.as_ref()),
        Record::Incoming { message, shown, matching, observe, introduction } => {
            let peer = incoming(view, at, message, *matching, *introduction)?;
            let mut effects = Vec::new();
            if asks(message) {
                effects.push(Effect::Handle(message.id(), Box::new(message.clone())));
            }
            if *observe {
                let cell = message.sender;
                let shared = peer.shared;
                PEERS.put(view, &cell, &Peer { observed_ms: at.time_ms, ..peer });
                effects.push(Effect::Observe { cell, shown: *shown, matching: *matching, shared });
            }
            Ok(effects)
        }
        Record::Receipted { head, ids } => {
            RECEIPTS.put(view, &at.index, &(head.clone(), ids.clone()));
            for id in ids {
                if let Some(index) = IDS.get(view, &(*id, OUT))? {
                    leave_outbox(view, index)?;
                }
            }
            share(view, at.index, head, ids, OUT, head.receiver)?;
            Ok(Vec::new())
        }
        Record::Countersigned { head, ids } => {
            RECEIPTS.put(view, &at.index, &(head.clone(), ids.clone()));
            share(view, at.index, head, ids, IN, head.sender)?;
            Ok(Vec::new())
        }
        Record::Refused { id, problem } => die(view, id, End::Refused, Some(problem)),
        Record::Cancelled { id } => die(view, id, End::Cancelled, None),
        Record::Expired { ids } => {
            for id in ids {
                die(view, id, End::Expired, None)?;
            }
            Ok(Vec::new())
        }
        Record::Settled { id, problem } => {
            if let Some(index) = IDS.get(view, &(*id, IN))? {
                let fate = FATES.get(view, &index)?.unwrap_or_default();
                FATES.put(view, &index, &Fate { end: Some(End::Handled), problem: problem.clone(), ..fate });
                UNSETTLED.delete(view, &index);
            }
            Ok(Vec::new())
        }
    }
}

fn outgoing(
    view: &mut dyn Write,
    at: At,
    message: &Message,
    request_id: Option<&String>,
) -> Result<Vec<Effect>, Fault> {
    let id = message.id();
    MESSAGES.put(view, &at.index, &Stored { message: message.clone(), incoming: false, matching: 0 });
    IDS.put(view, &(id, OUT), &at.index);
    OUTBOX.put(view, &(message.receiver, at.index), &message.expires_ms);
    EXPIRIES.put(view, &(message.expires_ms, at.index), &message.receiver);
    if let Some(request_id) = request_id {
        REQUESTS.put(view, request_id, &(fingerprint(message), id));
    }
    count_waiting(view, &message.receiver, 1)?;
    Ok(vec![Effect::Deliver(message.receiver)])
}

fn incoming(view: &mut dyn Write, at: At, message: &Message, matching: u32, introduction: bool) -> Result<Peer, Fault> {
    let id = message.id();
    MESSAGES.put(view, &at.index, &Stored { message: message.clone(), incoming: true, matching });
    IDS.put(view, &(id, IN), &at.index);
    if asks(message) {
        UNSETTLED.put(view, &at.index, &());
    }
    if let Some(asked) = &message.in_reply_to {
        REPLIES.put(view, &(*asked, at.index), &id);
    }
    if message.kind == MessageType::Post
        && !message.sealed
        && let Ok(Body::Post(post)) = body::parse(message.kind, message.in_reply_to.is_some(), &message.body)
    {
        POSTS.put(view, &at.index, &post.tags);
    }
    let mut peer = PEERS.get(view, &message.sender)?.unwrap_or_default();
    if introduction {
        if peer.introductions == 0 {
            let mut totals = TOTALS.get(view, &())?.unwrap_or_default();
            totals.strangers += 1;
            TOTALS.put(view, &(), &totals);
        }
        peer.introductions += 1;
        PEERS.put(view, &message.sender, &peer);
    }
    Ok(peer)
}

/// Messages of a batch are shared from now on: they carry a receipt.
fn share(
    view: &mut dyn Write,
    receipt: u64,
    head: &ReceiptHead,
    ids: &[MessageId],
    way: u8,
    with: CellId,
) -> Result<(), Fault> {
    debug_assert_eq!(head.count, ids.len() as u64);
    let mut peer = PEERS.get(view, &with)?.unwrap_or_default();
    for (place, id) in (0u64..).zip(ids) {
        let Some(index) = IDS.get(view, &(*id, way))? else { continue };
        let fate = FATES.get(view, &index)?.unwrap_or_default();
        // A cancelled message that was delivered all the same keeps its end, and counts as shared.
        if fate.receipt.is_none() {
            FATES.put(view, &index, &Fate { receipt: Some((receipt, place)), ..fate });
            peer.shared += 1;
            peer.latest.insert(0, *id);
            peer.latest.truncate(PROOF_ITEMS_MAX);
        }
    }
    PEERS.put(view, &with, &peer);
    Ok(())
}

fn die(view: &mut dyn Write, id: &MessageId, end: End, problem: Option<&Problem>) -> Result<Vec<Effect>, Fault> {
    if let Some(index) = IDS.get(view, &(*id, OUT))? {
        leave_outbox(view, index)?;
        let fate = FATES.get(view, &index)?.unwrap_or_default();
        FATES.put(view, &index, &Fate { end: Some(end), problem: problem.cloned(), ..fate });
        DEAD.put(view, &index, &());
    }
    Ok(Vec::new())
}

fn leave_outbox(view: &mut dyn Write, index: u64) -> Result<(), Fault> {
    if let Some((message, expires_ms)) = outbox_row(view, index)? {
        OUTBOX.delete(view, &(message.receiver, index));
        EXPIRIES.delete(view, &(expires_ms, index));
        count_waiting(view, &message.receiver, -1)?;
    }
    Ok(())
}

fn count_waiting(view: &mut dyn Write, receiver: &CellId, by: i64) -> Result<(), Fault> {
    let mut peer = PEERS.get(view as &dyn Read, receiver)?.unwrap_or_default();
    peer.waiting = peer.waiting.saturating_add_signed(by);
    PEERS.put(view, receiver, &peer);
    let mut totals = TOTALS.get(view as &dyn Read, &())?.unwrap_or_default();
    totals.waiting = totals.waiting.saturating_add_signed(by);
    TOTALS.put(view, &(), &totals);
    Ok(())
}
