//! What the span of a call says.

use protocol::Caller;
use protocol::trace::SpanKind;
use tracing::Span;

use super::CallContext;

/// The span of a call in the log, under its trace.
pub(super) fn span(action: &'static str, context: &CallContext) -> Span {
    let span = tracing::debug_span!("call", action, caller = %context.caller, trace = tracing::field::Empty);
    if let Some(trace) = &context.trace {
        span.record("trace", tracing::field::display(trace));
    }
    span
}

/// What the span of a call measures.
pub(super) const fn span_kind(came_over: bool, is_elsewhere: bool) -> SpanKind {
    match (came_over, is_elsewhere) {
        (true, _) => SpanKind::Server,
        (false, true) => SpanKind::Client,
        (false, false) => SpanKind::Internal,
    }
}

/// Who asks from outside, for a span: neither a token's name nor a cell's id.
pub(super) const fn who(caller: &Caller) -> Option<&'static str> {
    match caller {
        Caller::Internal => None,
        Caller::Token { .. } => Some("token"),
        Caller::Cell(_) => Some("cell"),
    }
}
