//! Message: sending, receiving, what became of each.

use super::identity::Admission;
use super::shared::{Empty, ListRequest, Page};
use crate::id::{CellId, MessageId};
use crate::message::{Message, MessageType, QueryBody};
use crate::problem::Problem;
use crate::receipt::{Receipt, ReceiptHead, ShownMessage};

words! {
    /// How long `message.send` waits before it answers.
    #[derive(Copy, Eq, Default)]
    #[serde(rename_all = "lowercase")]
    pub enum Wait {
        /// Until the message is durable here.
        #[default]
        Queued,
        /// Until the receiver's receipt is durable here.
        Delivered,
        /// Until the receiver's reply is here.
        Answered,
    }

    /// A message to send.
    #[serde(deny_unknown_fields)]
    pub struct SendRequest {
        /// To whom: a cell id or a contact's name.
        pub to: String,
        /// Which type.
        #[serde(rename = "type")]
        pub kind: MessageType,
        /// The body that belongs to the type; at most 1 MiB of JSON text.
        pub body: serde_json::Value,
        /// Whether to seal the body for the receiver.
        #[serde(default)]
        pub seal: bool,
        /// The message this one answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub in_reply_to: Option<MessageId>,
        /// How long delivery is tried, in milliseconds; a day unless told, 30 days at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub ttl_ms: Option<u64>,
        /// How long to wait before answering.
        #[serde(default)]
        pub wait: Wait,
        /// The longest wait, in milliseconds; 10 000 unless told, 60 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub wait_ms: Option<u64>,
        /// Makes a repeated call safe: the same id gives the same message. 1 to 64 bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub request_id: Option<String>,
    }

    /// Where a message is in its life.
    #[derive(Copy, Eq)]
    #[serde(rename_all = "lowercase")]
    pub enum Status {
        /// Outgoing, durable here, not yet acknowledged.
        Queued,
        /// Outgoing, the receiver's receipt is durable here.
        Delivered,
        /// Outgoing, refused by the receiver: a dead letter.
        Refused,
        /// Outgoing, not delivered in time: a dead letter.
        Expired,
        /// Outgoing, cancelled before delivery: a dead letter.
        Cancelled,
        /// Incoming, durable here.
        Received,
        /// Incoming, and what it asked for was done or refused.
        Handled,
    }

    /// What a send came to.
    pub struct SendAnswer {
        /// The message's id.
        pub id: MessageId,
        /// Its status now.
        pub status: Status,
        /// The reply's body, when it was waited for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub reply: Option<serde_json::Value>,
        /// Why it was refused, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub problem: Option<Problem>,
    }

    /// A signed message for the outbox.
    pub struct EnqueueRequest {
        /// Its id, worked out where it was signed.
        pub id: MessageId,
        /// The message.
        pub message: Message,
        /// The caller's request id.
        pub request_id: Option<String>,
    }

    /// A batch that a peer sent; signatures were checked, each message's sender is `from`.
    pub struct ReceiveRequest {
        /// Who sent it.
        pub from: CellId,
        /// What it may do.
        pub admission: Admission,
        /// The messages, each with its id, worked out where its signature was checked.
        pub messages: Vec<(MessageId, Message)>,
        /// This cell's receipt for all of them, if it is to be journaled with them. It goes nowhere
        /// before they are durable, and is void if any of them is refused.
        pub receipt: Option<ReceiptHead>,
    }

    /// What became of each message of a batch, in order: null where it is durable here.
    pub struct ReceiveAnswer {
        /// One for each message.
        pub outcomes: Vec<Option<Problem>>,
        /// Whether the receipt that came along stands: all messages were taken, and it is durable.
        pub receipted: bool,
    }

    /// A receipt that came back for a batch.
    pub struct RecordReceiptRequest {
        /// The signed head; its signature was checked.
        pub head: ReceiptHead,
        /// The batch it covers, in order.
        pub ids: Vec<MessageId>,
    }

    /// A refusal that came back.
    pub struct RecordRefusalRequest {
        /// Which message.
        pub id: MessageId,
        /// Why.
        pub problem: Problem,
    }

    /// What was done about an incoming message.
    pub struct SettleRequest {
        /// Which message.
        pub id: MessageId,
        /// Why it was refused, if it was.
        pub problem: Option<Problem>,
    }

    /// Names a message.
    #[derive(Copy, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct MessageRef {
        /// Its id.
        pub id: MessageId,
    }

    /// Which way a message went.
    #[derive(Copy, Eq)]
    #[serde(rename_all = "lowercase")]
    pub enum Direction {
        /// Received here.
        In,
        /// Sent from here.
        Out,
    }

    /// Which messages to list, newest first.
    #[derive(Default)]
    #[serde(deny_unknown_fields)]
    pub struct ListMessages {
        /// Only this type.
        #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
        pub kind: Option<MessageType>,
        /// Only from this cell (an id; contact names are resolved before).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub from: Option<CellId>,
        /// Only to this cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub to: Option<CellId>,
        /// Only this way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub direction: Option<Direction>,
        /// Only in this status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub status: Option<Status>,
        /// At most so many; 20 unless told, 1 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
    }

    /// A message as people and clients see it.
    pub struct MessageView {
        /// Its id.
        pub id: MessageId,
        /// Which way it went.
        pub direction: Direction,
        /// Its type.
        #[serde(rename = "type")]
        pub kind: MessageType,
        /// Who sent it.
        pub sender: CellId,
        /// For whom.
        pub receiver: CellId,
        /// When it was made, by the sender's clock.
        pub timestamp_ms: u64,
        /// When it expires.
        pub expires_ms: u64,
        /// Where it is in its life.
        pub status: Status,
        /// The body, or null while it is sealed.
        pub body: Option<serde_json::Value>,
        /// Hex of the ciphertext, while it is sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sealed: Option<String>,
        /// The message it answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub in_reply_to: Option<MessageId>,
        /// The messages here that answer it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub replies: Vec<MessageId>,
        /// The sender's signature.
        pub signature: crate::signing::Signature,
        /// The sender's choice, which the signature covers.
        pub nonce: u64,
        /// Its place among the messages that the signature covers, if it is not the only one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub together: Option<crate::message::Together>,
        /// The interaction proof it carried.
        pub proof: Vec<MessageId>,
        /// Incoming: how many of the shown messages this cell holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub proof_matching: Option<u32>,
        /// The receiver's receipt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub receipt: Option<Receipt>,
        /// Why it was refused, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub problem: Option<Problem>,
        /// The journal entry it is in.
        pub index: u64,
    }

    /// One published post.
    pub struct PostView {
        /// The message that brought it.
        pub id: MessageId,
        /// Who published it.
        pub author: CellId,
        /// When.
        pub timestamp_ms: u64,
        /// BLAKE3 of the content's JSON text.
        pub content_hash: crate::id::Hash,
        /// Words to find it by.
        pub tags: Vec<String>,
        /// What was published.
        pub content: serde_json::Value,
    }

    /// Names the other cell.
    #[derive(Copy, Eq)]
    pub struct SharedRequest {
        /// Which cell.
        pub with: CellId,
    }

    /// What two cells share.
    pub struct Shared {
        /// How many messages, by this cell's journal.
        pub count: u64,
        /// The latest, newest first, with their receipts.
        pub latest: Vec<ShownMessage>,
    }

    /// A reference to an outgoing message that waits for delivery.
    #[derive(Copy, Eq)]
    pub struct OutboxCount {
        /// How many wait.
        pub waiting: u64,
    }

    /// Which outgoing messages to that cell wait, oldest first. The answer's cursor is the index to go on
    /// after; a page may be empty and have one.
    pub struct WaitingRequest {
        /// For whom.
        pub receiver: CellId,
        /// Not these: they are under way.
        pub after: Option<u64>,
        /// At most so many.
        pub limit: u32,
    }

    /// An outgoing message that waits.
    pub struct WaitingMessage {
        /// The journal entry it is in.
        pub index: u64,
        /// The message.
        pub message: Message,
    }

    /// Receipts as the receiver makes them: signed by a front, kept so that proofs can show them.
    pub struct CountersignRequest {
        /// The signed head.
        pub head: ReceiptHead,
        /// The batch it covers, in order.
        pub ids: Vec<MessageId>,
    }
}

crate::actions! {
    service Message;
    machine {
        /// Puts a signed message into the outbox.
        Enqueue enqueue(EnqueueRequest) -> SendAnswer, Command, Internal;
        /// Takes a batch from a peer: journals what is new and allowed.
        Receive receive(ReceiveRequest) -> ReceiveAnswer, Command, Internal;
        /// Records this cell's own receipt for a batch, so that proofs can show it.
        Countersign countersign(CountersignRequest) -> Empty, Command, Internal;
        /// Records the receiver's receipt for a batch.
        RecordReceipt record_receipt(RecordReceiptRequest) -> Empty, Command, Internal;
        /// Records that the receiver refused a message.
        RecordRefusal record_refusal(RecordRefusalRequest) -> Empty, Command, Internal;
        /// Records that what an incoming message asked for was done or refused.
        Settle settle(SettleRequest) -> Empty, Command, Internal;
        /// Expires what was not delivered in time.
        Sweep sweep(Empty) -> Empty, Command, Internal;
        /// Cancels a message that is still queued.
        Cancel cancel(MessageRef) -> SendAnswer, Command, Write;
        /// One message as it is journaled; a sealed body stays sealed.
        Lookup lookup(MessageRef) -> Box<MessageView>, Query, Internal;
        /// Messages in both directions, newest first.
        List list(ListMessages) -> Page<MessageView>, Query, Read;
        /// Dead letters: outgoing messages that were refused, expired or cancelled, newest first.
        Dead dead(ListRequest) -> Page<MessageView>, Query, Read;
        /// The posts published here, newest first.
        Posts posts(QueryBody) -> Page<PostView>, Query, Read;
        /// How many messages this cell shares with another, and the latest with their receipts.
        GetShared shared(SharedRequest) -> Shared, Query, Internal;
        /// The cells that outgoing messages wait for.
        Receivers receivers(Empty) -> Page<CellId>, Query, Internal;
        /// Outgoing messages to one cell that wait, oldest first.
        Waiting waiting(WaitingRequest) -> Page<WaitingMessage>, Query, Internal;
        /// How many outgoing messages wait.
        Outbox outbox(Empty) -> OutboxCount, Query, Read;
    }
    front {
        /// Signs, journals and delivers a message. Answers when it is durable, or later if told to wait.
        Send send(SendRequest) -> SendAnswer, Command, Write;
        /// One message, its body opened if it was sealed for this cell.
        Get get(MessageRef) -> MessageView, Query, Read;
    }
}
