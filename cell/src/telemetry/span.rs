//! One span, as it is recorded.

use std::borrow::Cow;

use protocol::trace::{SpanKind, SpanView};

/// The longest text of a span that others may have chosen, in characters.
const TEXT_CHARS_MAX: usize = 80;
/// What else may be noted of a span.
const ATTRIBUTES_MAX: usize = 4;

/// A span: what was done, when and for how long. Host and cell are those of the process that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The span that it is part of, if of one.
    pub parent_id: Option<[u8; 8]>,
    /// What was done.
    pub name: Cow<'static, str>,
    /// What it measures.
    pub kind: SpanKind,
    /// When it began, in microseconds since 1970 (UTC).
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The code of the refusal, if it was refused.
    pub code: Option<String>,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, String)>,
}

impl Span {
    /// Notes something; what is too much is left out.
    pub(super) fn note(&mut self, key: &'static str, value: &str) {
        if self.attributes.len() < ATTRIBUTES_MAX {
            self.attributes.push((key, fit(value)));
        }
    }

    /// The span for people and clients.
    pub(super) fn view(&self, host: &str) -> SpanView {
        let attribute = |(key, value): &(&str, String)| ((*key).to_owned(), value.clone());
        SpanView {
            id: hex::encode(self.span_id),
            parent: self.parent_id.map(hex::encode),
            name: self.name.clone().into_owned(),
            kind: self.kind,
            host: host.to_owned(),
            start_us: self.start_us,
            duration_us: self.duration_us,
            code: self.code.clone(),
            attributes: self.attributes.iter().map(attribute).collect(),
        }
    }
}

/// A text that another cell may have chosen: short, and nothing in it that a terminal would obey.
pub(super) fn fit(text: &str) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(TEXT_CHARS_MAX).map(plain).collect()
}
