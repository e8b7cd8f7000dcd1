//! What Message's view holds. Bodies are written once; what changes lies in small rows beside them.

use machine::Table;
use minicbor::{Decode, Encode};
use protocol::message::Message;
use protocol::receipt::ReceiptHead;
use protocol::{CellId, Hash, MessageId, Problem};

/// A message as it was journaled.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Stored {
    #[n(0)]
    pub(crate) message: Message,
    #[n(1)]
    pub(crate) incoming: bool,
    #[n(2)]
    pub(crate) matching: u32,
}

/// What became of a message beyond its first status (queued, or received).
#[derive(Clone, Debug, Default, Encode, Decode)]
pub(crate) struct Fate {
    /// The batch receipt, by the journal entry it is in, and the place in the batch.
    #[n(0)]
    pub(crate) receipt: Option<(u64, u64)>,
    #[n(1)]
    pub(crate) end: Option<End>,
    #[n(2)]
    pub(crate) problem: Option<Problem>,
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

/// What this cell and another share.
#[derive(Clone, Debug, Default, Encode, Decode)]
pub(crate) struct Peer {
    /// Messages with a receipt, both ways.
    #[n(0)]
    pub(crate) shared: u64,
    /// The latest of them, newest first.
    #[n(1)]
    pub(crate) latest: Vec<MessageId>,
    /// When the trust in it was last told.
    #[n(2)]
    pub(crate) observed_ms: u64,
    /// Messages taken from it while it was a stranger.
    #[n(3)]
    pub(crate) introductions: u32,
    /// Outgoing messages that wait for it.
    #[n(4)]
    pub(crate) waiting: u64,
}

/// Sums over all peers.
#[derive(Clone, Copy, Debug, Default, Encode, Decode)]
pub(crate) struct Totals {
    #[n(0)]
    pub(crate) waiting: u64,
    #[n(1)]
    pub(crate) strangers: u64,
}

/// By journal index.
pub(crate) const MESSAGES: Table<u64, Stored> = Table::new(0x10);
/// Journal index by id; incoming or not (a message to oneself is both).
pub(crate) const IDS: Table<(MessageId, u8), u64> = Table::new(0x11);
pub(crate) const FATES: Table<u64, Fate> = Table::new(0x12);
/// Outgoing messages that wait, by receiver and journal index; when they expire.
pub(crate) const OUTBOX: Table<(CellId, u64), u64> = Table::new(0x13);
/// Outgoing messages that wait, by expiry; their receiver.
pub(crate) const EXPIRIES: Table<(u64, u64), CellId> = Table::new(0x14);
pub(crate) const PEERS: Table<CellId, Peer> = Table::new(0x15);
pub(crate) const TOTALS: Table<(), Totals> = Table::new(0x16);
/// Batch receipts, by the journal entry they are in.
pub(crate) const RECEIPTS: Table<u64, (ReceiptHead, Vec<MessageId>)> = Table::new(0x17);
/// By request id: what was asked, and the message that came of it.
pub(crate) const REQUESTS: Table<String, (Hash, MessageId)> = Table::new(0x18);
/// Replies by the message they answer, and their journal index.
pub(crate) const REPLIES: Table<(MessageId, u64), MessageId> = Table::new(0x19);
/// Incoming messages that ask for something not done yet.
pub(crate) const UNSETTLED: Table<u64, ()> = Table::new(0x1a);
/// Published posts by journal index; their tags.
pub(crate) const POSTS: Table<u64, Vec<String>> = Table::new(0x1b);
/// Dead letters by journal index.
pub(crate) const DEAD: Table<u64, ()> = Table::new(0x1c);

/// The second half of an [`IDS`] key.
pub(crate) const OUT: u8 = 0;
/// The second half of an [`IDS`] key.
pub(crate) const IN: u8 = 1;
