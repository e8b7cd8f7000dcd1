//! The thread that writes.

use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use journal::Journal;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::closed;
use super::record::Record;
use super::state::{Place, State};
use super::witness::Witness;
use crate::quorum::types::{Entry, LogId, Types};
use crate::quorum::wire;

/// Requests that wait.
const WAITING_MAX: usize = 256;
/// Requests that are written with one sync.
const TOGETHER_MAX: usize = 64;

/// Who is told when it is written.
type Told = oneshot::Sender<io::Result<()>>;

/// What is to be written.
pub(super) enum Work {
    /// Entries, which are in the state already.
    Append(Vec<Entry>, IOFlushed<Types>),
    /// A record, which is taken into the state when it is written.
    Record(Box<Record>, Told),
    /// What was applied goes.
    Purge(LogId, Told),
    /// Nothing more.
    Close(oneshot::Sender<()>),
}

/// The way to the thread.
pub(super) struct Writer(mpsc::Sender<Work>);

impl Writer {
    pub(super) fn start(journal: Journal, witness: Witness, state: Arc<Mutex<State>>) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let thread = Thread { journal, witness, state, failed: None };
        std::thread::Builder::new().name("quorum-log".to_owned()).spawn(move || thread.run(receiver))?;
        Ok(Self(sender))
    }

    pub(super) async fn give(&self, work: Work) -> io::Result<()> {
        self.0.send(work).await.map_err(|_| closed())
    }
}

struct Thread {
    journal: Journal,
    witness: Witness,
    state: Arc<Mutex<State>>,
    /// Why nothing is written any more.
    failed: Option<String>,
}

impl Thread {
    fn run(mut self, mut work: mpsc::Receiver<Work>) {
        let mut waiting = Vec::new();
        while work.blocking_recv_many(&mut waiting, TOGETHER_MAX) > 0 {
            let mut together = Vec::new();
            for next in waiting.drain(..) {
                match next {
                    Work::Purge(upto, told) => {
                        self.write(std::mem::take(&mut together));
                        let _ = told.send(self.purge(upto));
                    }
                    Work::Close(told) => {
                        self.write(together);
                        // The lock of the folder goes with it.
                        drop(self);
                        let _ = told.send(());
                        return;
                    }
                    other => together.push(other),
                }
            }
            self.write(together);
        }
    }

    /// Writes with one sync, then tells everybody.
    fn write(&mut self, together: Vec<Work>) {
        if together.is_empty() {
            return;
        }
        let mut records = Vec::new();
        for work in &together {
            match work {
                Work::Append(entries, _) => {
                    records.extend(entries.iter().map(|entry| wire::encode(&Record::Entry(entry.clone()))));
                }
                Work::Record(record, _) => records.push(wire::encode(record)),
                Work::Purge(..) | Work::Close(_) => {}
            }
        }
        let written = self.append(&records);
        let mut place = *written.as_ref().unwrap_or(&0);
        for work in together {
            let result = written.as_ref().map(|_| ()).map_err(again);
            match work {
                Work::Append(entries, flushed) => {
                    if result.is_ok() {
                        self.settle(&entries, place);
                    }
                    place += entries.len() as u64;
                    flushed.io_completed(result);
                }
                Work::Record(record, told) => {
                    if result.is_ok() {
                        self.state().take(*record, place);
                    }
                    place += 1;
                    let _ = told.send(result);
                }
                Work::Purge(..) | Work::Close(_) => {}
            }
        }
    }

    /// Entries are in the journal now, unless they were cut off meanwhile.
    fn settle(&self, entries: &[Entry], first_place: u64) {
        let mut state = self.state();
        for (entry, place) in entries.iter().zip(first_place..) {
            if let Some(slot) =
                state.entries.get_mut(&entry.log_id.index).filter(|slot| slot.id == entry.log_id)
            {
                slot.at = Place::Written(place);
            }
        }
    }

    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let record = {
            let mut state = self.state();
            state.purge(upto);
            state.purge_record(upto)
        };
        let place = self.append(&[wire::encode(&record)])?;
        let (from, to) = {
            let state = self.state();
            (state.first_place, state.first_needed(place))
        };
        let cleared = self.journal.clear(from, to).map_err(|error| self.fail(&error));
        self.state().first_place = to;
        cleared
    }

    /// Appends and syncs; the place of the first.
    fn append(&mut self, records: &[Vec<u8>]) -> io::Result<u64> {
        if let Some(why) = &self.failed {
            return Err(io::Error::other(why.clone()));
        }
        let first = self.journal.append(records).map_err(|error| self.fail(&error))?;
        self.witness.note(self.journal.length()).map_err(|error| self.fail(&error))?;
        Ok(first)
    }

    fn fail(&mut self, error: &dyn Display) -> io::Error {
        self.failed = Some(error.to_string());
        io::Error::other(error.to_string())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same error for everybody who waited.
fn again(error: &io::Error) -> io::Error {
    io::Error::other(error.to_string())
}
