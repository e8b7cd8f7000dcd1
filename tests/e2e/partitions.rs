//! Seven real cells of one network, each on a host of its own: what is final while wires are cut, frames get lost and
//! cells die, and how fast it goes on afterwards. Two of seven may be faulty; five are more than two thirds.
//!
//! Needs root: see [`kit::namespaces`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kit::namespaces::Lan;
use kit::{Cell, network};
use protocol::consensus::{
    BlockRef, BlockView, Blocks, ConsensusStatus, GetBlock, GetGossip, Status, Submit, SubmitRequest,
    TxStatus, TxView, Txs,
};
use protocol::identity::Peers;
use protocol::shared::{Empty, ListRequest, Page};
use protocol::transaction::{Intent, Transaction};
use protocol::{Action, BlockIndex, Problem, ProblemKind, TxId};
use serde_json::{Value, json};
use tempfile::TempDir;

const CELLS: usize = 7;
/// Where peers reach a cell on its host.
const PEER_PORT: u16 = 7401;
/// After a heal finality is back by then: promise 3.
const RESUME_MAX: Duration = Duration::from_secs(10);
/// Seven cells share two cores, and who comes back has to execute what it missed beside the load: rounds are fewer than a cell with a machine of its own makes.
const EVENT_INTERVAL_US: &str = "15000";
/// How long what has no promise of its own may take: a start, noticing that others are gone.
const SOON_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take that waits for nothing.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a partition goes on after all have noticed: longer than any pause between two dials.
const PARTITION: Duration = Duration::from_secs(12);
/// What a transaction writes: enough of them fill what a dead connection takes in.
const VALUE_BYTES: usize = 2_000;
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// The pause of a light load between two transactions at one cell.
const LOAD_PAUSE: Duration = Duration::from_millis(100);

/// Seven cells, each on its host.
struct Seven {
    // Ended before their network is taken down.
    cells: Vec<Cell>,
    lan: Arc<Lan>,
    _dir: TempDir,
}

impl Seven {
    /// Makes them, starts them, and tells each where the others are.
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lan = Arc::new(Lan::new(CELLS));
        let mut seven = Self { lan, cells: network(dir.path(), CELLS as u16), _dir: dir };
        seven.each(|lan, place, cell| {
            let address = lan.address(place);
            let listen = json!([
                format!("/ip4/{address}/tcp/{PEER_PORT}"),
                format!("/ip4/{address}/udp/{PEER_PORT}/quic-v1"),
                format!("/ip4/{address}/tcp/{}/ws", PEER_PORT + 1),
            ]);
            let listen = listen.to_string();
            cell.ok(&["config", "set", "network.listen", &listen]);
            cell.ok(&["config", "set", "consensus.event_interval_us", EVENT_INTERVAL_US]);
            cell.start();
        });
        let peers: Vec<String> = seven.cells.iter().map(|cell| cell.peer.clone()).collect();
        seven.each(|_, place, cell| {
            for (_, peer) in peers.iter().enumerate().filter(|(other, _)| *other != place) {
                cell.ok(&["peers", "add", peer]);
            }
        });
        let clients = seven.clients();
        takes("all know all, and are synced", SOON_MAX, || {
            clients.iter().all(|client| client.connected() == CELLS - 1 && client.is_synced())
        });
        seven
    }

    /// Does something with each cell on its host, all at the same time.
    fn each(&mut self, work: impl Fn(&Lan, usize, &mut Cell) + Sync) {
        let (lan, work) = (&self.lan, &work);
        std::thread::scope(|scope| {
            for (place, cell) in self.cells.iter_mut().enumerate() {
                scope.spawn(move || lan.within(place, || work(lan, place, cell)));
            }
        });
    }

    fn kill(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.cells[*place].kill());
    }

    /// Starts cells that were killed, one after the other.
    fn start_again(&mut self, places: &[usize]) {
        for place in places {
            let cell = &mut self.cells[*place];
            self.lan.within(*place, || cell.start());
        }
    }

    fn clients(&self) -> Vec<Client> {
        let client = |(place, cell): (usize, &Cell)| {
            let limit = Some(SOON_MAX + 2 * ANSWER_MAX);
            let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(limit);
            let (http, token) = (cell.http.clone(), cell.token().trim().to_owned());
            Client { lan: Arc::clone(&self.lan), place, http, token, agent: agent.build().into() }
        };
        self.cells.iter().enumerate().map(client).collect()
    }
}

impl Drop for Seven {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.clients().iter().for_each(|client| eprintln!("{}", client.how()));
        }
    }
}

/// Asks a cell over HTTP, from its own host.
struct Client {
    lan: Arc<Lan>,
    place: usize,
    http: String,
    token: String,
    agent: ureq::Agent,
}

impl Client {
    /// Calls an action.
    fn call<A: Action>(&self, request: &A::Request) -> Result<A::Answer, Problem> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": A::INFO.name, "params": request });
        let post = self.agent.post(format!("{}/rpc", self.http));
        let post = post.header("authorization", format!("Bearer {}", self.token));
        let post = post.header("x-deadline-ms", (SOON_MAX + ANSWER_MAX).as_millis().to_string());
        let answer = self
            .lan
            .within(self.place, || post.send(body.to_string())?.body_mut().read_to_string())
            .map_err(|why| Problem::new(ProblemKind::Unavailable, "test.unreachable", why.to_string()))?;
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        match answer.get_mut("error") {
            Some(error) => Err(serde_json::from_value(error["data"].take()).expect("a problem")),
            None => Ok(serde_json::from_value(answer["result"].take()).expect("an answer")),
        }
    }

    /// Submits something new and waits until it has come so far, at most [`SOON_MAX`].
    fn put(&self, wait: TxStatus) -> Result<TxView, Problem> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let key = KEYS.fetch_add(1, Ordering::Relaxed).to_string();
        let args = json!({ "key": key, "value": "1".repeat(VALUE_BYTES) });
        let intent = Intent { module: "kv".into(), call: "put".into(), args, ..Intent::default() };
        let wait_ms = u64::try_from(SOON_MAX.as_millis()).ok();
        let (intent, wait) = (Some(intent), Some(wait));
        self.call::<Submit>(&SubmitRequest { intent, transaction: None, wait, wait_ms })
    }

    /// Submits something that has to be final within [`SOON_MAX`].
    fn finalise(&self, acknowledged: &Acknowledged) {
        let begin = Instant::now();
        let view = self.put(TxStatus::Finalised).expect("it is taken in");
        eprintln!("{:6.2} s: final at {}", begin.elapsed().as_secs_f64(), self.place);
        assert_eq!(view.status, TxStatus::Finalised, "cell {}: {view:?}", self.place);
        acknowledged.add(view.id);
    }

    /// Submits something that has to be refused: too few members are there.
    fn is_refused(&self) {
        let refused = self.put(TxStatus::Accepted).expect_err("it is refused");
        assert_eq!(refused.code, "consensus.no_quorum", "cell {}: {refused}", self.place);
    }

    fn status(&self) -> ConsensusStatus {
        self.call::<Status>(&Empty {}).expect("it answers")
    }

    /// How many blocks are final here.
    fn finalised(&self) -> u64 {
        self.status().finalised.map_or(0, |index| index.0 + 1)
    }

    /// How many others it is connected with.
    fn connected(&self) -> usize {
        let peers = self.call::<Peers>(&Empty {}).expect("it answers");
        peers.items.iter().filter(|peer| peer.connected).count()
    }

    /// How it stands, for people.
    fn how(&self) -> String {
        let peers = self
            .call::<Peers>(&Empty {})
            .map(|peers| peers.items.into_iter().filter(|peer| peer.connected).count());
        let status = self.call::<GetGossip>(&Empty {});
        let status = status.map(|status| (status.blocks, status.stuck, status.epoch, status.pool));
        format!(
            "cell {}: {:?}, {peers:?} peers; blocks, stuck, epoch, waiting: {status:?}",
            self.place,
            self.state()
        )
    }

    /// What `/readyz` says.
    fn state(&self) -> String {
        let get = self.agent.get(format!("{}/readyz", self.http));
        let page = self.lan.within(self.place, || get.call()?.body_mut().read_to_string());
        let page: Value = serde_json::from_str(&page.unwrap_or_default()).unwrap_or_default();
        page["state"].as_str().unwrap_or_default().to_owned()
    }

    fn is_synced(&self) -> bool {
        self.state() == "synced"
    }

    /// All that an action lists.
    fn list<T, A: Action<Request = ListRequest, Answer = Page<T>>>(&self) -> Vec<T> {
        let (mut items, mut cursor) = (Vec::new(), None);
        loop {
            let request = ListRequest { cursor, limit: Some(500) };
            let page = self.call::<A>(&request).expect("it is there");
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                return items;
            }
        }
    }

    /// What is in a block.
    fn block(&self, index: BlockIndex) -> Vec<TxId> {
        let block = self.call::<GetBlock>(&BlockRef { index }).expect("it is there").proof.block;
        block.transactions.iter().map(Transaction::id).collect()
    }
}

/// Transactions that were acknowledged.
#[derive(Default)]
struct Acknowledged(Mutex<BTreeSet<TxId>>);

impl Acknowledged {
    fn add(&self, id: TxId) {
        self.0.lock().expect("nobody panicked").insert(id);
    }

    fn all(&self) -> BTreeSet<TxId> {
        self.0.lock().expect("nobody panicked").clone()
    }

    /// Waits until all have finalised all there is, and looks whether each transaction is in exactly one block, the
    /// same everywhere, with the same roots.
    fn are_final_on(&self, clients: &[Client]) {
        settle(clients);
        let blocks = clients[0].list::<BlockView, Blocks>();
        let mut place_of = BTreeMap::new();
        for block in &blocks {
            assert!(block.finalised && block.root.is_some(), "{block:?}");
            for id in clients[0].block(block.index) {
                assert_eq!(place_of.insert(id, block.index), None, "{id} is in two blocks");
            }
        }
        for client in clients {
            let others = client.list::<BlockView, Blocks>();
            assert_eq!(others.len(), blocks.len(), "cell {}", client.place);
            for (one, first) in others.iter().zip(&blocks) {
                assert_eq!(one, first, "a block of cell {}", client.place);
            }
            let known = client.list::<TxView, Txs>().into_iter().map(|view| (view.id, view));
            let known: BTreeMap<TxId, TxView> = known.collect();
            for id in self.all() {
                let view = known.get(&id);
                let place =
                    view.filter(|view| view.status == TxStatus::Finalised).and_then(|view| view.block);
                assert!(place.is_some(), "{id} was acknowledged; at cell {}: {view:?}", client.place);
                assert_eq!(place, place_of.get(&id).copied(), "{id} at cell {}", client.place);
            }
        }
        eprintln!("{} acknowledged, each in one of {} blocks, on all", self.all().len(), blocks.len());
    }
}

/// Does something while cells are given transactions, a few a second each.
fn under_load(clients: &[Client], acknowledged: &Acknowledged, work: impl FnOnce()) {
    /// Ends the load, also of a test that fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&is_over);
        for client in clients {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok(view) = client.put(TxStatus::Accepted) {
                        acknowledged.add(view.id);
                    }
                    std::thread::sleep(LOAD_PAUSE);
                }
            });
        }
        work();
    });
}

/// Waits for a condition, bounded, and says how long it took.
fn takes(what: &str, at_most: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < at_most, "not within {at_most:?}: {what}");
        std::thread::sleep(LOOK_PAUSE);
    }
    eprintln!("{:6.2} s: {what}", begin.elapsed().as_secs_f64());
}

/// Looks for so long that something holds.
fn holds(what: &str, time: Duration, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        assert!(condition(), "after {:?} no more: {what}", begin.elapsed());
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// A wire is as it is for so long, and nobody says meanwhile that states differ.
fn nobody_diverges(clients: &[Client], time: Duration) {
    holds("nobody has diverged", time, || clients.iter().all(|client| client.state() != "diverged"));
}

/// Waits until all have finalised more than so many blocks, which may take no longer than is promised.
fn resume(clients: &[Client], blocks: u64) {
    takes("finality is back on all", RESUME_MAX, || {
        clients.iter().all(|client| client.finalised() > blocks && client.is_synced())
    });
}

/// Waits until all these have finalised the same, and nothing waits for its place; how many blocks.
fn settle(clients: &[Client]) -> u64 {
    takes("all have finalised all there is", SOON_MAX, || {
        let all: Vec<ConsensusStatus> = clients.iter().map(Client::status).collect();
        let is_done = |one: &ConsensusStatus| one.pending == 0 && one.ordered == one.finalised;
        all.iter().all(|one| is_done(one) && one.finalised == all[0].finalised)
    });
    clients[0].finalised()
}

/// Waits until these have noticed that they are too few, and looks that they say so.
fn suspend(clients: &[Client]) {
    takes("all notice", SOON_MAX, || clients.iter().all(|client| client.state() == "suspended"));
    clients.iter().for_each(Client::is_refused);
}

#[test]
fn neither_three_nor_four_finalise_anything_and_together_they_go_on() {
    let (seven, acknowledged) = (Seven::start(), Acknowledged::default());
    let clients = seven.clients();
    clients.iter().for_each(|client| client.finalise(&acknowledged));
    acknowledged.are_final_on(&clients);
    let before = clients[0].finalised();

    seven.lan.split(&[&[0, 1, 2], &[3, 4, 5, 6]]);
    // Until a cell has noticed it takes transactions in: they are durable, and wait.
    under_load(&clients, &acknowledged, || suspend(&clients));
    holds("nothing is finalised", PARTITION, || clients.iter().all(|client| client.finalised() == before));
    clients.iter().for_each(Client::is_refused);

    seven.lan.heal();
    resume(&clients, before);
    clients.iter().for_each(|client| client.finalise(&acknowledged));
    acknowledged.are_final_on(&clients);
}

#[test]
fn five_go_on_and_two_catch_up() {
    let (seven, acknowledged) = (Seven::start(), Acknowledged::default());
    let clients = seven.clients();
    let (five, two) = clients.split_at(5);
    clients.iter().for_each(|client| client.finalise(&acknowledged));
    acknowledged.are_final_on(&clients);
    let before = clients[0].finalised();

    seven.lan.split(&[&[0, 1, 2, 3, 4], &[5, 6]]);
    under_load(&clients, &acknowledged, || {
        five.iter().for_each(|client| client.finalise(&acknowledged));
        suspend(two);
        holds("the two finalise nothing", PARTITION, || two.iter().all(|one| one.finalised() == before));
    });
    let there = settle(five);
    assert!(there >= before + 5, "five go on: {before}, {there}");

    seven.lan.heal();
    // What the two had taken in comes after what the five have finalised.
    resume(&clients, there);
    clients.iter().for_each(|client| client.finalise(&acknowledged));
    acknowledged.are_final_on(&clients);
}

#[test]
fn wires_that_fail_in_part_lose_nothing() {
    let (seven, acknowledged) = (Seven::start(), Acknowledged::default());
    let clients = seven.clients();
    let five = &clients[..5];
    let lan = &seven.lan;
    under_load(&clients, &acknowledged, || {
        // One hears nobody, another comes and goes.
        (0..6).for_each(|other| lan.cut(other, 6));
        for _ in 0..4 {
            lan.unplug(5);
            nobody_diverges(&clients, Duration::from_millis(1_500));
            lan.plug_in(5);
            nobody_diverges(&clients, Duration::from_millis(1_000));
        }
        five.iter().for_each(|client| client.finalise(&acknowledged));
        lan.heal();
        // One is heard by nobody.
        (0..6).for_each(|other| lan.cut(6, other));
        nobody_diverges(&clients, Duration::from_secs(6));
        five.iter().for_each(|client| client.finalise(&acknowledged));
        lan.heal();
        lan.lose(30);
        nobody_diverges(&clients, Duration::from_secs(10));
        lan.heal();
        resume(&clients, clients.iter().map(Client::finalised).max().unwrap_or_default());
    });
    acknowledged.are_final_on(&clients);
}

#[test]
fn two_are_killed_and_then_all() {
    let (mut seven, acknowledged) = (Seven::start(), Acknowledged::default());
    let clients = seven.clients();
    under_load(&clients, &acknowledged, || {
        clients[0].finalise(&acknowledged);
        seven.kill(&[2, 6]);
        [0, 1, 3, 4, 5].iter().for_each(|place| clients[*place].finalise(&acknowledged));
        seven.start_again(&[6, 2]);
        resume(&clients, clients[0].finalised());
    });
    acknowledged.are_final_on(&clients);

    under_load(&clients, &acknowledged, || {
        clients[0].finalise(&acknowledged);
        seven.kill(&[4, 0, 2, 6, 1, 5, 3]);
    });
    seven.start_again(&[3, 6, 0, 5, 2, 1, 4]);
    takes("all are synced", RESUME_MAX, || clients.iter().all(Client::is_synced));
    clients.iter().for_each(|client| client.finalise(&acknowledged));
    acknowledged.are_final_on(&clients);
}
