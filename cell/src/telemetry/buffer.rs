//! The latest spans of this process: a ring of a fixed number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::trace::{SpanView, TraceSummary};

use super::span::Span;

/// The latest spans; the oldest makes room for the newest.
pub(super) struct Buffer {
    spans_max: usize,
    spans: Mutex<VecDeque<Span>>,
}

impl Buffer {
    pub(super) fn new(spans_max: usize) -> Self {
        Self { spans_max, spans: Mutex::default() }
    }

    fn spans(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, span: Span) {
        let mut spans = self.spans();
        while spans.len() >= self.spans_max.max(1) {
            spans.pop_front();
        }
        spans.push_back(span);
    }

    /// The spans of a trace, so many of the latest at most.
    pub(super) fn of(&self, trace_id: &[u8; 16], host: &str, limit: usize) -> Vec<SpanView> {
        let spans = self.spans();
        let found = spans.iter().rev().filter(|span| span.trace_id == *trace_id).take(limit);
        found.map(|span| span.view(host)).collect()
    }

    /// The traces that have been recorded, the newest first, so many at most.
    pub(super) fn latest(&self, host: &str, limit: usize) -> Vec<TraceSummary> {
        let spans = self.spans();
        let here: HashSet<([u8; 16], [u8; 8])> =
            spans.iter().map(|span| (span.trace_id, span.span_id)).collect();
        // Of each trace the span that it begins with here, and how many there are.
        let mut traces: HashMap<[u8; 16], (Option<&Span>, u64)> = HashMap::new();
        for span in spans.iter() {
            let (top, count) = traces.entry(span.trace_id).or_default();
            *count += 1;
            let is_inner = span.parent_id.is_some_and(|parent| here.contains(&(span.trace_id, parent)));
            let rank = |span: &Span| (!span.kind.is_entry(), span.start_us);
            if !is_inner && top.is_none_or(|top| rank(span) < rank(top)) {
                *top = Some(span);
            }
        }
        let summary = |(id, (top, spans)): (&[u8; 16], &(Option<&Span>, u64))| {
            // None where spans call each other their parents: nobody who is honest records that.
            let top = (*top)?;
            Some(TraceSummary {
                id: hex::encode(id),
                name: top.name.clone().into_owned(),
                kind: top.kind,
                host: host.to_owned(),
                time_ms: top.start_us / 1_000,
                duration_us: top.duration_us,
                spans: *spans,
                code: top.code.clone(),
            })
        };
        let mut found: Vec<TraceSummary> = traces.iter().filter_map(summary).collect();
        newest_first(&mut found, limit);
        found
    }
}

/// In the order of a list, so many at most.
pub(super) fn newest_first(traces: &mut Vec<TraceSummary>, limit: usize) {
    traces.sort_by(|a, b| (b.time_ms, &b.id).cmp(&(a.time_ms, &a.id)));
    traces.truncate(limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::trace::SpanKind;

    fn span(trace: u8, id: u64, parent: Option<u64>, kind: SpanKind) -> Span {
        Span {
            trace_id: [trace; 16],
            span_id: id.to_be_bytes(),
            parent_id: parent.map(u64::to_be_bytes),
            name: format!("span {id}").into(),
            kind,
            start_us: 1_000 * id,
            duration_us: 5,
            code: None,
            attributes: Vec::new(),
        }
    }

    #[test]
    fn it_is_bounded_and_keeps_the_latest() {
        let buffer = Buffer::new(100);
        (1..=1_000).for_each(|id| buffer.push(span(1, id, None, SpanKind::Internal)));
        assert_eq!(buffer.spans().len(), 100);
        assert!(buffer.spans().capacity() <= 256);
        let found = buffer.of(&[1; 16], "first", 10);
        assert_eq!(found.len(), 10);
        assert_eq!((&*found[0].name, &*found[9].name), ("span 1000", "span 991"));
        assert!(buffer.of(&[2; 16], "first", 10).is_empty());
    }

    #[test]
    fn a_trace_is_listed_by_the_span_that_it_begins_with() {
        let buffer = Buffer::new(100);
        // A span is recorded when it ends: the inner ones come first.
        buffer.push(span(1, 3, Some(2), SpanKind::Internal));
        buffer.push(span(1, 2, Some(77), SpanKind::Http));
        buffer.push(span(2, 9, None, SpanKind::Internal));
        // One that another host's call began, and that began before.
        buffer.push(span(1, 1, Some(78), SpanKind::Server));
        let found = buffer.latest("first", 10);
        assert_eq!(found.iter().map(|trace| &*trace.name).collect::<Vec<_>>(), ["span 9", "span 2"]);
        assert_eq!((found[1].spans, found[1].time_ms, found[1].duration_us), (3, 2, 5));
        assert_eq!(buffer.latest("first", 1).len(), 1);
    }

    #[test]
    fn spans_that_are_their_own_parents_harm_nobody() {
        let buffer = Buffer::new(10);
        buffer.push(span(1, 1, Some(1), SpanKind::Internal));
        assert!(buffer.latest("first", 10).is_empty());
        assert_eq!(buffer.of(&[1; 16], "first", 10).len(), 1);
    }
}
