//! Traces: the spans that a cell's hosts have recorded. Asked of Nucleus (`nucleus.trace`, `nucleus.traces`).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

words! {
    /// Names a trace.
    #[derive(Eq)]
    #[serde(deny_unknown_fields)]
    pub struct TraceRef {
        /// Its id: 32 hex digits, as in a `traceparent`.
        pub id: String,
    }

    /// Which traces to list, newest first.
    #[derive(Default, Eq)]
    #[serde(deny_unknown_fields)]
    pub struct TracesRequest {
        /// At most so many; 20 unless told, 1 000 at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<u32>,
    }

    /// What a span measures.
    #[derive(Copy, Eq, Encode, Decode)]
    #[cbor(index_only)]
    #[serde(rename_all = "lowercase")]
    pub enum SpanKind {
        /// A call that is answered on the host that makes it, or a piece of work.
        #[n(0)]
        Internal,
        /// A request over HTTP.
        #[n(1)]
        Http,
        /// A call that another host of the cell answers.
        #[n(2)]
        Client,
        /// A call of another host of the cell.
        #[n(3)]
        Server,
        /// The delivery of a message to a cell.
        #[n(4)]
        Producer,
        /// The reception of a message of a cell.
        #[n(5)]
        Consumer,
    }

    /// A span: what was done, by whom, when and for how long.
    #[derive(Eq, Encode, Decode)]
    pub struct SpanView {
        /// Its id: 16 hex digits.
        #[n(0)]
        pub id: String,
        /// The span that it is part of; it may be one of another cell, or of the caller's own.
        #[n(1)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub parent: Option<String>,
        /// What was done: an action's name, or a few words.
        #[n(2)]
        pub name: String,
        /// What it measures.
        #[n(3)]
        pub kind: SpanKind,
        /// The host that recorded it, by its name.
        #[n(4)]
        pub host: String,
        /// When it began, by that host's clock: microseconds since 1970 (UTC).
        #[n(5)]
        pub start_us: u64,
        /// How long it took, in microseconds.
        #[n(6)]
        pub duration_us: u64,
        /// The code of the refusal, if it was refused.
        #[n(7)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub code: Option<String>,
        /// What else is known of it.
        #[n(8)]
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        pub attributes: BTreeMap<String, String>,
    }

    /// A trace, as far as this cell has recorded it.
    #[derive(Eq)]
    pub struct TraceView {
        /// Its id: 32 hex digits.
        pub id: String,
        /// Its spans, the earliest first.
        pub spans: Vec<SpanView>,
        /// The hosts that did not answer: what they have recorded is missing.
        #[serde(default)]
        pub missing: Vec<String>,
    }

    /// A trace in a list.
    #[derive(Eq, Encode, Decode)]
    pub struct TraceSummary {
        /// Its id: 32 hex digits.
        #[n(0)]
        pub id: String,
        /// What its first span did.
        #[n(1)]
        pub name: String,
        /// What that span measures.
        #[n(2)]
        pub kind: SpanKind,
        /// The host that recorded it.
        #[n(3)]
        pub host: String,
        /// When it began, in milliseconds since 1970 (UTC).
        #[n(4)]
        pub time_ms: u64,
        /// How long that span took, in microseconds.
        #[n(5)]
        pub duration_us: u64,
        /// How many spans of the trace are recorded.
        #[n(6)]
        pub spans: u64,
        /// The code of the refusal, if the first span was refused.
        #[n(7)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub code: Option<String>,
    }
}

impl SpanKind {
    /// Whether a trace comes into the cell by such a span.
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Http | Self::Consumer)
    }
}

impl std::fmt::Display for SpanKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Internal => "internal",
            Self::Http => "http",
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        })
    }
}
