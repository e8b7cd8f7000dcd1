//! What Nucleus journals.

use minicbor::{Decode, Encode};
use protocol::nucleus::{HostEntry, JournalHead, JournalKey, Manifest};
use protocol::{Access, Hash, Service};
use serde_json::json;

/// A fact about the cell.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// The cell was made.
    #[n(0)]
    Initialised {
        /// What it is.
        #[n(0)]
        manifest: Manifest,
    },
    /// A service's journal was granted to a writer.
    #[n(1)]
    Granted {
        /// Which service.
        #[n(0)]
        service: Service,
        /// The writer.
        #[n(1)]
        host: String,
        /// The fencing epoch.
        #[n(2)]
        epoch: u64,
        /// Whether nothing leaves the service before a replica has it too.
        #[n(3)]
        #[cbor(default)]
        replicated: bool,
        /// Whether the last writer is lost, and not known to have stopped.
        #[n(4)]
        #[cbor(default)]
        takeover: bool,
        /// The next public key of the journal, if it is signed by another one from here on.
        #[n(5)]
        #[cbor(default)]
        new_key: Option<Hash>,
    },
    /// The cell started with other settings than before.
    #[n(2)]
    Configured {
        /// Counts from 1.
        #[n(0)]
        version: u64,
        /// BLAKE3 of the settings.
        #[n(1)]
        hash: Hash,
        /// The settings as JSON text.
        #[n(2)]
        settings: String,
    },
    /// A token was made.
    #[n(3)]
    TokenCreated {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its role.
        #[n(1)]
        role: Access,
        /// BLAKE3 of the token.
        #[n(2)]
        hash: Hash,
        /// When it ends, if it does.
        #[n(3)]
        expires_ms: Option<u64>,
    },
    /// A token was revoked.
    #[n(4)]
    TokenRevoked {
        /// Its name.
        #[n(0)]
        name: String,
    },
    /// The cell was restored from a backup: a life with new journals begins.
    #[n(6)]
    Restored {
        /// Which life, from 1.
        #[n(0)]
        generation: u32,
        /// Its journals.
        #[n(1)]
        journals: Vec<JournalKey>,
        /// Where those before ended in the backup.
        #[n(2)]
        heads: Vec<JournalHead>,
    },
    /// Somebody may become a host.
    #[n(7)]
    HostInvited {
        /// BLAKE3 of the secret that it takes.
        #[n(0)]
        secret_hash: Hash,
        /// Until when.
        #[n(1)]
        expires_ms: u64,
        /// Whether it may come to lead.
        #[n(2)]
        #[cbor(default)]
        may_lead: bool,
    },
    /// A host became part of the cell.
    #[n(8)]
    HostJoined {
        /// Who it is.
        #[n(0)]
        host: HostEntry,
        /// The invitation that it used; none for the first host.
        #[n(1)]
        secret_hash: Option<Hash>,
    },
    /// A host is part of the cell no longer.
    #[n(9)]
    HostRemoved {
        /// Who it was.
        #[n(0)]
        host: HostEntry,
    },
    /// An admin action was called.
    #[n(5)]
    Audited {
        /// Who.
        #[n(0)]
        caller: String,
        /// Which action.
        #[n(1)]
        action: String,
        /// `ok` or a code.
        #[n(2)]
        outcome: String,
    },
}

impl machine::Record for Record {
    fn describe(&self) -> serde_json::Value {
        match self {
            Self::Initialised { manifest } => json!({ "initialised": manifest }),
            Self::Granted { service, host, epoch, replicated, takeover, new_key } => json!({ "granted": {
                "service": service, "host": host, "epoch": epoch, "replicated": replicated, "takeover": takeover,
                "new_key": new_key
            } }),
            Self::Configured { version, hash, .. } => {
                json!({ "configured": { "version": version, "hash": hash } })
            }
            Self::TokenCreated { name, role, expires_ms, .. } => {
                json!({ "token_created": { "name": name, "role": role, "expires_ms": expires_ms } })
            }
            Self::TokenRevoked { name } => json!({ "token_revoked": { "name": name } }),
            Self::Restored { generation, journals, heads } => {
                json!({ "restored": { "generation": generation, "journals": journals, "heads": heads } })
            }
            Self::HostInvited { secret_hash, expires_ms, may_lead } => json!({ "host_invited": {
                "secret_hash": secret_hash, "expires_ms": expires_ms, "may_lead": may_lead
            } }),
            Self::HostJoined { host, secret_hash } => {
                json!({ "host_joined": { "host": host, "secret_hash": secret_hash } })
            }
            Self::HostRemoved { host } => json!({ "host_removed": host }),
            Self::Audited { caller, action, outcome } => {
                json!({ "audited": { "caller": caller, "action": action, "outcome": outcome } })
            }
        }
    }
}
