//! The pure machine every service is.
//!
//! A service is a [`Machine`]: it *decides* on a request by reading its view, and *applies* records to
//! that view. One generic actor in `cell` runs every machine: it journals the records between the two,
//! and lets nothing leave before they are durable (DESIGN §2).
//!
//! Rules:
//!
//! - `decide` reads; it cannot change anything. Time and entropy come in with [`Context`].
//! - `apply` is the only mutation, the same code live and on replay; it cannot refuse. Given the same
//!   records it builds the same view, byte for byte.
//! - A machine keeps no state of its own: all it knows is in the view. So discarding an overlay after
//!   a fault, or the whole view before a rebuild, needs nothing from the machine. What it may keep is what it would compute again.
//! - An expected "no" is a [`Problem`], a value. A view that cannot be read or decoded is a [`Fault`]:
//!   it stops the service.
//!
//! Absent on purpose: clocks, entropy, files, sockets, threads, hash maps (their order is not
//! deterministic). `clippy.toml` of each service bans them.

pub mod calls;
pub mod effect;
pub mod module;
pub mod page;
pub mod record;
pub mod table;
pub mod testing;
pub mod view;

pub use calls::Calls;
pub use effect::{EffectId, Owed};
pub use record::{At, Entry, Record};
pub use table::{Key, Table};
pub use view::{Fault, MemoryStore, Overlay, Read, Scan, View, Write};

use protocol::action::ServiceWords;
use protocol::{Caller, Event, Problem};

/// What the world tells a decision.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time, in milliseconds since 1970 (UTC).
    pub now_ms: u64,
    /// Fresh random bytes, for this decision alone; zeros for a query.
    pub entropy: [u8; 32],
    /// Who is asking.
    pub caller: Caller,
}

/// What a machine made of a request.
#[derive(Clone, Debug)]
pub enum Decision<A, R> {
    /// An answer; nothing changes.
    Answer(A),
    /// An expected "no"; nothing changes.
    Refuse(Problem),
    /// Journal these records, apply them, and answer once they are durable.
    Commit {
        /// The records, in order; at least one.
        records: Vec<R>,
        /// The answer.
        answer: A,
    },
}

/// The words of a machine's request type.
pub type RequestOf<M> = <<M as Machine>::Words as ServiceWords>::Request;
/// The words of a machine's answer type.
pub type AnswerOf<M> = <<M as Machine>::Words as ServiceWords>::Answer;
/// A machine's decision.
pub type DecisionOf<M> = Decision<AnswerOf<M>, <M as Machine>::Record>;

/// A service as a pure state machine over its view.
pub trait Machine: Send + 'static {
    /// The service's actions.
    type Words: ServiceWords;
    /// What is journaled.
    type Record: Record;
    /// What the world is asked to do once the record that caused it is durable.
    type Effect: Clone + Send + 'static;

    /// Which shape the view has. One more with each change of it that an older view does not fit: those are built anew from the journal.
    const LAYOUT: u32 = 0;

    /// Decides on a request.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the view cannot be read.
    fn decide(
        &self,
        view: &dyn Read,
        context: &Context,
        request: RequestOf<Self>,
    ) -> Result<DecisionOf<Self>, Fault>;

    /// Folds one record into the view and gives the effects that it asks for.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the view cannot be read. There is no other way for it to fail.
    fn apply(&self, view: &mut dyn Write, at: At, record: &Self::Record) -> Result<Vec<Self::Effect>, Fault>;

    /// The events that a record publishes. A pure function of the record, so that listeners can
    /// resume from the journal.
    fn events(at: At, record: &Self::Record) -> Vec<Event>;

    /// The effects still owed by this view: what has to be run again after a restart. Effects are
    /// at-least-once; whoever receives one deduplicates by [`EffectId`] or by what it names.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the view cannot be read.
    fn owed(&self, view: &dyn Read) -> Result<Vec<Owed<Self::Effect>>, Fault>;
}

/// A refusal as a decision.
pub fn refuse<A, R>(refusal: impl Into<Problem>) -> Result<Decision<A, R>, Fault> {
    Ok(Decision::Refuse(refusal.into()))
}

/// An answer as a decision.
pub fn answer<A, R>(answer: A) -> Result<Decision<A, R>, Fault> {
    Ok(Decision::Answer(answer))
}

/// Records and an answer as a decision.
pub fn commit<A, R>(records: Vec<R>, answer: A) -> Result<Decision<A, R>, Fault> {
    Ok(Decision::Commit { records, answer })
}
