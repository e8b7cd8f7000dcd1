//! What Message journals.
//!
//! A message's id is journaled beside it: it is a hash over the body, and is worked out once, where
//! the message is decided on. No record forgets anything: a message's id stays known for ever, in the
//! row that its status needs anyway, so a late duplicate is never taken for news.

use machine::At;
use minicbor::{Decode, Encode};
use protocol::message::Message;
use protocol::receipt::ReceiptHead;
use protocol::{CellId, Event, MessageId, Problem, Service};
use serde_json::{Value, json};

/// A fact about messages.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// A message was signed here and waits for delivery.
    #[n(0)]
    Outgoing {
        /// The message.
        #[n(0)]
        message: Message,
        /// The caller's request id.
        #[n(1)]
        request_id: Option<String>,
        /// The message's id.
        #[n(2)]
        id: MessageId,
    },
    /// A message came in.
    #[n(1)]
    Incoming {
        /// The message.
        #[n(0)]
        message: Message,
        /// How many messages its proof showed.
        #[n(1)]
        proof_shown: u32,
        /// How many of them were here with a receipt.
        #[n(2)]
        proof_matching: u32,
        /// Whether the trust in its sender is to be told.
        #[n(3)]
        observe: bool,
        /// Whether it was taken as a stranger's introduction.
        #[n(4)]
        introduction: bool,
        /// The message's id.
        #[n(5)]
        id: MessageId,
        /// Whether the sender, whose introduction was pending, is a contact by now.
        #[n(6)]
        acquainted: bool,
        /// Whose long pending introduction makes room for this one.
        #[n(7)]
        displaces: Option<CellId>,
    },
    /// The receiver's receipt for a batch of outgoing messages.
    #[n(2)]
    Receipted {
        /// The signed part.
        #[n(0)]
        head: ReceiptHead,
        /// The batch, in order.
        #[n(1)]
        ids: Vec<MessageId>,
        /// Places of the batch that this record says nothing new about: delivered before, or unknown.
        #[n(2)]
        stale: Vec<u64>,
    },
    /// This cell's own receipt for a batch of incoming messages.
    #[n(3)]
    Countersigned {
        /// The signed part.
        #[n(0)]
        head: ReceiptHead,
        /// The batch, in order.
        #[n(1)]
        ids: Vec<MessageId>,
    },
    /// The receiver refused an outgoing message.
    #[n(4)]
    Refused {
        /// Which.
        #[n(0)]
        id: MessageId,
        /// Why.
        #[n(1)]
        problem: Problem,
    },
    /// What an incoming message asked for was done, or refused.
    #[n(5)]
    Settled {
        /// Which.
        #[n(0)]
        id: MessageId,
        /// Why it was refused, if it was.
        #[n(1)]
        problem: Option<Problem>,
    },
    /// Outgoing messages were not delivered in time.
    #[n(6)]
    Expired {
        /// Which.
        #[n(0)]
        ids: Vec<MessageId>,
    },
    /// An outgoing message was cancelled.
    #[n(7)]
    Cancelled {
        /// Which.
        #[n(0)]
        id: MessageId,
    },
}

impl Record {
    pub(crate) fn events(&self, at: At) -> Vec<Event> {
        let event = |name: &str, data: Value| Event {
            event: name.to_owned(),
            service: Service::Message,
            index: at.index,
            time_ms: at.time_ms,
            data,
        };
        match self {
            Self::Outgoing { id, message, .. } => vec![event("message.queued", summary(id, message))],
            Self::Incoming { id, message, proof_shown, proof_matching, .. } => {
                let mut data = summary(id, message);
                data["proof"] = json!({ "shown": proof_shown, "matching": proof_matching });
                vec![event("message.received", data)]
            }
            Self::Receipted { head, ids, stale } => (0u64..)
                .zip(ids)
                .filter(|(place, _)| stale.binary_search(place).is_err())
                .map(|(_, id)| {
                    let data = json!({ "id": id, "sender": head.sender, "receiver": head.receiver });
                    event("message.delivered", data)
                })
                .collect(),
            Self::Countersigned { .. } => Vec::new(),
            Self::Refused { id, problem } => {
                vec![event("message.refused", json!({ "id": id, "problem": problem }))]
            }
            Self::Settled { id, problem } => {
                vec![event("message.handled", json!({ "id": id, "problem": problem }))]
            }
            Self::Expired { ids } => {
                ids.iter().map(|id| event("message.expired", json!({ "id": id }))).collect()
            }
            Self::Cancelled { id } => vec![event("message.cancelled", json!({ "id": id }))],
        }
    }
}

fn summary(id: &MessageId, message: &Message) -> Value {
    json!({
        "id": id, "type": message.kind, "sender": message.sender, "receiver": message.receiver,
        "in_reply_to": message.in_reply_to,
    })
}

impl machine::Record for Record {
    fn describe(&self) -> Value {
        match self {
            Self::Outgoing { id, message, .. } => json!({ "outgoing": with_body(id, message) }),
            Self::Incoming { id, message, proof_shown, proof_matching, introduction, .. } => json!({
                "incoming": with_body(id, message),
                "proof": { "shown": proof_shown, "matching": proof_matching },
                "introduction": introduction,
            }),
            Self::Receipted { head, ids, .. } => json!({ "receipted": { "receipt": head, "ids": ids } }),
            Self::Countersigned { head, ids } => json!({ "countersigned": { "receipt": head, "ids": ids } }),
            Self::Refused { id, problem } => json!({ "refused": { "id": id, "problem": problem } }),
            Self::Settled { id, problem } => json!({ "settled": { "id": id, "problem": problem } }),
            Self::Expired { ids } => json!({ "expired": ids }),
            Self::Cancelled { id } => json!({ "cancelled": id }),
        }
    }
}

fn with_body(id: &MessageId, message: &Message) -> Value {
    let mut shown = summary(id, message);
    shown["timestamp_ms"] = message.timestamp_ms.into();
    shown["sealed"] = message.sealed.into();
    shown["body"] =
        if message.sealed { Value::Null } else { serde_json::from_slice(&message.body).unwrap_or_default() };
    shown
}
