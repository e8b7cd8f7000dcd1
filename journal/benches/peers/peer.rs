//! The works, and who does them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypercore::{Hypercore, HypercoreBuilder, Storage};
use journal::{Journal, KeyPair, Reader, SharedJournal};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::interop;

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 100;
/// Writers at once.
pub(crate) const WRITERS: usize = 64;
/// Entries of a large batch.
pub(crate) const BATCH: u64 = 1_000;

/// How long a work that writes goes on at most: what was done until then counts.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    OneByOne,
    Writers,
    Batches,
    AtRandom,
    InOrder,
    Open,
    Verify,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::OneByOne => "one_by_one",
            Self::Writers => "writers",
            Self::Batches => "batches",
            Self::AtRandom => "at_random",
            Self::InOrder => "in_order",
            Self::Open => "open",
            Self::Verify => "verify",
        }
    }
}

/// What was done of a work, and the time of the work alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) entries: u64,
    pub(crate) took: Duration,
}

impl Done {
    /// The time of one entry.
    pub(crate) fn each(self) -> f64 {
        self.took.as_secs_f64() / self.entries as f64
    }
}

/// A program that keeps logs.
pub(crate) trait Peer {
    /// Its name and version.
    fn name(&self) -> &str;

    /// The most entries of a log that it opens again.
    fn length_max(&self) -> u64 {
        u64::MAX
    }

    /// Does a work of `count` entries in a folder, where a log of `length` entries is or, for one that writes,
    /// nothing. `None` if it has no such thing.
    fn run(&self, work: Work, folder: &Path, count: u64, length: u64) -> Option<Done>;

    /// Makes the log that is read.
    fn fill(&self, folder: &Path, length: u64);
}

/// An entry that tells which it is.
pub(crate) fn entry(index: u64) -> Vec<u8> {
    let mut entry = vec![7; ENTRY_BYTES];
    entry[..8].copy_from_slice(&index.to_le_bytes());
    entry
}

fn batch(first: u64) -> Vec<Vec<u8>> {
    (first..first + BATCH).map(entry).collect()
}

/// Places in a log, the same for all.
pub(crate) fn places(seed: u64, count: u64, length: u64) -> Vec<u64> {
    let mut at = seed;
    let next = |_| {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (at >> 33) % length
    };
    (0..count).map(next).collect()
}

fn assert_is(entry: &[u8], index: u64) {
    assert_eq!(entry[..4], index.to_le_bytes()[..4], "entry {index} is another one");
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

pub(crate) fn pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

/// This crate: synced before it answers, hashed when it is read.
pub(crate) struct Ours;

impl Ours {
    fn write(work: Work, folder: &Path, count: u64) -> Done {
        let mut journal = Journal::create(folder, pair()).expect("creates");
        let start = Instant::now();
        let entries = match work {
            Work::OneByOne => until_late(start, count, 1, |index| {
                journal.append(&[entry(index)]).expect("appends");
            }),
            Work::Writers => return writers(&SharedJournal::new(journal), count),
            _ => until_late(start, count, BATCH, |first| {
                journal.append(&batch(first)).expect("appends");
            }),
        };
        Done { entries, took: start.elapsed() }
    }
}

/// Writes entries, so many a time, until all are written or it is late; how many were.
fn until_late(start: Instant, count: u64, step: u64, mut write: impl FnMut(u64)) -> u64 {
    let mut done = 0;
    while done < count && start.elapsed() < WRITE_TIME_MAX {
        write(done);
        done += step;
    }
    done
}

/// A task for each writer, as the Rust crate has them, and as a cell's requests are; on one thread, beside
/// the one that commits.
fn writers(journal: &SharedJournal, count: u64) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let start = Instant::now();
    let append = |_| {
        let journal = journal.clone();
        runtime.spawn(async move {
            let mut done = 0;
            while done < count / WRITERS as u64 && start.elapsed() < WRITE_TIME_MAX {
                journal.append_async(&[entry(done)]).await.expect("appends");
                done += 1;
            }
            done
        })
    };
    let tasks: Vec<_> = (0..WRITERS).map(append).collect();
    let ended = tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic"));
    Done { entries: ended.sum(), took: start.elapsed() }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn run(&self, work: Work, folder: &Path, count: u64, length: u64) -> Option<Done> {
        let took = match work {
            Work::OneByOne | Work::Writers | Work::Batches => return Some(Self::write(work, folder, count)),
            Work::AtRandom => {
                let reader = Reader::open(folder).expect("opens");
                let read = |places: Vec<u64>| {
                    timed(|| {
                        for index in places {
                            assert_is(&reader.get(index).expect("there"), index);
                        }
                    })
                };
                read(places(1, count, length));
                read(places(2, count, length))
            }
            Work::InOrder => {
                let reader = Reader::open(folder).expect("opens");
                timed(|| {
                    for (index, entry) in (0..).zip(reader.range(0, count)) {
                        assert_is(&entry.expect("there"), index);
                    }
                })
            }
            Work::Open => {
                let start = Instant::now();
                let (journal, _) = Journal::open(folder, pair(), length).expect("opens");
                let took = start.elapsed();
                assert_eq!(journal.length(), length);
                took
            }
            Work::Verify => {
                let reader = Reader::open(folder).expect("opens");
                timed(|| assert_eq!(reader.verify(&mut |_, _| {}).expect("in order").entries, length))
            }
        };
        Some(Done { entries: count, took })
    }

    fn fill(&self, folder: &Path, length: u64) {
        let mut journal = Journal::create(folder, pair()).expect("creates");
        for first in (0..length).step_by(BATCH as usize) {
            journal.append(&batch(first)).expect("appends");
        }
        journal.close().expect("closes");
    }
}

/// A JavaScript package: never syncs, checks nothing that it reads.
pub(crate) struct JavaScript {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Where it is installed.
    pub(crate) installed: PathBuf,
}

impl JavaScript {
    fn ask(&self, work: &str, folder: &Path, count: u64, length: u64) -> Done {
        let asked = json!({
            "package": self.package, "folder": folder, "work": work, "count": count, "length": length,
            "writeSecondsMax": WRITE_TIME_MAX.as_secs(),
        });
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), asked.to_string()).expect("written");
        let said = interop::node(&self.installed, "load.mjs", &[file.path()]);
        let said: Value = serde_json::from_slice(&said).expect("one document");
        Done {
            entries: said["entries"].as_u64().expect("a number"),
            took: Duration::from_secs_f64(said["seconds"].as_f64().expect("a number")),
        }
    }
}

impl Peer for JavaScript {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, work: Work, folder: &Path, count: u64, length: u64) -> Option<Done> {
        Some(self.ask(work.name(), folder, count, length))
    }

    fn fill(&self, folder: &Path, length: u64) {
        self.ask("fill", folder, length, 0);
    }
}

/// The Rust crate `hypercore`: syncs after each write, each node of 40 bytes included.
pub(crate) struct RustCrate(pub(crate) tokio::runtime::Runtime);

impl RustCrate {
    /// Above one page of its bitfield (32 768 entries) it panics when it opens the log.
    pub(crate) const LENGTH_MAX: u64 = 32_000;

    async fn open(folder: &Path, there: bool) -> Hypercore {
        let storage = Storage::new_disk(&folder.to_owned(), false).await.expect("a folder");
        HypercoreBuilder::new(storage).open(there).build().await.expect("opens")
    }

    async fn write(work: Work, folder: &Path, count: u64) -> Done {
        let mut core = Self::open(folder, false).await;
        let start = Instant::now();
        let late = move || start.elapsed() >= WRITE_TIME_MAX;
        let mut entries = 0;
        match work {
            Work::Writers => {
                let core = Arc::new(Mutex::new(core));
                let append = |_| {
                    let core = Arc::clone(&core);
                    tokio::spawn(async move {
                        let mut done = 0;
                        while done < count / WRITERS as u64 && !late() {
                            core.lock().await.append(&entry(done)).await.expect("appends");
                            done += 1;
                        }
                        done
                    })
                };
                let tasks: Vec<_> = (0..WRITERS).map(append).collect();
                for task in tasks {
                    entries += task.await.expect("no panic");
                }
            }
            Work::Batches => {
                while entries < count && !late() {
                    core.append_batch(batch(entries)).await.expect("appends");
                    entries += BATCH;
                }
            }
            _ => {
                while entries < count && !late() {
                    core.append(&entry(entries)).await.expect("appends");
                    entries += 1;
                }
            }
        }
        Done { entries, took: start.elapsed() }
    }

    async fn read(core: &mut Hypercore, places: impl Iterator<Item = u64>) -> Duration {
        let start = Instant::now();
        for index in places {
            assert_is(&core.get(index).await.expect("there").expect("there"), index);
        }
        start.elapsed()
    }
}

impl Peer for RustCrate {
    fn name(&self) -> &'static str {
        "Rust hypercore 0.16"
    }

    fn length_max(&self) -> u64 {
        Self::LENGTH_MAX
    }

    fn run(&self, work: Work, folder: &Path, count: u64, length: u64) -> Option<Done> {
        self.0.block_on(async {
            let took = match work {
                Work::OneByOne | Work::Writers | Work::Batches => {
                    return Some(Self::write(work, folder, count).await);
                }
                Work::AtRandom => {
                    let mut core = Self::open(folder, true).await;
                    Self::read(&mut core, places(1, count, length).into_iter()).await;
                    Self::read(&mut core, places(2, count, length).into_iter()).await
                }
                Work::InOrder => {
                    let mut core = Self::open(folder, true).await;
                    Self::read(&mut core, 0..count).await
                }
                Work::Open => {
                    let start = Instant::now();
                    let core = Self::open(folder, true).await;
                    let took = start.elapsed();
                    assert_eq!(core.info().length, length);
                    took
                }
                Work::Verify => return None,
            };
            Some(Done { entries: count, took })
        })
    }

    /// A copy of one of ours: with a sync for each node it would take minutes.
    fn fill(&self, folder: &Path, length: u64) {
        let own = folder.with_extension("own");
        Ours.fill(&own, length);
        let reader = Reader::open(&own).expect("opens");
        reader.export(folder, Some(&pair()), &mut |_, _| {}).expect("exports");
    }
}
