//! How long a transaction takes to its place in the order, and how many there can be: four members as processes of their own on this
//! machine, opaque transactions of 128 bytes, own events durable before they are sent.
//!
//! Load is open loop: each transaction has a time at which it is to be submitted, and its latency counts from then, whether or not
//! the member was ready for it. What is measured is submit to ordered, at the member that submitted it. A member is what a cell runs
//! (`cell::gossip`, its network, its journal) without what stands behind the order: no execution, no RocksDB.

mod histogram;
mod member;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::table::Table;
use histogram::Histogram;

pub(crate) use member::run as run_member;

/// The argument that makes this program a member.
pub(crate) const MEMBER: &str = "__member";
const MEMBERS: usize = 4;
const WARM_UP: Duration = Duration::from_secs(3);

/// What all members were asked to do, and what became of it.
struct Case {
    /// Transactions a second, of all members together.
    rate: u64,
    span: Duration,
    /// Whether the last member is stopped for two seconds, again and again; it then does not count.
    pauses: bool,
}

struct Outcome {
    latencies: Histogram,
    /// Ordered at their own member, of those submitted in the span.
    ordered: u64,
    submitted: u64,
    /// Processor time of all members over the span, in parts of one core.
    cores: f64,
    events_per_s: f64,
    rounds_per_s: f64,
    /// The first member's medians: from an event made to one read elsewhere, and what the journal took of it.
    delay_us: u64,
    sync_us: u64,
}

pub(crate) fn measure(chosen: &[String]) -> Table {
    let mut table = Table::new("Consensus: four members, opaque transactions of 128 bytes");
    let cases = [
        ("400 tx/s", 400, 20, false, "p50 20 ms (aim 8)"),
        ("10 000 tx/s", 10_000, 60, false, "p50 26 ms, p99 80 ms (aim 13, 30)"),
        ("20 000 tx/s", 20_000, 20, false, "p50 60 ms (aim 15)"),
        ("10 000 tx/s, one member stopped for 2 s again and again", 10_000, 30, true, "p99 500 ms (aim 100)"),
        ("90 000 tx/s", 90_000, 60, false, "p99 under 1 s"),
        ("150 000 tx/s", 150_000, 30, false, "p99 under 1 s (the aim)"),
        ("idle", 0, 10, false, "no events, CPU under 1 % a cell"),
    ];
    for (what, rate, seconds, pauses, floor) in cases {
        let wanted: Vec<&String> = chosen.iter().filter(|name| name.starts_with("at=")).collect();
        if !wanted.is_empty() && !wanted.iter().any(|name| name[3..] == rate.to_string()) {
            continue;
        }
        let outcome = run(&Case { rate, span: Duration::from_secs(seconds), pauses });
        let Outcome { latencies, ordered, submitted, cores, events_per_s, rounds_per_s, delay_us, sync_us } =
            &outcome;
        let ms = |share: f64| format!("{:.1} ms", latencies.at(share) as f64 / 1e3);
        let measured = format!("p50 {}, p99 {}, p99.9 {}, most {}", ms(0.5), ms(0.99), ms(0.999), ms(1.0));
        let beside = format!(
            "{ordered} of {submitted} ordered; {cores:.2} cores for all; {events_per_s:.0} events/s of all, {rounds_per_s:.0} rounds/s; an event to another member {delay_us} µs, of it journal {sync_us} µs"
        );
        table.line(what, measured, beside, String::new(), floor);
    }
    table
}

fn run(case: &Case) -> Outcome {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let port = free_ports();
    let mut members: Vec<Member> =
        (0..MEMBERS).map(|place| Member::start(place, dir.path(), port, case)).collect();
    for member in &mut members {
        assert_eq!(member.line()["event"], "ready");
    }
    let begins = SystemTime::now() + Duration::from_millis(200);
    let begins_us = begins.duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    for member in &mut members {
        member.tell(&format!("{begins_us}\n"));
    }
    if case.pauses {
        let last = Pid::from_raw(i32::try_from(members[MEMBERS - 1].child.id()).expect("a process id"));
        let mut left = WARM_UP + case.span;
        while left > Duration::from_secs(4) {
            std::thread::sleep(Duration::from_secs(2));
            kill(last, Signal::SIGSTOP).expect("it runs");
            std::thread::sleep(Duration::from_secs(2));
            kill(last, Signal::SIGCONT).expect("it is there");
            left -= Duration::from_secs(4);
        }
    }
    let counted = if case.pauses { MEMBERS - 1 } else { MEMBERS };
    let reports: Vec<Value> = members.iter_mut().take(counted).map(Member::line).collect();
    let sum = |name: &str| reports.iter().filter_map(|report| report[name].as_f64()).sum::<f64>();
    let mut latencies = Histogram::default();
    reports.iter().for_each(|report| latencies.add_all(&report["latencies"]));
    Outcome {
        latencies,
        ordered: sum("ordered") as u64,
        submitted: sum("submitted") as u64,
        cores: sum("cpu_s") / case.span.as_secs_f64(),
        rounds_per_s: reports[0]["rounds"].as_f64().unwrap_or(0.0) / case.span.as_secs_f64(),
        delay_us: reports[0]["delay_us"].as_u64().unwrap_or(0),
        sync_us: reports[0]["sync_us"].as_u64().unwrap_or(0),
        events_per_s: reports[0]["events"].as_f64().unwrap_or(0.0) / case.span.as_secs_f64(),
    }
}

struct Member {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Member {
    fn start(place: usize, dir: &Path, port: u16, case: &Case) -> Self {
        let own = std::env::current_exe().expect("a path");
        let numbers = [place as u64, u64::from(port), case.rate, WARM_UP.as_secs(), case.span.as_secs()];
        let mut child = Command::new(own)
            .arg(MEMBER)
            .arg(dir.join(format!("member-{place}")))
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("its output is ours"));
        Self { child, output }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it says something");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("a member said {line:?}"))
    }

    fn tell(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("its input is ours");
        input.write_all(text.as_bytes()).expect("it listens");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let fits = |first: &u16| (*first..*first + MEMBERS as u16).all(is_free);
    (20_000..30_000).step_by(MEMBERS).find(fits).expect("there are free ports")
}
