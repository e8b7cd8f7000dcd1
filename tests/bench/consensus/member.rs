//! One member: gossip, network and journal of a cell, and a load of its own.

use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cell::gossip::{
    Contents, DecidedRound, Driver, GossipSettings, Handle, Host, Input, Members, Start, Target,
    engine_settings,
};
use cell::network::{Inbound, Lane, Network, NetworkSettings, peer_id_of};
use ed25519_dalek::SigningKey;
use futures_util::future::BoxFuture;
use journal::{Backend, Disk, Journal, KeyPair};
use protocol::beacon::Drawn;
use protocol::consensus::Progress;
use protocol::genesis::{EPOCH_ROUNDS, Member};
use protocol::gossip::EventBytes;
use protocol::members::MemberSet;
use protocol::signing::{self, Signature};
use protocol::{CellId, GenesisHash, Problem, ProblemKind};
use serde_json::json;
use tokio::sync::oneshot;

use super::histogram::Histogram;

/// Bytes of a transaction: when it was to be submitted, by whom, and nothing.
const TRANSACTION_BYTES: usize = 128;
const MEMBERS: u8 = 4;
/// Bytes that wait at most: what comes then is lost, and counts as never ordered.
const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn key(place: u8) -> SigningKey {
    SigningKey::from_bytes(&[place + 1; 32])
}

/// Waits for room in the journal, and who waits for it.
type Batch = (Vec<Vec<u8>>, oneshot::Sender<Result<(), Problem>>);

struct Seat {
    place: u8,
    members: Arc<Members>,
    key: SigningKey,
    waiting: Mutex<Vec<u8>>,
    journal: mpsc::Sender<Batch>,
    reader: journal::Reader,
    network: OnceLock<Network>,
    handle: OnceLock<Handle>,
    /// Only what is to be submitted from then on and before the end counts.
    span_us: OnceLock<std::ops::Range<u64>>,
    latencies: Mutex<Histogram>,
    has_to_say: AtomicBool,
    /// From when an event was made until it was read by another member; and what its own journal took of that.
    delays: Mutex<Histogram>,
    syncs: Arc<Mutex<Histogram>>,
    events: AtomicU64,
    blocks: AtomicU64,
    lost: AtomicU64,
}

impl Seat {
    fn submit(&self, due_us: u64, count: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() > WAITING_BYTES_MAX {
            self.lost.fetch_add(count, Ordering::Relaxed);
            return;
        }
        for _ in 0..count {
            let start = waiting.len();
            waiting.resize(start + TRANSACTION_BYTES, 0);
            waiting[start..start + 8].copy_from_slice(&due_us.to_le_bytes());
            waiting[start + 8] = self.place;
        }
        drop(waiting);
        if !self.has_to_say.swap(true, Ordering::AcqRel)
            && let Some(handle) = self.handle.get()
        {
            handle.to_say();
        }
    }
}

impl Host for Seat {
    fn has_to_say(&self, may_order: bool) -> bool {
        may_order && self.has_to_say.load(Ordering::Acquire)
    }

    fn next_payload(&self, bytes_max: usize) -> (Vec<u8>, Contents) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = bytes_max / TRANSACTION_BYTES * TRANSACTION_BYTES;
        let rest = if waiting.len() > room { waiting.split_off(room) } else { Vec::new() };
        self.has_to_say.store(!rest.is_empty(), Ordering::Release);
        let payload = std::mem::replace(&mut *waiting, rest);
        let orders = !payload.is_empty();
        (payload, Contents { orders, changes: false })
    }

    fn say_again(&self, payload: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.splice(0..0, payload.iter().copied());
        self.has_to_say.store(true, Ordering::Release);
    }

    fn check(&self, event: &EventBytes, members: &Members) -> Result<Contents, Problem> {
        let delay = now_us().saturating_sub(event.event.time_us);
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).add(delay);
        Ok(self.look(event, members))
    }

    fn look(&self, event: &EventBytes, _: &Members) -> Contents {
        Contents { orders: !event.payload.is_empty(), changes: false }
    }

    fn heard(&self, _: u64, _: &[u8]) {}

    fn sign(&self, text: &[u8]) -> Signature {
        signing::sign(&self.key, text)
    }

    fn signs_in(&self, _: &Members) -> bool {
        true
    }

    fn record(&self, _: u64, _: u64, events: Vec<Vec<u8>>) -> BoxFuture<'static, Result<(), Problem>> {
        self.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        let (done, recorded) = oneshot::channel();
        let sent = self.journal.send((events, done));
        let (begun, syncs) = (now_us(), Arc::clone(&self.syncs));
        Box::pin(async move {
            sent.map_err(|_| failed("the journal's thread is gone"))?;
            let recorded = recorded.await.unwrap_or_else(|_| Err(failed("the journal's thread is gone")));
            syncs.lock().unwrap_or_else(PoisonError::into_inner).add(now_us().saturating_sub(begun));
            recorded
        })
    }

    fn read(&self, _: u64, number: u64) -> BoxFuture<'static, Result<Vec<u8>, Problem>> {
        // One epoch after the other in one journal: only the numbers of the first are its indexes.
        let read = self.reader.get(number).map_err(|error| failed(&error.to_string()));
        Box::pin(async move { read })
    }

    fn order(&self, _: u64, rounds: Vec<DecidedRound>) -> BoxFuture<'static, Result<Progress, Problem>> {
        let now = now_us();
        let span = self.span_us.get().cloned().unwrap_or(0..0);
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for payload in rounds.iter().flat_map(|round| &round.payloads) {
            for transaction in payload.chunks_exact(TRANSACTION_BYTES) {
                if transaction[8] != self.place {
                    break;
                }
                let due = u64::from_le_bytes(transaction[..8].try_into().unwrap_or([0; 8]));
                if span.contains(&due) {
                    latencies.add(now.saturating_sub(due));
                }
            }
        }
        let blocks = self.blocks.fetch_add(rounds.len() as u64, Ordering::Relaxed) + rounds.len() as u64;
        Box::pin(std::future::ready(Ok(Progress { ordered: blocks, executed: blocks, finalised: blocks })))
    }

    fn send(&self, to: &CellId, frame: Vec<u8>) {
        if let Some(network) = self.network.get() {
            network.push(Lane::Events, to, frame);
        }
    }

    fn connected(&self) -> Vec<CellId> {
        self.network.get().map(Network::connected_peers).unwrap_or_default()
    }

    fn epoch_begins(&self, _: u64, _: &Members) {}

    fn decided(&self, _: u64, _: u64, _: &[&[u8]]) -> Option<Drawn> {
        None
    }

    fn next_epoch(&self, _: u64, _: u64) -> BoxFuture<'static, Result<Arc<Members>, Problem>> {
        let members = Arc::clone(&self.members);
        Box::pin(async move { Ok(members) })
    }

    fn forked(&self, _: EventBytes, _: EventBytes) {}

    fn fall_behind(&self, target: Target) {
        eprintln!("member {}: fallen behind {target:?}", self.place);
    }
}

fn failed(why: &str) -> Problem {
    Problem::new(ProblemKind::Fault, "bench.failed", why.to_owned())
}

struct Gate(Arc<OnceLock<Handle>>);

impl Inbound for Gate {
    fn request(&self, _: Lane, _: CellId, _: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn push(&self, _: Lane, from: CellId, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        let handle = self.0.get().cloned();
        Box::pin(async move {
            if let Some(handle) = handle
                && let Err(problem) = handle.push(from, bytes).await
            {
                eprintln!("a frame was refused: {problem}");
            }
        })
    }

    fn hello(&self, _: CellId, _: Vec<u8>, _: Vec<String>) {}
}

/// Arguments: folder, place, first port, transactions a second of all, seconds to warm up, seconds that count.
#[allow(clippy::print_stdout)]
pub(crate) fn run(arguments: &[String]) {
    let dir = Path::new(&arguments[0]);
    let numbers: Vec<u64> = arguments[1..].iter().map(|text| text.parse().expect("a number")).collect();
    let [place, port, rate, warm_up, span] = numbers[..] else { panic!("five numbers") };
    let place = place as u8;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let (seat, driver) = runtime.block_on(start(dir, place, port as u16, &runtime));
    let handle = seat.handle.get().cloned().expect("it is set");
    let driving = runtime.spawn(driver.run());
    let watching = (handle.clone(), seat.network.get().cloned().expect("it is set"));
    runtime.spawn(async move {
        let mut changes = watching.1.changes();
        while changes.changed().await.is_ok() {
            watching.0.tell(Input::Peers).await;
        }
    });
    while !(handle.status().has_started && seat.connected().len() + 1 == usize::from(MEMBERS)) {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{}", json!({ "event": "ready" }));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("told when to begin");
    let begins: u64 = line.trim().parse().expect("a time");
    let counts = begins + warm_up * 1_000_000..begins + (warm_up + span) * 1_000_000;
    seat.span_us.set(counts.clone()).expect("once");
    let report = generate(&seat, place, rate, begins, &counts);
    println!("{report}");
    drop(driving);
    // It is ended by whoever started it: others may still ask it for events.
    std::thread::sleep(Duration::from_secs(60));
}

/// Submits by the clock, and reports when what counts had time to be ordered.
fn generate(
    seat: &Seat,
    place: u8,
    rate: u64,
    begins: u64,
    counts: &std::ops::Range<u64>,
) -> serde_json::Value {
    // Each member takes every fourth transaction of the whole.
    let due =
        |number: u64| begins + (number * u64::from(MEMBERS) + u64::from(place)) * 1_000_000 / rate.max(1);
    let (mut next, mut submitted) = (0, 0);
    let mut before = None;
    let round =
        || seat.handle.get().map_or(0, |handle| handle.status().epoch * EPOCH_ROUNDS + handle.status().round);
    while now_us() < counts.end {
        let now = now_us();
        if before.is_none() && now >= counts.start {
            before = Some((cpu_s(), seat.events.load(Ordering::Relaxed), round()));
        }
        while rate > 0 && due(next) <= now && due(next) < counts.end {
            seat.submit(due(next), 1);
            submitted += u64::from(counts.contains(&due(next)));
            next += 1;
        }
        std::thread::sleep(Duration::from_micros(if rate == 0 { 100_000 } else { 500 }));
    }
    let (cpu, events, rounds) = before.unwrap_or_default();
    let (cpu, events) = (cpu_s() - cpu, seat.events.load(Ordering::Relaxed) - events);
    let rounds = round() - rounds;
    let median = |times: &Mutex<Histogram>| times.lock().unwrap_or_else(PoisonError::into_inner).at(0.5);
    let patience = now_us() + 5_000_000;
    let ordered = || seat.latencies.lock().unwrap_or_else(PoisonError::into_inner).count();
    while ordered() < submitted && now_us() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    let latencies = seat.latencies.lock().unwrap_or_else(PoisonError::into_inner);
    json!({
        "submitted": submitted, "ordered": latencies.count(), "latencies": latencies.to_json(), "cpu_s": cpu,
        "events": events, "rounds": rounds, "delay_us": median(&seat.delays), "sync_us": median(&seat.syncs), "lost": seat.lost.load(Ordering::Relaxed),
    })
}

/// Processor time of this process.
fn cpu_s() -> f64 {
    let usage =
        nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("Linux tells");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

async fn start(dir: &Path, place: u8, port: u16, runtime: &tokio::runtime::Runtime) -> (Arc<Seat>, Driver) {
    let cells: Vec<CellId> = (0..MEMBERS).map(|place| signing::cell_id(&key(place))).collect();
    let all: Vec<Member> = cells.iter().map(|cell| Member::new(*cell, 1)).collect();
    let members = Arc::new(Members::new(MemberSet::new(all)));
    let disk = Disk::create(dir, Backend::default()).expect("a folder");
    let mut journal =
        Journal::create_with(Box::new(disk), KeyPair::from_seed(&[place; 32]), None).expect("a journal");
    let reader = journal.reader();
    let (orders, batches) = mpsc::channel::<Batch>();
    std::thread::spawn(move || {
        while let Ok((events, done)) = batches.recv() {
            let appended = journal.append(&events).map(|_| ()).map_err(|error| failed(&error.to_string()));
            let _ = done.send(appended);
        }
    });
    let seat = Arc::new(Seat {
        place,
        members: Arc::clone(&members),
        key: key(place),
        waiting: Mutex::default(),
        journal: orders,
        reader,
        network: OnceLock::new(),
        handle: OnceLock::new(),
        span_us: OnceLock::new(),
        latencies: Mutex::default(),
        has_to_say: AtomicBool::new(false),
        delays: Mutex::default(),
        syncs: Arc::default(),
        events: AtomicU64::new(0),
        blocks: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    });
    let gate = Arc::new(OnceLock::new());
    let address = |place: u8| format!("/ip4/127.0.0.1/tcp/{}", port + u16::from(place));
    let settings = NetworkSettings {
        seed: zeroize::Zeroizing::new([place + 1; 32]),
        listen: vec![address(place)],
        lanes: Lane::BETWEEN_CELLS,
        hello: Vec::new(),
        mdns: false,
        connections_max: 64,
        connections_per_peer_max: 4,
        requests_per_peer_max: 16,
        frame_bytes_max: 8 * 1024 * 1024,
        request_timeout: Duration::from_secs(10),
        direct: false,
    };
    let network = Network::start(settings, Arc::new(Gate(Arc::clone(&gate))), runtime.handle())
        .await
        .expect("a network");
    for (other, cell) in (0..MEMBERS).zip(&cells).filter(|(other, _)| *other != place) {
        network.keep(*cell, vec![format!("{}/p2p/{}", address(other), peer_id_of(cell))]).await;
    }
    let _ = seat.network.set(network);
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let defaults = cell::settings::Consensus::default();
    let engine = engine_settings(
        number("EVENT_INTERVAL_US", defaults.event_interval_us),
        number("PATIENCE_US", defaults.patience_us),
    );
    let settings = GossipSettings { genesis: GenesisHash::ZERO, epoch_rounds: EPOCH_ROUNDS, engine };
    let host: Arc<dyn Host> = Arc::<Seat>::clone(&seat);
    let (driver, handle) =
        Driver::new(host, members, cells[usize::from(place)], settings, Start::default()).expect("a member");
    let _ = (gate.set(handle.clone()), seat.handle.set(handle));
    (seat, driver)
}
