//! The span of a request: what it leads to is part of it.

use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderName, HeaderValue};
use protocol::trace::SpanKind;

use super::Web;
use crate::bus::{CallContext, TraceParent};
use crate::telemetry::Recording;

/// The name of the header that says in which trace a request is, and its answer.
pub(super) const TRACEPARENT: &str = "traceparent";

/// A request of somebody who is known.
pub(super) struct Root<'a> {
    what: &'static str,
    trace: Option<TraceParent>,
    span: Option<Recording<'a>>,
}

impl<'a> Root<'a> {
    /// It has come in: what is called for it is part of its trace, if it has one.
    pub(super) fn enter(web: &'a Web, context: &mut CallContext, what: &'static str, began: Instant) -> Self {
        let span = web.host.bus.tracer().enter(&mut context.trace, what, SpanKind::Http, began);
        Self { what, trace: context.trace, span }
    }

    /// It calls this action. What is no action names nothing: others chose it.
    pub(super) fn calls(&mut self, action: &str) {
        if let Some(span) = &mut self.span
            && let Some(info) = protocol::actions().into_iter().find(|info| info.name == action)
        {
            span.rename(format!("{} {}", self.what, info.name));
        }
    }

    /// It is answered.
    pub(super) fn finish(self, code: Option<&str>) {
        if let Some(span) = self.span {
            span.finish(code);
        }
    }

    /// It is answered with this, which says in which trace.
    pub(super) fn respond(self, code: Option<&str>, mut answer: HttpResponse) -> HttpResponse {
        if let Some(trace) = self.trace
            && let Ok(value) = HeaderValue::from_str(&trace.to_string())
        {
            answer.headers_mut().insert(HeaderName::from_static(TRACEPARENT), value);
        }
        self.finish(code);
        answer
    }
}
