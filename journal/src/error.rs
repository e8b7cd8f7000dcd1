//! What can go wrong with a journal.

use std::io;
use std::sync::Arc;

/// A journal's error. After one of a write the journal takes no more writes until it is opened anew.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds no journal, or one whose creation was cut short.
    #[error("there is no journal here")]
    NotCreated,
    /// A journal is there already.
    #[error("there is a journal here already")]
    Exists,
    /// Another process has it open for writing.
    #[error("another process has the journal open for writing")]
    Locked,
    /// The key pair does not belong to this journal.
    #[error("the journal belongs to another key")]
    WrongKey,
    /// The entries are encrypted, and no key was given.
    #[error("the entries are encrypted, and their key was not given")]
    Encrypted,
    /// The entries are encrypted with another key than the one that was given.
    #[error("the entries are encrypted with another key")]
    WrongEncryptionKey,
    /// A kind of core that this crate reads no further.
    #[error("the journal is of a kind that is not supported: {0}")]
    Unsupported(&'static str),
    /// What is on disk contradicts itself.
    #[error("the journal is damaged: {0}")]
    Corrupt(String),
    /// An entry's bytes are not the ones that were signed.
    #[error("entry {index} is damaged: its bytes are not the ones that were signed")]
    Damaged {
        /// The entry.
        index: u64,
    },
    /// An entry's bytes are not kept here.
    #[error("entry {index} is not kept here: it was cleared, or not replicated yet")]
    Absent {
        /// The entry.
        index: u64,
    },
    /// A witness has seen a longer log than the one on disk.
    #[error("the journal has {length} entries, but {witnessed} were acknowledged")]
    ShorterThanWitnessed {
        /// Entries that survive on disk.
        length: u64,
        /// Entries that the witness has seen.
        witnessed: u64,
    },
    /// No such entry.
    #[error("there is no entry {index}: the journal has {length}")]
    NoEntry {
        /// The entry asked for.
        index: u64,
        /// Entries there are.
        length: u64,
    },
    /// No such byte.
    #[error("there is no byte {byte}: the entries have {bytes}")]
    NoByte {
        /// The byte asked for.
        byte: u64,
        /// Bytes there are.
        bytes: u64,
    },
    /// A proof that proves nothing.
    #[error("the proof does not hold: {0}")]
    BadProof(&'static str),
    /// A question of a replica, or an answer to it, that makes no sense.
    #[error("the question or answer makes no sense: {0}")]
    BadRequest(&'static str),
    /// The writer has signed two histories.
    #[error(
        "the journal's key has signed two trees at fork {fork}: one of {length} entries contradicts what is here"
    )]
    Contradiction {
        /// The fork of both.
        fork: u64,
        /// The length of the other one.
        length: u64,
    },
    /// A write failed before: what is on disk is known only after the journal is opened anew.
    #[error("an earlier write failed; open the journal anew")]
    Faulted,
    /// The disk said no.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: &'static str,
        /// The system's words.
        #[source]
        source: Arc<io::Error>,
    },
}

impl Error {
    pub(crate) fn io(context: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { context, source: Arc::new(source) }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
