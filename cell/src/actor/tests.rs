//! The promise of the house: nothing leaves a service before its records are durable.
//!
//! The disk is one whose sync waits until the test lets it go, or fails when the test says so.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use actix::prelude::*;
use identity::{IdentityMachine, Settings};
use journal::storage::{File, ReadStorage, Storage};
use journal::{Journal, KeyPair, Memory};
use machine::{Read, Write};
use protocol::identity::{AddContact, AddContactRequest, Contact, RemoveContact, Resolve, Who, Words};
use protocol::nucleus::GrantView;
use protocol::{Action, CellId, Problem, Service};
use tokio::sync::mpsc;

use super::*;
use crate::bus::{Bus, BusLimits, CallContext};
use crate::store::{Position, Store};

/// Requests that may wait in the mailbox.
const MAILBOX_MAX: usize = 16;
/// How long an answer is waited for that must not come.
const NEVER: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq)]
enum Sync {
    Passes,
    Waits,
    Fails,
}

/// A disk in memory whose syncs the test holds in its hand.
#[derive(Clone)]
struct Held {
    memory: Memory,
    sync: Arc<(Mutex<Sync>, Condvar)>,
}

impl Held {
    fn new() -> Self {
        Self { memory: Memory::default(), sync: Arc::new((Mutex::new(Sync::Passes), Condvar::new())) }
    }

    fn set(&self, sync: Sync) {
        *self.sync.0.lock().expect("no panic with it") = sync;
        self.sync.1.notify_all();
    }
}

impl ReadStorage for Held {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.memory.read(file, offset, length)
    }
    fn len(&mut self, file: File) -> io::Result<u64> {
        self.memory.len(file)
    }
}

impl Storage for Held {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write(file, offset, bytes)
    }
    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        self.memory.truncate(file, length)
    }
    fn sync(&mut self, file: File) -> io::Result<()> {
        let held = self.sync.0.lock().expect("no panic with it");
        let sync = self.sync.1.wait_while(held, |sync| *sync == Sync::Waits).expect("no panic with it");
        if *sync == Sync::Fails { Err(io::Error::other("the disk is gone")) } else { self.memory.sync(file) }
    }
    fn sync_directory(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        self.memory.reader()
    }
}

struct Running {
    disk: Held,
    store: Store,
    bus: Bus,
    effects: Effects<identity::Effect>,
    faults: mpsc::Receiver<(Service, Problem)>,
    _dir: tempfile::TempDir,
}

/// A call under way, and what comes of it.
type Asked<T> = tokio::task::JoinHandle<Result<T, Problem>>;

/// A grant of this host alone.
fn granted(epoch: u64) -> Grant {
    let host = "first".to_owned();
    Grant::by_nucleus(&GrantView {
        service: Service::Identity,
        host,
        epoch,
        replicated: false,
        takeover: false,
        key_number: 0,
        known_to: Vec::new(),
    })
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(dir.path(), 8).expect("opens");
        let disk = Held::new();
        let journal =
            Journal::create_on(Box::new(disk.clone()), KeyPair::from_seed(&[1; 32])).expect("creates");
        let (grant, lease) = (granted(1), Lease::default());
        lease.begin(&grant);
        let keyspace = store.keyspace(Service::Identity);
        let gauges = Arc::new(Gauges::default());
        let feed = crate::feed::Feed::default();
        let writer =
            Writer::start::<IdentityMachine>((grant, lease), journal, keyspace.clone(), gauges, feed);
        let machine = IdentityMachine { cell: CellId::from_bytes([1; 32]), settings: Settings::default() };
        let opened =
            Opened { machine, keyspace, writer: writer.expect("starts"), grant, generation: 0, length: 0 };
        let (sender, effects) = effect_queue();
        let (report, faults) = mpsc::channel(4);
        let bus = Bus::new(BusLimits::default());
        let route = bus.route::<Words>();
        let actor = ServiceActor::new(opened, route.view().clone(), sender, report, MAILBOX_MAX).start();
        route.set(Some(actor.recipient()));
        Self { disk, store, bus, effects, faults, _dir: dir }
    }

    fn ask<A: Action>(&self, request: A::Request) -> Asked<A::Answer> {
        let bus = self.bus.clone();
        actix_rt::spawn(async move { bus.call::<A>(CallContext::internal(), request).await })
    }

    fn add(&self, number: u8) -> Asked<Contact> {
        self.ask::<AddContact>(AddContactRequest {
            cell: CellId::from_bytes([number; 32]),
            name: Some(format!("cell-{number}")),
            addresses: Vec::new(),
            may: None,
            exec: None,
            journals: None,
        })
    }

    fn resolve(&self, number: u8) -> Asked<Contact> {
        self.ask::<Resolve>(Who { who: format!("cell-{number}") })
    }
}

async fn waits<T>(asked: &mut Asked<T>) -> bool {
    tokio::time::timeout(NEVER, asked).await.is_err()
}

#[actix_rt::test]
async fn nothing_leaves_before_its_records_are_synced() {
    let mut running = Running::start();
    running.disk.set(Sync::Waits);
    let mut added = running.add(2);
    // A query that saw the contact, and a refusal that was decided on it, wait for the same batch.
    let (mut seen, mut refused) = (running.resolve(2), running.resolve(3));
    assert!(waits(&mut added).await, "an answer left before the sync");
    assert!(waits(&mut seen).await, "a query told what was not durable");
    assert!(waits(&mut refused).await, "a refusal left before what it was decided on");
    assert!(
        tokio::time::timeout(NEVER, running.effects.next(1)).await.is_err(),
        "an effect ran before the sync"
    );
    let position = running.store.keyspace(Service::Identity).position().expect("readable");
    assert_eq!(position, None, "the view is ahead of the journal");
    running.disk.set(Sync::Passes);
    assert!(added.await.expect("answered").is_ok());
    assert!(seen.await.expect("answered").is_ok());
    assert_eq!(refused.await.expect("answered").expect_err("nobody").code, "identity.unknown_contact");
    assert_eq!(running.effects.next(8).await.map(|effects| effects.len()), Some(1));
}

#[actix_rt::test]
async fn what_comes_while_one_batch_syncs_is_committed_together() {
    let running = Running::start();
    running.disk.set(Sync::Waits);
    let first = running.add(2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let rest: Vec<_> = (3..13).map(|number| running.add(number)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.disk.set(Sync::Passes);
    assert!(first.await.expect("answered").is_ok());
    for asked in rest {
        assert!(asked.await.expect("answered").is_ok());
    }
    let oplog = running.disk.memory.bytes(File::Oplog);
    // A signed batch takes over 100 bytes of the oplog beside its nodes; eleven would take twice this.
    assert!(oplog.len() < 8192 + 1_400, "eleven entries took many signed batches: {} bytes", oplog.len());
}

#[actix_rt::test]
async fn a_failed_sync_is_a_fault_and_nothing_of_it_is_seen() {
    let mut running = Running::start();
    assert!(running.add(2).await.expect("answered").is_ok());
    running.disk.set(Sync::Waits);
    let (failing, filling, seen) = (running.add(3), running.add(4), running.resolve(3));
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.disk.set(Sync::Fails);
    for asked in [failing, filling, seen] {
        let problem = asked.await.expect("told").expect_err("never acknowledged");
        assert_eq!(problem.code, "journal.fault");
    }
    let (service, problem) = running.faults.recv().await.expect("the supervisor is told");
    assert_eq!((service, problem.code.as_ref()), (Service::Identity, "journal.fault"));
    // It stays readable, shows nothing of what failed, and writes no more.
    assert!(running.resolve(2).await.expect("answered").is_ok());
    assert!(running.resolve(3).await.expect("answered").is_err());
    assert_eq!(running.add(5).await.expect("told").expect_err("stopped").code, "journal.fault");
}

#[actix_rt::test]
async fn a_full_mailbox_refuses_at_once() {
    let running = Running::start();
    running.disk.set(Sync::Waits);
    // All of them are sent before the actor has its turn.
    let asked: Vec<_> = (2..=101).map(|number| running.add(number)).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = asked.iter().filter(|asked| asked.is_finished()).count();
    assert!((100 - 64..=100 - MAILBOX_MAX).contains(&refused), "{refused} of 100 were refused");
    running.disk.set(Sync::Passes);
    let mut outcomes = Vec::new();
    for asked in asked {
        outcomes.push(asked.await.expect("told"));
    }
    let problems: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(problems.len(), refused, "who was not refused at once is served");
    assert!(problems.iter().all(|problem| problem.code == "bus.busy"));
}

/// The bus gives again what Identity has answered only while nothing has changed. (Resolve is declared
/// `cached`.)
#[actix_rt::test]
async fn an_answer_from_memory_is_never_from_before_a_change() {
    let running = Running::start();
    let from_memory = || {
        let of = running.bus.metrics().iter().find(|of| of.action == Resolve::INFO.name).expect("declared");
        of.from_memory.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert!(running.add(2).await.expect("told").is_ok());
    let first = running.resolve(2).await.expect("told").expect("known");
    assert_eq!(running.resolve(2).await.expect("told").expect("known"), first);
    assert_eq!(from_memory(), 1, "the second time from memory");
    // What is not durable yet is known to nobody, and what was known before waits for it.
    running.disk.set(Sync::Waits);
    let removed = running.ask::<RemoveContact>(Who { who: "cell-2".to_owned() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut seen = running.resolve(2);
    assert!(waits(&mut seen).await, "answered from before a change that is under way");
    running.disk.set(Sync::Passes);
    assert!(removed.await.expect("told").is_ok());
    assert_eq!(seen.await.expect("told").expect_err("removed").code, "identity.unknown_contact");
    assert!(running.resolve(2).await.expect("told").is_err());
    assert_eq!(from_memory(), 1);
    // A batch that fails takes back what its requests have seen.
    assert!(running.add(2).await.expect("told").is_ok());
    assert!(running.resolve(2).await.expect("told").is_ok());
    running.disk.set(Sync::Waits);
    let removed = running.ask::<RemoveContact>(Who { who: "cell-2".to_owned() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.disk.set(Sync::Fails);
    assert_eq!(removed.await.expect("told").expect_err("not durable").code, "journal.fault");
    // A query that comes before the actor has heard of the failure fails with the batch it has seen.
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.resolve(2).await.expect("told").expect("it is there as before");
}

/// Opens Identity in a folder, as a start does, closes it, and gives its view.
async fn opened(store: &Store, folder: &std::path::Path) -> crate::store::Keyspace {
    let place = JournalPlace {
        folder: folder.to_owned(),
        backend: journal::Backend::default(),
        keys: crate::keys::JournalKeys {
            seed: zeroize::Zeroizing::new([1; 32]),
            encryption: zeroize::Zeroizing::new([3; 32]),
            generation: 0,
        },
        before: Vec::new(),
        witnessed: 0,
        fork: 0,
        lease: Lease::default(),
    };
    let grant = granted(1);
    let machine = IdentityMachine { cell: CellId::from_bytes([1; 32]), settings: Settings::default() };
    let (keyspace, feed) = (store.keyspace(Service::Identity), crate::feed::Feed::default());
    let opened = open_service(machine, place, keyspace, grant, Arc::default(), &feed);
    let Opened { keyspace, writer, .. } = opened.expect("it opens");
    writer.close().await;
    keyspace
}

/// Its journal is where it was: only the shape has changed.
#[actix_rt::test]
async fn a_view_of_another_shape_is_built_anew() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("journal");
    drop(Journal::create(&folder, KeyPair::from_seed(&[1; 32])).expect("creates"));
    let store = Store::open(&dir.path().join("views"), 8).expect("opens");
    for (layout, stays) in [(IdentityMachine::LAYOUT, true), (IdentityMachine::LAYOUT + 1, false)] {
        let view = opened(&store, &folder).await;
        let position = view.position().expect("readable").expect("it was brought up to its journal");
        assert_eq!(position.layout, IdentityMachine::LAYOUT);
        let mut overlay = Overlay::default();
        View::new(&view, None, &mut overlay).put(b"\x7frow".to_vec(), b"of old".to_vec());
        view.write(&overlay, &Position { layout, ..position }).expect("is written");
        let row = opened(&store, &folder).await.get(b"\x7frow").expect("readable");
        assert_eq!(row.is_some(), stays, "shape {layout}");
    }
}

/// The bytes of builds that did not tell a shape.
#[test]
fn a_position_without_a_shape_is_of_the_first() {
    let bytes = |byte: u8| minicbor::bytes::ByteVec::from(vec![byte; 32]);
    let old = protocol::codec::encode(&(bytes(1), 0u64, 7u64, bytes(2)));
    let read: Position = protocol::codec::decode(&old).expect("it is read");
    assert_eq!(read, Position { key: [1; 32], fork: 0, length: 7, tree_hash: [2; 32], layout: 0 });
}
