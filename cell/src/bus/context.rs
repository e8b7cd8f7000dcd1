//! What travels with a call: who asks, until when, on whose behalf, in which trace.

use std::time::{Duration, Instant};

use machine::EffectId;
use protocol::Caller;

/// How long a call may take unless told.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// The longest that a request may ask to wait for an outcome, in milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 60_000;
/// How long before its deadline a call that waits for an outcome answers with what there is.
pub(super) const WAIT_MARGIN: Duration = Duration::from_millis(500);

/// A W3C trace context (`traceparent`, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace's id; not all zero.
    pub trace_id: [u8; 16],
    /// The calling span's id; not all zero.
    pub parent_id: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a `traceparent` header; `None` where it is malformed, as the recommendation asks.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() {
            return None;
        }
        let mut context = Self { trace_id: [0; 16], parent_id: [0; 8], sampled: false };
        let mut flag = [0u8; 1];
        hex::decode_to_slice(trace, &mut context.trace_id).ok()?;
        hex::decode_to_slice(parent, &mut context.parent_id).ok()?;
        hex::decode_to_slice(flags, &mut flag).ok()?;
        context.sampled = flag[0] & 1 == 1;
        (context.trace_id != [0; 16] && context.parent_id != [0; 8]).then_some(context)
    }
}

impl std::fmt::Display for TraceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", hex::encode(self.trace_id), hex::encode(self.parent_id))
    }
}

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
    /// Whether it came over the bridge: then it is answered here or not at all.
    pub came_over: bool,
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
            came_over: false,
        }
    }

    /// Until when to wait for an outcome that is asked for within so many milliseconds, so that there is time to answer.
    pub fn wait_until(&self, wait_ms: u64) -> Instant {
        let wished = Instant::now() + Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        let latest = self.deadline.and_then(|deadline| deadline.checked_sub(WAIT_MARGIN));
        latest.map_or(wished, |latest| wished.min(latest))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_reads_back_and_malformed_ones_are_dropped() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceParent::parse(text).expect("valid").to_string(), text);
        for bad in
            ["", "00", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &text.replace('7', "g")]
        {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
        assert_eq!(TraceParent::parse("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
    }
}
