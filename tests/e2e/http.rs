//! HTTP as a client sees it: every endpoint, one wrong request each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kit::Cell;
use serde_json::{Value, json};

fn running() -> (tempfile::TempDir, Cell) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.start();
    (dir, cell)
}

fn json_of(cell: &Cell, path: &str) -> Value {
    let (status, text) = cell.get(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"))
}

#[test]
fn health_version_metrics_and_openapi_answer() {
    let (_dir, cell) = running();
    assert_eq!(cell.get("/livez").0, 200);
    assert_eq!(json_of(&cell, "/readyz")["state"], "synced");
    assert!(json_of(&cell, "/healthz").is_object());
    assert!(json_of(&cell, "/version")["version"].is_string());
    let metrics = cell.get("/metrics").1;
    assert!(metrics.contains("cell_action_calls_total") && metrics.trim_end().ends_with("# EOF"));
    let openapi = json_of(&cell, "/openapi.json");
    assert!(openapi["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{openapi}");
    for path in openapi["paths"].as_object().expect("paths").keys() {
        assert!(path.starts_with('/'), "{path}");
    }
    assert_eq!(cell.get("/nothing-here").0, 404);
    let (status, text) = cell.get("/events?event=message.*");
    assert!(status == 400 && text.contains("http.bad_query"), "what is not known is not left out: {text}");
    assert!(cell.get("/nothing-here").1.contains("\"code\""), "a 404 is a problem too");
}

#[test]
fn a_call_is_logged_under_the_trace_it_came_with() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "traced");
    cell.environment.push(("RUST_LOG", "cell::bus=debug"));
    cell.start();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "message.get", "params": { "id": "nothing" } });
    let known = json!({ "jsonrpc": "2.0", "id": 2, "method": "state.root", "params": {} });
    for call in [call, known] {
        let answer = agent
            .post(format!("{}/rpc", cell.http))
            .header("authorization", format!("Bearer {}", cell.token()))
            .header("traceparent", trace)
            .send(call.to_string());
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    let log = std::fs::read_to_string(cell.dir().join("log")).expect("a log");
    // Each call is a span of its own: the trace is the same.
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&trace[..35])).collect();
    let of = |action: &str| lines.iter().any(|line| line.contains(action) && line.contains("answered"));
    assert!(of("state.root"), "no such call under {trace} in\n{log}");
}

#[test]
fn only_health_and_version_are_open() {
    let (_dir, cell) = running();
    let without = |path: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.get(format!("{}{path}", cell.http)).call().expect("an answer").status().as_u16()
    };
    for open in ["/livez", "/readyz", "/version"] {
        assert_eq!(without(open), 200, "{open}");
    }
    for closed in ["/metrics", "/events", "/api/v1/nucleus/status", "/ws"] {
        assert_eq!(without(closed), 401, "{closed}");
    }
}

#[test]
fn rpc_follows_json_rpc() {
    let (_dir, cell) = running();
    let rpc = |body: Value| cell.post("/rpc", &body.to_string());
    let (status, text) = rpc(json!({ "jsonrpc": "2.0", "id": 7, "method": "state.root" }));
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((status, &answer["id"]), (200, &json!(7)));
    assert!(answer["result"]["root"].is_string(), "{answer}");
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "state.root" },
        { "jsonrpc": "2.0", "method": "state.root" },
        { "jsonrpc": "2.0", "id": 2, "method": "nothing.here" },
        5
    ]);
    let answers: Value = serde_json::from_str(&rpc(batch).1).expect("JSON");
    assert_eq!(answers.as_array().map(Vec::len), Some(3), "a notification is not answered: {answers}");
    assert_eq!(answers[1]["error"]["code"], -32601);
    assert_eq!(answers[1]["error"]["data"]["code"], "rpc.unknown_method");
    assert_eq!(answers[2]["error"]["code"], -32600);
    let bad = rpc(json!({ "jsonrpc": "2.0", "id": 3, "method": "message.send", "params": { "to": 5 } })).1;
    assert!(bad.contains("-32602") && bad.contains("rpc.bad_params"), "{bad}");
    assert!(cell.post("/rpc", "{").1.contains("-32700"));
    assert!(cell.post("/rpc", "[]").1.contains("-32600"), "an empty batch is no request");
}

#[test]
fn a_body_over_the_limit_is_413_and_the_cell_lives_on() {
    let (_dir, cell) = running();
    let (status, text) = cell.post("/rpc", &"x".repeat(9_000_000));
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("\"code\"") && text.contains("\"try\""), "{text}");
    assert_eq!(cell.get("/livez").0, 200);
}

#[test]
fn rest_serves_the_admin_controls() {
    let (_dir, cell) = running();
    assert_eq!(json_of(&cell, "/api/v1/nucleus/status")["readiness"]["state"], "synced");
    let (status, text) = cell.post("/api/v1/nucleus/create_token", r#"{"name":"rest","role":"read"}"#);
    let made: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status, 200, "{made}");
    assert!(made["token"].is_string(), "{made}");
    let (status, text) = cell.get("/api/v1/nucleus/create_token?name=x");
    assert!(status == 400 && text.contains("http.use_post"), "{text}");
    assert_eq!(json_of(&cell, "/api/v1/message/list?limit=1")["items"], json!([]));
    let (status, text) = cell.post("/api/v1/nucleus/nothing", "{}");
    assert_eq!(status, 404, "{text}");
}

#[test]
fn a_read_token_reads_and_does_not_write() {
    let (_dir, cell) = running();
    let token =
        cell.ok(&["token", "create", "reader", "--role", "read"])["token"].as_str().expect("one").to_owned();
    let call = |method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        kit::post(&cell.http, &token, "/rpc", &body.to_string()).1
    };
    assert!(call("state.root", json!({})).contains("result"));
    let send = json!({ "to": "self", "type": "CHAT", "body": { "text": "x" } });
    assert!(call("message.send", send).contains("bus.denied"));
    assert!(call("nucleus.shutdown", json!({})).contains("bus.denied"));
    cell.ok(&["token", "revoke", "reader"]);
    assert!(call("state.root", json!({})).contains("nucleus."), "a revoked token is refused");
}

#[test]
fn a_web_socket_carries_calls_and_events() {
    let (_dir, cell) = running();
    let authority = cell.http.trim_start_matches("http://");
    let mut socket = TcpStream::connect(authority).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let token = cell.token();
    write!(
        socket,
        "GET /ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n\r\n",
        token.trim()
    )
    .expect("written");
    let mut reader = BufReader::new(socket.try_clone().expect("cloned"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status line");
    assert!(line.contains("101"), "{line}");
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).expect("a header");
    }
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "state.root" }).to_string();
    socket.write_all(&masked(&request)).expect("written");
    let answer = frame(&mut reader);
    assert!(answer.contains("\"root\""), "{answer}");
    socket.write_all(&masked("{")).expect("written");
    assert!(frame(&mut reader).contains("-32700"));
}

/// A client's text frame, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The next text frame of the server.
fn frame(reader: &mut impl Read) -> String {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head).expect("a frame");
        let length = match head[1] & 0x7f {
            126 => {
                let mut word = [0; 2];
                reader.read_exact(&mut word).expect("a length");
                u64::from(u16::from_be_bytes(word))
            }
            127 => {
                let mut word = [0; 8];
                reader.read_exact(&mut word).expect("a length");
                u64::from_be_bytes(word)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("fits")];
        reader.read_exact(&mut payload).expect("the payload");
        if head[0] & 0x0f == 1 {
            return String::from_utf8(payload).expect("text");
        }
    }
}

#[test]
fn a_caller_over_its_rate_is_told_so() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "solo");
    cell.ok(&["config", "set", "http.requests_per_second_max", "5"]);
    cell.start_first();
    let statuses: Vec<u16> = (0..30).map(|_| cell.get("/metrics").0).collect();
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
}

#[test]
fn sigterm_drains_what_is_under_way() {
    let (_dir, mut cell) = running();
    let http = cell.http.clone();
    let token = cell.token();
    // A send to a cell that is not there waits for two seconds.
    let stranger = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWM3QcXU6AiwVDrbhBh3XAbwrpV9NtJfC7VGpEmnVyyhHg";
    cell.ok(&["peers", "add", stranger, "--name", "away"]);
    let call = std::thread::spawn(move || {
        let params = json!({ "to": "away", "type": "CHAT", "body": { "text": "x" }, "wait": "delivered", "wait_ms": 2000 });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "message.send", "params": params });
        kit::post(&http, token.trim(), "/rpc", &body.to_string())
    });
    std::thread::sleep(Duration::from_millis(500));
    cell.terminate();
    let (status, text) = call.join().expect("answered");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("queued"), "{text}");
    assert_eq!(cell.wait(), Some(0), "a graceful stop");
}
