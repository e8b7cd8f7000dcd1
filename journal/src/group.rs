//! Group commit: one journal, appended to by many threads or tasks, with one pair of syncs for all that wait.
//!
//! There is no thread of its own (a batch that a task leads is committed on one of the runtime's, for blocking
//! work). A caller puts its entries into the batch that waits. The first to do so
//! leads the batch: it takes the journal as soon as the batch before is durable, appends all that waits
//! by then as one batch, and tells the others.
//!
//! Rules:
//!
//! - Nobody is told of success before [`Journal::append`] has returned: data and oplog are synced.
//! - What a caller appends in one call stays together, in its order, and becomes durable as a whole.
//! - A batch that fails fails for each of its callers, with the error that the disk gave. From then on the
//!   journal is [`Error::Faulted`] for all.
//! - A leader that panics, or whose runtime ends before it wrote, fails its batch: nobody waits for ever.
//! - A task that is dropped while it waits leaves its entries in the batch.
//! - Bounds: one batch waits while one is written; each has at most [`ENTRIES_MAX`] entries and
//!   [`BYTES_MAX`] bytes, unless a single call has more, which then goes alone. A caller that finds no room
//!   waits for it.
//!
//! Callers that were answered together come back one after the other, as they are woken. A leader that took
//! the journal at once would write one entry, and leave the others to the next batch. So it first lets other
//! threads run, as long as they bring entries and no more callers wait than the last batch had
//! (`GATHERS_MAX` times at most). It waits for no clock, and a single writer never gives way.
//!
//! Absent on purpose: a queue of batches (the callers wait instead, which holds memory down); an answer
//! before the sync.

use std::mem;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::reader::Reader;

/// Entries of a batch at most, unless one call has more.
pub const ENTRIES_MAX: usize = 4096;
/// Bytes of a batch's entries at most, unless one call has more.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a leader lets other threads run before it writes.
const GATHERS_MAX: usize = 64;
/// How often in a row it does so though nobody came.
const GATHERS_IN_VAIN_MAX: usize = 8;

/// A journal that any number of threads and tasks append to. Clones share it; the last one to go closes it, and
/// what was appended is durable already.
///
/// ```
/// # fn main() -> journal::Result<()> {
/// # let dir = tempfile::tempdir().expect("a temporary folder");
/// use journal::{Journal, KeyPair, SharedJournal};
///
/// let journal = Journal::create(dir.path(), KeyPair::from_seed(&[1; 32]))?;
/// let journal = SharedJournal::new(journal);
/// std::thread::scope(|threads| {
///     for name in ["ada", "bob"] {
///         let journal = journal.clone();
///         threads.spawn(move || journal.append(&[name]));
///     }
/// });
/// assert_eq!(journal.reader().length(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SharedJournal(Arc<Inner>);

struct Inner {
    journal: Mutex<Journal>,
    reader: Reader,
    queue: Mutex<Queue>,
    /// The batch that waited is taken: there is room in the next one.
    room: Condvar,
    /// The same for tasks.
    room_for_tasks: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: Batch,
    /// Callers of the batch before.
    callers_before: usize,
    /// Callers that wait for room.
    without_room: usize,
}

/// What waits to be appended together.
#[derive(Default)]
struct Batch {
    /// The entries end to end.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    callers: usize,
    outcome: Arc<Outcome>,
}

/// What came of a batch.
#[derive(Default)]
struct Outcome {
    /// The index of its first entry, or why there is none.
    said: OnceLock<Result<u64>>,
    /// Wakes the tasks that wait for it.
    told: Notify,
}

impl Outcome {
    /// Tells a batch's callers. Once only: what was said first stands.
    fn tell(&self, appended: Result<u64>) {
        let _ = self.said.set(appended);
        self.told.notify_waiters();
    }

    async fn wait(&self) -> &Result<u64> {
        loop {
            let mut told = pin!(self.told.notified());
            told.as_mut().enable();
            if let Some(said) = self.said.get() {
                return said;
            }
            told.await;
        }
    }
}

/// A caller's place in a batch.
struct Place {
    outcome: Arc<Outcome>,
    /// Entries of the batch before the caller's own.
    before: u64,
    leads: bool,
}

impl SharedJournal {
    /// Shares a journal.
    pub fn new(journal: Journal) -> Self {
        let reader = journal.reader();
        Self(Arc::new(Inner {
            journal: Mutex::new(journal),
            reader,
            queue: Mutex::default(),
            room: Condvar::new(),
            room_for_tasks: Notify::new(),
        }))
    }

    /// Appends entries, together with those of other callers: all of this call or nothing. Durable when it
    /// returns; gives the index of the first. Blocks the thread meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk says no to the batch that they were in, and from then on
    /// [`Error::Faulted`]. What of that batch is on disk is known when the journal is opened anew.
    pub fn append<E: AsRef<[u8]>>(&self, entries: &[E]) -> Result<u64> {
        let place = self.join(entries);
        if place.leads {
            self.commit(&place.outcome);
        }
        place.index(place.outcome.said.wait())
    }

    /// [`SharedJournal::append`] for tasks: the task waits, and no thread but the one that commits.
    ///
    /// # Errors
    ///
    /// As [`SharedJournal::append`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn append_async<E: AsRef<[u8]>>(&self, entries: &[E]) -> Result<u64> {
        let place = loop {
            let mut room = pin!(self.0.room_for_tasks.notified());
            room.as_mut().enable();
            if let Some(place) = self.queue().join(entries) {
                break place;
            }
            room.await;
        };
        if place.leads {
            // Nothing is awaited since it joined: no batch is without a leader.
            let lead = Lead { journal: self.clone(), outcome: Some(Arc::clone(&place.outcome)) };
            tokio::task::spawn_blocking(move || lead.commit());
        }
        place.index(place.outcome.wait().await)
    }

    /// Checkpoints between two batches; see [`Journal::checkpoint`].
    ///
    /// # Errors
    ///
    /// As [`Journal::checkpoint`].
    pub fn checkpoint(&self) -> Result<()> {
        self.0.journal.lock().map_err(|_| Error::Faulted)?.checkpoint()
    }

    /// A handle for reading, from any thread, while others append.
    pub fn reader(&self) -> Reader {
        self.0.reader.clone()
    }

    /// Puts entries into the batch that waits, when there is room in it.
    fn join(&self, entries: &[impl AsRef<[u8]>]) -> Place {
        let mut queue = self.queue();
        loop {
            if let Some(place) = queue.join(entries) {
                return place;
            }
            queue.without_room += 1;
            queue = self.0.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.without_room -= 1;
        }
    }

    /// Appends the batch that waits, which the caller leads, and tells all its callers.
    fn commit(&self, outcome: &Arc<Outcome>) {
        let untold = FailsUnlessTold(outcome);
        let journal = self.0.journal.lock();
        self.gather();
        let batch = self.take();
        let appended = match journal {
            Ok(mut journal) => journal.append(&batch.entries()),
            // A leader panicked while it wrote.
            Err(_) => Err(Error::Faulted),
        };
        untold.tell(appended);
    }

    /// Lets those run who were answered with the last batch.
    fn gather(&self) {
        let (mut callers, mut in_vain) = (0, 0);
        for _ in 0..GATHERS_MAX {
            let queue = self.queue();
            let (now, enough) = (queue.waiting.callers, queue.callers_before);
            drop(queue);
            in_vain = if now > callers { 0 } else { in_vain + 1 };
            callers = now;
            if now >= enough || in_vain > GATHERS_IN_VAIN_MAX {
                return;
            }
            thread::yield_now();
        }
    }

    fn take(&self) -> Batch {
        let mut queue = self.queue();
        let batch = mem::take(&mut queue.waiting);
        queue.callers_before = batch.callers;
        if queue.without_room > 0 {
            self.0.room.notify_all();
        }
        self.0.room_for_tasks.notify_waiters();
        batch
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Puts entries into the batch that waits, if there is room in it.
    fn join(&mut self, entries: &[impl AsRef<[u8]>]) -> Option<Place> {
        let bytes = entries.iter().map(|entry| entry.as_ref().len()).sum();
        let batch = &mut self.waiting;
        if !batch.has_room(entries.len(), bytes) {
            return None;
        }
        let place = Place {
            outcome: Arc::clone(&batch.outcome),
            before: batch.ends.len() as u64,
            leads: batch.callers == 0,
        };
        batch.bytes.reserve(bytes);
        for entry in entries {
            batch.bytes.extend_from_slice(entry.as_ref());
            batch.ends.push(batch.bytes.len());
        }
        batch.callers += 1;
        Some(place)
    }
}

impl Place {
    fn index(&self, said: &Result<u64>) -> Result<u64> {
        match said {
            Ok(first) => Ok(first + self.before),
            Err(error) => Err(error.clone()),
        }
    }
}

/// The lead of a batch on its way to the thread that commits it.
struct Lead {
    journal: SharedJournal,
    outcome: Option<Arc<Outcome>>,
}

impl Lead {
    fn commit(mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.journal.commit(&outcome);
        }
    }
}

impl Drop for Lead {
    /// The runtime ended before the batch was written.
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            drop(self.journal.take());
            outcome.tell(Err(Error::Faulted));
        }
    }
}

impl Batch {
    fn has_room(&self, entries: usize, bytes: usize) -> bool {
        let fits = |there: usize, more: usize, max| there.checked_add(more).is_some_and(|sum| sum <= max);
        self.callers == 0
            || fits(self.ends.len(), entries, ENTRIES_MAX) && fits(self.bytes.len(), bytes, BYTES_MAX)
    }

    fn entries(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let entry = |end: &usize| &self.bytes[mem::replace(&mut start, *end)..*end];
        self.ends.iter().map(entry).collect()
    }
}

/// Tells a batch's callers what came of it; that it failed if the leader unwinds before.
struct FailsUnlessTold<'a>(&'a Outcome);

impl FailsUnlessTold<'_> {
    fn tell(&self, appended: Result<u64>) {
        self.0.tell(appended);
    }
}

impl Drop for FailsUnlessTold<'_> {
    fn drop(&mut self) {
        self.tell(Err(Error::Faulted));
    }
}
