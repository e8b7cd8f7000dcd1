//! What cells say to each other: the hello, a batch of messages, and the answer to it. CBOR.

use minicbor::{Decode, Encode};
use protocol::message::Message;
use protocol::receipt::ReceiptHead;
use protocol::{GenesisHash, Problem, codec};

/// The version of this language.
pub(super) const VERSION: u32 = 1;
/// The most messages of one batch that are taken.
pub(super) const BATCH_MAX: usize = 1_000;

/// The most traces of one batch that are told, and taken.
pub(super) const TRACES_MAX: usize = 16;

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

/// The trace that a message of a batch belongs to. Nobody signs it: it is for looking, and decides nothing.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Traced {
    /// The message's place in the batch.
    #[n(0)]
    pub(super) place: u32,
    /// A W3C `traceparent`.
    #[n(1)]
    pub(super) parent: String,
}

/// Messages of one sender to one receiver.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Batch {
    #[n(0)]
    pub(super) messages: Vec<Message>,
    /// The traces of those that belong to one: [`TRACES_MAX`] at most.
    #[n(1)]
    pub(super) traces: Option<Vec<Traced>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The batch of a cell that knows no traces.
    #[derive(Debug, PartialEq, Encode, Decode)]
    struct Older {
        #[n(0)]
        messages: Vec<Message>,
    }

    #[test]
    fn traces_stand_beside_the_messages_and_cells_without_them_are_understood() {
        let older = codec::encode(&Older { messages: Vec::new() });
        let plain = Batch { messages: Vec::new(), traces: None };
        assert_eq!(codec::encode(&plain), older, "without a trace the bytes are as ever");
        assert_eq!(codec::decode::<Batch>(&older).expect("reads"), plain);
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
        let traced = Batch { traces: Some(vec![Traced { place: 0, parent }]), ..plain };
        let bytes = codec::encode(&traced);
        assert_eq!(codec::decode::<Batch>(&bytes).expect("reads"), traced);
        assert_eq!(codec::decode::<Older>(&bytes).expect("reads"), Older { messages: Vec::new() });
    }
}
