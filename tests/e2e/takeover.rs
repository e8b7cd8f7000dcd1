//! A writer's host is lost, or frozen and woken: another host goes on with its services, nothing that was acknowledged is lost, and the old
//! writer writes nothing more.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kit::hosts::service;
use kit::rpc::Client;
use kit::writers::{What, Writers, contact};
use kit::{Cell, HostProcess, until};
use serde_json::json;

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
    let (writers, client) = (Writers::default(), Client::new(&cell.http, &cell.token()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| writers.write(&client, What::Contacts));
        }
        let _over = writers.until_dropped();
        until("they write", || writers.count(What::Contacts) > 50);
        host.kill();
        let before = writers.count(What::Contacts);
        until("they go on", || writers.count(What::Contacts) > before + 4);
        until("all of it was taken over", || all_on(&cell, "first"));
    });
    writers.check(&client);
    let there = What::Contacts.all(&client);
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
    assert_eq!(What::Contacts.all(&client), there);
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
    let (writers, token) = (Writers::default(), cell.token());
    let (lead, other) = (Client::new(&cell.http, &token), Client::new(&host.http, &token));
    let changing = json!({ "cell": contact(u64::MAX).1["cell"], "name": "before" });
    lead.call("identity.add_contact", &changing, PATIENCE).expect("adds");
    let seen = || {
        let who = json!({ "who": changing["cell"] });
        other.call("identity.resolve", &who, PATIENCE).map(|contact| contact["name"].clone())
    };
    assert_eq!(seen(), Ok(json!("before")));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| writers.write(&other, What::Contacts));
        }
        let _over = writers.until_dropped();
        until("they write", || writers.count(What::Contacts) > 50);
        signal(&host, "-STOP");
        until("all of it was taken over", || all_on(&cell, "first"));
        let asked = json!({ "cell": changing["cell"], "name": "after" });
        lead.call("identity.add_contact", &asked, PATIENCE).expect("goes on");
        let entries =
            || journal::Reader::open(&host.dir().join("journals/identity")).expect("its journal").length();
        let written = entries();
        signal(&host, "-CONT");
        // What it answers from now on is of the present, or is no answer.
        let woken = Instant::now();
        let (mut told, mut refused) = (0, 0);
        while woken.elapsed() < Duration::from_secs(3) {
            match seen() {
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
    writers.check(&lead);
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
    let client = Client::new(&cell.http, &cell.token());
    client.call("identity.add_contact", &contact(1).1, PATIENCE).expect("adds");
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
    assert!(What::Contacts.all(&client).contains("n1"));
    let lost = removed["lost"].as_array().expect("a list").clone();
    assert!(
        lost.iter().any(|item| item["service"] == "identity" && item["said"] == item["entries"]),
        "{removed}"
    );
    // Its key is refused.
    host.start();
    until("it is alone", || !host.as_cell().run(&["identity", "contacts"]).status.success());
    assert_eq!(cell.ok(&["hosts"])["items"].as_array().expect("a list").len(), 1);
    client.call("identity.add_contact", &contact(2).1, PATIENCE).expect("goes on");
}
