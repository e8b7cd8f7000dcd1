//! Signals: what is told on one host of a cell is heard by who listens on any of them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::rpc::Client;
use kit::{Cell, HostProcess, until};
use serde_json::{Value, json};

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// `cell signal listen`, and what it has printed.
struct Listener {
    child: Child,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Listener {
    fn start(cell: &Cell, token: &str, more: &[&str]) -> Self {
        let mut child = Command::new(&cell.program)
            .args(["signal", "listen", "job.*", "--output", "json", "--dir"])
            .arg(cell.dir())
            .args(more)
            .env("CELL_TOKEN", token)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is ours")).lines();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).expect("JSON");
                all.lock().expect("no holder panics").push(line["signal"].clone());
            }
        });
        Self { child, heard }
    }

    /// The bodies of the signals of this name.
    fn of(&self, name: &str) -> Vec<u64> {
        let heard = self.heard.lock().expect("no holder panics");
        let of_name = heard.iter().filter(|signal| signal["name"] == name);
        of_name.map(|signal| signal["body"].as_u64().expect("a number")).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_told_on_one_host_is_heard_on_all() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Cell::init(dir.path(), "a");
    cell.start_first();
    let mut host = HostProcess::join(&cell, &dir.path().join("b"), "market");
    host.start();
    let (there, token) = (host.as_cell(), cell.token());
    let token = token.trim();
    let one = Listener::start(&cell, token, &["--group", "workers"]);
    let two = Listener::start(&there, token, &["--group", "workers"]);
    let all = Listener::start(&there, token, &[]);
    until("all three listen", || cell.ok(&["signal", "broadcast", "job.ready"])["listeners"] == 3);

    // From the other host.
    let client = Client::new(&host.http, token);
    let tell = |action: &str, params: Value| client.call(action, &params, DEADLINE).expect("told");
    for body in 0..20 {
        let told =
            tell("nucleus.emit", json!({ "name": "job.turn", "body": body, "balance": "round_robin" }));
        assert_eq!(told, json!({ "listeners": 2, "missed": 0 }));
    }
    until("all is heard", || all.of("job.turn").len() == 20);
    until("by one of the group each", || one.of("job.turn").len() + two.of("job.turn").len() == 20);
    assert_eq!(all.of("job.turn"), (0..20).collect::<Vec<_>>(), "in their order");
    assert_eq!(one.of("job.turn").len(), 10, "in turns");
    let either: BTreeSet<u64> = [one.of("job.turn"), two.of("job.turn")].concat().into_iter().collect();
    assert_eq!(either.len(), 20);

    for body in 0..5 {
        tell("nucleus.emit", json!({ "name": "job.key", "body": body, "key": "a" }));
    }
    until("one of the group has all of a key", || {
        let counts = [one.of("job.key").len(), two.of("job.key").len()];
        counts == [5, 0] || counts == [0, 5]
    });
    tell("nucleus.broadcast", json!({ "name": "job.all", "body": 7 }));
    until("a broadcast is heard by all", || [&one, &two, &all].iter().all(|it| it.of("job.all") == [7]));

    // Whoever may only read hears, and tells nothing.
    let reader = cell.ok(&["token", "create", "reader", "--role", "read"])["token"].clone();
    let reader = Client::new(&host.http, reader.as_str().expect("a token"));
    let refused = reader.call("nucleus.emit", &json!({ "name": "job.turn" }), DEADLINE);
    assert_eq!(refused.expect_err("it may not"), "bus.denied");
    assert_eq!(cell.refused(&["signal", "emit", "Job"]), (1, "signal.bad_name".to_owned()));
    assert_eq!(cell.refused(&["signal", "listen", "job*"]), (1, "signal.bad_name".to_owned()));
    assert_eq!(cell.refused(&["signal", "listen", "--group", "a b"]), (1, "signal.bad_group".to_owned()));

    // Who has gone is told nothing any more.
    host.kill();
    until("the other host's listeners are gone", || {
        cell.ok(&["signal", "emit", "job.last", "1"])["listeners"] == 1
    });
    until("the one that is left hears it", || !one.of("job.last").is_empty());
    // They come back with their host, by themselves.
    host.start();
    until("all three listen again", || cell.ok(&["signal", "broadcast", "job.again"])["listeners"] == 3);
}
