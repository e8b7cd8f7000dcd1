//! A signed, append-only log in the on-disk format and cryptography of Hypercore 10.
//!
//! What Hypercore calls a block of a core is an **entry** of a journal here.
//!
//! Rules:
//!
//! - A batch is appended as one write to `data` and a sync, then one oplog entry (all new Merkle
//!   nodes, one signature, one CRC) and a sync. When [`Journal::append`] returns, it is durable.
//! - [`SharedJournal`] appends for many threads: whatever waits goes as one batch ([`group`]).
//! - After any failed write the journal takes no more ([`Error::Faulted`]): what is on disk is known
//!   only when it is opened anew.
//! - Opening writes the oplog again as it was found and syncs it: after a sync that failed, the system
//!   may show what never reached the disk.
//! - An error of the disk names the call and the file ([`storage::Call`]).
//! - A checkpoint writes tree and bitfield and syncs them, then the header into the spare slot and
//!   syncs it, and only then cuts the oplog. A crash between any two steps loses nothing.
//! - Every entry that is read is hashed and compared with the leaf that was signed.
//! - Headers hold no secret: the key pair is given when a journal is opened.
//! - Entries may be encrypted: what is stored, hashed, signed and proven are the encrypted ones then
//!   (`docs/adr/0009-encryption-at-rest.md`).
//! - No length read from disk is trusted before it is checked against the bytes there are.
//!
//! Departures from the JavaScript package: it never syncs, does not hash what it reads, and does not
//! group appends. Source of the format: `docs/adr/0001-journal-format.md`.
//!
//! How each of these is tested: `tests/README.md` of this crate.
//!
//! Absent on purpose: any notion of what an entry means; threads; a clock.

mod codec;
mod encryption;
mod entries;
mod error;
mod export;
mod external;
pub mod group;
pub mod hash;
mod journal;
mod key;
mod log;
mod nodes;
mod oplog;
mod pending;
mod proof;
mod reader;
mod recover;
pub mod replica;
mod shrink;
pub mod storage;
mod tree;
mod user_data;
mod verify;

pub use encryption::{ENCRYPTION_BYTES, EncryptionKey, EntryCipher};
pub use error::{Error, Result};
pub use group::SharedJournal;
pub use journal::Journal;
pub use key::{KeyPair, PublicKey};
pub use proof::{EntryBytes, Proof, ProofNode, Proven};
pub use reader::{Range, Reader};
pub use recover::Recovery;
pub use storage::{Backend, Disk, Memory, ReadOnlyDisk};
pub use tree::Node;
pub use verify::Report;
