//! A writer's host is lost, or frozen and woken: another host goes on with its services, nothing that was acknowledged is lost, and the old
//! writer writes nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kit::hosts::service;
use kit::{Cell, HostProcess, until};
use serde_json::{Value, json};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it is watched that a service is not taken over: longer than its lease.
const NOT_TAKEN_OVER: Duration = Duration::from_secs(4);
/// The batch that it was about to write when it was frozen may come to its own disk, and nowhere else: an entry of each writer at most.
const BATCH_MAX: u64 = 8;
/// What runs on the other host.
const THERE: &str = "identity,state,consensus";

/// A running cell whose records are on two disks before anybody hears of them, with one more host.
fn replicated(dir: &Path) -> (Cell, HostProcess) {
    let mut cell = Cell::init(dir, "a");
    cell.ok(&["config", "set", "journal.durability", "replica"]);
    cell.ok(&["config", "set", "http.requests_per_second_max", "1000000"]);
    cell.start_first();
    let mut host = HostProcess::join(&cell, &dir.join("b"), THERE);
    host.start();
    until("it has what it was invited for", || all_on(&cell, "b") && is_settled(&cell));
    (cell, host)
}

/// What a host was invited for is brought to it until it was there once: from then on it stays where it is taken over to.
fn is_settled(cell: &Cell) -> bool {
    let roster = cell.ok(&["call", "nucleus.roster"]);
    roster["hosts"].as_array().expect("a list").iter().all(|host| host["services"] == json!([]))
}

fn all_on(cell: &Cell, host: &str) -> bool {
    THERE.split(',').all(|name| service(cell, name) == (host.to_owned(), "running".to_owned()))
}

fn signal(host: &HostProcess, signal: &str) {
    let id = host.id().expect("it runs").to_string();
    assert!(Command::new("kill").args([signal, &id]).status().is_ok_and(|status| status.success()));
}

/// Calls an action; its answer, or the code of its refusal.
fn call(http: &str, token: &str, action: &str, params: &Value) -> Result<Value, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": action, "params": params });
    let post = agent.post(format!("{http}/rpc")).header("authorization", format!("Bearer {token}"));
    let answer = post.send(request.to_string()).and_then(|mut answer| answer.body_mut().read_to_string());
    let body: Value = serde_json::from_str(&answer.map_err(|_| "nobody answers")?).map_err(|_| "no JSON")?;
    match body.get("result") {
        Some(result) => Ok(result.clone()),
        None => Err(body["error"]["data"]["code"].as_str().unwrap_or("no code").to_owned()),
    }
}

/// A cell that nobody has, and the name that it gets as a contact.
fn contact(number: u64) -> (String, Value) {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let name = format!("n{number}");
    let asked = json!({ "cell": protocol::CellId::from_bytes(bytes), "name": name });
    (name, asked)
}

/// Clients that add contacts, each one after the other, as long as it is wished.
#[derive(Default)]
struct Writers {
    acknowledged: Mutex<BTreeSet<String>>,
    /// How often each code was told.
    refused: Mutex<BTreeMap<String, u64>>,
    begun: AtomicU64,
    is_over: AtomicBool,
}

/// Ends the writers, however the test ends.
struct Over<'a>(&'a Writers);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("refused meanwhile: {:?}", self.0.refused);
        }
    }
}

impl Writers {
    fn write(&self, http: &str, token: &str) {
        while !self.is_over.load(Ordering::Relaxed) {
            let (name, asked) = contact(self.begun.fetch_add(1, Ordering::Relaxed));
            match call(http, token, "identity.add_contact", &asked) {
                Ok(_) => drop(self.acknowledged().insert(name)),
                // Whoever finds nobody does not ask a thousand times a second.
                Err(code) => {
                    *self.refused.lock().expect("nobody panicked").entry(code).or_default() += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    fn acknowledged(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.acknowledged.lock().expect("nobody panicked")
    }

    fn count(&self) -> usize {
        self.acknowledged().len()
    }
}

/// The names of all contacts.
fn contacts(cell: &Cell) -> BTreeSet<String> {
    let (mut names, mut cursor) = (BTreeSet::new(), Value::Null);
    loop {
        let asked = json!({ "limit": 1000, "cursor": cursor }).to_string();
        let page = cell.ok(&["call", "identity.contacts", &asked]);
        let items = page["items"].as_array().expect("a list").clone();
        names.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
        cursor = page["next"].clone();
        if cursor.is_null() {
            return names;
        }
    }
}

fn fork_of(cell: &Cell, journal: &str) -> u64 {
    let journals = cell.ok(&["journal", "list"]);
    let items = journals["items"].as_array().expect("a list").clone();
    let found = items.into_iter().find(|item| item["name"] == journal || item["journal"] == journal);
    found.expect("it is there")["fork"].as_u64().expect("a number")
}

#[test]
fn a_lost_host_is_taken_over_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, mut host) = replicated(dir.path());
    let (writers, token) = (Writers::default(), cell.token());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| writers.write(&cell.http, token.trim()));
        }
        let _over = Over(&writers);
        until("they write", || writers.count() > 50);
        host.kill();
        let before = writers.count();
        until("they go on", || writers.count() > before + 4);
        until("all of it was taken over", || all_on(&cell, "first"));
    });
    let (there, acknowledged) = (contacts(&cell), writers.acknowledged().clone());
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
    for name in THERE.split(',') {
        assert!(fork_of(&cell, name) > 0, "the fork of {name} has not risen");
    }
    cell.put("a", "1");
    // It comes back with a past of its own: it is nobody's, until it is given the journals again.
    host.start();
    for name in THERE.split(',') {
        cell.ok(&["service", "move", name, "--to", "b"]);
    }
    assert!(all_on(&cell, "b"));
    assert_eq!(contacts(&cell), there);
    assert_eq!(cell.ok(&["state", "get", "kv/a"])["value"], "1");
    let verified = cell.ok(&["journal", "verify"]);
    assert!(
        verified["items"].as_array().expect("a list").iter().all(|item| item["ok"] == true),
        "{verified}"
    );
}

/// It wakes with calls that it was about to answer, others in its sockets, and a view of the past.
#[test]
fn a_frozen_host_that_wakes_acknowledges_nothing_and_shows_nothing_of_the_past() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, host) = replicated(dir.path());
    let (writers, token, name) = (Writers::default(), cell.token(), "before");
    let changing = json!({ "cell": contact(u64::MAX).1["cell"], "name": name });
    call(&cell.http, token.trim(), "identity.add_contact", &changing).expect("adds");
    let seen = |http: &str| {
        let who = json!({ "who": changing["cell"] });
        call(http, token.trim(), "identity.resolve", &who).map(|contact| contact["name"].clone())
    };
    assert_eq!(seen(&host.http), Ok(json!(name)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| writers.write(&host.http, token.trim()));
        }
        let _over = Over(&writers);
        until("they write", || writers.count() > 50);
        signal(&host, "-STOP");
        until("all of it was taken over", || all_on(&cell, "first"));
        let asked = json!({ "cell": changing["cell"], "name": "after" });
        call(&cell.http, token.trim(), "identity.add_contact", &asked).expect("goes on");
        let entries =
            || journal::Reader::open(&host.dir().join("journals/identity")).expect("its journal").length();
        let written = entries();
        signal(&host, "-CONT");
        // What it answers from now on is of the present, or is no answer.
        let woken = Instant::now();
        let (mut told, mut refused) = (0, 0);
        while woken.elapsed() < Duration::from_secs(3) {
            match seen(&host.http) {
                Ok(name) => {
                    assert_eq!(name, "after", "an answer of the past, {:?} after it woke", woken.elapsed());
                    told += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(told > 0, "it tells what the other host knows ({refused} refused)");
        assert!(entries() <= written + BATCH_MAX, "it wrote {} entries", entries() - written);
    });
    let (there, acknowledged) = (contacts(&cell), writers.acknowledged().clone());
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged.len());
}

/// What was acknowledged on one disk alone is lost with it: nobody takes that over by himself.
#[test]
fn what_is_on_one_disk_alone_is_taken_over_by_hand() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let mut host = HostProcess::join(&cell, &dir.path().join("b"), "identity,market");
    host.start();
    until("it has what it was invited for", || {
        service(&cell, "identity") == ("b".to_owned(), "running".to_owned())
    });
    let token = cell.token();
    call(&cell.http, token.trim(), "identity.add_contact", &contact(1).1).expect("adds");
    let entries = |cell: &Cell| {
        let list = cell.ok(&["journal", "list"])["items"].as_array().expect("a list").clone();
        list.into_iter().find(|item| item["name"] == "identity").map(|item| item["entries"].clone())
    };
    // Of the copy here, and of the journal there.
    until("the copy has it, and its host knows", || entries(&cell) == entries(&host.as_cell()));
    host.kill();
    until("it is missed", || service(&cell, "identity").1 != "running");
    std::thread::sleep(NOT_TAKEN_OVER);
    assert_eq!(service(&cell, "identity").0, "b", "it is not taken over by itself");
    let removed = cell.ok(&["host", "remove", "b", "--force"]);
    assert_eq!(removed["host"]["name"], "b", "{removed}");
    assert_eq!(service(&cell, "identity"), ("first".to_owned(), "running".to_owned()));
    assert!(contacts(&cell).contains("n1"));
    let lost = removed["lost"].as_array().expect("a list").clone();
    assert!(
        lost.iter().any(|item| item["service"] == "identity" && item["said"] == item["entries"]),
        "{removed}"
    );
    // Its key is refused.
    host.start();
    until("it is alone", || !host.as_cell().run(&["identity", "contacts"]).status.success());
    assert_eq!(cell.ok(&["hosts"])["items"].as_array().expect("a list").len(), 1);
    call(&cell.http, token.trim(), "identity.add_contact", &contact(2).1).expect("goes on");
}
