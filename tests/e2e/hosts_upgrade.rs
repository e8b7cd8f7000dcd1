//! Hosts of one cell are upgraded one at a time, in either order, while a client writes: from the build that `CELLULER_OLDER` names
//! (`cargo xtask campaign upgrade PROGRAM`), or each from this build to itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::hosts::service;
use kit::rpc::Client;
use kit::{Cell, HostProcess, older_program, program, until};
use serde_json::{Value, json};

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause of a client that was refused.
const PAUSE: Duration = Duration::from_millis(20);
/// What the hosts run that do not lead.
const OTHERS: [(&str, &str); 2] = [("b", "consensus,state"), ("c", "identity,market")];

/// One cell over three hosts.
struct Three {
    lead: Cell,
    others: Vec<HostProcess>,
}

impl Three {
    fn start(dir: &Path) -> Self {
        let mut lead = Cell::init_by(older_program(), dir, "a", &[]);
        lead.start_first();
        let mut others = Vec::new();
        for (name, services) in OTHERS {
            let mut host = HostProcess::join(&lead, &dir.join(name), services);
            host.start();
            others.push(host);
        }
        let three = Self { lead, others };
        three.all_run();
        three
    }

    /// Waits until each service runs where it should.
    fn all_run(&self) {
        for (name, services) in OTHERS {
            for one in services.split(',') {
                let there = (name.to_owned(), "running".to_owned());
                until("it runs where it should", || service(&self.lead, one) == there);
            }
        }
    }

    /// A client of a host that stays while this one is upgraded. 0 is the one that leads.
    fn client_beside(&self, place: usize) -> Client {
        let http = if place == 0 { &self.others[0].http } else { &self.lead.http };
        Client::new(http, &self.lead.token())
    }

    /// Stops a host as a service manager would, and starts it again from this build.
    fn upgrade(&mut self, place: usize) {
        match place.checked_sub(1).map(|other| &mut self.others[other]) {
            None => {
                self.lead.terminate();
                assert_eq!(self.lead.wait(), Some(0));
                self.lead.program = program();
                self.lead.start_first();
            }
            Some(host) => {
                host.terminate();
                assert_eq!(host.wait(), Some(0));
                host.program = program();
                host.start();
            }
        }
        self.all_run();
    }

    /// What a cell does goes on: writes, reads by every host, messages, moves to every host.
    fn works(&self, key: &str) {
        // An older host that leads may leave a service alone for a second that was away.
        let put = ["tx", "submit", "--module", "kv", "--call", "put", "--wait", "finalised", "--args"];
        let args = json!({ "key": key, "value": "1" }).to_string();
        let mut taken_in = Value::Null;
        until("a transaction is taken in", || {
            let done = self.lead.run(&[&put[..], &[&args]].concat());
            taken_in = serde_json::from_slice(&done.stdout).unwrap_or_default();
            done.status.success()
        });
        assert_eq!(taken_in["status"], "finalised", "{taken_in}");
        for host in &self.others {
            let got = host.as_cell().ok(&["state", "get", &format!("kv/{key}")]);
            assert_eq!(got["value"], "1");
        }
        self.lead.chat("self", key);
        for to in ["first", "b", "c"] {
            let moved = self.lead.ok(&["service", "move", "market", "--to", to]);
            assert_eq!((&moved["host"], &moved["health"]), (&json!(to), &json!("running")), "{moved}");
        }
    }
}

/// Tells a writer to end, however its test ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes one key after the other until it is told to end; which were taken in, with what.
fn write(client: &Client, prefix: &str, ends: &AtomicBool) -> BTreeMap<String, String> {
    let mut taken_in = BTreeMap::new();
    for number in 0u32.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("{prefix}.{number}"), number.to_string());
        let intent = json!({ "module": "kv", "call": "put", "args": { "key": key, "value": value } });
        match client.call("consensus.submit", &json!({ "intent": intent, "wait": "accepted" }), DEADLINE) {
            Ok(_) => drop(taken_in.insert(key, value)),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    taken_in
}

fn upgraded_in(order: [usize; 3]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut three = Three::start(dir.path());
    three.works("before");
    let mut taken_in = BTreeMap::new();
    for place in order {
        let (client, ends, name) =
            (three.client_beside(place), AtomicBool::new(false), format!("during-{place}"));
        let more = std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&client, &name, &ends));
            let until_here = Ends(&ends);
            three.upgrade(place);
            three.works(&format!("after-{place}"));
            drop(until_here);
            writer.join().expect("it ends")
        });
        assert!(!more.is_empty(), "nothing was taken in while host {place} was upgraded");
        taken_in.extend(more);
    }
    let client = three.client_beside(1);
    for (key, value) in &taken_in {
        let request = json!({ "key": format!("kv/{key}") });
        until("what was taken in is applied", || {
            client.call("state.get", &request, DEADLINE).is_ok_and(|got| got["value"] == **value)
        });
    }
    eprintln!(
        "{} transactions were taken in while hosts were upgraded in the order {order:?}",
        taken_in.len()
    );
}

#[test]
fn the_host_that_leads_is_upgraded_last() {
    upgraded_in([1, 2, 0]);
}

#[test]
fn the_host_that_leads_is_upgraded_first() {
    upgraded_in([0, 2, 1]);
}
