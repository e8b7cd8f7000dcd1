//! Opening a service: its journal, its view, and the way from one to the other.
//!
//! The view reflects a position of the journal. If the journal has that position, what follows is
//! folded; if it has another past there, the view is discarded and everything is folded; if it is
//! shorter than what the view has seen, opening is refused: acknowledged entries are missing. A view of another shape than this build's
//! is discarded as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use journal::{Backend, Error, Journal};
use machine::{At, EffectId, Entry, Fault, Machine, Overlay, Read, View, Write};
use protocol::action::ServiceWords;
use protocol::{Problem, ProblemKind, Service, codec};

use super::grant::Grant;
use super::lease::Lease;
use super::writer::{Gauges, Writer};
use crate::feed::{Feed, Source};
use crate::folder::rekey;
use crate::keys::JournalKeys;
use crate::store::{Keyspace, Position};

/// How many entries are folded before the view is written.
const FOLD_ENTRIES: usize = 2_000;

/// A service that is ready to run.
pub struct Opened<M: Machine> {
    /// Its machine.
    pub machine: M,
    /// Its view.
    pub keyspace: Keyspace,
    /// Its journal's writer.
    pub writer: Writer,
    /// The right to write it.
    pub grant: Grant,
    /// The generation of its journal.
    pub generation: u32,
    /// Entries in its journal.
    pub length: u64,
}

/// The high-water marks of effects that were taken in, kept beside the tables.
pub struct MarkTable;

impl MarkTable {
    fn key(service: Service) -> Vec<u8> {
        vec![0x01, service as u8]
    }

    /// Whether an effect was taken in before.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the view cannot be read.
    pub fn seen(view: &dyn Read, effect: &EffectId) -> Result<bool, Fault> {
        let mark = view.get(&Self::key(effect.service))?;
        let mark: Option<EffectId> = mark.map(|bytes| codec::decode(&bytes)).transpose()?;
        Ok(mark.is_some_and(|mark| *effect <= mark))
    }

    fn set(view: &mut dyn Write, effect: &EffectId) {
        view.put(Self::key(effect.service), codec::encode(effect));
    }
}

/// Folds one entry: its record, and the mark of the effect that caused it.
///
/// # Errors
///
/// A [`Fault`] when the view cannot be read.
pub fn apply_entry<M: Machine>(
    machine: &M,
    view: &mut dyn Write,
    at: At,
    entry: &Entry<M::Record>,
) -> Result<Vec<M::Effect>, Fault> {
    if let Some(cause) = &entry.cause {
        MarkTable::set(view, cause);
    }
    machine.apply(view, at, &entry.record)
}

/// Where a service's journal is, and what it takes to write it.
pub struct JournalPlace {
    /// Its folder.
    pub folder: PathBuf,
    /// What writes its files.
    pub backend: Backend,
    /// What it takes to write it.
    pub keys: JournalKeys,
    /// What it took before: a journal that one of these signs is signed anew.
    pub before: Vec<JournalKeys>,
    /// Entries that somebody else has seen.
    pub witnessed: u64,
    /// The fork that it ends with, where somebody else has seen that.
    pub fork: u64,
    /// Until when it may be written.
    pub lease: Lease,
}

/// Opens a service's journal and brings its view up to it. Blocks on files.
///
/// # Errors
///
/// `journal.…` problems with what to do, `service.fault` when the view cannot be built.
pub fn open_service<M: Machine>(
    machine: M,
    place: JournalPlace,
    keyspace: Keyspace,
    grant: Grant,
    gauges: Arc<Gauges>,
    feed: &Feed,
) -> Result<Opened<M>, Problem> {
    let service = M::Words::SERVICE;
    let JournalPlace { folder, backend, keys, before, witnessed: by_others, fork, lease } = place;
    let (key_pair, encryption_key, generation) = (keys.key_pair(), keys.encryption_key(), keys.generation);
    let position = keyspace.position().map_err(|fault| super::fault_problem(service, &fault))?;
    let is_its = |position: &Position| {
        let mut all = before.iter().chain([&keys]);
        all.any(|keys| position.key == *keys.key_pair().public().as_bytes())
    };
    let witnessed = position.filter(is_its).map_or(0, |position| position.length).max(by_others);
    if !before.is_empty() {
        rekey(service, &folder, &before, &keys, witnessed)?;
    }
    let (mut journal, recovery) = backend
        .open(&folder)
        .and_then(|storage| Journal::open_with(storage, key_pair, witnessed, Some(&encryption_key)))
        .map_err(|error| journal_problem(service, &error))?;
    if recovery.tail_unproven {
        tracing::warn!(%service, torn_bytes = recovery.torn_bytes, dropped_batches = recovery.dropped_batches,
            "tail_unproven: the journal's end was torn by a crash; what nobody acknowledged was cut");
    }
    let problem = |error| journal_problem(service, &error);
    if journal.length() == 0 && journal.fork() < fork {
        // A fork comes to copies with its first entry: where there is none, this one goes on under it all the same.
        journal.take_over(fork).map_err(problem)?;
    }
    let last_epoch = match grant.is_takeover() {
        true => last_epoch::<M>(&journal).map_err(problem)?,
        false => 0,
    };
    // Nucleus's epochs before there was an election may be higher than the first terms.
    let is_new = service == Service::Nucleus || last_epoch < grant.epoch();
    if grant.is_takeover() && is_new && journal.fork() < grant.epoch() {
        // An epoch is given once: no other one takes over under this fork.
        journal.take_over(grant.epoch()).map_err(problem)?;
        tracing::warn!(%service, fork = journal.fork(), length = journal.length(), epoch = grant.epoch(),
            "the journal was taken over: what its writer before appends now is refused everywhere");
    }
    let grant = if service == Service::Nucleus { grant.not_below(last_epoch) } else { grant };
    fold(&machine, service, &journal.reader(), journal.length(), &keyspace, position)
        .map_err(|fault| super::fault_problem(service, &fault))?;
    let length = journal.length();
    feed.attach(
        service,
        Arc::new(JournalSource::<M> {
            reader: journal.reader(),
            told: Told::Of(lease.clone()),
            machine: std::marker::PhantomData,
        }),
    );
    lease.begin(&grant);
    let writer = Writer::start::<M>((grant, lease), journal, keyspace.clone(), gauges, feed.clone())?;
    Ok(Opened { machine, keyspace, writer, grant, generation, length })
}

/// The epoch of a journal's last entry; 0 where it has none, or a copy that has not got it.
fn last_epoch<M: Machine>(journal: &Journal) -> Result<u64, Error> {
    let Some(last) = journal.length().checked_sub(1) else { return Ok(0) };
    match journal.get(last) {
        Ok(bytes) => Entry::<M::Record>::decode(&bytes)
            .map(|entry| entry.epoch)
            .map_err(|_| Error::Corrupt("the last entry does not read".to_owned())),
        Err(Error::Absent { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Brings the view of a copy up to as many of its first entries as are here, so that whoever takes the journal over has little to fold.
/// Blocks on files.
///
/// # Errors
///
/// A [`Fault`] when an entry or the view cannot be read, or the view not written.
pub(crate) fn fold_copy<M: Machine>(
    machine: &M,
    reader: &journal::Reader,
    have: u64,
    keyspace: &Keyspace,
) -> Result<(), Fault> {
    fold(machine, M::Words::SERVICE, reader, have, keyspace, keyspace.position()?)
}

/// Brings a view up to a length of its journal.
fn fold<M: Machine>(
    machine: &M,
    service: Service,
    reader: &journal::Reader,
    length: u64,
    keyspace: &Keyspace,
    position: Option<Position>,
) -> Result<(), Fault> {
    let unreadable = |error: Error| Fault(error.to_string());
    let here = |length: u64| -> Result<Position, Fault> {
        let tree_hash = reader.tree_hash_at(length).map_err(unreadable)?;
        Ok(Position {
            key: *reader.key().as_bytes(),
            fork: reader.fork(),
            length,
            tree_hash,
            layout: M::LAYOUT,
        })
    };
    let from = match position {
        // The tree's hash says all of the entries, whichever fork they were written in, and whichever key signs them.
        Some(position)
            if position.length <= length
                && Position { key: position.key, fork: position.fork, ..here(position.length)? }
                    == position =>
        {
            position.length
        }
        Some(position) if position.layout != M::LAYOUT => {
            tracing::info!(%service, "the view was made by another build: it is built anew");
            keyspace.discard()?;
            0
        }
        Some(_) => {
            tracing::warn!(%service, "the view is of another journal: it is built anew");
            keyspace.discard()?;
            0
        }
        None => 0,
    };
    let started = Instant::now();
    let mut overlay = Overlay::default();
    let mut epoch = 0;
    for (index, bytes) in (from..).zip(reader.range(from, length)) {
        let entry = Entry::<M::Record>::decode(&bytes.map_err(unreadable)?)?;
        if entry.epoch < epoch {
            return Err(Fault(format!(
                "entry {index} was written under epoch {}, after {epoch}",
                entry.epoch
            )));
        }
        epoch = entry.epoch;
        let at = At { index, time_ms: entry.time_ms };
        apply_entry(machine, &mut View::new(keyspace, None, &mut overlay), at, &entry)?;
        if (index + 1 - from) % FOLD_ENTRIES as u64 == 0 {
            keyspace.write(&std::mem::take(&mut overlay), &here(index + 1)?)?;
        }
    }
    if length > from || position.is_none() {
        keyspace.write(&overlay, &here(length)?)?;
        tracing::debug!(%service, from, length, elapsed = ?started.elapsed(), "view brought up to its journal");
    }
    Ok(())
}

/// A journal's error as a refusal, with the way out.
pub fn journal_problem(service: Service, error: &Error) -> Problem {
    let (kind, code, hint) = match error {
        Error::NotCreated => (
            ProblemKind::NotFound,
            "journal.missing",
            "cell init makes the journals; a missing one has to come from a backup",
        ),
        Error::Exists => (ProblemKind::Conflict, "journal.exists", "choose another folder"),
        Error::Locked => {
            (ProblemKind::Conflict, "journal.locked", "another process runs this cell: cell stop ends it")
        }
        Error::WrongKey => (
            ProblemKind::Invalid,
            "journal.wrong_key",
            "journals and identity.key are not of one cell: restore both from one backup",
        ),
        Error::WrongEncryptionKey => (
            ProblemKind::Invalid,
            "journal.wrong_encryption_key",
            "journals and identity.key are not of one cell: restore both from one backup",
        ),
        Error::Encrypted => (
            ProblemKind::Denied,
            "journal.encrypted",
            "only the cell it belongs to can read it; verify, prove and export need no key",
        ),
        Error::ShorterThanWitnessed { .. } => (
            ProblemKind::Fault,
            "journal.shorter_than_witnessed",
            "acknowledged entries are missing: restore the journal from a backup or a replica; nothing was changed",
        ),
        Error::Damaged { .. } | Error::Corrupt(_) => (
            ProblemKind::Fault,
            "journal.damaged",
            "restore the journal from a backup or a replica; nothing was changed",
        ),
        Error::Unsupported(_) => {
            (ProblemKind::Invalid, "journal.unsupported", "open it with the program that wrote it")
        }
        Error::NoEntry { .. } | Error::NoByte { .. } => {
            (ProblemKind::NotFound, "journal.no_entry", "cell journal list shows the lengths")
        }
        Error::Absent { .. } => {
            (ProblemKind::NotFound, "journal.absent", "ask a replica that keeps the whole journal")
        }
        Error::BadRequest(_) => {
            (ProblemKind::Invalid, "journal.bad_question", "both cells should run versions that fit")
        }
        Error::Contradiction { .. } => (
            ProblemKind::Fault,
            "journal.contradiction",
            "its writer has signed two histories: trust it no more, and show both copies to whoever relies on it",
        ),
        Error::BadProof(_) => (ProblemKind::Invalid, "journal.bad_proof", "have the proof made again"),
        Error::Faulted | Error::Io { .. } => {
            (ProblemKind::Fault, "journal.fault", "check the disk (space, health, permissions)")
        }
    };
    Problem::new(kind, code, format!("the {service} journal: {error}")).hint(hint)
}

/// A copy of a journal as a source of events: of as many of its first entries as are said to be here.
pub fn copy_source<M: Machine>(reader: journal::Reader, have: Arc<AtomicU64>) -> Arc<dyn Source> {
    Arc::new(JournalSource::<M> { reader, told: Told::Counted(have), machine: std::marker::PhantomData })
}

/// How many of a journal's entries may be told of.
enum Told {
    /// Those that nothing waits for.
    Of(Lease),
    /// The first ones that are here, where it is a copy.
    Counted(Arc<AtomicU64>),
}

/// A journal as a source of events.
struct JournalSource<M> {
    reader: journal::Reader,
    told: Told,
    machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Source for JournalSource<M> {
    fn length(&self) -> u64 {
        match &self.told {
            Told::Of(lease) => lease.told_of(self.reader.length()),
            Told::Counted(have) => have.load(Ordering::Acquire),
        }
    }

    fn events(&self, from: u64, limit: u64) -> Result<Vec<protocol::Event>, Problem> {
        let mut events = Vec::new();
        for (index, bytes) in (from..).zip(self.reader.range(from, from.saturating_add(limit))) {
            let bytes = bytes.map_err(|error| journal_problem(M::Words::SERVICE, &error))?;
            let entry = Entry::<M::Record>::decode(&bytes)?;
            events.extend(M::events(At { index, time_ms: entry.time_ms }, &entry.record));
        }
        Ok(events)
    }
}
