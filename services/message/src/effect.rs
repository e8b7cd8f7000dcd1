//! What Message asks of the world, once the record that asks for it is durable.

use minicbor::{Decode, Encode};
use protocol::message::{Message, MessageType};
use protocol::{CellId, MessageId};

/// What Message asks of the world.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    /// What waits for this receiver has changed: carry it over.
    #[n(0)]
    Deliver {
        /// Whom it is for.
        #[n(0)]
        receiver: CellId,
        /// The message that came, if it is small. Without one, what waits is found with
        /// `message.waiting`, and what was held in memory counts no more.
        #[n(1)]
        message: Option<Box<(MessageId, Message)>>,
    },
    /// An incoming message asks for something: carry it out, then `message.settle` it.
    #[n(1)]
    Handle(#[n(0)] MessageId, #[n(1)] Box<Message>),
    /// A peer's messages came with a proof: fold it into the trust in it.
    #[n(2)]
    Observe {
        /// Whose.
        #[n(0)]
        cell: CellId,
        /// Messages shown.
        #[n(1)]
        shown: u32,
        /// Those of them that are here with a receipt.
        #[n(2)]
        matching: u32,
        /// Messages the two share.
        #[n(3)]
        shared: u64,
    },
}

/// The largest body that comes along with [`Effect::Deliver`], in bytes: effects wait in memory.
const CARRIED_BYTES_MAX: usize = 4 * 1024;

impl Effect {
    /// The delivery of a message.
    pub(crate) fn deliver(id: &MessageId, message: &Message) -> Self {
        let small = message.body.len() <= CARRIED_BYTES_MAX;
        Self::Deliver { receiver: message.receiver, message: small.then(|| Box::new((*id, message.clone()))) }
    }

    /// Whatever waits for a receiver.
    pub(crate) fn look_again(receiver: CellId) -> Self {
        Self::Deliver { receiver, message: None }
    }
}

/// Whether an incoming message asks for something to be done: a TX, POST, QUERY or EXEC that is no
/// reply, and every step of an AUTH exchange.
pub fn asks(message: &Message) -> bool {
    match message.kind {
        MessageType::Chat => false,
        MessageType::Auth => true,
        MessageType::Tx | MessageType::Post | MessageType::Query | MessageType::Exec => {
            message.in_reply_to.is_none()
        }
    }
}
