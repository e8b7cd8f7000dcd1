//! What cells say to each other: the hello, a batch of messages, and the answer to it. CBOR.

use minicbor::{Decode, Encode};
use protocol::message::Message;
use protocol::receipt::ReceiptHead;
use protocol::{GenesisHash, Problem, codec};

/// The version of this language.
pub(super) const VERSION: u32 = 1;
/// The most messages of one batch that are taken.
pub(super) const BATCH_MAX: usize = 1_000;

/// Said by both sides right after a connection.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Hello {
    #[n(0)]
    pub(super) version: u32,
    /// The network whose transactions this cell orders.
    #[n(1)]
    pub(super) genesis: GenesisHash,
}

/// This cell's hello.
pub fn hello(genesis: &GenesisHash) -> Vec<u8> {
    codec::encode(&Hello { version: VERSION, genesis: *genesis })
}

/// Messages of one sender to one receiver.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Batch {
    #[n(0)]
    pub(super) messages: Vec<Message>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum BatchAnswer {
    /// Each message was taken or refused.
    #[n(0)]
    Taken {
        /// Over those that were taken, in order; none if none was.
        #[n(0)]
        receipt: Option<ReceiptHead>,
        /// One for each message: the refusal, or none where it is durable there.
        #[n(1)]
        outcomes: Vec<Option<Problem>>,
    },
    /// The batch as a whole was refused; nothing of it is known to be there.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        problem: Problem,
    },
}
