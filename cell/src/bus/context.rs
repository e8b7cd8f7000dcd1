//! What travels with a call: who asks, until when, on whose behalf, in which trace.

use std::time::{Duration, Instant};

use machine::EffectId;
use protocol::{Caller, HostId};

use crate::telemetry::TraceParent;

/// How long a call may take unless told.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// The longest that a request may ask to wait for an outcome, in milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 60_000;
/// How long before its deadline a call that waits for an outcome answers with what there is.
pub(super) const WAIT_MARGIN: Duration = Duration::from_millis(500);

/// What travels with a call.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who asks.
    pub caller: Caller,
    /// How long the caller waits, counted from each call.
    pub patience: Duration,
    /// When the caller of this very call stops waiting. The bus sets it when the call begins; who hands
    /// the context on to calls of its own hands on the deadline.
    pub deadline: Option<Instant>,
    /// The effect on whose behalf it is, if any.
    pub cause: Option<EffectId>,
    /// The trace it belongs to, if any.
    pub trace: Option<TraceParent>,
    /// Whether its service is asked even where the bus knows the answer.
    pub anew: bool,
    /// The host that it came from over the bridge, if it did: then it is answered here or not at all.
    pub came_over: Option<HostId>,
}

impl CallContext {
    /// A call of the cell to itself.
    pub fn internal() -> Self {
        Self::of(Caller::Internal)
    }

    /// A call of somebody, with the default deadline.
    pub fn of(caller: Caller) -> Self {
        Self {
            caller,
            patience: DEADLINE_DEFAULT,
            deadline: None,
            cause: None,
            trace: None,
            anew: false,
            came_over: None,
        }
    }

    /// Until when to wait for an outcome that is asked for within so many milliseconds, so that there is time to answer.
    pub fn wait_until(&self, wait_ms: u64) -> Instant {
        let wished = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        let latest = self.deadline.and_then(|deadline| deadline.checked_sub(WAIT_MARGIN));
        latest.map_or(wished, |latest| wished.min(latest))
    }

    /// A call of the cell to itself that is part of what this call does: in the same trace.
    pub fn inner(&self) -> Self {
        Self::internal().traced(self.trace)
    }

    /// The same, in a trace if in one.
    #[must_use]
    pub fn traced(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace;
        self
    }

    /// The same with another patience.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, answered by its service and not from the bus's memory.
    #[must_use]
    pub fn anew(mut self) -> Self {
        self.anew = true;
        self
    }

    /// The same, on behalf of an effect.
    #[must_use]
    pub fn caused_by(mut self, cause: EffectId) -> Self {
        self.cause = Some(cause);
        self
    }
}
