//! What it costs that a second host has every record before anybody hears of it, and how soon that one goes on when the first is lost.
//!
//! Two cells of two processes each, side by side: Identity is held by the other host, under `journal.durability = "host"` and under
//! `"replica"`. Clients add contacts by the HTTP of the host that leads. All of it is on loopback and on one disk.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::hosts::service;
use kit::{Cell, HostProcess, until};
use protocol::CellId;
use serde_json::{Value, json};

use crate::limits::median;
use crate::table::{Table, per_second, time};

/// Clients at once, besides one alone.
const CLIENTS: usize = 16;
/// Measurements of each, in turns; the median counts. One more before them is a warm-up.
const ROUNDS: usize = 3;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_secs(2);
/// How often a host is lost.
const LOSSES: usize = 5;

struct Pair {
    cell: Cell,
    host: HostProcess,
}

impl Pair {
    fn start(dir: &Path, durability: &str) -> Self {
        let mut cell = Cell::init(dir, durability);
        cell.ok(&["config", "set", "journal.durability", durability]);
        cell.ok(&["config", "set", "http.requests_per_second_max", "1000000"]);
        cell.start_first();
        let mut host = HostProcess::join(&cell, &dir.join(format!("{durability}-other")), "identity");
        host.start();
        let this = Self { cell, host };
        this.until_at(&this.name());
        this
    }

    fn name(&self) -> String {
        self.host.dir().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn until_at(&self, host: &str) {
        until("Identity is there", || {
            service(&self.cell, "identity") == (host.to_owned(), "running".to_owned())
        });
    }

    /// A client that keeps its connection: adds a contact that is new, and says whether it was acknowledged.
    fn client(cell: &Cell) -> impl FnMut() -> bool + use<> {
        let (url, token) = (format!("{}/rpc", cell.http), cell.token());
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(15))).build().into();
        move || {
            static LAST: AtomicU64 = AtomicU64::new(0);
            let mut key = [9; 32];
            key[..8].copy_from_slice(&LAST.fetch_add(1, Ordering::Relaxed).to_le_bytes());
            let asked = json!({ "cell": CellId::from_bytes(key) });
            let call =
                json!({ "jsonrpc": "2.0", "id": 1, "method": "identity.add_contact", "params": asked });
            let post = agent.post(&url).header("authorization", format!("Bearer {}", token.trim()));
            let answer =
                post.send(call.to_string()).and_then(|mut answer| answer.body_mut().read_to_string());
            answer.is_ok_and(|text| {
                serde_json::from_str::<Value>(&text).is_ok_and(|answer| answer.get("result").is_some())
            })
        }
    }

    /// Latencies of so many clients, in seconds, sorted.
    fn latencies(&self, clients: usize) -> Vec<f64> {
        let until = Instant::now() + SPAN;
        let one = || {
            let mut add = Self::client(&self.cell);
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                assert!(add(), "it is acknowledged");
                latencies.push(began.elapsed().as_secs_f64());
            }
            latencies
        };
        let mut all: Vec<f64> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
            clients.into_iter().flat_map(|client| client.join().expect("it measured")).collect()
        });
        all.sort_by(f64::total_cmp);
        all
    }

    /// The host that writes is killed under load: how long it takes until a record is acknowledged again.
    fn loss(&mut self) -> f64 {
        let is_over = AtomicBool::new(false);
        let acknowledged = AtomicU64::new(0);
        let (host, cell) = (&mut self.host, &self.cell);
        let clients: Vec<_> = (0..4).map(|_| Self::client(cell)).collect();
        let gap = std::thread::scope(|scope| {
            for mut add in clients {
                let (is_over, acknowledged) = (&is_over, &acknowledged);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        match add() {
                            true => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                            false => std::thread::sleep(Duration::from_millis(2)),
                        }
                    }
                });
            }
            until("they write", || acknowledged.load(Ordering::Relaxed) > 100);
            host.kill();
            let (lost, before) = (Instant::now(), acknowledged.load(Ordering::Relaxed));
            // Those whose answers were on their way.
            let mut gap = None;
            while gap.is_none() && lost.elapsed() < Duration::from_secs(30) {
                if acknowledged.load(Ordering::Relaxed) > before + 4 {
                    gap = Some(lost.elapsed().as_secs_f64());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            is_over.store(true, Ordering::Relaxed);
            gap
        });
        self.until_at("first");
        self.host.start();
        let name = self.name();
        self.cell.ok(&["service", "move", "identity", "--to", &name]);
        gap.expect("it is taken over")
    }
}

pub(crate) fn measure() -> Table {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut table = Table::new("A second host has it, and goes on");
    let (one, mut two) = (Pair::start(dir.path(), "host"), Pair::start(dir.path(), "replica"));
    for clients in [1, CLIENTS] {
        let mut measured = [const { [const { Vec::new() }; 3] }; 2];
        for round in 0..=ROUNDS {
            for (pair, measured) in [&one, &two].into_iter().zip(&mut measured) {
                let latencies = pair.latencies(clients);
                let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
                let now = [at(0.5), at(0.99), latencies.len() as f64 / SPAN.as_secs_f64()];
                if round > 0 {
                    measured.iter_mut().zip(now).for_each(|(all, now)| all.push(now));
                }
            }
        }
        let [[p50, p99, rate], [p50_two, p99_two, rate_two]] =
            measured.map(|measured| measured.map(|mut all| median(&mut all)));
        let what = |what: &str| format!("a contact added by HTTP, {clients} clients, {what}");
        for (name, one, two) in [("p50", p50, p50_two), ("p99", p99, p99_two)] {
            let beside = format!("durability = host: {}", seconds(one));
            table.line(&what(name), seconds(two), beside, format!("{:.2} ×", two / one), "");
        }
        let beside = format!("durability = host: {}", per_second(rate));
        table.line(&what("a second"), per_second(rate_two), beside, format!("{:.2} ×", rate_two / rate), "");
    }
    let mut gaps: Vec<f64> = (0..LOSSES).map(|_| two.loss()).collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    let beside = format!("the longest of {LOSSES}: {}", seconds(longest));
    table.line(
        "takeover after SIGKILL of the writer's host",
        seconds(median(&mut gaps)),
        beside,
        String::new(),
        "5 s (aim 2 s)",
    );
    table
}

fn seconds(seconds: f64) -> String {
    time(Duration::from_secs_f64(seconds))
}
