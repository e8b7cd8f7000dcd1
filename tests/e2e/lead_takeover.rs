//! The host that leads is lost, or frozen and woken: another one leads within seconds, nothing that was acknowledged is lost, and the old one
//! writes and tells nothing of the past.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kit::rpc::{Client, NOBODY};
use kit::writers::{What, Writers, contact};
use kit::{Cell, HostProcess, until, until_within};
use serde_json::{Value, json};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long nobody may lead: what is promised, and as much again, since the tests' machine has two cores for all that runs on it.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(10);
/// How long it may take until the hosts that may lead have everything, and vote.
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// A cell of three hosts that may lead, the first of which does; they have everything on most of their disks before anybody hears of it.
struct Three {
    first: Cell,
    others: Vec<HostProcess>,
    token: String,
}

impl Three {
    fn start(dir: &Path, services: &[&str]) -> Self {
        let mut first = Cell::init(dir, "a");
        first.ok(&["config", "set", "journal.durability", "replica"]);
        first.ok(&["config", "set", "http.requests_per_second_max", "1000000"]);
        first.start_first();
        let mut others = Vec::new();
        for name in ["b", "c"] {
            let services = if name == "b" { services } else { &[] };
            let mut host = HostProcess::join_to_lead(&first, &dir.join(name), services);
            host.start();
            others.push(host);
        }
        let token = first.token();
        let this = Self { first, others, token };
        let client = this.client(0);
        until_within(SETTLED_MAX, "three hosts vote", || voters(&client).len() == 3);
        until_within(SETTLED_MAX, "nothing is on one disk alone", || all_replicated(&client));
        this
    }

    /// A client of a host by its number, with the cell's admin token.
    fn client(&self, number: usize) -> Client {
        let http = if number == 0 { &self.first.http } else { &self.others[number - 1].http };
        Client::new(http, &self.token)
    }

    fn signal_first(&self, signal: &str) {
        let id = self.first.process().expect("it runs").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().is_ok_and(|status| status.success()));
    }
}

fn hosts(client: &Client) -> Vec<Value> {
    client.list("nucleus.hosts", &json!({}), PATIENCE).unwrap_or_default()
}

fn names(hosts: &[Value], field: &str) -> BTreeSet<String> {
    let with = hosts.iter().filter(|host| host[field] == true);
    with.filter_map(|host| host["host"].as_str().map(str::to_owned)).collect()
}

fn voters(client: &Client) -> BTreeSet<String> {
    names(&hosts(client), "votes")
}

/// Who leads, as a host knows it.
fn lead(client: &Client) -> Option<String> {
    names(&hosts(client), "leads").into_iter().next()
}

fn services(client: &Client) -> Vec<Value> {
    client.list("nucleus.services", &json!({}), PATIENCE).unwrap_or_default()
}

fn all_run(client: &Client) -> bool {
    let services = services(client);
    services.len() == 6 && services.iter().all(|service| service["health"] == "running")
}

fn all_replicated(client: &Client) -> bool {
    let roster = client.call("nucleus.roster", &json!({}), PATIENCE).unwrap_or_default();
    let grants = roster["grants"].as_array().cloned().unwrap_or_default();
    grants.len() == 6 && grants.iter().all(|grant| grant["replicated"] == true) && all_run(client)
}

/// How many of either were acknowledged at least.
fn written(writers: &Writers) -> usize {
    writers.count(What::Contacts).min(writers.count(What::Tokens))
}

fn put(client: &Client, key: &str, value: &str) {
    let params = json!({ "intent": { "module": "kv", "call": "put", "args": { "key": key, "value": value } },
        "wait": "finalised" });
    let answer = client.call("consensus.submit", &params, PATIENCE).expect("submits");
    assert_eq!(answer["status"], "finalised", "{answer}");
}

fn found(client: &Client, key: &str) -> Result<Value, String> {
    let found = client.call("state.get", &json!({ "key": format!("kv/{key}") }), PATIENCE);
    found.map(|found| found["value"].clone())
}

fn get(client: &Client, key: &str) -> Value {
    found(client, key).expect("reads")
}

#[test]
fn a_lost_lead_is_replaced_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Three::start(dir.path(), &["state"]);
    put(&cell.client(0), "a", "1");
    let (b, c) = (cell.client(1), cell.client(2));
    let writers = Writers::default();
    std::thread::scope(|scope| {
        scope.spawn(|| writers.write(&b, What::Contacts));
        scope.spawn(|| writers.write(&c, What::Contacts));
        scope.spawn(|| writers.write(&b, What::Tokens));
        let _over = writers.until_dropped();
        until("they write", || written(&writers) > 30);
        cell.first.kill_first();
        let lost = Instant::now();
        let before = written(&writers);
        until_within(TAKEN_OVER_MAX, "they go on", || written(&writers) > before + 4);
        eprintln!("they go on after {:?}", lost.elapsed());
        until("all runs", || all_run(&c));
        eprintln!("all runs after {:?}", lost.elapsed());
    });
    writers.check(&b);
    let leads = lead(&c).expect("another host leads");
    assert!(["b", "c"].contains(&&*leads), "{leads}");
    assert_eq!(lead(&b), Some(leads.clone()));
    assert_eq!(get(&b, "a"), "1");
    put(&c, "b", "2");
    // It comes back, and follows.
    cell.first.start_first();
    let first = cell.client(0);
    until("it knows who leads", || lead(&first) == Some(leads.clone()));
    until("it knows where the services are", || all_run(&first) && found(&first, "a").is_ok());
    assert_eq!((get(&first, "a"), get(&first, "b")), (json!("1"), json!("2")));
    until_within(SETTLED_MAX, "all three have everything again", || {
        voters(&first).len() == 3 && all_replicated(&first)
    });
    put(&first, "c", "3");
    writers.check(&first);
    // A journal without entries was taken over too; whoever has a copy of it moves on from that.
    for to in ["first", "b", "c", &leads] {
        let moved = first.call("nucleus.move_service", &json!({ "service": "market", "host": to }), PATIENCE);
        assert_eq!(moved.expect("it moves")["health"], "running", "{to}");
    }
    // Another one may be lost now, and it may lead again.
    let place = usize::from(leads == "c");
    cell.others[place].kill();
    let left = cell.client(2 - place);
    until_within(TAKEN_OVER_MAX, "the third one leads", || {
        lead(&left).is_some_and(|lead| lead != leads) && all_run(&left)
    });
    writers.check(&left);
    put(&left, "d", "4");
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
        assert_eq!(get(&left, key), value);
    }
}

/// Nobody has to miss it.
#[test]
fn a_lead_that_is_drained_or_stopped_in_order_hands_over() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut cell = Three::start(dir.path(), &["state"]);
    put(&cell.client(0), "a", "1");
    let (first, b) = (cell.client(0), cell.client(1));
    let writers = Writers::default();
    let drained = std::thread::scope(|scope| {
        scope.spawn(|| writers.write(&b, What::Contacts));
        scope.spawn(|| writers.write(&b, What::Tokens));
        let _over = writers.until_dropped();
        until("they write", || written(&writers) > 10);
        let drained = cell.first.ok(&["host", "drain", "first"]);
        let before = written(&writers);
        until("they go on", || written(&writers) > before + 4);
        drained
    });
    assert_eq!(drained["moved"], json!(["identity", "consensus", "market", "message"]), "{drained}");
    let next = drained["to"].as_str().expect("a host").to_owned();
    until("it follows, as the process that it was", || lead(&first).as_ref() == Some(&next));
    until("nothing runs there", || {
        let services = services(&first);
        services.len() == 6 && services.iter().all(|service| service["host"] != "first")
    });
    writers.check(&first);
    put(&first, "b", "2");
    until_within(SETTLED_MAX, "all three vote, and have everything", || {
        voters(&first).len() == 3 && all_replicated(&first)
    });

    let place = usize::from(next == "c");
    cell.others[place].terminate();
    assert_eq!(cell.others[place].wait(), Some(0));
    let log = std::fs::read_to_string(cell.others[place].dir().join("log")).expect("its log");
    assert!(log.contains("this host stops: another one leads"), "it hands over before it ends");
    until("another one leads, and has its services", || {
        lead(&first).is_some_and(|lead| lead != next) && all_run(&first)
    });
    writers.check(&first);
    assert_eq!((get(&first, "a"), get(&first, "b")), (json!("1"), json!("2")));
    put(&first, "c", "3");
}

/// It wakes with calls that it was about to answer, others in its sockets, and a view of the past.
#[test]
fn a_frozen_lead_that_wakes_acknowledges_nothing_and_shows_nothing_of_the_past() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cell = Three::start(dir.path(), &[]);
    let (first, b, c) = (cell.client(0), cell.client(1), cell.client(2));
    let changing = json!({ "cell": contact(u64::MAX).1["cell"], "name": "before" });
    first.call("identity.add_contact", &changing, PATIENCE).expect("adds");
    let seen = |client: &Client| {
        let who = json!({ "who": changing["cell"] });
        client.call("identity.resolve", &who, PATIENCE).map(|contact| contact["name"].clone())
    };
    assert_eq!(seen(&first), Ok(json!("before")));
    let writers = Writers::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| writers.write(&first, What::Contacts));
        }
        scope.spawn(|| writers.write(&first, What::Tokens));
        let _over = writers.until_dropped();
        until("they write", || written(&writers) > 30);
        cell.signal_first("-STOP");
        let frozen = Instant::now();
        until_within(TAKEN_OVER_MAX, "another one leads", || {
            lead(&b).is_some_and(|lead| lead != "first") && all_run(&b)
        });
        eprintln!("all runs after {:?}", frozen.elapsed());
        let asked = json!({ "cell": changing["cell"], "name": "after" });
        // What has just been taken over may have no lease for a moment.
        until("it goes on", || c.call("identity.add_contact", &asked, PATIENCE).is_ok());
        cell.signal_first("-CONT");
        // What it answers from now on is of the present, or is no answer.
        let woken = Instant::now();
        let (mut told, mut refused) = (0, BTreeMap::<String, u64>::new());
        while woken.elapsed() < Duration::from_secs(4) {
            match seen(&first) {
                Ok(name) => {
                    assert_eq!(name, "after", "an answer of the past, {:?} after it woke", woken.elapsed());
                    told += 1;
                }
                Err(code) => {
                    if code == NOBODY {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    *refused.entry(code).or_default() += 1;
                }
            }
        }
        assert!(told > 0, "it tells what the others know: {refused:?}");
    });
    writers.check(&b);
    assert_eq!(lead(&first), lead(&b), "it follows");
    writers.check(&first);
}
