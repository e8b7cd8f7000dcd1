//! Trace fronts: what this host has recorded, together with what the others have.

use std::sync::Arc;

use protocol::nucleus::{Trace, Traces};
use protocol::shared::{Page, page_limit};
use protocol::trace::{TraceRef, TraceSummary, TraceView, TracesRequest};
use protocol::{Problem, ProblemKind};

use super::front;
use crate::bridge;
use crate::node::World;
use crate::telemetry::{merge, parse_id};

pub(super) fn install(world: &Arc<World>) {
    front::<Trace, _, _>(world, |world, _, request| async move { trace(&world, request).await });
    front::<Traces, _, _>(world, |world, _, request| async move { Ok(traces(&world, request).await) });
}

async fn trace(world: &Arc<World>, request: TraceRef) -> Result<TraceView, Problem> {
    let id = parse_id(&request.id)?;
    let mut view =
        TraceView { id: hex::encode(id), spans: world.bus.tracer().spans(&id), missing: Vec::new() };
    if let Some(bridge) = world.bridge() {
        let told = bridge::spans_of(bridge, &id).await;
        view.spans.extend(told.items);
        view.missing = told.missing;
    }
    if view.spans.is_empty() {
        let without = if view.missing.is_empty() {
            String::new()
        } else {
            format!("; {} did not answer", view.missing.join(", "))
        };
        let cause = format!("nothing is recorded of the trace {}{without}", view.id);
        return Err(Problem::new(ProblemKind::NotFound, "trace.unknown", cause).hint(
            "cell trace lists the latest; older ones make room for new ones (trace.spans_max in cell.toml)",
        ));
    }
    view.spans.sort_by(|a, b| (a.start_us, &a.id).cmp(&(b.start_us, &b.id)));
    Ok(view)
}

async fn traces(world: &Arc<World>, request: TracesRequest) -> Page<TraceSummary> {
    let limit = page_limit(request.limit);
    let mut told = world.bus.tracer().latest(limit);
    if let Some(bridge) = world.bridge() {
        told.extend(bridge::latest_traces(bridge, limit).await.items);
    }
    Page { items: merge(told, limit), next: None }
}
