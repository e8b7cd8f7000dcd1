//! What Message's view holds.
//!
//! A body is written once, under its lane (way and type) and journal index; what changes lies in a
//! small row under the message's id. So a change of status never touches a body, and a list by way,
//! type or peer reads only what it shows. An outgoing message takes five puts and an incoming one
//! three (one more if it asks for something or answers something), beside the counters of its peer
//! and of all, whose keys are the same for a whole batch.

use machine::{Fault, Read, Table};
use minicbor::{Decode, Encode};
use protocol::message::{Message, MessageType};
use protocol::receipt::{ReceiptHead, ShownMessage};
use protocol::{CellId, Hash, MessageId, Problem};

/// Which way a message went: the second half of a [`ROWS`] key. A message to oneself went both.
pub(crate) type Way = u8;
/// Sent from here.
pub(crate) const OUT: Way = 0;
/// Received here.
pub(crate) const IN: Way = 1;

/// Way and type in one byte: the first half of a [`BODIES`] key.
pub(crate) fn lane(way: Way, kind: MessageType) -> u8 {
    way << 3 | kind as u8
}

/// The way of a lane.
pub(crate) fn way_of(lane: u8) -> Way {
    lane >> 3
}

/// Whether a lane is the type's, whichever way.
pub(crate) fn is_of(lane: u8, kind: MessageType) -> bool {
    lane & 7 == kind as u8
}

/// What is known of a message beside its body.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Row {
    /// The journal entry it is in.
    #[n(0)]
    pub(crate) index: u64,
    /// The other cell: its receiver if it was sent from here, its sender otherwise.
    #[n(1)]
    pub(crate) peer: CellId,
    #[n(2)]
    pub(crate) kind: MessageType,
    #[n(3)]
    pub(crate) expires_ms: u64,
    /// As [`crate::limits::stored_bytes`] counts.
    #[n(4)]
    pub(crate) bytes: u64,
    /// Incoming: how many of the messages its proof showed were here with a receipt.
    #[n(5)]
    pub(crate) matching: u32,
    /// The batch receipt, by the journal entry it is in, and the place in the batch.
    #[n(6)]
    pub(crate) receipt: Option<(u64, u64)>,
    #[n(7)]
    pub(crate) end: Option<End>,
    #[n(8)]
    pub(crate) problem: Option<Problem>,
}

impl Row {
    /// Whether it stands in the outbox. Only asked of outgoing messages.
    pub(crate) fn waits(&self) -> bool {
        self.receipt.is_none() && self.end.is_none()
    }
}

/// How a message ended, other than by its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum End {
    #[n(0)]
    Refused,
    #[n(1)]
    Expired,
    #[n(2)]
    Cancelled,
    #[n(3)]
    Handled,
}

/// Counters of one peer.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct Peer {
    /// Messages with a receipt, both ways.
    #[n(0)]
    pub(crate) shared: u64,
    /// When its last observation was.
    #[n(1)]
    pub(crate) observed_ms: Option<u64>,
    /// Messages taken from it while it was a stranger.
    #[n(2)]
    pub(crate) introductions: u32,
    /// Since when its introduction is pending.
    #[n(3)]
    pub(crate) pending_since_ms: Option<u64>,
    /// Outgoing messages that wait for it.
    #[n(4)]
    pub(crate) waiting: u64,
    /// Its messages that wait to be carried out.
    #[n(5)]
    pub(crate) unsettled: u64,
    /// Their bytes.
    #[n(6)]
    pub(crate) unsettled_bytes: u64,
    /// Bytes kept of its messages.
    #[n(7)]
    pub(crate) bytes: u64,
}

/// Sums over all peers.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct Totals {
    /// Outgoing messages that wait.
    #[n(0)]
    pub(crate) waiting: u64,
    /// Receivers that something waits for.
    #[n(1)]
    pub(crate) receivers: u64,
    /// Strangers whose introduction is pending.
    #[n(2)]
    pub(crate) strangers: u64,
    /// Bytes of messages that wait to be carried out.
    #[n(3)]
    pub(crate) unsettled_bytes: u64,
    /// Bytes kept of incoming messages.
    #[n(4)]
    pub(crate) bytes: u64,
}

/// An incoming message that waits to be carried out.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct Unsettled {
    #[n(0)]
    pub(crate) id: MessageId,
    #[n(1)]
    pub(crate) kind: MessageType,
}

/// A batch of ids under one receipt.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Batch {
    #[n(0)]
    pub(crate) head: ReceiptHead,
    #[n(1)]
    pub(crate) ids: Vec<MessageId>,
}

/// Messages as they were journaled, by lane and journal index.
pub(crate) const BODIES: Table<(u8, u64), Message> = Table::new(0x10);
/// What is known of a message, by id and way.
pub(crate) const ROWS: Table<(MessageId, Way), Row> = Table::new(0x11);
/// The messages between this cell and another, by journal index: their lanes.
pub(crate) const BY_PEER: Table<(CellId, u64), u8> = Table::new(0x12);
/// Outgoing messages that wait, by receiver and journal index: their lanes.
pub(crate) const OUTBOX: Table<(CellId, u64), u8> = Table::new(0x13);
/// Outgoing messages that wait, by expiry.
pub(crate) const EXPIRIES: Table<(u64, u64), MessageId> = Table::new(0x14);
pub(crate) const PEERS: Table<CellId, Peer> = Table::new(0x15);
pub(crate) const TOTALS: Table<(), Totals> = Table::new(0x16);
/// Batch receipts, by the journal entry they are in.
pub(crate) const RECEIPTS: Table<u64, Batch> = Table::new(0x17);
/// By request id: what was asked, and the message that came of it.
pub(crate) const REQUESTS: Table<String, (Hash, MessageId)> = Table::new(0x18);
/// Replies by the message they answer, and their journal index.
pub(crate) const REPLIES: Table<(MessageId, u64), MessageId> = Table::new(0x19);
/// Incoming messages that wait to be carried out, by journal index.
pub(crate) const UNSETTLED: Table<u64, Unsettled> = Table::new(0x1a);
/// Published posts, by topic (see [`topic_of_author`] and [`topic_of_tag`]) and journal index.
pub(crate) const POSTS: Table<(Hash, u64), ()> = Table::new(0x1b);
/// Dead letters by journal index: their lanes.
pub(crate) const DEAD: Table<u64, u8> = Table::new(0x1c);
/// The latest messages shared with a peer, newest first, each with its receipt.
pub(crate) const LATEST: Table<CellId, Vec<ShownMessage>> = Table::new(0x1d);
/// Strangers whose introduction is pending, by since when.
pub(crate) const STRANGERS: Table<(u64, CellId), ()> = Table::new(0x1e);

/// The topic of every post.
pub(crate) const EVERY_POST: Hash = Hash::ZERO;

/// The topic of one author's posts.
pub(crate) fn topic_of_author(author: &CellId) -> Hash {
    Hash::of(&[b"author/", author.as_bytes().as_slice()].concat())
}

/// The topic of the posts with one tag.
pub(crate) fn topic_of_tag(tag: &str) -> Hash {
    Hash::of(&[b"tag/", tag.as_bytes()].concat())
}

/// The cells that outgoing messages wait for, each with the journal index of the first. Their number
/// is bounded by [`crate::limits::RECEIVERS_MAX`].
pub(crate) fn receivers_waiting(view: &dyn Read) -> Result<Vec<(CellId, u64)>, Fault> {
    let mut receivers: Vec<(CellId, u64)> = Vec::new();
    loop {
        // From the last key that this receiver could have: one seek a receiver, not one a message.
        let after = receivers.last().map(|(cell, _)| (*cell, u64::MAX));
        match OUTBOX.scan(view, &(), after.as_ref(), false).next().transpose()? {
            Some(((cell, index), _)) => receivers.push((cell, index)),
            None => return Ok(receivers),
        }
    }
}
