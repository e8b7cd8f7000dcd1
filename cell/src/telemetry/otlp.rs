//! Spans as OTLP/HTTP carries them in JSON (OpenTelemetry Protocol 1.x, `ExportTraceServiceRequest`): ids in hex, 64-bit numbers as strings,
//! enums as numbers.

use protocol::trace::SpanKind;
use serde_json::{Value, json};

use super::{Place, Span};

/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u8 = 2;

/// The body of `POST /v1/traces`.
pub(super) fn request(place: &Place, spans: &[Span]) -> Value {
    let resource = [
        attribute("service.name", "celluler"),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", &format!("{}/{}", place.cell, place.host)),
        attribute("celluler.cell", &place.cell.to_string()),
        attribute("celluler.cell.name", &place.name),
        attribute("celluler.host", &place.host),
    ];
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": "celluler", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }] })
}

fn span(span: &Span) -> Value {
    let nanos = |us: u64| us.saturating_mul(1_000).to_string();
    let mut attributes: Vec<Value> =
        span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let mut written = json!({
        "traceId": hex::encode(span.trace_id),
        "spanId": hex::encode(span.span_id),
        "name": span.name,
        "kind": kind(span.kind),
        "startTimeUnixNano": nanos(span.start_us),
        "endTimeUnixNano": nanos(span.start_us.saturating_add(span.duration_us)),
    });
    if let Some(parent) = span.parent_id {
        written["parentSpanId"] = hex::encode(parent).into();
    }
    if let Some(code) = &span.code {
        attributes.push(attribute("celluler.code", code));
        written["status"] = json!({ "code": STATUS_ERROR, "message": code });
    }
    written["attributes"] = attributes.into();
    written
}

/// A `SpanKind` of OTLP.
const fn kind(kind: SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Http | SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::CellId;

    #[test]
    fn a_span_is_written_as_the_protocol_says() {
        let place =
            Place { cell: CellId::from_bytes([1; 32]), name: "alice".to_owned(), host: "first".to_owned() };
        let span = Span {
            trace_id: [0x0a; 16],
            span_id: [0xb7; 8],
            parent_id: Some([0xcc; 8]),
            name: "state.get".into(),
            kind: SpanKind::Server,
            start_us: 1_700_000_000_000_000,
            duration_us: 250,
            code: Some("state.unknown_key".to_owned()),
            attributes: vec![("caller", "token".to_owned())],
        };
        let plain = Span { parent_id: None, code: None, attributes: Vec::new(), ..span.clone() };
        let written = request(&place, &[span, plain]);
        let resource = &written["resourceSpans"][0];
        let named = json!({ "key": "service.name", "value": { "stringValue": "celluler" } });
        assert_eq!(resource["resource"]["attributes"][0], named);
        let spans = &resource["scopeSpans"][0]["spans"];
        assert_eq!(
            spans[0],
            json!({
                "traceId": "0a".repeat(16),
                "spanId": "b7".repeat(8),
                "parentSpanId": "cc".repeat(8),
                "name": "state.get",
                "kind": 2,
                "startTimeUnixNano": "1700000000000000000",
                "endTimeUnixNano": "1700000000000250000",
                "attributes": [
                    { "key": "caller", "value": { "stringValue": "token" } },
                    { "key": "celluler.code", "value": { "stringValue": "state.unknown_key" } },
                ],
                "status": { "code": 2, "message": "state.unknown_key" },
            })
        );
        assert!(spans[1].get("parentSpanId").is_none() && spans[1].get("status").is_none());
    }
}
