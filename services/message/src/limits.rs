//! The bounds of every queue and store of Message, with their units.
//!
//! Only decisions look at them, never replay: a later build may choose others.

use protocol::message::Message;

/// The most messages of one batch, whichever way it goes.
pub const BATCH_MESSAGES_MAX: usize = 4_096;
/// What one stranger may send in all before it is a contact.
pub const INTRODUCTIONS_PER_STRANGER_MAX: u32 = 5;
/// The largest body of an introduction, in bytes.
pub const INTRODUCTION_BYTES_MAX: usize = 16 * 1024;
/// How many strangers' introductions may be pending.
pub const STRANGERS_MAX: u64 = 100;
/// How long a stranger's introduction is pending; after that it makes room when room is needed.
pub const INTRODUCTION_PENDING_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// How many replies to one message are taken from a cell that may not send that type otherwise.
pub const REPLIES_PER_MESSAGE_MAX: usize = 8;
/// The shortest time between two observations of one peer.
pub const OBSERVE_EVERY_MS: u64 = 1_000;
/// The most messages that one sweep expires.
pub(crate) const SWEEP_MAX: usize = 1_000;
/// The longest request id, in bytes.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 64;
/// How many rows one list call looks at before it gives what it has.
pub const ROWS_PER_CALL_MAX: usize = 10_000;
/// How many bytes of bodies one list call looks at, beyond its first message.
pub(crate) const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many bytes of bodies one `waiting` answer carries at most, beyond its first message.
pub(crate) const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// The most replies shown with a message.
pub(crate) const REPLIES_SHOWN_MAX: usize = 16;
/// The most posts of one answer.
pub(crate) const POSTS_MAX: u32 = 100;
/// The posts of one answer unless told.
pub(crate) const POSTS_DEFAULT: u32 = 20;

/// The most messages that wait for one receiver.
pub const WAITING_PER_RECEIVER_MAX: u64 = 100_000;
/// The most messages that wait for all receivers.
pub const WAITING_MAX: u64 = 1_000_000;
/// The most receivers that something waits for.
pub const RECEIVERS_MAX: u64 = 10_000;
/// The most messages of one peer that wait to be carried out.
pub const UNSETTLED_PER_PEER_MAX: u64 = 4_000;
/// The most bytes of one peer's messages that wait to be carried out.
pub const UNSETTLED_PEER_BYTES_MAX: u64 = 16 << 20;
/// The most bytes of messages, of all peers, that wait to be carried out.
pub const UNSETTLED_BYTES_MAX: u64 = 64 << 20;
/// The most bytes kept of one stranger's messages.
pub const STRANGER_BYTES_MAX: u64 = 4 << 20;
/// The most bytes kept of one contact's messages.
pub const PEER_BYTES_MAX: u64 = 16 << 30;
/// The most bytes kept of incoming messages.
pub const BYTES_MAX: u64 = 64 << 30;

/// About how many bytes a message takes: its body, its proof, and its fixed fields.
pub(crate) fn stored_bytes(message: &Message) -> u64 {
    let path = message.together.as_ref().map_or(0, |together| together.path.len());
    (message.body.len() + 32 * (message.proof.len() + path) + 256) as u64
}
