//! What cells ask of each other's journals. CBOR; inside, the questions and answers of `journal::replica`.

use minicbor::{Decode, Encode};
use protocol::{CellId, Hash, Problem, ProblemKind, Service};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Ask {
    /// The key of a journal, if it lies there.
    #[n(0)]
    Find {
        /// Whose journal.
        #[n(0)]
        cell: CellId,
        /// Which.
        #[n(1)]
        journal: Service,
    },
    /// A question of `journal::replica`.
    #[n(1)]
    Read {
        /// Whose journal.
        #[n(0)]
        cell: CellId,
        /// Which.
        #[n(1)]
        journal: Service,
        /// Its key.
        #[n(2)]
        key: Hash,
        /// How long to wait for growth before the answer that there is none.
        #[n(3)]
        wait_ms: u32,
        /// The question.
        #[cbor(n(4), with = "minicbor::bytes")]
        question: Vec<u8>,
    },
}

/// What is replied.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Reply {
    /// The journal's key.
    #[n(0)]
    Found {
        /// The key.
        #[n(0)]
        key: Hash,
    },
    /// The answer to a question.
    #[n(1)]
    Answer {
        /// An answer of `journal::replica`.
        #[cbor(n(0), with = "minicbor::bytes")]
        answer: Vec<u8>,
    },
    /// Nothing, and why.
    #[n(2)]
    Refused {
        /// Why.
        #[n(0)]
        problem: Problem,
    },
}

pub(super) fn garbled() -> Problem {
    Problem::new(ProblemKind::Unreachable, "network.garbled", "the peer's reply cannot be read")
        .hint("it may run another version: cell peers")
}
