//! Streamed answers between the hosts of one cell: events, journals and data are read on any of them, in bounded memory.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use kit::hosts::service;
use kit::{Cell, HostProcess, until};
use serde_json::{Value, json};

/// More than the buffers of all that lies between two hosts.
const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// A running cell with another host, `b`, which runs State.
fn cell_and_host(dir: &Path) -> (Cell, HostProcess) {
    let mut cell = Cell::init(dir, "a");
    cell.start_first();
    let mut host = HostProcess::join(&cell, &dir.join("b"), "state");
    host.start();
    until("State runs there", || service(&cell, "state") == ("b".to_owned(), "running".to_owned()));
    (cell, host)
}

fn put(cell: &Cell, number: u64) {
    cell.put(&format!("n{number}"), "v");
}

/// A page of a host that is read for as long as the test wants.
struct Page {
    lines: BufReader<TcpStream>,
}

impl Page {
    fn open(http: &str, token: &str, path: &str, more: &str) -> Self {
        let authority = http.trim_start_matches("http://");
        let mut socket = TcpStream::connect(authority).expect("connects");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let token = token.trim();
        write!(
            socket,
            "GET {path} HTTP/1.0\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        )
        .expect("written");
        let mut this = Self { lines: BufReader::new(socket) };
        assert!(this.line().contains(" 200 "), "{path}");
        while !this.line().is_empty() {}
        this
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it goes on");
        line.trim_end().to_owned()
    }

    /// The next event and its id.
    fn event(&mut self) -> (String, Value) {
        let mut id = String::new();
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (id, serde_json::from_str(text).expect("JSON"));
            }
        }
    }
}

fn open_streams(cell: &Cell) -> u64 {
    let metrics = cell.get("/metrics").1;
    let line = metrics.lines().find_map(|line| line.strip_prefix("cell_streams_open ")).expect("a gauge");
    line.parse().expect("a number")
}

/// The host with its address, for pages of it.
fn at(host: &HostProcess) -> Cell {
    let mut cell = host.as_cell();
    cell.http.clone_from(&host.http);
    cell
}

#[test]
fn events_of_all_services_are_watched_on_any_host_and_none_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cell, mut host) = cell_and_host(dir.path());
    let token = host.as_cell().token();
    let blocks = |page: &mut Page, from: u64, to: u64| {
        let mut seen = BTreeSet::new();
        let mut last = String::new();
        while (seen.len() as u64) < to - from {
            let (id, event) = page.event();
            if event["event"] == "state.applied" {
                let block = event["data"]["index"].as_u64().expect("a block");
                assert!(seen.insert(block), "twice: {event}");
            }
            last = id;
        }
        assert_eq!(seen, (from..to).collect(), "each block once");
        last
    };
    let names = "names=state.applied,nucleus.token_created,consensus.finalised";
    let mut page = Page::open(&host.http, &token, &format!("/events?{names}&since=0"), "");
    (0..3).for_each(|number| put(&cell, number));
    blocks(&mut page, 0, 3);
    // The listener stays while the host that leads comes and goes.
    cell.kill_first();
    cell.start_first();
    until("the lead has found its host", || cell.is_synced());
    (3..6).for_each(|number| put(&cell, number));
    let last = blocks(&mut page, 3, 6);
    // What happens while the listener is away, it hears when it is back on the other host's next life.
    host.kill();
    cell.ok(&["token", "create", "meanwhile", "--role", "read"]);
    host.start();
    until("it is back", || cell.is_synced());
    let resume = format!("Last-Event-ID: {last}\r\n");
    let mut page = Page::open(&host.http, &token, &format!("/events?{names}"), &resume);
    put(&cell, 6);
    let made =
        std::iter::repeat_with(|| page.event().1).find(|event| event["event"] != "consensus.finalised");
    let made = made.expect("it goes on");
    assert_eq!(
        (&made["event"], &made["data"]["name"]),
        (&json!("nucleus.token_created"), &json!("meanwhile"))
    );
    blocks(&mut page, 6, 7);
    // The command sees the same as on the host that leads.
    let watch = ["watch", "state.*", "--since", "0", "--limit", "7", "--timeout", "20"];
    let text = |output: Output| String::from_utf8(output.stdout).expect("text");
    assert_eq!(text(host.as_cell().run(&watch)), text(cell.run(&watch)));
    let (status, refused) = at(&host).get("/events?names=state.aplied");
    assert!(status == 400 && refused.contains("did you mean state.applied?"), "{status} {refused}");
}

#[test]
fn journals_are_read_on_a_host_that_has_neither_them_nor_their_keys() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, host) = cell_and_host(dir.path());
    (0..3).for_each(|number| put(&cell, number));
    let other = host.as_cell();
    assert_eq!(
        other.refused(&["journal", "cat", "nucleus"]),
        (4, "bus.denied".to_owned()),
        "its token may read"
    );
    let admin = cell.dir().join("admin.token").display().to_string();
    for journal in ["nucleus", "state", "consensus"] {
        let cat = ["journal", "cat", journal, "--limit", "1000"];
        let here = cell.ok(&cat)["items"].as_array().expect("a list").clone();
        let there = other.ok(&[&cat[..], &["--token-file", &admin]].concat());
        // The cell may have written more since.
        let there = there["items"].as_array().expect("a list");
        assert!(there.len() >= here.len() && there[..here.len()] == here[..], "{journal}");
    }
    let page =
        other.ok(&["journal", "cat", "nucleus", "--from", "2", "--limit", "3", "--token-file", &admin]);
    assert_eq!((page["items"][0]["index"].as_u64(), page["next"].as_str()), (Some(2), Some("5")), "{page}");
}

#[test]
fn large_data_crosses_byte_for_byte_and_slow_readers_cost_neither_memory_nor_other_calls() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, host) = cell_and_host(dir.path());
    let other = at(&host);
    let bytes: Vec<u8> = (0..LARGE_BYTES / 8).flat_map(|place| (place * 0x9e37_79b9).to_le_bytes()).collect();
    let (file, copy) = (dir.path().join("large"), dir.path().join("copy"));
    std::fs::write(&file, &bytes).expect("a file");
    let hash =
        cell.ok(&["data", "add", &file.display().to_string()])["hash"].as_str().expect("one").to_owned();
    let got = other.ok(&["data", "get", &hash, "--out", &copy.display().to_string()]);
    assert_eq!(got["size"].as_u64(), Some(LARGE_BYTES as u64));
    assert!(std::fs::read(&copy).expect("a file") == bytes, "byte for byte");

    let memory = || cell.memory_kib() + memory_kib(host.id().expect("it runs"));
    let before = memory();
    let path = format!("/api/v1/state/data?hash={hash}");
    let mut slow: Vec<Page> = (0..8).map(|_| Page::open(&host.http, &other.token(), &path, "")).collect();
    until("all are open", || open_streams(&cell) == 8 && open_streams(&other) == 8);
    // Nobody reads; others are answered as before, over the same connection.
    let began = Instant::now();
    for number in 0..200 {
        let (status, _) = other.get(&format!("/api/v1/message/list?limit={}", number % 7 + 1));
        assert_eq!(status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "200 calls took {:?}", began.elapsed());
    let grown = memory().saturating_sub(before);
    assert!(grown < 48 * 1024, "8 readers that do not read 512 MiB cost {grown} KiB");
    // One reads on, and has all of it.
    let mut rest = Vec::new();
    slow[0].lines.read_to_end(&mut rest).expect("to its end");
    assert!(unchunked(&rest) == bytes, "byte for byte");
    // The others go away, and nothing is read for them any more.
    drop(slow);
    until("nothing is left of them", || open_streams(&cell) == 0 && open_streams(&other) == 0);

    // A flipped bit is found where the data lies, and not passed on as the data.
    let kept = cell.dir().join("data").join(&hash);
    let mut damaged = bytes;
    damaged[LARGE_BYTES / 2] ^= 1;
    std::fs::write(&kept, damaged).expect("a file");
    std::fs::remove_file(&copy).expect("it was there");
    let (_, code) = other.refused(&["data", "get", &hash, "--out", &copy.display().to_string()]);
    assert!(["data.damaged", "cli.broken_off"].contains(&&*code), "{code}");
    assert!(!copy.exists(), "what is not whole has no name");
}

#[test]
fn who_goes_away_is_given_nothing_any_more() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, mut host) = cell_and_host(dir.path());
    let other = at(&host);
    let watch = || Page::open(&host.http, &other.token(), "/events?since=0", "");
    let mut pages: Vec<Page> = (0..5).map(|_| watch()).collect();
    pages.iter_mut().for_each(|page| drop(page.event()));
    until("all are open", || open_streams(&cell) == 5 && open_streams(&other) == 5);
    pages.truncate(2);
    until("three have gone", || open_streams(&cell) == 2 && open_streams(&other) == 2);
    // A host that is gone takes its listeners along.
    host.kill();
    until("nobody is left", || open_streams(&cell) == 0);
}

/// What came in chunks, each behind its length.
fn unchunked(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let end = text.windows(2).position(|two| two == b"\r\n").expect("a length");
        let length = std::str::from_utf8(&text[..end]).expect("hex");
        let length = usize::from_str_radix(length, 16).expect("hex");
        if length == 0 {
            return bytes;
        }
        let (chunk, rest) = text[end + 2..].split_at(length);
        bytes.extend(chunk);
        text = &rest[2..];
    }
}

fn memory_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
