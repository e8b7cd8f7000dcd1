//! What Identity's view holds.

use machine::Table;
use minicbor::{Decode, Encode};
use protocol::identity::{AttestationView, Contact};
use protocol::{CellId, Hash};

/// The last observation of a cell, and the trust it led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Observed {
    /// Messages shown by the last proof.
    #[n(0)]
    pub shown: u32,
    /// Those of them in this cell's journal with a receipt.
    #[n(1)]
    pub matching: u32,
    /// matching / shown in parts per million.
    #[n(2)]
    pub confidence_ppm: u32,
    /// Messages the two share.
    #[n(3)]
    pub shared: u64,
    /// Trust before, decayed to the time of the observation.
    #[n(4)]
    pub before_ppm: u32,
    /// Trust after.
    #[n(5)]
    pub trust_ppm: u32,
    /// When.
    #[n(6)]
    pub time_ms: u64,
}

/// An open session.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct SessionRow {
    #[n(0)]
    pub(crate) cell: CellId,
    #[n(1)]
    pub(crate) opened_ms: u64,
    #[n(2)]
    pub(crate) expires_ms: u64,
}

pub(crate) const CONTACTS: Table<CellId, Contact> = Table::new(0x10);
pub(crate) const NAMES: Table<String, CellId> = Table::new(0x11);
pub(crate) const TRUST: Table<CellId, Observed> = Table::new(0x12);
/// The open challenge of a cell: hash of the nonce, end. A new one replaces the old.
pub(crate) const CHALLENGES: Table<CellId, (Hash, u64)> = Table::new(0x13);
/// By hash of the bearer.
pub(crate) const SESSIONS: Table<Hash, SessionRow> = Table::new(0x14);
/// By journal index.
pub(crate) const ATTESTATIONS: Table<u64, AttestationView> = Table::new(0x15);
