//! Messages between cells: out of the outbox, over the network, into the other's inbox, and back with
//! a receipt.
//!
//! - [`Links`]: one task a receiver takes what waits and carries it over in batches, a few at a time;
//!   when the receiver is away it waits for it to come back, or tries again with growing pauses.
//! - [`Gate`]: takes batches of other cells. Signatures are checked here; the Message service decides;
//!   the receipt goes out when it is durable, in one sync with the messages it is for.
//! - [`handle`]: carries out what an incoming message asks for.
//! - `traces`: the trace of a message goes with it.
//! - [`Waiters`]: callers that wait for a receipt or a reply.

mod gate;
mod handle;
mod links;
mod traces;
mod waiters;
mod wire;

pub use gate::Gate;
pub use handle::handle;
pub use links::{Links, deliver, deliver_all};
pub use waiters::{Waiter, Waiters};
pub use wire::hello;
