//! What Nucleus's view holds.

use machine::Table;
use minicbor::{Decode, Encode};
use protocol::nucleus::{HostEntry, Manifest};
use protocol::{Access, Hash, HostId};

/// A service's writer.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct GrantRow {
    #[n(0)]
    pub(crate) host: String,
    #[n(1)]
    pub(crate) epoch: u64,
    #[n(2)]
    #[cbor(default)]
    pub(crate) replicated: bool,
    #[n(3)]
    #[cbor(default)]
    pub(crate) takeover: bool,
    /// Which of its keys signs the journal.
    #[n(4)]
    #[cbor(default)]
    pub(crate) key_number: u32,
    /// The hosts that were given it.
    #[n(5)]
    #[cbor(default)]
    pub(crate) known_to: Vec<HostId>,
}

/// A token without its secret.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct TokenRow {
    #[n(0)]
    pub(crate) role: Access,
    #[n(1)]
    pub(crate) hash: Hash,
    #[n(2)]
    pub(crate) created_ms: u64,
    #[n(3)]
    pub(crate) expires_ms: Option<u64>,
    #[n(4)]
    pub(crate) revoked: bool,
}

pub(crate) const MANIFEST: Table<(), Manifest> = Table::new(0x10);
/// By service.
pub(crate) const GRANTS: Table<u8, GrantRow> = Table::new(0x11);
/// By version: hash, JSON text, time.
pub(crate) const CONFIGS: Table<u64, (Hash, String, u64)> = Table::new(0x12);
/// By name.
pub(crate) const TOKENS: Table<String, TokenRow> = Table::new(0x13);
/// Name by hash.
pub(crate) const TOKENS_BY_HASH: Table<Hash, String> = Table::new(0x14);
/// By journal index: time, caller, action, outcome.
pub(crate) const AUDIT: Table<u64, (u64, String, String, String)> = Table::new(0x15);
/// By name.
pub(crate) const HOSTS: Table<String, HostEntry> = Table::new(0x16);
/// By the hash of their secrets: until when they may be used, and who has used them.
pub(crate) const INVITATIONS: Table<Hash, (u64, Option<HostId>)> = Table::new(0x17);
/// The invitations whose hosts may come to lead, by the hash of their secrets.
pub(crate) const LEADERSHIPS: Table<Hash, ()> = Table::new(0x1a);
/// The keys of hosts that were removed: none of them is admitted again.
pub(crate) const REMOVED: Table<HostId, String> = Table::new(0x18);
/// Rises with every change of hosts and grants.
pub(crate) const ROSTER_NUMBER: Table<(), u64> = Table::new(0x19);
