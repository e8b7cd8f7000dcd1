//! `/metrics`: OpenMetrics text, by `prometheus-client`. Needs a token: names and rates tell a lot.

use std::sync::atomic::Ordering;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use protocol::Service;

use super::{Web, auth, problem};
use crate::bus::BUCKETS_US;
use crate::node::Host;

pub(super) async fn handle(web: Data<Web>, request: HttpRequest) -> HttpResponse {
    if let Err(problem) = auth::caller(&web, &request).await {
        return problem::respond(&problem);
    }
    let mut registry = Registry::with_prefix("cell");
    registry.register_collector(Box::new(Collected(web.clone())));
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
        text.clear();
    }
    HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text)
}

struct Collected(Data<Web>);

impl std::fmt::Debug for Collected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let host = &self.0.host;
        actions(host, &mut encoder)?;
        for (name, help, read) in [
            ("journal_entries", "Durable entries of a service's journal", 0),
            ("journal_bytes", "Bytes of those entries", 1),
            ("journal_batches", "Batches synced since the start", 2),
            ("service_calls_in_flight", "Calls under way to a service", 3),
        ] {
            let mut family =
                encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
            for service in Service::ALL {
                let gauges = &host.service(service).gauges;
                let value = match read {
                    0 => gauges.entries.load(Ordering::Relaxed),
                    1 => gauges.bytes.load(Ordering::Relaxed),
                    2 => gauges.batches.load(Ordering::Relaxed),
                    _ => host.bus.in_flight(service) as u64,
                };
                let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&[("service", service.name())])?)?;
            }
        }
        let streams = ConstGauge::new(i64::try_from(host.bus.open_streams()).unwrap_or(i64::MAX));
        let help = "Streams that are open, given here or taken from another host";
        let family = encoder.encode_descriptor("streams_open", help, None, streams.metric_type())?;
        streams.encode(family)?;
        let spans = host.bus.tracer().counters();
        let counter = prometheus_client::metrics::MetricType::Counter;
        let mut family = encoder.encode_descriptor(
            "trace_spans",
            "Spans of traces, by what became of them",
            None,
            counter,
        )?;
        for (outcome, counter) in
            [("recorded", &spans.recorded), ("exported", &spans.exported), ("dropped", &spans.dropped)]
        {
            ConstCounter::new(counter.load(Ordering::Relaxed))
                .encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        // What faces other cells is on the host that leads.
        let Some(world) = self.0.host.world() else { return Ok(()) };
        let counters = world.network().counters();
        let mut family = encoder.encode_descriptor(
            "network_refused",
            "What other cells sent and was refused",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for (why, counter) in [
            ("oversized", &counters.refused_oversized),
            ("malformed", &counters.refused_malformed),
            ("busy", &counters.refused_busy),
            ("connection", &counters.refused_connections),
            ("forged", &counters.refused_forged),
            ("events", &counters.refused_events),
            ("journals", &counters.refused_journals),
            ("message", &counters.refused_messages),
        ] {
            ConstCounter::new(counter.load(Ordering::Relaxed))
                .encode(family.encode_family(&[("why", why)])?)?;
        }
        let peers = ConstGauge::new(i64::try_from(world.network().connected()).unwrap_or(i64::MAX));
        let family =
            encoder.encode_descriptor("peers_connected", "Peers connected now", None, peers.metric_type())?;
        peers.encode(family)
    }
}

fn actions(host: &Host, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let counter = prometheus_client::metrics::MetricType::Counter;
    let mut family =
        encoder.encode_descriptor("action_calls", "Calls of an action, by outcome", None, counter)?;
    for metrics in host.bus.metrics() {
        let refused = metrics.refused.load(Ordering::Relaxed);
        for (outcome, value) in [("answered", metrics.answered()), ("refused", refused)] {
            let labels = [("action", metrics.action), ("outcome", outcome)];
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Calls of an action that were answered from the bus's memory";
    let mut family = encoder.encode_descriptor("action_calls_from_memory", help, None, counter)?;
    for metrics in host.bus.metrics() {
        ConstCounter::new(metrics.from_memory.load(Ordering::Relaxed))
            .encode(family.encode_family(&[("action", metrics.action)])?)?;
    }
    let help = "Queries whose service could not be had, answered by their callers' fallback";
    let mut family = encoder.encode_descriptor("action_fallbacks", help, None, counter)?;
    for metrics in host.bus.metrics() {
        ConstCounter::new(metrics.fallbacks.load(Ordering::Relaxed))
            .encode(family.encode_family(&[("action", metrics.action)])?)?;
    }
    let mut family = encoder.encode_descriptor(
        "action_latency_us",
        "Calls that took at most so many microseconds",
        None,
        counter,
    )?;
    for metrics in host.bus.metrics() {
        let mut sum = 0;
        for (bucket, count) in metrics.latency.iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            let bound = BUCKETS_US.get(bucket).map_or("+Inf".to_owned(), ToString::to_string);
            let labels = [("action", metrics.action), ("le_us", bound.as_str())];
            ConstCounter::new(sum).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
