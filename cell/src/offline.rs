//! A service run by hand, with no other process about: for `cell init`, `testnet init` and `rebuild`.
//!
//! The view is folded from the journal into memory; a commit is appended and synced before it answers.

use std::path::Path;

use journal::{Backend, Journal, Reader};
use machine::{AnswerOf, At, Context, Decision, Entry, Machine, MemoryStore, Overlay, RequestOf, View};
use protocol::action::ServiceWords;
use protocol::{Caller, Problem, ProblemKind};

use crate::actor::{apply_entry, journal_problem, now_ms};
use crate::folder::keys_of;
use crate::keys::Keyring;

/// One service of a stopped cell.
pub struct Offline<M: Machine> {
    machine: M,
    journal: Journal,
    view: MemoryStore,
    epoch: u64,
}

impl<M: Machine> Offline<M> {
    /// Opens a service of the cell in `dir`, alone.
    ///
    /// # Errors
    ///
    /// `journal.…`, `journal.locked` among them when the cell runs.
    pub fn open(machine: M, dir: &Path, keyring: &Keyring) -> Result<Self, Problem> {
        let service = M::Words::SERVICE;
        let folder = dir.join("journals").join(service.name());
        let problem = |error| journal_problem(service, &error);
        let keys = keys_of(keyring, service, &Reader::open(&folder).map_err(problem)?);
        let (journal, _) = Backend::default()
            .open(&folder)
            .and_then(|storage| Journal::open_with(storage, keys.key_pair(), 0, Some(&keys.encryption_key())))
            .map_err(problem)?;
        let mut this = Self { machine, journal, view: MemoryStore::default(), epoch: 1 };
        for (index, bytes) in (0..).zip(this.journal.reader().range(0, u64::MAX)) {
            let bytes = bytes.map_err(|error| journal_problem(service, &error))?;
            let entry = Entry::<M::Record>::decode(&bytes)?;
            this.epoch = this.epoch.max(entry.epoch);
            this.fold(index, &entry)?;
        }
        Ok(this)
    }

    /// Asks; what is to be recorded is durable when it answers.
    ///
    /// # Errors
    ///
    /// The service's refusal.
    pub fn ask(&mut self, request: RequestOf<M>) -> Result<AnswerOf<M>, Problem> {
        let service = M::Words::SERVICE;
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy)
            .map_err(|error| Problem::new(ProblemKind::Fault, "keys.no_entropy", error.to_string()))?;
        let context = Context { now_ms: now_ms(), entropy, caller: Caller::Internal };
        let mut top = Overlay::default();
        let view = View::new(&self.view, None, &mut top);
        let fault =
            |fault: machine::Fault| Problem::new(ProblemKind::Fault, "service.fault", fault.to_string());
        match self.machine.decide(&view, &context, request).map_err(fault)? {
            Decision::Answer(answer) => Ok(answer),
            Decision::Refuse(problem) => Err(problem),
            Decision::Commit { records, answer } => {
                let entry =
                    |record| Entry { time_ms: context.now_ms, epoch: self.epoch, cause: None, record };
                let entries: Vec<Entry<M::Record>> = records.into_iter().map(entry).collect();
                let bytes: Vec<Vec<u8>> = entries.iter().map(Entry::encode).collect();
                let first = self.journal.append(&bytes).map_err(|error| journal_problem(service, &error))?;
                for (index, entry) in (first..).zip(&entries) {
                    self.fold(index, entry)?;
                }
                Ok(answer)
            }
        }
    }

    /// Closes the journal.
    ///
    /// # Errors
    ///
    /// `journal.fault`; nothing is lost by it.
    pub fn close(self) -> Result<(), Problem> {
        self.journal.close().map_err(|error| journal_problem(M::Words::SERVICE, &error))
    }

    fn fold(&mut self, index: u64, entry: &Entry<M::Record>) -> Result<(), Problem> {
        let mut top = Overlay::default();
        let at = At { index, time_ms: entry.time_ms };
        apply_entry(&self.machine, &mut View::new(&self.view, None, &mut top), at, entry)
            .map_err(|fault| Problem::new(ProblemKind::Fault, "service.fault", fault.to_string()))?;
        self.view.absorb(&top);
        Ok(())
    }
}
