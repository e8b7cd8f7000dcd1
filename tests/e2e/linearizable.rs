//! Clients of all hosts of one cell put and get values while hosts are cut off, frozen and killed: what they saw is linearizable, whether one host leads
//! or all may.
//!
//! A put is answered when it is applied; one that was refused, or not answered in time, stays open for ever. The journals lie on the backend
//! `lossy`: what is not synced dies with a killed process.
//!
//! Needs root: see [`kit::namespaces`]. `LINEARIZABLE_SEED` repeats what a run did to the hosts, `LINEARIZABLE_SECONDS` makes it longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kit::cluster::Cluster;
use kit::linearizability::{Asked, Operation, check};
use kit::namespaces::Lan;
use kit::random::{Random, number};
use kit::rpc::Client;
use kit::until_within;
use serde_json::{Value, json};

/// A put goes from the first host to the third, from there to the second, and back.
const SERVICES: [&str; 2] = ["state,market", "consensus,identity,message"];
/// How long hosts are troubled, in seconds, unless told.
const SECONDS: u64 = 40;
/// What is not synced dies with a killed process.
const LOSSY: [(&str, &str); 1] = [("CELL__JOURNAL__BACKEND", "lossy")];
/// Clients of each host.
const CLIENTS: u64 = 2;
/// Keys that they share.
const KEYS: u64 = 3;
/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// The pause of a client between two calls.
const PAUSE: Duration = Duration::from_millis(10);
/// The pause after a call that was not answered.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(100);
/// By then everything works again.
const RESUME_MAX: Duration = Duration::from_secs(30);
/// What was done, at least, for a run to show anything.
const ANSWERED_MIN: usize = 200;

/// One cell at a time: hosts that elect are not to take a busy machine for a lost one.
static MACHINE: Mutex<()> = Mutex::new(());

/// What all clients have done.
struct History {
    began: Instant,
    operations: Mutex<Vec<Operation>>,
    refused: Mutex<BTreeMap<String, u64>>,
    values: AtomicU64,
}

impl History {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            operations: Mutex::default(),
            refused: Mutex::default(),
            values: AtomicU64::new(0),
        }
    }

    fn add(&self, key: &str, asked: Asked, begin: Duration, is_answered: bool) {
        let end = is_answered.then(|| self.began.elapsed());
        let operation = Operation { key: key.to_owned(), asked, begin, end };
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    fn refused(&self, code: String) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// Puts a value that nobody has put before; says whether it was answered.
    fn put(&self, client: &Client, key: &str) -> bool {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let args = json!({ "key": key, "value": value.to_string() });
        let intent = json!({ "module": "kv", "call": "put", "args": args });
        let wait_ms = DEADLINE.as_millis() as u64 / 2;
        let begin = self.began.elapsed();
        let answer = client.call(
            "consensus.submit",
            &json!({ "intent": intent, "wait": "applied", "wait_ms": wait_ms }),
            DEADLINE,
        );
        let is_applied = answer
            .as_ref()
            .is_ok_and(|view| ["applied", "finalised"].iter().any(|status| view["status"] == *status));
        self.add(key, Asked::Put(value), begin, is_applied);
        match answer {
            Ok(view) if is_applied || view["status"] != "rejected" => {}
            Ok(view) => panic!("a put was rejected: {view}"),
            Err(code) => self.refused(code),
        }
        is_applied
    }

    /// Gets what is there; says whether it was answered.
    fn get(&self, client: &Client, key: &str) -> bool {
        let begin = self.began.elapsed();
        match client.call("state.get", &json!({ "key": format!("kv/{key}") }), DEADLINE) {
            Ok(answer) => {
                let value = match &answer["value"] {
                    Value::Null => None,
                    value => Some(value.as_str().and_then(|text| text.parse().ok()).expect("one of ours")),
                };
                self.add(key, Asked::Got(value), begin, true);
                true
            }
            Err(code) => {
                self.refused(code);
                false
            }
        }
    }
}

/// One client of one host. Its host may have begun another life at each call.
struct Asker<'a> {
    history: &'a History,
    clients: &'a Mutex<Vec<Client>>,
    place: usize,
    random: Random,
}

impl Asker<'_> {
    fn run(&mut self, lan: &Lan, is_over: &AtomicBool) {
        lan.within(self.place, || {
            while !is_over.load(Ordering::Relaxed) {
                let client = self.clients.lock().unwrap_or_else(PoisonError::into_inner)[self.place].clone();
                let key = format!("k{}", self.random.below(KEYS));
                let is_answered = match self.random.below(2) {
                    0 => self.history.put(&client, &key),
                    _ => self.history.get(&client, &key),
                };
                std::thread::sleep(if is_answered { PAUSE } else { PAUSE_AFTER_REFUSAL });
            }
        });
    }
}

/// What troubles the hosts.
struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    clients: &'a Mutex<Vec<Client>>,
    random: Random,
    done: BTreeMap<&'static str, u64>,
}

impl Nemesis<'_> {
    /// Troubles them once, and lets them alone for a moment.
    fn trouble(&mut self) {
        let (hosts, kinds) = (self.cluster.hosts(), 5);
        let place = self.random.below(hosts as u64) as usize;
        let other = (place + 1 + self.random.below(hosts as u64 - 1) as usize) % hosts;
        let what = match self.random.below(kinds) {
            0 => {
                let rest: Vec<usize> = (0..hosts).filter(|host| *host != place).collect();
                self.cluster.lan.split(&[&[place], &rest]);
                self.wait(1_000, 8_000);
                "cut off"
            }
            1 => {
                self.cluster.lan.cut(place, other);
                self.wait(1_000, 8_000);
                "cut in one direction"
            }
            2 => {
                self.cluster.freeze(place);
                self.wait(500, 7_000);
                self.cluster.wake(place);
                "frozen"
            }
            3 => {
                self.kill(&[place]);
                "killed"
            }
            _ => {
                self.kill(&[place, other]);
                "two killed"
            }
        };
        self.cluster.lan.heal();
        *self.done.entry(what).or_default() += 1;
        self.wait(500, 2_500);
    }

    fn kill(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.cluster.kill(*place));
        self.wait(0, 2_000);
        for place in places {
            self.cluster.start_again(*place);
            let client = self.cluster.client(*place);
            self.clients.lock().unwrap_or_else(PoisonError::into_inner)[*place] = client;
        }
    }

    fn wait(&mut self, at_least_ms: u64, at_most_ms: u64) {
        let time_ms = at_least_ms + self.random.below(at_most_ms - at_least_ms);
        std::thread::sleep(Duration::from_millis(time_ms));
    }
}

#[test]
fn what_clients_of_all_hosts_saw_is_linearizable_whatever_happens_to_hosts() {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    is_linearizable(Cluster::start(&SERVICES, &[], &LOSSY));
}

/// Any of them may lead, and none of them has anything alone that was acknowledged.
#[test]
fn what_clients_saw_is_linearizable_where_hosts_elect_who_leads() {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    is_linearizable(Cluster::start_electing(&SERVICES, &LOSSY));
}

fn is_linearizable(mut cluster: Cluster) {
    let seed = number("LINEARIZABLE_SEED", u64::from(std::process::id()));
    let time = Duration::from_secs(number("LINEARIZABLE_SECONDS", SECONDS));
    eprintln!("repeat with LINEARIZABLE_SEED={seed} LINEARIZABLE_SECONDS={}", time.as_secs());
    let (lan, hosts) = (Arc::clone(&cluster.lan), cluster.hosts());
    let clients = Mutex::new((0..hosts).map(|place| cluster.client(place)).collect::<Vec<_>>());
    let history = History::begin();
    let is_over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let _end = End(&is_over);
        for number in 0..hosts as u64 * CLIENTS {
            let (history, clients, is_over, lan) = (&history, &clients, &is_over, &lan);
            let place = number as usize % hosts;
            let random = Random::new(seed.wrapping_mul(1_000).wrapping_add(number));
            let mut asker = Asker { history, clients, place, random };
            scope.spawn(move || asker.run(lan, is_over));
        }
        let began = Instant::now();
        let mut nemesis = Nemesis {
            cluster: &mut cluster,
            clients: &clients,
            random: Random::new(seed),
            done: BTreeMap::new(),
        };
        while began.elapsed() < time {
            nemesis.trouble();
        }
        nemesis.done
    });
    // In the end all hosts answer, and what they say belongs to the history.
    until_within(RESUME_MAX, "every host answers again", || {
        (0..hosts).all(|place| cluster.ask(place, |client| history.put(client, "k0")))
    });
    for (place, key) in (0..hosts).flat_map(|place| (0..KEYS).map(move |key| (place, key))) {
        let is_answered = cluster.ask(place, |client| history.get(client, &format!("k{key}")));
        assert!(is_answered, "host {place} answers");
    }

    let operations = history.operations.into_inner().unwrap_or_else(PoisonError::into_inner);
    let answered = operations.iter().filter(|operation| operation.end.is_some()).count();
    eprintln!("{} operations, {answered} answered; hosts: {done:?}", operations.len());
    eprintln!("refused: {:?}", history.refused.lock().unwrap_or_else(PoisonError::into_inner));
    assert!(answered > ANSWERED_MIN, "too little was answered to show anything: {answered}");
    if let Err(violation) = check(&operations) {
        panic!("seed {seed}: {violation}");
    }
}

/// Ends the clients, also of a test that fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
