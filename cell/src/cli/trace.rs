//! Traces from the command line: the latest, and one as a tree.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::process::ExitCode;

use protocol::Problem;
use protocol::trace::{SpanView, TraceView};
use serde_json::json;

use super::Context;
use super::client::Client;
use super::online::fields;

pub(super) fn run(context: &Context, id: Option<&str>, limit: Option<u32>) -> Result<ExitCode, Problem> {
    let client = Client::of(context)?;
    let Some(id) = id else {
        let traces = client.call("nucleus.traces", fields([("limit", limit.into())]))?;
        return context.output.value(&traces);
    };
    let answer = client.call("nucleus.trace", json!({ "id": id }))?;
    match serde_json::from_value::<TraceView>(answer.clone()) {
        Ok(view) if !context.output.is_json() => {
            context.output.text(tree(&view).trim_end());
            Ok(ExitCode::SUCCESS)
        }
        _ => context.output.value(&answer),
    }
}

/// What lies deeper than so many branches is drawn no deeper.
const DEPTH_MAX: usize = 64;

/// A span, and how it hangs in the tree.
struct Line<'a> {
    /// The branches before its name.
    branches: String,
    span: &'a SpanView,
}

/// The trace as a tree: a line a span, what is part of a span below it.
fn tree(view: &TraceView) -> String {
    let lines = lines(&view.spans);
    let hosts: HashSet<&str> = view.spans.iter().map(|span| &*span.host).collect();
    let mut text = String::new();
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let of = [count(view.spans.len(), "span"), count(hosts.len(), "host")].join(", ");
    let _ = writeln!(text, "trace {}  {of}", view.id);
    let width = |line: &Line<'_>| line.branches.chars().count() + line.span.name.chars().count();
    let name_width = lines.iter().map(width).max().unwrap_or(0);
    let host_width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0);
    for line in &lines {
        let SpanView { name, host, duration_us, code, .. } = line.span;
        let gap = " ".repeat(name_width - width(line));
        let duration = duration(*duration_us);
        let code = code.as_deref().unwrap_or_default();
        let row = format!("{}{name}{gap}  {host:<host_width$}  {duration:>10}  {code}", line.branches);
        let _ = writeln!(text, "{}", row.trim_end());
    }
    for host in &view.missing {
        let _ = writeln!(text, "the host {host} did not answer: what it has recorded is missing");
    }
    text
}

/// The spans in the order of the tree. Those whose parents are not among them begin one: it is another cell's, the caller's, or was lost.
fn lines(spans: &[SpanView]) -> Vec<Line<'_>> {
    let known: HashSet<&str> = spans.iter().map(|span| &*span.id).collect();
    let mut parts: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut tops = Vec::new();
    for (place, span) in spans.iter().enumerate() {
        match span.parent.as_deref().filter(|parent| known.contains(parent)) {
            Some(parent) => parts.entry(parent).or_default().push(place),
            None => tops.push(place),
        }
    }
    let mut drawn = vec![false; spans.len()];
    let mut lines = Vec::with_capacity(spans.len());
    // Spans that are parts of each other hang nowhere: they follow as if they began one.
    for top in tops.into_iter().chain(0..spans.len()) {
        // By hand, not by calls: a trace may be as deep as it has spans.
        let mut waiting = vec![(top, 0, String::new(), String::new())];
        while let Some((place, depth, branches, below)) = waiting.pop() {
            if std::mem::replace(&mut drawn[place], true) {
                continue;
            }
            let span = &spans[place];
            lines.push(Line { branches, span });
            let parts = parts.get(&*span.id).map_or(&[][..], Vec::as_slice);
            for (number, part) in parts.iter().enumerate().rev() {
                let is_last = number + 1 == parts.len();
                let (branch, deeper) = match (is_last, depth < DEPTH_MAX) {
                    (true, true) => ("└─ ", "   "),
                    (false, true) => ("├─ ", "│  "),
                    (_, false) => ("└─ ", ""),
                };
                waiting.push((*part, depth + 1, format!("{below}{branch}"), format!("{below}{deeper}")));
            }
        }
    }
    lines
}

fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::trace::SpanKind;

    fn span(id: &str, parent: Option<&str>, name: &str, host: &str, duration_us: u64) -> SpanView {
        SpanView {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
            name: name.to_owned(),
            kind: SpanKind::Internal,
            host: host.to_owned(),
            start_us: 0,
            duration_us,
            code: None,
            attributes: Default::default(),
        }
    }

    #[test]
    fn a_tree_shows_who_did_what_where_and_for_how_long() {
        let spans = vec![
            span("1", Some("caller"), "POST /rpc state.prove", "first", 12_340),
            span("2", Some("1"), "state.prove", "first", 12_000),
            span("3", Some("2"), "state.prove_key", "first", 2_000_000),
            SpanView {
                code: Some("state.pruned".to_owned()),
                ..span("4", Some("3"), "state.prove_key", "b", 900)
            },
            span("5", Some("2"), "consensus.block", "first", 0),
        ];
        let view = TraceView { id: "0a".to_owned(), spans, missing: vec!["c".to_owned()] };
        let expected = "\
trace 0a  5 spans, 2 hosts
POST /rpc state.prove     first    12.34 ms
└─ state.prove            first    12.00 ms
   ├─ state.prove_key     first      2.00 s
   │  └─ state.prove_key  b          900 µs  state.pruned
   └─ consensus.block     first        0 µs
the host c did not answer: what it has recorded is missing
";
        assert_eq!(tree(&view), expected);
    }

    #[test]
    fn every_span_is_drawn_once_whoever_its_parent_is() {
        let loose = [
            span("1", Some("2"), "a", "first", 1),
            span("2", Some("1"), "b", "first", 1),
            span("3", Some("3"), "c", "first", 1),
            span("4", None, "d", "first", 1),
            span("4", Some("gone"), "e", "first", 1),
            span("6", Some("4"), "f", "first", 1),
        ];
        let drawn: Vec<&str> = lines(&loose).iter().map(|line| &*line.span.name).collect();
        assert_eq!(drawn, ["d", "f", "e", "a", "b", "c"]);
        let deep: Vec<SpanView> = (0..2_000)
            .map(|number| span(&number.to_string(), Some(&(number + 1).to_string()), "x", "first", 1))
            .collect();
        let drawn = lines(&deep);
        assert_eq!(drawn.len(), 2_000);
        assert!(drawn.iter().all(|line| line.branches.chars().count() <= 3 * (DEPTH_MAX + 1)));
    }

    #[test]
    fn durations_have_three_units() {
        let shown: Vec<String> = [0, 999, 1_000, 1_239_999, 61_000_000].map(duration).to_vec();
        assert_eq!(shown, ["0 µs", "999 µs", "1.00 ms", "1.23 s", "61.00 s"]);
    }
}
