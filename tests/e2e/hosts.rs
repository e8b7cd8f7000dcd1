//! One cell over several hosts: who is let in, what moves, what a lost host costs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use kit::hosts::service;
use kit::{Cell, HostProcess, until};
use serde_json::{Value, json};

fn get(cell: &Cell, key: &str) -> Value {
    cell.ok(&["state", "get", &format!("kv/{key}")])["value"].clone()
}

/// A running cell with one more host.
fn cell_and_host(dir: &Path, services: &str) -> (Cell, HostProcess) {
    let mut cell = Cell::init(dir, "a");
    cell.start_first();
    let mut host = HostProcess::join(&cell, &dir.join("b"), services);
    host.start();
    until("it has what it was invited for", || {
        services.split(',').all(|name| service(&cell, name) == ("b".to_owned(), "running".to_owned()))
    });
    (cell, host)
}

#[test]
fn a_ticket_lets_one_host_in_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let ticket =
        cell.ok(&["host", "invite", "--ttl-s", "60"])["ticket"].as_str().expect("a ticket").to_owned();
    let join = |name: &str, ticket: &str, more: &[&str]| {
        let host = HostProcess::adopt(&dir.path().join(name));
        let join = ["host", "join", ticket, "--listen", "/ip4/127.0.0.1/tcp/0", "--http-port", "0"];
        host.as_cell().run(&[&join, more].concat())
    };
    let refused = |output: std::process::Output| {
        let problem: Value = serde_json::from_slice(&output.stdout).expect("a problem");
        assert!(!output.status.success());
        problem["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(refused(join("b", "cellhost1nonsense", &[])), "bridge.bad_ticket");
    assert_eq!(refused(join("b", &ticket, &["--services", "nucleus"])), "nucleus.cannot_move");
    assert_eq!(refused(join("b", &ticket, &["--services", "nothing"])), "id.bad_service");
    assert_eq!(refused(join("b", &ticket, &["--name", "first"])), "nucleus.host_exists");
    assert!(
        join("b", &ticket, &["--services", "market"]).status.success(),
        "what was refused has not used it up"
    );
    assert_eq!(refused(join("b", &ticket, &[])), "folder.exists");
    assert_eq!(refused(join("c", &ticket, &[])), "nucleus.ticket_used");
    let short = cell.ok(&["host", "invite", "--ttl-s", "1"])["ticket"].as_str().expect("a ticket").to_owned();
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert_eq!(refused(join("c", &short, &[])), "nucleus.ticket_expired");
    assert_eq!(cell.refused(&["host", "invite", "--ttl-s", "0"]).1, "nucleus.bad_ttl");
    // All of it is in the audit, and no secret is.
    let audit = cell.ok(&["call", "nucleus.audit_log", r#"{"limit":100}"#])["items"].to_string();
    for outcome in ["nucleus.host_exists", "nucleus.ticket_used", "nucleus.ticket_expired", "host:b:"] {
        assert!(audit.contains(outcome), "{outcome}: {audit}");
    }
    assert!(!dir.path().join("b/identity.key").exists(), "the cell's key stays where it is");
}

#[test]
fn services_move_while_the_cell_runs_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, mut host) = cell_and_host(dir.path(), "state");
    cell.put("a", "1");
    let writing = std::sync::atomic::AtomicBool::new(true);
    let (http, token) = (cell.http.clone(), cell.token());
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0u32;
            while writing.load(std::sync::atomic::Ordering::Relaxed) {
                let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "consensus.submit", "params": {
                    "intent": { "module": "kv", "call": "put",
                        "args": { "key": format!("n{written}"), "value": written.to_string() } },
                    "wait": "finalised" } });
                let (status, body) = kit::post(&http, token.trim(), "/rpc", &request.to_string());
                let body: Value = serde_json::from_str(&body).expect("JSON");
                assert_eq!((status, &body["result"]["status"]), (200, &json!("finalised")), "{body}");
                written += 1;
            }
            written
        });
        for (name, to) in [
            ("consensus", "b"),
            ("state", "first"),
            ("state", "b"),
            ("consensus", "first"),
            ("identity", "b"),
        ] {
            let moved = cell.ok(&["service", "move", name, "--to", to]);
            assert_eq!((&moved["host"], &moved["health"]), (&json!(to), &json!("running")), "{moved}");
        }
        writing.store(false, std::sync::atomic::Ordering::Relaxed);
        writer.join().expect("every submission came to its end")
    });
    assert!(written > 3, "{written} were written meanwhile");
    for number in 0..written {
        assert_eq!(get(&cell, &format!("n{number}")), number.to_string());
    }
    // Each move is a grant with a higher epoch, and entries say under which they were written.
    let grants = cell.ok(&["call", "nucleus.roster"])["grants"].clone();
    let of = |name: &str| {
        let all = grants.as_array().expect("a list").clone();
        all.into_iter().find(|grant| grant["service"] == name).expect("granted")
    };
    assert_eq!((&of("state")["host"], &of("state")["epoch"]), (&json!("b"), &json!(4)));
    assert_eq!((&of("consensus")["host"], &of("consensus")["epoch"]), (&json!("first"), &json!(3)));
    for (what, code) in
        [(["nucleus", "b"], "nucleus.cannot_move"), (["state", "nobody"], "nucleus.unknown_host")]
    {
        assert_eq!(cell.refused(&["service", "move", what[0], "--to", what[1]]).1, code);
    }
    // The copies are the journals: both hosts show the same. The other one shows those that lie there.
    let there = host.as_cell();
    let verified = |cell: &Cell| {
        let verified = cell.ok(&["journal", "verify"])["items"].as_array().expect("a list").clone();
        assert!(verified.iter().all(|item| item["ok"] == true), "{verified:?}");
        verified.into_iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(verified(&cell).len(), 6);
    let lying_there = verified(&there);
    assert!(lying_there.contains(&"identity".to_owned()), "{lying_there:?}");
    assert!(!lying_there.contains(&"nucleus".to_owned()), "{lying_there:?}");
    let listed = there.ok(&["journal", "list"])["items"].as_array().expect("a list").len();
    assert_eq!(listed, lying_there.len());
    assert_eq!(there.refused(&["journal", "prove", "nucleus", "0"]), (1, "journal.not_here".to_owned()));
    // Before it is stopped it is emptied, and nothing waits for it.
    let drained = cell.ok(&["host", "drain", "b"]);
    assert_eq!(
        drained,
        json!({ "host": "b", "to": "first", "moved": ["identity", "state"], "hands_over": false })
    );
    host.terminate();
    assert_eq!(host.wait(), Some(0));
    assert_eq!(get(&cell, "n0"), "0");
    cell.put("b", "2");
    for (asked, refused) in [
        (&["nobody"][..], (1, "nucleus.unknown_host")),
        (&["b", "--to", "b"], (1, "nucleus.cannot_drain")),
        (&["first"], (6, "nucleus.nobody_follows")),
        (&["first", "--to", "b"], (6, "nucleus.nobody_follows")),
    ] {
        assert_eq!(cell.refused(&[&["host", "drain"], asked].concat()), (refused.0, refused.1.to_owned()));
    }
}

#[test]
fn a_lost_host_comes_back_and_a_lost_lead_finds_its_hosts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut cell, mut host) = cell_and_host(dir.path(), "state,consensus");
    cell.put("a", "1");
    let mut watch = Command::new(&cell.program)
        .args(["hosts", "--watch", "--output", "json", "--dir"])
        .arg(cell.dir())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut seen = BufReader::new(watch.stdout.take().expect("its output is ours")).lines();
    let mut is_seen = |connected: bool, incarnation: u64| {
        seen.by_ref().map_while(Result::ok).any(|line| {
            let hosts: Value = serde_json::from_str(&line).expect("JSON");
            let hosts = hosts["items"].as_array().cloned().unwrap_or_default();
            hosts.iter().any(|host| {
                host["host"] == "b"
                    && host["connected"] == connected
                    && host["incarnation"].as_u64().is_none_or(|now| now == incarnation)
            })
        })
    };
    assert!(is_seen(true, 1));
    host.kill();
    until("its services are missed", || service(&cell, "state").1 != "running");
    assert!(is_seen(false, 1));
    let (code, problem) = cell.refused(&["state", "get", "kv/a"]);
    assert!(
        code == 5 && ["bus.host_unreachable", "bus.circuit_open"].contains(&&*problem),
        "{code} {problem}"
    );
    assert_eq!(cell.get("/readyz").0, 503);
    host.start();
    until("it is back", || cell.is_synced());
    assert!(is_seen(true, 2));
    let _ = watch.kill();
    let _ = watch.wait();
    assert_eq!(get(&cell, "a"), "1");
    cell.put("b", "2");
    let incarnations = |cell: &Cell| {
        let items = cell.ok(&["hosts"])["items"].as_array().expect("a list").clone();
        let b = items.into_iter().find(|item| item["host"] == "b").expect("it is there");
        b["incarnation"].as_u64()
    };
    until("its second life is known", || incarnations(&cell) == Some(2));
    // What the other host acknowledged while the lead was away is not lost, and what it owed is done.
    cell.kill_first();
    cell.start_first();
    until("the lead has found it", || cell.is_synced());
    assert_eq!((get(&cell, "a"), get(&cell, "b")), (json!("1"), json!("2")));
    cell.put("c", "3");
    // From the other host's folder the whole cell is reached.
    let status = host.as_cell().ok(&["status"]);
    assert_eq!(status["readiness"]["state"], "synced", "{status}");
    assert_eq!(host.as_cell().refused(&["drain"]), (4, "bus.denied".to_owned()), "its token may read");
}

#[test]
fn a_removed_host_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (cell, mut host) = cell_and_host(dir.path(), "state,market");
    cell.put("a", "1");
    cell.ok(&["host", "remove", "b"]);
    assert_eq!(service(&cell, "state"), ("first".to_owned(), "running".to_owned()));
    assert_eq!(get(&cell, "a"), "1");
    cell.put("b", "2");
    assert_eq!(cell.ok(&["hosts"])["items"].as_array().expect("a list").len(), 1);
    assert_eq!(cell.refused(&["host", "remove", "b"]).1, "nucleus.unknown_host");
    // Its process finds nobody any more, and neither does a new one of it.
    for _ in 0..2 {
        until("it is alone", || !host.as_cell().run(&["state", "get", "kv/a"]).status.success());
        host.kill();
        host.start();
    }
    assert_eq!(get(&cell, "b"), "2");
}
