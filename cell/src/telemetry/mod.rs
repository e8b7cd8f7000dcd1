//! Traces: one trace through all that a request leads to, on every host of the cell and in other cells.
//!
//! - [`TraceParent`]: what travels, over HTTP, with calls, over the bridge and beside messages (W3C Trace Context).
//! - [`Tracer`]: decides which requests are traced, and keeps the latest spans of this process, a fixed number of them, in memory.
//! - [`Recording`]: a span under way.
//! - [`Messages`]: which trace a message belongs to, while it is under way.
//! - `otlp`, `export`: the same spans for a collector of OpenTelemetry, where there is one.
//!
//! Rules:
//!
//! - A request whose `traceparent` says that its trace is recorded is traced; one whose `traceparent` says that it is not is not; of the others
//!   so many in a thousand are.
//! - A trace begins with a request that showed a token, or with a message of a contact who may send it: a stranger fills nothing. Traces that
//!   other cells begin are [`PEER_TRACES_PER_SECOND_MAX`] a second at most.
//! - A call whose trace is not recorded pays for one comparison. A span costs about 0.2 µs, and waits for nobody: what the
//!   collector does not take is dropped, and counted.
//! - A span says what was done, when, for how long and with which code: no request, no answer, no key, no token's name.
//!
//! Absent on purpose: durable traces, and any promise on them. A trace that is lost costs nothing.
//!
//! Bounds: `trace.spans_max` spans, of a few texts of 80 characters each; 1 024 messages of each way; 2 048 spans that wait for the collector.
//!
//! OTLP is written by hand: its JSON form is small and fixed, and the crates of OpenTelemetry bring a second HTTP client, prost and a runtime
//! of their own for it.

mod buffer;
mod export;
mod ids;
mod messages;
mod otlp;
mod parent;
mod span;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use protocol::trace::{SpanKind, SpanView, TraceSummary};
use protocol::{CellId, Problem, ProblemKind};

use crate::settings::Trace;
use buffer::Buffer;
use export::Export;
use ids::Ids;

pub use messages::Messages;
pub use parent::TraceParent;
pub use span::Span;

/// Traces a second that other cells may begin here.
pub const PEER_TRACES_PER_SECOND_MAX: u32 = 10;
/// Spans of one trace that a host gives at most, the latest.
pub const SPANS_GIVEN_MAX: usize = 1_000;
/// The code of a span whose work was given up before it ended.
const ABANDONED: &str = "trace.abandoned";

/// Whose spans these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cell.
    pub cell: CellId,
    /// The cell's name, for people.
    pub name: String,
    /// The host, by its name.
    pub host: String,
}

/// What became of spans, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Kept in memory.
    pub recorded: AtomicU64,
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Not taken by the collector.
    pub dropped: AtomicU64,
}

/// Keeps the spans of this process.
pub struct Tracer {
    host: String,
    ids: Ids,
    sample_per_1000: u64,
    /// Whether anything is kept at all.
    is_on: bool,
    buffer: Buffer,
    peers: DefaultDirectRateLimiter,
    export: Option<Export>,
    counters: Arc<Counters>,
    /// Messages that this cell sends, from the call that sends one to its delivery.
    pub sent: Messages,
    /// Messages that came, from their reception until what they ask for is done.
    pub received: Messages,
}

impl Tracer {
    /// By the settings. Begins to export, if there is a collector.
    pub fn new(place: Place, settings: &Trace) -> Self {
        let counters = Arc::new(Counters::default());
        let host = place.host.clone();
        let is_on = settings.spans_max > 0;
        let export = (is_on && !settings.otlp.is_empty())
            .then(|| Export::start(place, &settings.otlp, Arc::clone(&counters)))
            .flatten();
        let per_second = NonZeroU32::new(PEER_TRACES_PER_SECOND_MAX).unwrap_or(NonZeroU32::MIN);
        Self {
            host,
            ids: Ids::seeded(),
            sample_per_1000: u64::from(settings.sample_per_1000),
            is_on,
            buffer: Buffer::new(settings.spans_max),
            peers: RateLimiter::direct(Quota::per_second(per_second)),
            export,
            counters,
            sent: Messages::default(),
            received: Messages::default(),
        }
    }

    /// One that keeps nothing: of a bus that is no running cell's.
    pub fn off() -> Self {
        let place = Place { cell: CellId::from_bytes([0; 32]), name: String::new(), host: String::new() };
        Self::new(place, &Trace { sample_per_1000: 0, spans_max: 0, otlp: String::new() })
    }

    /// A request has come in: whether it is traced, and its span if so. What it came with becomes what it hands on.
    pub fn enter(
        &self,
        trace: &mut Option<TraceParent>,
        name: &'static str,
        kind: SpanKind,
        began: Instant,
    ) -> Option<Recording<'_>> {
        match trace {
            Some(parent) if parent.sampled => self.begin(trace, name.into(), kind, began),
            Some(parent) => {
                // Its caller does not record it. Neither do we, and say who hands it on.
                parent.parent_id = self.ids.span_id();
                None
            }
            None if self.is_on && self.ids.happens(self.sample_per_1000) => {
                self.begin(trace, name.into(), kind, began)
            }
            None => None,
        }
    }

    /// Part of a traced request begins: its span, which takes the place of the parent in what is handed on. Nothing where the trace is not
    /// recorded.
    #[inline]
    pub fn follow(
        &self,
        trace: &mut Option<TraceParent>,
        name: &'static str,
        kind: impl FnOnce() -> SpanKind,
    ) -> Option<Box<Recording<'_>>> {
        match trace {
            Some(parent) if parent.sampled => {
                self.begin(trace, name.into(), kind(), Instant::now()).map(Box::new)
            }
            _ => None,
        }
    }

    #[cold]
    fn begin(
        &self,
        trace: &mut Option<TraceParent>,
        name: Cow<'static, str>,
        kind: SpanKind,
        began: Instant,
    ) -> Option<Recording<'_>> {
        if !self.is_on {
            return None;
        }
        let span_id = self.ids.span_id();
        let (trace_id, parent_id) = match trace {
            Some(parent) => (parent.trace_id, Some(parent.parent_id)),
            None => (self.ids.trace_id(), None),
        };
        *trace = Some(TraceParent { trace_id, parent_id: span_id, sampled: true });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_us = micros(now.saturating_sub(began.elapsed()));
        let code = Some(ABANDONED.to_owned());
        let attributes = Vec::new();
        let span =
            Span { trace_id, span_id, parent_id, name, kind, start_us, duration_us: 0, code, attributes };
        Some(Recording { tracer: self, span, began })
    }

    /// Whether one more trace that another cell has begun may be recorded now.
    pub fn has_room_for_a_peers(&self) -> bool {
        self.is_on && self.peers.check().is_ok()
    }

    fn record(&self, span: Span) {
        if let Some(export) = &self.export {
            export.put(span.clone());
        }
        self.buffer.push(span);
        self.counters.recorded.fetch_add(1, Ordering::Relaxed);
    }

    /// The spans of a trace that this process has, [`SPANS_GIVEN_MAX`] at most.
    pub fn spans(&self, trace_id: &[u8; 16]) -> Vec<SpanView> {
        self.buffer.of(trace_id, &self.host, SPANS_GIVEN_MAX)
    }

    /// The latest traces that this process has spans of, the newest first.
    pub fn latest(&self, limit: usize) -> Vec<TraceSummary> {
        self.buffer.latest(&self.host, limit)
    }

    /// What became of spans.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Has the collector get what waits for it, within the time. Blocks.
    pub fn flush(&self, patience: Duration) {
        if let Some(export) = &self.export {
            export.flush(patience);
        }
    }
}

/// A span under way. It is recorded when it ends; one that is dropped was given up.
pub struct Recording<'a> {
    tracer: &'a Tracer,
    span: Span,
    began: Instant,
}

impl Recording<'_> {
    /// What its parts and those whom it asks are handed.
    pub fn context(&self) -> TraceParent {
        TraceParent { trace_id: self.span.trace_id, parent_id: self.span.span_id, sampled: true }
    }

    /// Says what it turned out to be.
    pub fn rename(&mut self, name: String) {
        self.span.name = Cow::Owned(name);
    }

    /// Notes something: never what a request or an answer says.
    pub fn note(&mut self, key: &'static str, value: &str) {
        self.span.note(key, value);
    }

    /// It has ended, with the code of a refusal if it was refused.
    pub fn finish(mut self, code: Option<&str>) {
        self.span.code = code.map(span::fit);
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        self.span.duration_us = micros(self.began.elapsed());
        self.tracer.record(self.span.clone());
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Reads the id of a trace.
///
/// # Errors
///
/// `trace.bad_id`.
pub fn parse_id(text: &str) -> Result<[u8; 16], Problem> {
    let mut id = [0; 16];
    if hex::decode_to_slice(text, &mut id).is_err() || id == [0; 16] {
        let shown: String = span::fit(text);
        return Err(Problem::new(
            ProblemKind::Invalid,
            "trace.bad_id",
            format!("{shown:?} is no trace's id"),
        )
        .hint("one has 32 hex digits: cell trace lists the latest"));
    }
    Ok(id)
}

/// Puts what several hosts say of their latest traces together: a trace is named by the span with which it came into the cell.
pub fn merge(told: impl IntoIterator<Item = TraceSummary>, limit: usize) -> Vec<TraceSummary> {
    let mut traces: BTreeMap<String, TraceSummary> = BTreeMap::new();
    for one in told {
        match traces.get_mut(&one.id) {
            Some(known) => {
                let spans = known.spans + one.spans;
                let rank = |trace: &TraceSummary| (!trace.kind.is_entry(), trace.time_ms);
                if rank(&one) < rank(known) {
                    *known = one;
                }
                known.spans = spans;
            }
            None => {
                traces.insert(one.id.clone(), one);
            }
        }
    }
    let mut merged: Vec<TraceSummary> = traces.into_values().collect();
    buffer::newest_first(&mut merged, limit);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(sample_per_1000: u32) -> Tracer {
        let place =
            Place { cell: CellId::from_bytes([1; 32]), name: "alice".to_owned(), host: "first".to_owned() };
        Tracer::new(place, &Trace { sample_per_1000, spans_max: 1_000, otlp: String::new() })
    }

    fn enter<'a>(tracer: &'a Tracer, trace: &mut Option<TraceParent>) -> Option<Recording<'a>> {
        tracer.enter(trace, "POST /rpc", SpanKind::Http, Instant::now())
    }

    #[test]
    fn spans_are_recorded_under_their_parents() {
        let tracer = tracer(1_000);
        let mut trace = None;
        let mut root = enter(&tracer, &mut trace).expect("all are traced");
        assert_eq!(trace, Some(root.context()));
        let mut inner = trace;
        let call = tracer.follow(&mut inner, "state.get", || SpanKind::Internal).expect("traced");
        assert_eq!(inner, Some(call.context()));
        call.finish(Some("state.unknown_key\u{1b}[31m"));
        root.rename("POST /rpc state.get".to_owned());
        root.note("caller", "token");
        root.finish(None);
        let trace_id = trace.expect("traced").trace_id;
        let spans = tracer.spans(&trace_id);
        assert_eq!(
            spans.iter().map(|span| &*span.name).collect::<Vec<_>>(),
            ["POST /rpc state.get", "state.get"]
        );
        assert_eq!((&spans[0].parent, &spans[1].parent), (&None, &Some(spans[0].id.clone())));
        assert_eq!(spans[1].code.as_deref(), Some("state.unknown_key\u{fffd}[31m"), "no terminal obeys it");
        assert_eq!((&*spans[0].host, spans[0].attributes["caller"].as_str()), ("first", "token"));
        assert!(spans[0].start_us <= spans[1].start_us);
        assert_eq!(tracer.latest(10).len(), 1);
        assert_eq!(tracer.counters().recorded.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_is_not_sampled_records_nothing_and_what_the_caller_records_always() {
        let tracer = tracer(0);
        let mut trace = None;
        assert!(enter(&tracer, &mut trace).is_none() && trace.is_none());
        let begun = TraceParent::begin();
        let mut trace = Some(TraceParent { sampled: false, ..begun });
        assert!(enter(&tracer, &mut trace).is_none());
        let handed_on = trace.expect("it goes on");
        assert_eq!((handed_on.trace_id, handed_on.sampled), (begun.trace_id, false));
        assert_ne!(handed_on.parent_id, begun.parent_id);
        assert!(tracer.follow(&mut trace, "state.get", || unreachable!("nobody asks")).is_none());
        let mut trace = Some(begun);
        enter(&tracer, &mut trace).expect("its caller records it").finish(None);
        let spans = tracer.spans(&begun.trace_id);
        assert_eq!(spans[0].parent, Some(hex::encode(begun.parent_id)));
    }

    #[test]
    fn a_span_that_is_dropped_was_given_up() {
        let tracer = tracer(1_000);
        let mut trace = None;
        drop(enter(&tracer, &mut trace));
        let spans = tracer.spans(&trace.expect("traced").trace_id);
        assert_eq!(spans[0].code.as_deref(), Some(ABANDONED));
    }

    #[test]
    fn a_tracer_that_is_off_keeps_nothing_and_hands_on() {
        let tracer = Tracer::off();
        let begun = TraceParent::begin();
        let mut trace = Some(begun);
        assert!(enter(&tracer, &mut trace).is_none());
        assert_eq!(trace, Some(begun));
        assert!(!tracer.has_room_for_a_peers());
    }

    #[test]
    fn other_cells_begin_a_bounded_number_of_traces() {
        let tracer = tracer(0);
        let taken = (0..1_000).filter(|_| tracer.has_room_for_a_peers()).count();
        assert!((1..=2 * PEER_TRACES_PER_SECOND_MAX as usize).contains(&taken), "{taken}");
    }

    #[test]
    fn ids_are_read_and_others_refused() {
        assert_eq!(parse_id("0af7651916cd43dd8448eb211c80319c").expect("an id")[0], 0x0a);
        for bad in ["", "0af7", "0af7651916cd43dd8448eb211c80319g", "00000000000000000000000000000000"] {
            assert_eq!(parse_id(bad).expect_err(bad).code, "trace.bad_id");
        }
    }

    #[test]
    fn what_hosts_say_is_put_together() {
        let summary = |id: &str, name: &str, kind, time_ms, spans| TraceSummary {
            id: id.to_owned(),
            name: name.to_owned(),
            kind,
            host: "first".to_owned(),
            time_ms,
            duration_us: 1,
            spans,
            code: None,
        };
        let told = [
            // The other host's clock is behind.
            summary("a", "state.get", SpanKind::Server, 5, 2),
            summary("b", "POST /rpc", SpanKind::Http, 20, 1),
            summary("a", "POST /rpc state.get", SpanKind::Http, 10, 3),
        ];
        let merged = merge(told.clone(), 10);
        assert_eq!(
            merged.iter().map(|trace| (&*trace.id, trace.spans)).collect::<Vec<_>>(),
            [("b", 1), ("a", 5)]
        );
        assert_eq!(merged[1].name, "POST /rpc state.get");
        assert_eq!(merge(told, 1).len(), 1);
    }
}
