//! Spans to a collector: `POST /v1/traces` over HTTP, in batches, from a thread of its own.
//!
//! Whoever records a span never waits: what does not fit the queue is dropped, and so is a batch that the collector does not take. Both are
//! counted. Traces are for looking, and nothing that is owed is among them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use ureq::Agent;

use super::{Counters, Place, Span, otlp};

/// Spans that wait.
const WAITING_MAX: usize = 2_048;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const FILL: Duration = Duration::from_secs(1);
/// How long the collector may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);

enum Order {
    Span(Span),
    Flush(SyncSender<()>),
}

/// The way to the collector. Its thread ends with it.
pub(super) struct Export {
    queue: SyncSender<Order>,
    counters: Arc<Counters>,
}

impl Export {
    /// Begins to export to a collector, by its URL without a path. Nothing where there is no thread for it.
    pub(super) fn start(place: Place, collector: &str, counters: Arc<Counters>) -> Option<Self> {
        let (queue, inbox) = mpsc::sync_channel(WAITING_MAX);
        let sender = Sender::new(place, collector, Arc::clone(&counters));
        let thread =
            std::thread::Builder::new().name("trace-export".to_owned()).spawn(move || run(&inbox, sender));
        match thread {
            Ok(_) => Some(Self { queue, counters }),
            Err(error) => {
                tracing::error!(%error, "traces are not exported");
                None
            }
        }
    }

    pub(super) fn put(&self, span: Span) {
        if self.queue.try_send(Order::Span(span)).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what is in the queue has been sent or dropped.
    pub(super) fn flush(&self, patience: Duration) {
        let (done, flushed) = mpsc::sync_channel(1);
        if self.queue.try_send(Order::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(patience);
        }
    }
}

fn run(inbox: &Receiver<Order>, mut sender: Sender) {
    let mut batch = Vec::new();
    let mut due: Option<Instant> = None;
    loop {
        let next = match due {
            Some(due) => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let is_over = matches!(next, Err(RecvTimeoutError::Disconnected));
        let mut asked = None;
        match next {
            Ok(Order::Span(span)) => {
                batch.push(span);
                due.get_or_insert_with(|| Instant::now() + FILL);
                if batch.len() < BATCH_MAX {
                    continue;
                }
            }
            Ok(Order::Flush(done)) => asked = Some(done),
            Err(_) => {}
        }
        sender.send(&batch);
        batch.clear();
        due = None;
        if let Some(done) = asked {
            let _ = done.try_send(());
        }
        if is_over {
            return;
        }
    }
}

struct Sender {
    agent: Agent,
    url: String,
    place: Place,
    counters: Arc<Counters>,
    /// Whether the last batch was not taken: that is said once.
    is_away: bool,
}

impl Sender {
    fn new(place: Place, collector: &str, counters: Arc<Counters>) -> Self {
        // Redirects are not followed: spans go where the operator said.
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_MAX))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let url = format!("{}/v1/traces", collector.trim_end_matches('/'));
        Self { agent: config.into(), url, place, counters, is_away: false }
    }

    fn send(&mut self, batch: &[Span]) {
        if batch.is_empty() {
            return;
        }
        let body = otlp::request(&self.place, batch).to_string();
        let sent = self.agent.post(&self.url).header("content-type", "application/json").send(body);
        let refused = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status().as_u16())),
            Err(error) => Some(error.to_string()),
        };
        let counter = if refused.is_none() { &self.counters.exported } else { &self.counters.dropped };
        counter.fetch_add(batch.len() as u64, Ordering::Relaxed);
        match &refused {
            Some(why) if !self.is_away => {
                tracing::warn!(why, "the collector does not take traces: they are dropped until it does");
            }
            None if self.is_away => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        self.is_away = refused.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use protocol::CellId;
    use protocol::trace::SpanKind;
    use serde_json::Value;

    use super::*;

    fn span(number: u8) -> Span {
        Span {
            trace_id: [1; 16],
            span_id: [number; 8],
            parent_id: None,
            name: format!("span {number}").into(),
            kind: SpanKind::Internal,
            start_us: 1,
            duration_us: 1,
            code: None,
            attributes: Vec::new(),
        }
    }

    fn export(collector: &str) -> (Export, Arc<Counters>) {
        let place =
            Place { cell: CellId::from_bytes([1; 32]), name: "a".to_owned(), host: "first".to_owned() };
        let counters = Arc::new(Counters::default());
        (Export::start(place, collector, Arc::clone(&counters)).expect("a thread"), counters)
    }

    /// Reads one request, and answers it: its head, and its body.
    fn serve(stream: TcpStream, status: &str) -> (String, Value) {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("reads");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("reads");
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
        reader.get_mut().write_all(answer.as_bytes()).expect("writes");
        (head, serde_json::from_slice(&body).expect("JSON"))
    }

    #[test]
    fn spans_arrive_in_batches_and_refused_ones_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let collector = std::thread::spawn(move || {
            ["200 OK", "503 Service Unavailable"].map(|status| {
                let (stream, _) = listener.accept().expect("a connection");
                serve(stream, status)
            })
        });
        let (export, counters) = export(&format!("http://{address}/"));
        (1..=3).for_each(|number| export.put(span(number)));
        export.flush(REQUEST_MAX);
        assert_eq!(counters.exported.load(Ordering::Relaxed), 3);
        export.put(span(4));
        export.flush(REQUEST_MAX);
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 1);
        let [(head, body), _] = collector.join().expect("both came");
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
        assert_eq!(spans.len(), 3);
        assert_eq!(spans[2]["spanId"], "03".repeat(8));
    }

    #[test]
    fn nobody_waits_for_a_collector_that_is_away() {
        // It listens, and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (export, counters) = export(&format!("http://{}", listener.local_addr().expect("an address")));
        let began = Instant::now();
        let all = (WAITING_MAX + 2 * BATCH_MAX) as u64;
        (0..all).for_each(|number| export.put(span((number % 250) as u8 + 1)));
        assert!(began.elapsed() < REQUEST_MAX / 2, "{:?}", began.elapsed());
        assert!(counters.dropped.load(Ordering::Relaxed) >= 1);
        // One that is not there at all.
        drop(listener);
    }
}
