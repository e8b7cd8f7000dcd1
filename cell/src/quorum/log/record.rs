//! What a journal entry of the log says. CBOR that names its fields: the words are openraft's.

use serde::{Deserialize, Serialize};

use crate::quorum::types::{Entry, LogId, Members, Vote};

/// One step of the log's life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// This host has given its vote, or follows a leader.
    Vote(Vote),
    /// An entry, after the one before.
    Entry(Entry),
    /// The entries after this one (all, if it is none) are gone: another leader has others in their place.
    Cut(Option<LogId>),
    /// A change of the members is applied.
    Members(Members),
    /// A snapshot may have been restored.
    Restore {
        /// The last entry that it holds.
        at: LogId,
        /// The members after it.
        members: Members,
    },
    /// Entries up to this one are gone: they were applied. All else that earlier records have said.
    Purge {
        /// The last one that is gone.
        upto: LogId,
        vote: Option<Vote>,
        members: Members,
        restored: Option<LogId>,
        /// The last entry that the state machine has on disk, at least.
        handed: Option<LogId>,
    },
}
