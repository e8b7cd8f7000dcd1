//! Votes and entries on disk: records of a journal of this host's own, in the order in which they were made.
//!
//! Rules:
//!
//! - One thread writes (`writer`): what waits goes in one append, which is synced when it returns. Only then is anything acknowledged.
//! - The state is what the records say, one after the other (`state`). In memory are the places of entries, not the entries: these are read from the
//!   journal, which checks each against what was signed. Entries that are being written are in memory as well.
//! - What openraft no longer needs is cleared in the journal, after a record that says all that is still needed of what goes.
//! - A journal cannot tell a last frame that was torn from one that was damaged later. A file beside it says how long it has been (`witness`): a
//!   shorter one is refused, since what it lacks was acknowledged.
//! - An entry that was cut off or purged is not read any more; what openraft reads meanwhile is read again.

mod record;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod witness;
mod writer;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::{Disk, Error, Journal, Reader};
use protocol::Problem;

use super::LogPlace;
use super::problems;
use super::types::{LogId, Members};
use record::Record;
use state::State;
use witness::Witness;
use writer::{Work, Writer};

/// The log of this host. Clones share it.
#[derive(Clone)]
pub(super) struct Log(Arc<Inner>);

struct Inner {
    state: Arc<Mutex<State>>,
    reader: Reader,
    writer: Writer,
}

impl Log {
    /// Opens the log, or makes it.
    pub(super) async fn open(place: LogPlace) -> Result<Self, Problem> {
        tokio::task::spawn_blocking(move || Self::open_here(&place))
            .await
            .unwrap_or_else(|error| Err(problems::log(&error)))
    }

    fn open_here(place: &LogPlace) -> Result<Self, Problem> {
        make(&place.folder).map_err(|error| problems::log(&error))?;
        let witness = Witness::open(&place.folder).map_err(|error| problems::log(&error))?;
        let journal = open_journal(place, witness.length()).map_err(|error| problems::log(&error))?;
        Self::of(journal, witness)
    }

    fn of(journal: Journal, witness: Witness) -> Result<Self, Problem> {
        let reader = journal.reader();
        let state = state::replay(&reader).map_err(|error| problems::log(&error))?;
        let state = Arc::new(Mutex::new(state));
        let writer =
            Writer::start(journal, witness, Arc::clone(&state)).map_err(|error| problems::log(&error))?;
        Ok(Self(Arc::new(Inner { state, reader, writer })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this host has ever taken part in an election, or followed a leader.
    pub(super) fn has_voted(&self) -> bool {
        self.state().vote.is_some()
    }

    /// The last entry that is no longer kept.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.state().purged
    }

    /// The members as of the last change that was applied here.
    pub(super) fn members(&self) -> Members {
        self.state().members.clone()
    }

    /// Refuses a log that lacks what the state machine has applied, and a state machine that lacks what the log no longer keeps.
    pub(super) fn check(&self, applied: Option<LogId>) -> Result<(), Problem> {
        let state = self.state();
        let reaches = state.last().max(state.restored);
        if reaches < applied {
            return Err(problems::log_short(applied, reaches));
        }
        if applied < state.handed {
            return Err(problems::state_short(applied, state.handed));
        }
        Ok(())
    }

    /// Takes note of what the state machine has on disk.
    pub(super) fn handed(&self, applied: Option<LogId>) {
        let mut state = self.state();
        state.handed = state.handed.max(applied);
    }

    /// Records who the members are, before what comes after the change is applied.
    pub(super) async fn record_members(&self, members: Members) -> io::Result<()> {
        self.write(Record::Members(members)).await
    }

    /// Records that a snapshot will be restored, and who the members are after it.
    pub(super) async fn record_restore(&self, at: LogId, members: Members) -> io::Result<()> {
        self.write(Record::Restore { at, members }).await
    }

    /// Writes a record; durable, and part of the state, when it returns.
    async fn write(&self, record: Record) -> io::Result<()> {
        let (told, done) = tokio::sync::oneshot::channel();
        self.0.writer.give(Work::Record(Box::new(record), told)).await?;
        done.await.map_err(|_| closed())?
    }

    /// Closes the journal: it can be opened again when this returns.
    pub(super) async fn close(&self) {
        let (told, done) = tokio::sync::oneshot::channel();
        if self.0.writer.give(Work::Close(told)).await.is_ok() {
            let _ = done.await;
        }
    }
}

fn open_journal(place: &LogPlace, witnessed: u64) -> Result<Journal, Error> {
    let LogPlace { folder, key_pair, encryption_key } = place;
    match Disk::open(folder, journal::Backend::default()) {
        Ok(disk) => Journal::open_with(Box::new(disk), key_pair.clone(), witnessed, encryption_key.as_ref())
            .map(|(journal, _)| journal),
        Err(Error::NotCreated) if witnessed == 0 => {
            let disk = Disk::create(folder, journal::Backend::default())?;
            Journal::create_with(Box::new(disk), key_pair.clone(), encryption_key.as_ref())
        }
        Err(error) => Err(error),
    }
}

/// Makes a folder whose name survives a loss of power.
fn make(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

fn closed() -> io::Error {
    io::Error::other("the log is closed")
}
