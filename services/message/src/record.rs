//! What Message journals.

use machine::At;
use minicbor::{Decode, Encode};
use protocol::message::Message;
use protocol::receipt::ReceiptHead;
use protocol::{Event, MessageId, Problem, Service};
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
    },
    /// A message came in.
    #[n(1)]
    Incoming {
        /// The message.
        #[n(0)]
        message: Message,
        /// How many messages its proof showed.
        #[n(1)]
        shown: u32,
        /// How many of them were here with a receipt.
        #[n(2)]
        matching: u32,
        /// Whether the trust in its sender is to be told.
        #[n(3)]
        observe: bool,
        /// Whether the sender was a stranger.
        #[n(4)]
        introduction: bool,
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
            Self::Outgoing { message, .. } => vec![event("message.queued", summary(message))],
            Self::Incoming { message, shown, matching, .. } => {
                let mut data = summary(message);
                data["proof"] = json!({ "shown": shown, "matching": matching });
                vec![event("message.received", data)]
            }
            Self::Receipted { head, ids } => ids
                .iter()
                .map(|id| event("message.delivered", json!({ "id": id, "receiver": head.receiver })))
                .collect(),
            Self::Countersigned { .. } => Vec::new(),
            Self::Refused { id, problem } => vec![event("message.refused", json!({ "id": id, "problem": problem }))],
            Self::Settled { id, problem } => vec![event("message.handled", json!({ "id": id, "problem": problem }))],
            Self::Expired { ids } => ids.iter().map(|id| event("message.expired", json!({ "id": id }))).collect(),
            Self::Cancelled { id } => vec![event("message.cancelled", json!({ "id": id }))],
        }
    }
}

fn summary(message: &Message) -> Value {
    json!({
        "id": message.id(), "type": message.kind, "sender": message.sender, "receiver": message.receiver,
        "in_reply_to": message.in_reply_to,
    })
}

impl machine::Record for Record {
    fn describe(&self) -> Value {
        match self {
            Self::Outgoing { message, .. } => json!({ "outgoing": with_body(message) }),
            Self::Incoming { message, shown, matching, .. } => {
                json!({ "incoming": with_body(message), "proof": { "shown": shown, "matching": matching } })
            }
            Self::Receipted { head, ids } => json!({ "receipted": { "receipt": head, "ids": ids } }),
            Self::Countersigned { head, ids } => json!({ "countersigned": { "receipt": head, "ids": ids } }),
            Self::Refused { id, problem } => json!({ "refused": { "id": id, "problem": problem } }),
            Self::Settled { id, problem } => json!({ "settled": { "id": id, "problem": problem } }),
            Self::Expired { ids } => json!({ "expired": ids }),
            Self::Cancelled { id } => json!({ "cancelled": id }),
        }
    }
}

fn with_body(message: &Message) -> Value {
    let mut shown = summary(message);
    shown["timestamp_ms"] = message.timestamp_ms.into();
    shown["body"] = if message.sealed { Value::Null } else { serde_json::from_slice(&message.body).unwrap_or_default() };
    shown
}
