//! A journal beside the other programs of its kind: the JavaScript packages `hypercore` 10 and 11 and the Rust
//! crate `hypercore`, in turns, with equal work on the same disk; then what a journal costs.
//! `cargo xtask bench peers`; one part of it: `cargo bench -p journal --bench peers -- writes`, `reads` or `cost`.
//!
//! Each number is the median of several rounds. Beside the durable ones stands what the disk gave in the same
//! minute: two files written and synced, one after the other.

// A program for a terminal.
#![allow(clippy::print_stdout)]

mod cost;
#[path = "../../tests/interop/mod.rs"]
mod interop;
mod peer;

use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use journal::hash;

use peer::{Done, JavaScript, Ours, Peer, RustCrate, Work};

/// Rounds of each work; the median counts.
const ROUNDS: usize = 3;
/// Entries of the long log.
const LONG: u64 = 1_000_000;
/// Commits of two files that are measured before each round.
const LIMIT_COMMITS: u64 = 1_000;
/// How long that goes on at most.
const LIMIT_TIME_MAX: Duration = Duration::from_secs(5);

/// A line of the table.
struct Line {
    what: &'static str,
    work: Work,
    /// Entries that are written or read.
    count: u64,
    rounds: usize,
}

const fn line(what: &'static str, work: Work, count: u64) -> Line {
    Line { what, work, count, rounds: ROUNDS }
}

const WRITES: [Line; 3] = [
    line("one entry a batch, one writer", Work::OneByOne, 2_000),
    line("64 concurrent writers", Work::Writers, 12_800),
    line("batches of 1 000", Work::Batches, 100_000),
];
const READS: [Line; 4] = [
    line("read at random, warm", Work::AtRandom, 20_000),
    line("read in order", Work::InOrder, 100_000),
    line("open", Work::Open, 0),
    Line { what: "verify", work: Work::Verify, count: LONG, rounds: 1 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == cost::MEMORY) {
        return cost::measure_memory(&arguments[1..]);
    }
    let parts: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let asked = |part: &str| parts.is_empty() || parts.iter().any(|asked| *asked == part);
    println!("Load before: {}.", load());
    println!();
    if asked("writes") {
        writes(&peers());
    }
    if asked("reads") {
        reads(&peers());
    }
    if asked("cost") {
        cost::print_disk();
        println!();
        let (long, empty) = (folder(), folder());
        let long = long.path().join("log");
        Ours.fill(&long, LONG);
        cost::print_memory(&long, LONG, &empty.path().join("log"));
        println!();
    }
    println!("Load after: {}.", load());
}

fn writes(peers: &[Box<dyn Peer>]) {
    head(peers, "two files written and synced, same minute");
    for line in &WRITES {
        write(line, peers);
    }
    println!();
}

fn reads(peers: &[Box<dyn Peer>]) {
    let folders: Vec<_> = peers.iter().map(|_| folder()).collect();
    let lengths: Vec<_> = peers.iter().map(|peer| LONG.min(peer.length_max())).collect();
    for ((peer, folder), length) in peers.iter().zip(&folders).zip(&lengths) {
        peer.fill(&folder.path().join("log"), *length);
    }
    head(peers, "limit");
    for line in &READS {
        read(line, peers, &folders, &lengths);
    }
    println!();
    println!("Of {LONG} entries; of the Rust crate {}: it panics when it opens more.", RustCrate::LENGTH_MAX);
    println!();
}

fn peers() -> Vec<Box<dyn Peer>> {
    let installed = interop::install("peers");
    let javascript = |name, package| JavaScript { name, package, installed: installed.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    vec![
        Box::new(Ours),
        Box::new(javascript("JavaScript 10", "hypercore-10")),
        Box::new(javascript("JavaScript 11", "hypercore-11")),
        Box::new(RustCrate(runtime.expect("a runtime"))),
    ]
}

/// A folder on the disk that the build lies on: the system's temporary folder may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder")
}

fn head(peers: &[Box<dyn Peer>], limit: &str) {
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    println!("| what | {} | {limit} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(peers.len() + 1));
}

/// All write in turns, each into a folder of its own.
fn write(line: &Line, peers: &[Box<dyn Peer>]) {
    let mut took = vec![Vec::new(); peers.len()];
    let mut limits = Vec::new();
    let counts: Vec<_> = peers.iter().map(|peer| line.count.min(peer.length_max())).collect();
    for _ in 0..line.rounds {
        limits.push(two_files());
        for ((peer, count), took) in peers.iter().zip(&counts).zip(&mut took) {
            let folder = folder();
            took.extend(peer.run(line.work, &folder.path().join("log"), *count, 0));
        }
    }
    let rates: Vec<_> = took.into_iter().map(rate).collect();
    println!("| {} | {} | {} |", line.what, rates.join(" | "), rate(limits));
}

/// All read in turns, each the log that it has written.
fn read(line: &Line, peers: &[Box<dyn Peer>], folders: &[tempfile::TempDir], lengths: &[u64]) {
    let mut took = vec![Vec::new(); peers.len()];
    for _ in 0..line.rounds {
        for (number, peer) in peers.iter().enumerate() {
            let count = line.count.min(lengths[number]);
            let folder = folders[number].path().join("log");
            took[number].extend(peer.run(line.work, &folder, count, lengths[number]));
        }
    }
    let cell = |took: Vec<Done>| match line.work {
        Work::Open | Work::Verify => millis(took.iter().map(|done| done.took).collect()),
        _ => rate(took),
    };
    let cells: Vec<_> = took.into_iter().map(cell).collect();
    let limit = match line.work {
        Work::Verify => format!("hashing alone: {}", millis(vec![hashing()])),
        Work::Open => format!("a journal of 1 000: {}", millis(open_short())),
        _ => String::new(),
    };
    println!("| {} | {} | {limit} |", line.what, cells.join(" | "));
}

/// 100 and 300 bytes to two files, each synced: what the least commit costs.
fn two_files() -> Done {
    let dir = folder();
    let mut files = ["data", "oplog"].map(|name| fs::File::create(dir.path().join(name)).expect("a file"));
    let start = Instant::now();
    let mut entries = 0;
    while entries < LIMIT_COMMITS && start.elapsed() < LIMIT_TIME_MAX {
        for (file, bytes) in files.iter_mut().zip([100, 300]) {
            file.write_all(&[7; 300][..bytes]).and_then(|()| file.sync_data()).expect("synced");
        }
        entries += 1;
    }
    Done { entries, took: start.elapsed() }
}

/// The hashes of all leaves and parents of the long log.
fn hashing() -> Duration {
    let entry = peer::entry(1);
    let node = journal::Node { index: 0, size: 100, hash: [7; 32] };
    let start = Instant::now();
    for _ in 0..LONG {
        black_box(hash::leaf(black_box(&entry)));
        black_box(hash::parent(black_box(&node), black_box(&node)));
    }
    start.elapsed()
}

fn open_short() -> Vec<Duration> {
    let dir = folder();
    let log = dir.path().join("log");
    Ours.fill(&log, 1_000);
    (0..ROUNDS).filter_map(|_| Ours.run(Work::Open, &log, 0, 1_000)).map(|done| done.took).collect()
}

/// The median.
fn rate(mut done: Vec<Done>) -> String {
    done.sort_unstable_by(|a, b| a.each().total_cmp(&b.each()));
    let Some(median) = done.get(done.len() / 2) else { return "none".to_owned() };
    let rate = 1.0 / median.each();
    if rate < 10_000.0 { format!("{rate:.0}/s") } else { format!("{:.0} k/s", rate / 1e3) }
}

/// The median.
fn millis(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let median = took.get(took.len() / 2);
    median.map_or_else(|| "none".to_owned(), |took| format!("{:.2} ms", took.as_secs_f64() * 1e3))
}

/// Who else wants the machine.
fn load() -> String {
    fs::read_to_string(Path::new("/proc/loadavg"))
        .map_or_else(|_| "not known".to_owned(), |load| load.split(' ').take(1).collect())
}
