//! One trace over hosts and cells: what a request leads to hangs under it, wherever it is done.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use kit::hosts::service;
use kit::{Cell, HostProcess, pair, program, until};
use serde_json::{Value, json};

/// A `traceparent` of a caller that records the trace, and the trace's id.
fn begin(number: u64) -> (String, String) {
    let id = format!("{:032x}", 0xfeed_0000 + number);
    (format!("00-{id}-00f067aa0ba902b7-01"), id)
}

/// Calls an action: the answer, and the `traceparent` that came with it.
fn call(http: &str, token: &str, action: &str, params: Value, traceparent: &str) -> (Value, Option<String>) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": action, "params": params });
    let mut request = agent.post(format!("{http}/rpc")).header("authorization", format!("Bearer {token}"));
    if !traceparent.is_empty() {
        request = request.header("traceparent", traceparent);
    }
    let mut answer = request.send(body.to_string()).expect("an answer");
    let header = answer.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let header = header.map(str::to_owned);
    let text = answer.body_mut().read_to_string().expect("a body");
    (serde_json::from_str(&text).expect("JSON"), header)
}

fn ask(cell: &Cell, action: &str, params: Value, traceparent: &str) -> (Value, Option<String>) {
    call(&cell.http, cell.token().trim(), action, params, traceparent)
}

/// The spans of a trace as a cell has them; none if it has none.
fn spans(cell: &Cell, id: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_slice(&cell.run(&["trace", id]).stdout).expect("JSON");
    answer["spans"].as_array().cloned().unwrap_or_default()
}

fn named<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

fn has(spans: &[Value], names: &[&str]) -> bool {
    names.iter().all(|name| spans.iter().any(|span| span["name"] == *name))
}

#[test]
fn a_message_s_trace_goes_on_in_the_other_cell_and_comes_back() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (alice, bob) = pair(dir.path());
    let (traceparent, id) = begin(1);
    let body = json!({ "action": "state.get", "args": { "key": "kv/colour" } });
    let send = json!({ "to": "bob", "type": "EXEC", "body": body, "wait": "answered" });
    let (answer, header) = ask(&alice, "message.send", send, &traceparent);
    assert!(answer["result"]["reply"].is_object(), "{answer}");
    let header = header.expect("the answer says in which trace");
    assert!(header.starts_with(&format!("00-{id}-")) && header.ends_with("-01"), "{header}");
    assert_ne!(header, traceparent, "it names a span of its own");
    let at_alice =
        ["POST /rpc message.send", "message.send", "message.enqueue", "deliver EXEC", "receive EXEC"];
    let at_bob = ["receive EXEC", "handle EXEC", "state.get", "message.enqueue", "deliver EXEC"];
    until("both have recorded it", || has(&spans(&alice, &id), &at_alice) && has(&spans(&bob, &id), &at_bob));
    let (alices, bobs) = (spans(&alice, &id), spans(&bob, &id));
    let root = named(&alices, "POST /rpc message.send");
    assert_eq!(root["parent"], "00f067aa0ba902b7");
    assert!(header.contains(root["id"].as_str().expect("an id")), "{header} {root}");
    for (parent, part) in [
        (root, named(&alices, "message.send")),
        (named(&alices, "message.send"), named(&alices, "message.enqueue")),
        (named(&alices, "message.send"), named(&alices, "deliver EXEC")),
        (named(&alices, "deliver EXEC"), named(&bobs, "receive EXEC")),
        (named(&bobs, "receive EXEC"), named(&bobs, "handle EXEC")),
        (named(&bobs, "handle EXEC"), named(&bobs, "state.get")),
        (named(&bobs, "handle EXEC"), named(&bobs, "deliver EXEC")),
        (named(&bobs, "deliver EXEC"), named(&alices, "receive EXEC")),
    ] {
        assert_eq!(part["parent"], parent["id"], "{part} is part of {parent}");
    }
    assert_eq!(named(&bobs, "state.get")["attributes"]["caller"], "cell");
    let listed = bob.ok(&["trace"])["items"].as_array().expect("a list").clone();
    let listed = listed.into_iter().find(|trace| trace["id"] == *id).expect("it is listed");
    assert_eq!(listed["name"], "receive EXEC", "{listed}");
}

#[test]
fn a_stranger_s_trace_ends_where_it_came_from() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut bob, mut carol) = (Cell::init(dir.path(), "bob"), Cell::init(dir.path(), "carol"));
    bob.start();
    carol.start();
    carol.ok(&["peers", "add", &bob.peer, "--name", "bob"]);
    let (traceparent, id) = begin(2);
    let send =
        json!({ "to": "bob", "type": "CHAT", "body": { "text": "who are you?" }, "wait": "delivered" });
    let (answer, _) = ask(&carol, "message.send", send, &traceparent);
    assert_eq!(answer["result"]["status"], "delivered", "{answer}");
    until("its delivery is recorded", || has(&spans(&carol, &id), &["deliver CHAT"]));
    assert_eq!(bob.refused(&["trace", &id]), (1, "trace.unknown".to_owned()));
}

#[test]
fn a_trace_is_one_tree_over_the_hosts_of_a_cell() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let mut host = HostProcess::join(&cell, &dir.path().join("b"), "state");
    host.start();
    until("it has what it was invited for", || {
        service(&cell, "state") == ("b".to_owned(), "running".to_owned())
    });
    let (traceparent, id) = begin(3);
    ask(&cell, "market.balance", json!({}), &traceparent);
    let found = spans(&cell, &id);
    let of = |name: &str, kind: &str| {
        let is_it = |span: &&Value| span["name"] == name && span["kind"] == kind;
        found.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name} in {found:#?}"))
    };
    let (asked, answered) = (of("state.get", "client"), of("state.get", "server"));
    assert_eq!((&asked["host"], &answered["host"]), (&json!("first"), &json!("b")));
    assert_eq!(answered["parent"], asked["id"]);
    assert_eq!(asked["parent"], of("market.balance", "internal")["id"]);
    // The other way round: what comes in over there.
    let there = host.as_cell();
    let (traceparent, other) = begin(4);
    call(&host.http, there.token().trim(), "consensus.status", json!({}), &traceparent);
    let found = spans(&there, &other);
    let hosts = ["POST /rpc consensus.status"].map(|name| named(&found, name)["host"].clone());
    assert_eq!(hosts, ["b"]);
    let served = found.iter().find(|span| span["kind"] == "server").expect("the lead answered");
    assert_eq!((&served["host"], &served["name"]), (&json!("first"), &json!("consensus.status")));
    let listed = cell.ok(&["trace"])["items"].as_array().expect("a list").clone();
    let listed = listed.into_iter().find(|trace| trace["id"] == *other).expect("it is listed");
    assert_eq!((&listed["name"], &listed["host"]), (&json!("POST /rpc consensus.status"), &json!("b")));
    // For people: a tree.
    let shown = Command::new(program()).args(["trace", &id, "--dir"]).arg(cell.dir()).output();
    let shown = String::from_utf8(shown.expect("the program runs").stdout).expect("text");
    assert!(shown.starts_with(&format!("trace {id}  ")) && shown.contains("2 hosts"), "{shown}");
    assert!(shown.contains("└─ state.get"), "{shown}");
    // Who does not answer is named.
    host.kill();
    let view = cell.ok(&["trace", &id]);
    assert_eq!(view["missing"], json!(["b"]), "{view}");
    assert!(has(view["spans"].as_array().expect("spans"), &["POST /rpc market.balance"]));
}

#[test]
fn what_is_traced_is_decided_by_the_caller_or_the_settings() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.environment.push(("CELL__TRACE__SAMPLE_PER_1000", "0"));
    cell.start();
    let root = |traceparent: &str| ask(&cell, "state.root", json!({}), traceparent).1;
    let (fine, id) = begin(5);
    for nothing in ["", "nonsense", &fine.to_uppercase(), &fine[..54], &fine.replace(&id, &"0".repeat(32))] {
        assert_eq!(root(nothing), None, "{nothing:?}");
    }
    let unsampled = root(&fine.replace("b7-01", "b7-00")).expect("it goes on");
    assert!(unsampled.contains(&id) && unsampled.ends_with("-00"), "{unsampled}");
    assert_eq!(cell.refused(&["trace", &id]), (1, "trace.unknown".to_owned()));
    assert!(root(&fine).is_some());
    assert!(has(&spans(&cell, &id), &["POST /rpc state.root", "state.root"]));
    for bad in ["nonsense", "0af7", &"0".repeat(32)] {
        assert_eq!(cell.refused(&["trace", bad]), (1, "trace.bad_id".to_owned()), "{bad}");
    }
    // A refusal's code is in its span.
    let (fine, id) = begin(6);
    ask(&cell, "message.get", json!({ "id": "0".repeat(64) }), &fine);
    let found = spans(&cell, &id);
    let codes = ["POST /rpc message.get", "message.get", "message.lookup"]
        .map(|name| named(&found, name)["code"].clone());
    assert!(codes.iter().all(|code| code == "message.not_found"), "{codes:?}");
    // The command line has its own requests traced.
    let output = cell.run(&["state", "root", "--trace"]);
    let said = String::from_utf8(output.stderr).expect("text");
    let id = said.lines().find_map(|line| line.strip_prefix("trace: ")).expect("it says the id");
    assert!(has(&spans(&cell, id), &["POST /rpc state.root"]));
}

#[test]
fn what_is_recorded_is_bounded_and_the_latest_stays() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.environment.push(("CELL__TRACE__SPANS_MAX", "50"));
    cell.start();
    for number in 0..100 {
        ask(&cell, "state.root", json!({}), &begin(100 + number).0);
    }
    let listed = cell.ok(&["trace", "--limit", "1000"])["items"].as_array().expect("a list").clone();
    let held: u64 = listed.iter().filter_map(|trace| trace["spans"].as_u64()).sum();
    // Every other host that the tests may have given the cell holds so many as well.
    let processes = cell.ok(&["hosts"])["items"].as_array().map_or(1, Vec::len) as u64;
    assert!((2..=50 * processes).contains(&held), "{held}");
    assert!(has(&spans(&cell, &begin(199).1), &["POST /rpc state.root"]));
    assert_eq!(cell.refused(&["trace", &begin(100).1]).1, "trace.unknown");
}

/// Reads one request of HTTP and answers it: its path, and its body.
fn serve(stream: TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")?;
    Ok((path, body))
}

#[test]
fn spans_arrive_at_a_collector() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let arrived: Arc<Mutex<Vec<Value>>> = Arc::default();
    let collected = Arc::clone(&arrived);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok((path, body)) = serve(stream) else { continue };
            assert_eq!(path, "/v1/traces");
            collected.lock().expect("unpoisoned").push(serde_json::from_slice(&body).expect("JSON"));
        }
    });
    let mut cell = Cell::init(dir.path(), "alice");
    let url: &'static str = Box::leak(url.into_boxed_str());
    cell.environment.push(("CELL__TRACE__OTLP", url));
    cell.start();
    let (traceparent, id) = begin(7);
    ask(&cell, "state.root", json!({}), &traceparent);
    let root = || {
        let arrived = arrived.lock().expect("unpoisoned");
        let resources = arrived.iter().flat_map(|body| body["resourceSpans"].as_array().cloned());
        let resource = resources.flatten().find(|resource| {
            resource["scopeSpans"][0]["spans"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|span| span["traceId"] == *id && span["name"] == "POST /rpc state.root")
        })?;
        let spans = resource["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default();
        let span = spans.into_iter().find(|span| span["name"] == "POST /rpc state.root")?;
        Some((resource["resource"]["attributes"].clone(), span))
    };
    until("the span has arrived", || root().is_some());
    let (attributes, span) = root().expect("it has");
    assert_eq!((&span["parentSpanId"], &span["kind"]), (&json!("00f067aa0ba902b7"), &json!(2)));
    let nanos = |field: &str| span[field].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano") && nanos("startTimeUnixNano").is_some());
    let cell_id = cell.id();
    let is_named = |attribute: &Value| {
        attribute["key"] == "celluler.cell" && attribute["value"]["stringValue"] == *cell_id
    };
    assert!(attributes.as_array().expect("a list").iter().any(is_named), "{attributes}");
    let metrics = cell.get("/metrics").1;
    assert!(metrics.contains("cell_trace_spans_total{outcome=\"exported\"}"), "{metrics}");
    // What this build cannot speak is refused before a start, not dropped after it.
    assert_eq!(cell.refused(&["config", "set", "trace.otlp", "https://example.org"]).1, "config.bad_value");
}
