//! What the other hosts have recorded of traces.

use std::time::Duration;

use futures_util::future::join_all;
use protocol::nucleus::HostEntry;
use protocol::trace::{SpanView, TraceSummary};

use super::Bridge;
use super::wire::{Ask, Reply};
use crate::telemetry::SPANS_GIVEN_MAX;

/// How long a host may take: what it has recorded lies in its memory.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What the other hosts say, and the names of those that do not answer.
pub(crate) struct Told<T> {
    /// What they say.
    pub(crate) items: Vec<T>,
    /// Who does not answer.
    pub(crate) missing: Vec<String>,
}

/// The spans of a trace on the other hosts.
pub(crate) async fn spans(bridge: &Bridge, trace: &[u8; 16]) -> Told<SpanView> {
    let take = |host: &HostEntry, reply| match reply {
        Reply::Spans { spans } => {
            let named = |span: SpanView| SpanView { host: host.name.clone(), ..span };
            Some(spans.into_iter().take(SPANS_GIVEN_MAX).map(named).collect::<Vec<_>>())
        }
        _ => None,
    };
    ask_all(bridge, &Ask::Spans { trace: *trace }, take).await
}

/// The latest traces on the other hosts.
pub(crate) async fn latest(bridge: &Bridge, limit: usize) -> Told<TraceSummary> {
    let take = |host: &HostEntry, reply| match reply {
        Reply::Traces { traces } => {
            let named = |trace: TraceSummary| TraceSummary { host: host.name.clone(), ..trace };
            Some(traces.into_iter().take(limit).map(named).collect::<Vec<_>>())
        }
        _ => None,
    };
    let asked = u32::try_from(limit).unwrap_or(u32::MAX);
    ask_all(bridge, &Ask::Traces { limit: asked }, take).await
}

/// Asks all of them at once.
async fn ask_all<T>(
    bridge: &Bridge,
    ask: &Ask,
    take: impl Fn(&HostEntry, Reply) -> Option<Vec<T>>,
) -> Told<T> {
    let others: Vec<HostEntry> =
        bridge.known().roster.hosts.into_iter().filter(|host| host.key != bridge.key).collect();
    let answers = others.iter().map(|host| tokio::time::timeout(ANSWER_MAX, bridge.ask(host.key, ask)));
    let mut told = Told { items: Vec::new(), missing: Vec::new() };
    for (host, answer) in others.iter().zip(join_all(answers).await) {
        let taken = answer.ok().and_then(Result::ok).and_then(|reply| take(host, reply));
        match taken {
            Some(items) => told.items.extend(items),
            None => told.missing.push(host.name.clone()),
        }
    }
    told
}
