//! What members push to each other, and how final blocks and checkpoints are asked for.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::block::BlockProof;
use protocol::state::{Checkpoint, Chunk};
use protocol::{BlockIndex, Hash, Problem};

/// What is pushed.
#[derive(Debug, Encode, Decode)]
pub enum Frame {
    /// Events that were just made, as `protocol::gossip::EventBytes`.
    #[n(0)]
    Events {
        /// Their epoch.
        #[n(0)]
        epoch: u64,
        /// They themselves.
        #[n(1)]
        events: Vec<ByteVec>,
    },
    /// A question for all that is not among the ancestors of these.
    #[n(1)]
    Ask {
        /// The epoch.
        #[n(0)]
        epoch: u64,
        /// The asker's newest events.
        #[n(1)]
        tips: Vec<Hash>,
    },
    /// The answer to a question.
    #[n(2)]
    Answer {
        /// The epoch.
        #[n(0)]
        epoch: u64,
        /// Events, parents first.
        #[n(1)]
        events: Vec<ByteVec>,
        /// Whether there are more: ask again.
        #[n(2)]
        more: bool,
    },
    /// The epoch that was asked for is over here.
    #[n(3)]
    Over {
        /// The epoch here.
        #[n(0)]
        epoch: u64,
        /// The first block that it may fill: all before are final here.
        #[n(1)]
        base: u64,
    },
}

/// What is asked for, of whoever is connected.
#[derive(Debug, Encode, Decode)]
pub(super) enum Ask {
    /// Final blocks.
    #[n(0)]
    Blocks {
        /// The first.
        #[n(0)]
        from: u64,
    },
    /// The newest checkpoint.
    #[n(1)]
    Checkpoint,
    /// A part of the state of a checkpoint.
    #[n(2)]
    Chunk {
        /// The checkpoint's block.
        #[n(0)]
        at: BlockIndex,
        /// Keys whose hash is above this one.
        #[n(1)]
        after: Option<Hash>,
    },
}

/// The reply.
#[derive(Debug, Encode, Decode)]
pub(super) enum Answer {
    /// Some blocks, or none.
    #[n(0)]
    Blocks {
        /// Blocks in order, with what makes them final.
        #[n(0)]
        proofs: Vec<BlockProof>,
        /// How many blocks are final there.
        #[n(1)]
        finalised: u64,
        /// The epoch there, and the first block that it may fill.
        #[n(2)]
        epoch: u64,
        /// See `epoch`.
        #[n(3)]
        base: u64,
    },
    /// Nothing.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        problem: Problem,
    },
    /// A checkpoint.
    #[n(2)]
    Checkpoint {
        /// Which.
        #[n(0)]
        checkpoint: Checkpoint,
        /// Its block, proven from the genesis on.
        #[n(1)]
        proof: Box<BlockProof>,
    },
    /// A part of a checkpoint's state.
    #[n(3)]
    Chunk {
        /// The part, with its proof.
        #[n(0)]
        chunk: Chunk,
    },
}
