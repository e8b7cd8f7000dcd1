//! Events: facts published after they are durable.
//!
//! An event is derived from a journal record, by a pure function of the record. So the journal is
//! the event log: a listener that was away resumes by journal index and misses nothing.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::service::Service;

/// One fact, as listeners see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// `service.what`, one of those its service publishes.
    pub event: String,
    /// The service whose journal it comes from.
    pub service: Service,
    /// The journal entry it comes from.
    pub index: u64,
    /// When the entry was written, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// What happened.
    pub data: serde_json::Value,
}

/// Where a listener stands: for each service (by [`Service::index`]) the next journal entry to read.
/// Its text form, six numbers joined by points, is the `Last-Event-ID` of `/events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Cursor(#[n(0)] pub [u64; 6]);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a}.{b}.{c}.{d}.{e}.{g}")
    }
}

impl std::str::FromStr for Cursor {
    type Err = crate::Problem;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            crate::Problem::new(
                crate::ProblemKind::Invalid,
                "event.bad_cursor",
                "the event id was not made by this cell",
            )
            .hint("send back the `id` of the last event you received, or none to start from now")
        };
        let mut numbers = [0u64; 6];
        let mut parts = text.split('.');
        for number in &mut numbers {
            *number = parts.next().and_then(|part| part.parse().ok()).ok_or_else(bad)?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self(numbers))
    }
}

/// The names of all events, with what each says.
pub const NAMES: &[(&str, &str)] = &[
    ("nucleus.initialised", "the cell's manifest was written"),
    ("nucleus.granted", "a service was granted its journal"),
    ("nucleus.host_invited", "a ticket for another host was made"),
    ("nucleus.host_joined", "a host became part of the cell"),
    ("nucleus.host_removed", "a host was removed; its key is refused"),
    ("nucleus.configured", "a new configuration version was recorded"),
    ("nucleus.token_created", "a token was made"),
    ("nucleus.token_revoked", "a token was revoked"),
    ("nucleus.audited", "an admin action was recorded"),
    ("identity.contact_added", "a contact was added or changed"),
    ("identity.contact_removed", "a contact was removed"),
    ("identity.access_changed", "what a contact may do was changed"),
    ("identity.trust_changed", "the trust in a contact changed after an interaction proof"),
    ("identity.attested", "an attestation about a cell was recorded"),
    ("identity.session_opened", "an AUTH exchange ended in a session"),
    ("identity.session_closed", "a session was closed"),
    ("message.queued", "an outgoing message is durable and waits for delivery"),
    ("message.delivered", "the receiver's receipt for an outgoing message is durable here"),
    ("message.refused", "the receiver refused an outgoing message"),
    ("message.expired", "an outgoing message was not delivered before it expired"),
    ("message.cancelled", "an outgoing message was cancelled"),
    ("message.received", "an incoming message is durable"),
    ("message.handled", "what an incoming message asked for was done or refused"),
    ("consensus.accepted", "a transaction is durable and waits for its place in the order"),
    ("consensus.ordered", "a block was ordered"),
    ("consensus.finalised", "a block was finalised"),
    ("consensus.rejected", "a transaction was rejected"),
    ("state.applied", "a block was applied; its state root is known"),
    ("state.reset", "the state was replaced by a checkpoint"),
    ("market.observed", "a finalised transfer touched this cell's account"),
];
