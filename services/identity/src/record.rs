//! What Identity journals.

use minicbor::{Decode, Encode};
use protocol::identity::{AttestationView, Contact};
use protocol::{CellId, Hash};
use serde_json::json;

use crate::tables::Observed;

/// A fact about another cell.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// A contact is so from now on.
    #[n(0)]
    ContactSet {
        /// The whole contact.
        #[n(0)]
        contact: Contact,
    },
    /// A contact is a stranger again.
    #[n(1)]
    ContactRemoved {
        /// Which.
        #[n(0)]
        cell: CellId,
    },
    /// A proof was checked.
    #[n(2)]
    Observed {
        /// Whose.
        #[n(0)]
        cell: CellId,
        /// What it showed, and the trust it led to.
        #[n(1)]
        observed: Observed,
    },
    /// A challenge was made.
    #[n(3)]
    Challenged {
        /// For whom.
        #[n(0)]
        cell: CellId,
        /// BLAKE3 of the nonce.
        #[n(1)]
        nonce_hash: Hash,
        /// When it ends.
        #[n(2)]
        expires_ms: u64,
    },
    /// A session was opened.
    #[n(4)]
    SessionOpened {
        /// With whom.
        #[n(0)]
        cell: CellId,
        /// BLAKE3 of the bearer.
        #[n(1)]
        hash: Hash,
        /// When it ends.
        #[n(2)]
        expires_ms: u64,
    },
    /// All sessions of a cell were closed.
    #[n(5)]
    SessionsClosed {
        /// Whose.
        #[n(0)]
        cell: CellId,
    },
    /// A signed statement was recorded.
    #[n(6)]
    Attested {
        /// The statement.
        #[n(0)]
        statement: AttestationView,
    },
}

impl machine::Record for Record {
    fn describe(&self) -> serde_json::Value {
        match self {
            Self::ContactSet { contact } => json!({ "contact_set": contact }),
            Self::ContactRemoved { cell } => json!({ "contact_removed": { "cell": cell } }),
            Self::Observed { cell, observed } => json!({ "observed": {
                "cell": cell, "shown": observed.shown, "matching": observed.matching, "shared": observed.shared,
                "before_ppm": observed.before_ppm, "trust_ppm": observed.trust_ppm,
            } }),
            Self::Challenged { cell, expires_ms, .. } => {
                json!({ "challenged": { "cell": cell, "expires_ms": expires_ms } })
            }
            Self::SessionOpened { cell, expires_ms, .. } => {
                json!({ "session_opened": { "cell": cell, "expires_ms": expires_ms } })
            }
            Self::SessionsClosed { cell } => json!({ "sessions_closed": { "cell": cell } }),
            Self::Attested { statement } => json!({ "attested": statement }),
        }
    }
}
