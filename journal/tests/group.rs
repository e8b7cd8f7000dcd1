//! Group commit: whatever many threads are told is so, whether the disk works, fails or the writer panics.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::thread;

use journal::group::{BYTES_MAX, ENTRIES_MAX};
use journal::storage::{Faults, Faulty, File, ReadStorage, Storage};
use journal::{Error, Journal, KeyPair, Memory, SharedJournal};

const THREADS: usize = 16;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[9; 32])
}

fn shared(disk: impl Storage + 'static) -> SharedJournal {
    SharedJournal::new(Journal::create_on(Box::new(disk), pair()).expect("creates"))
}

/// A call that was acknowledged: the index it was told, and its entries.
type Call = (u64, Vec<Vec<u8>>);

/// What a thread appends in one of its calls: one entry to four, some of them empty.
fn entries(thread: usize, call: usize) -> Vec<Vec<u8>> {
    let entry = |part| format!("thread {thread} call {call} part {part}").into_bytes().repeat(call % 4);
    (0..1 + (thread + call) % 4).map(entry).collect()
}

/// Appends from many threads until their calls are done or one fails; what was acknowledged, by thread.
fn append_from_all(journal: &SharedJournal, calls: usize) -> Vec<Vec<Call>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let journal = journal.clone();
                scope.spawn(move || {
                    let append = |call| {
                        let entries = entries(thread, call);
                        journal.append(&entries).ok().map(|first| (first, entries))
                    };
                    (0..calls).map_while(append).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Each call's entries lie together where it was told, in the order of its thread, and none lies elsewhere too.
fn assert_all_there(journal: &Journal, acknowledged: &[Vec<Call>]) {
    let mut places = BTreeSet::new();
    for calls in acknowledged {
        assert!(calls.is_sorted_by_key(|(first, _)| first), "a thread's calls in their order");
        for (first, entries) in calls {
            for (index, entry) in (*first..).zip(entries) {
                assert_eq!(&journal.get(index).expect("acknowledged, so there"), entry, "entry {index}");
                assert!(places.insert(index), "entry {index} was promised twice");
            }
        }
    }
    journal.verify(&mut |_, _| {}).expect("in order");
}

#[test]
fn every_call_is_where_it_was_told() {
    let disk = Faulty::new(Faults::default());
    let journal = shared(disk.clone());
    let acknowledged = append_from_all(&journal, 200);
    let total = acknowledged.iter().flatten().map(|(_, entries)| entries.len() as u64).sum::<u64>();
    assert_eq!(acknowledged.iter().flatten().count(), THREADS * 200);
    assert_eq!(journal.reader().length(), total);
    drop(journal);
    // All of it is durable: of what was not synced nothing is left.
    let (journal, _) = Journal::open_on(Box::new(disk.crash(0, 0)), pair(), total).expect("opens");
    assert_all_there(&journal, &acknowledged);
    assert_eq!(journal.length(), total);
}

#[test]
fn a_disk_that_fails_acknowledges_nothing_that_is_not_there() {
    for number in 0..60 {
        let disk = Faulty::default();
        let journal = shared(disk.clone());
        disk.set_faults(Faults { fail_from: Some(disk.operations() + number), ..Faults::default() });
        let acknowledged = append_from_all(&journal, 60);
        assert!(acknowledged.iter().all(|calls| calls.len() < 60), "all heard of it");
        assert!(matches!(journal.append(&["more"]), Err(Error::Faulted)), "it takes no more");
        assert!(matches!(journal.checkpoint(), Err(Error::Faulted)), "it takes no more");
        let left = disk.crash(0, 0);
        let (journal, _) = Journal::open_on(Box::new(left), pair(), 0).expect("opens");
        assert_all_there(&journal, &acknowledged);
    }
}

/// What a disk is told to do at a write, before it does it.
type AtWrite = Arc<dyn Fn(File, &[u8]) + Send + Sync>;

/// A disk that somebody looks at, and may hold up or break.
struct Watched {
    disk: Memory,
    at_write: AtWrite,
}

impl Watched {
    fn journal(at_write: impl Fn(File, &[u8]) + Send + Sync + 'static) -> SharedJournal {
        shared(Self { disk: Memory::default(), at_write: Arc::new(at_write) })
    }
}

impl ReadStorage for Watched {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.disk.read(file, offset, length)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        self.disk.len(file)
    }
}

impl Storage for Watched {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (self.at_write)(file, bytes);
        self.disk.write(file, offset, bytes)
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        self.disk.truncate(file, length)
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        self.disk.sync(file)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        self.disk.reader()
    }
}

/// Opens once as many have knocked as it was made for.
#[derive(Default)]
struct Gate {
    knocked: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn knock(&self) {
        *self.knocked.lock().expect("no panic") += 1;
        self.changed.notify_all();
    }

    fn wait_for(&self, knocks: usize) {
        let knocked = self.knocked.lock().expect("no panic");
        drop(self.changed.wait_while(knocked, |knocked| *knocked < knocks).expect("no panic"));
    }
}

/// Has the disk hold the first batch up until all threads are about to append; gives the bytes of each batch.
fn batches_of(entries: impl Fn(usize) -> Vec<Vec<u8>> + Sync, calls: usize) -> Vec<usize> {
    let gate = Arc::new(Gate::default());
    let batches = Arc::new(Mutex::new(Vec::new()));
    let journal = Watched::journal({
        let (gate, batches) = (Arc::clone(&gate), Arc::clone(&batches));
        move |file, bytes| {
            if file == File::Data {
                gate.wait_for(THREADS);
                batches.lock().expect("no panic").push(bytes.len());
            }
        }
    });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, gate, entries) = (&journal, &gate, &entries);
            scope.spawn(move || {
                gate.knock();
                for _ in 0..calls {
                    journal.append(&entries(thread)).expect("appends");
                }
            });
        }
    });
    batches.lock().expect("no panic").clone()
}

#[test]
fn who_waits_is_appended_together() {
    let batches = batches_of(|_| vec![vec![1]], 1);
    assert_eq!(batches.iter().sum::<usize>(), THREADS);
    assert!(batches.len() < THREADS, "each on its own: {batches:?}");
}

#[test]
fn a_batch_has_a_bounded_number_of_entries() {
    let batches = batches_of(|_| vec![vec![1]; ENTRIES_MAX / 3], 20);
    assert_eq!(batches.iter().sum::<usize>(), THREADS * 20 * (ENTRIES_MAX / 3));
    assert!(batches.iter().all(|entries| *entries <= ENTRIES_MAX), "{batches:?}");
    assert!(batches.len() < THREADS * 20, "each on its own");
}

#[test]
fn a_batch_has_a_bounded_number_of_bytes() {
    let batches = batches_of(|_| vec![vec![1; BYTES_MAX / 7]; 2], 2);
    assert!(batches.iter().all(|bytes| *bytes <= BYTES_MAX), "{batches:?}");
    assert!(batches.len() < THREADS * 2, "each on its own");
}

#[test]
fn a_call_beyond_the_bound_goes_alone() {
    let large = ENTRIES_MAX + 1;
    let batches = batches_of(|thread| vec![vec![1]; if thread == 0 { large } else { 1 }], 3);
    assert_eq!(batches.iter().filter(|entries| **entries == large).count(), 3, "{batches:?}");
    assert!(batches.iter().all(|entries| *entries == large || *entries < THREADS), "{batches:?}");
}

/// All callers of the batch that failed are told what the disk said; the next ones that it had failed.
#[test]
fn each_caller_of_a_failed_batch_hears_why() {
    let disk = Faulty::new(Faults::default());
    let journal = shared(disk.clone());
    disk.set_faults(Faults { fail_from: Some(disk.operations()), ..Faults::default() });
    let errors: Vec<Error> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let journal = &journal;
                scope.spawn(move || journal.append(&entries(thread, 1)).expect_err("it fails"))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let said = errors.iter().filter(|error| match error {
        Error::Io { context, source } => {
            assert_eq!(*context, "writing entries");
            assert!(source.to_string().contains("fails on demand"), "{source}");
            true
        }
        Error::Faulted => false,
        other => panic!("{other}"),
    });
    assert!(said.count() >= 1);
}

/// While one batch is held up the others gather in the next, whose leader panics.
#[test]
fn a_panic_of_the_writer_leaves_nobody_waiting() {
    let writes = AtomicUsize::new(0);
    let gate = Arc::new(Gate::default());
    let journal = Watched::journal({
        let gate = Arc::clone(&gate);
        move |file, _| {
            if file == File::Data {
                gate.wait_for(THREADS);
                assert_eq!(writes.fetch_add(1, Ordering::Relaxed), 0, "on demand");
            }
        }
    });
    let told: Vec<_> = thread::scope(|scope| {
        let append = |_| {
            scope.spawn(|| {
                gate.knock();
                journal.append(&["now"])
            })
        };
        let threads: Vec<_> = (0..THREADS).map(append).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    });
    assert_eq!(told.iter().filter(|told| told.is_none()).count(), 1, "the leader panics, and nobody else");
    let mut there: Vec<_> = told.iter().flatten().flatten().copied().collect();
    there.sort_unstable();
    assert!(there.into_iter().eq(0..journal.reader().length()), "only the first batch is there");
    assert!(
        told.iter()
            .flatten()
            .filter_map(|told| told.as_ref().err())
            .all(|error| matches!(error, Error::Faulted))
    );
    assert!(matches!(journal.append(&["after"]), Err(Error::Faulted)));
    assert_eq!(journal.reader().get(0).expect("reads go on"), b"now");
}

/// The last clone to go gives the folder back, on whatever thread that is.
#[test]
fn clones_are_dropped_in_peace() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let journal = SharedJournal::new(Journal::create(dir.path(), pair()).expect("creates"));
    let reader = journal.reader();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = journal.clone();
            scope.spawn(move || journal.append(&entries(thread, 1)).expect("appends"));
        }
        drop(journal);
    });
    let (journal, recovery) = Journal::open(dir.path(), pair(), reader.length()).expect("opens");
    assert!(!recovery.tail_unproven);
    assert_eq!(journal.length(), (0..THREADS).map(|thread| entries(thread, 1).len() as u64).sum::<u64>());
}

#[test]
fn tasks_append_together_and_each_is_told_its_own_place() {
    for workers in [1, 2] {
        let disk = Faulty::default();
        let journal = shared(disk.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).build();
        let runtime = runtime.expect("a runtime");
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let journal = journal.clone();
                runtime.spawn(async move {
                    let mut calls = Vec::new();
                    for call in 0..40 {
                        let entries = entries(task, call);
                        calls.push((journal.append_async(&entries).await.expect("appends"), entries));
                    }
                    calls
                })
            })
            .collect();
        let acknowledged: Vec<Vec<Call>> =
            tasks.into_iter().map(|task| runtime.block_on(task).expect("ends")).collect();
        let total = journal.reader().length();
        drop(journal);
        let (journal, _) = Journal::open_on(Box::new(disk.crash(0, 0)), pair(), total).expect("opens");
        assert_all_there(&journal, &acknowledged);
    }
}

#[test]
fn a_batch_whose_runtime_ends_fails_and_the_next_goes_on() {
    let journal = shared(Memory::default());
    // No thread for blocking work is free: the lead waits for one until the runtime is gone.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
    let runtime = runtime.expect("a runtime");
    let (go, held) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || held.recv());
    let clone = journal.clone();
    let waits = runtime.block_on(async {
        let mut append = pin!(clone.append_async(&["lost"]));
        poll_fn(|context| Poll::Ready(append.as_mut().poll(context).is_pending())).await
    });
    assert!(waits);
    runtime.shutdown_background();
    drop(go);
    // Whoever joined the lost batch hears that it failed; nobody is held up, and the journal goes on.
    let next = journal.append(&["next"]).or_else(|_| journal.append(&["next"]));
    next.expect("appends");
    assert_eq!(journal.reader().get(journal.reader().length() - 1).expect("reads"), b"next");
}
