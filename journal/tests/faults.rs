//! Every call to the disk fails once, one after the other: whatever was acknowledged is there, now and after
//! a power loss; nothing is invented; the error names the call and the file; a reopen goes on.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::symlink;

use journal::storage::{Call, Faults, Faulty, File};
use journal::{Backend, Disk, Error, Journal, KeyPair, Memory, Reader};

const EIO: i32 = nix::libc::EIO;
const ENOSPC: i32 = nix::libc::ENOSPC;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[6; 32])
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    Checkpoint,
    Truncate(u64),
    Clear(u64, u64),
    /// One by one, as a range, by a proof, by a place in the data, all at once.
    Get,
    Range,
    Prove,
    Seek,
    Verify,
    Reopen,
    Close,
}

impl Step {
    const fn is_read(&self) -> bool {
        matches!(self, Self::Get | Self::Range | Self::Prove | Self::Seek | Self::Verify)
    }
}

fn batch(name: &str, count: usize) -> Step {
    let entry = |part: usize| format!("{name} {part} ").into_bytes().repeat([1, 0, 3, 9][part % 4]);
    Step::Append((0..count).map(entry).collect())
}

/// What a journal may meet: each kind of call with much, little and nothing before it.
fn life_steps() -> Vec<Step> {
    use Step::{Checkpoint, Clear, Close, Get, Prove, Range, Reopen, Seek, Truncate, Verify};
    vec![
        batch("first", 4),
        batch("second", 1),
        Get,
        Reopen,
        batch("third", 70),
        Range,
        Checkpoint,
        Get,
        Prove,
        Seek,
        Verify,
        batch("fourth", 3),
        Truncate(60),
        Get,
        Close,
        batch("fifth", 9),
        Range,
        Clear(3, 20),
        Range,
        Verify,
        batch("sixth", 2),
        Reopen,
        Truncate(66),
        Close,
        Verify,
        batch("last", 2),
    ]
}

/// What the journal should hold.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Each with whether it was cleared: its bytes may be there or not then.
    entries: Vec<(Vec<u8>, bool)>,
    fork: u64,
}

impl Model {
    fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Append(entries) => next.entries.extend(entries.iter().map(|entry| (entry.clone(), false))),
            Step::Truncate(length) => {
                next.entries.truncate(usize::try_from(*length).expect("small"));
                next.fork += 1;
            }
            Step::Clear(from, to) => {
                for index in *from..*to {
                    next.entries[usize::try_from(index).expect("small")].1 = true;
                }
            }
            _ => {}
        }
        next
    }

    fn length(&self) -> u64 {
        self.entries.len() as u64
    }

    fn is_as_long_as(&self, journal: &Journal) -> bool {
        (journal.length(), journal.fork()) == (self.length(), self.fork)
    }

    fn check(&self, index: u64, read: Result<Vec<u8>, Error>) -> Result<(), Error> {
        let (entry, cleared) = &self.entries[usize::try_from(index).expect("small")];
        match read {
            Err(Error::Absent { index: named }) if *cleared => assert_eq!(named, index),
            read => assert!(read? == *entry, "entry {index} is another one"),
        }
        Ok(())
    }

    /// Reads, and holds against this what was read.
    fn read(&self, journal: &Journal, by: &Step) -> Result<(), Error> {
        let reader = journal.reader();
        match by {
            Step::Get => {
                (0..self.length()).step_by(7).try_for_each(|index| self.check(index, reader.get(index)))
            }
            Step::Range => {
                let mut seen = 0;
                for (index, read) in (0..).zip(reader.range(0, u64::MAX)) {
                    self.check(index, read)?;
                    seen = index + 1;
                }
                assert_eq!(seen, self.length(), "a range ends where the log ends, or with an error");
                Ok(())
            }
            Step::Prove => (0..self.length()).step_by(40).try_for_each(|index| {
                let proof = reader.prove_range(index, index + 1, Some(index))?;
                proof.verify(&journal.key()).expect("holds");
                self.check(index, Ok(proof.entries[0].0.clone()))
            }),
            Step::Seek => {
                let mut byte = 0;
                for (index, (entry, _)) in
                    (0..).zip(&self.entries).filter(|(_, (entry, _))| !entry.is_empty())
                {
                    assert_eq!(reader.seek(byte)?, (index, 0));
                    byte += entry.len() as u64;
                }
                Ok(())
            }
            Step::Verify => {
                let report = reader.verify(&mut |_, _| {})?;
                assert_eq!((report.entries, report.tree_hash), (self.length(), journal.tree_hash()));
                Ok(())
            }
            _ => unreachable!("no read"),
        }
    }

    fn holds(&self, found: &Found) -> bool {
        let pairs = self.entries.iter().zip(&found.entries);
        (found.entries.len(), found.fork) == (self.entries.len(), self.fork)
            && pairs
                .clone()
                .all(|((entry, cleared), found)| found.as_ref().map_or(*cleared, |found| found == entry))
    }
}

/// What a journal was found to hold, in order as a whole; None for what is cleared.
#[derive(Clone)]
struct Found {
    fork: u64,
    entries: Vec<Option<Vec<u8>>>,
}

impl Found {
    fn in_journal(journal: &Journal) -> Result<Self, Error> {
        let read = |read| match read {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let entries = journal.reader().range(0, u64::MAX).map(read).collect::<Result<Vec<_>, _>>()?;
        assert_eq!(journal.verify(&mut |_, _| {})?.entries, entries.len() as u64);
        Ok(Self { fork: journal.fork(), entries })
    }
}

/// What journals hold that were opened already, by a hash of their files: most are left behind often.
#[derive(Default)]
struct Images(HashMap<u64, Found>);

impl Images {
    fn open(&mut self, files: &Memory, when: &str) -> &Found {
        let mut hasher = DefaultHasher::new();
        File::ALL.map(|file| files.bytes(file)).hash(&mut hasher);
        self.0.entry(hasher.finish()).or_insert_with(|| {
            let opened = Journal::open_on(Box::new(files.clone()), pair(), 0);
            let found = opened.and_then(|(journal, _)| Found::in_journal(&journal));
            found.unwrap_or_else(|error| panic!("{when}: {error}"))
        })
    }
}

/// A life on a disk of which one call may fail.
struct Life<'a> {
    images: &'a mut Images,
    disk: Faulty,
    model: Model,
    /// None while it is being opened.
    journal: Option<Journal>,
    /// Which call fails, with what.
    fault: Option<(u64, i32)>,
    /// What was told about it.
    told: Vec<String>,
    /// Whether only reading was disturbed by it.
    fell_on_a_read: bool,
}

impl<'a> Life<'a> {
    fn live(faults: Faults, images: &'a mut Images) -> Self {
        let disk = Faulty::new(faults);
        let fault = faults.fail_once;
        let mut life = Self {
            images,
            disk,
            model: Model::default(),
            journal: None,
            fault,
            told: Vec::new(),
            fell_on_a_read: false,
        };
        let mut steps_after = 0;
        life.create();
        for step in life_steps() {
            life.step(&step);
            // Until the fault, and soon after a read that failed, all lives are the calm one.
            if life.fault.is_none() || !life.told.is_empty() {
                life.assert_durable(&format!("{step:?}"));
                steps_after += 1;
            }
            if steps_after > 3 && life.fell_on_a_read {
                break;
            }
        }
        life
    }

    fn create(&mut self) {
        let created = Journal::create_on(Box::new(self.disk.clone()), pair());
        self.journal = Some(created.unwrap_or_else(|error| {
            self.tell(&error);
            // As whoever starts a cell does: what is there is opened, else made.
            match Journal::open_on(Box::new(self.disk.clone()), pair(), 0) {
                Ok((journal, _)) => journal,
                Err(Error::NotCreated) => {
                    Journal::create_on(Box::new(self.disk.clone()), pair()).expect("creates when tried again")
                }
                Err(error) => panic!("{error}"),
            }
        }));
        self.assert_durable("creation");
    }

    fn step(&mut self, step: &Step) {
        let after = self.model.after(step);
        let Err(error) = self.take(step) else {
            self.model = after;
            return assert!(self.model.is_as_long_as(self.journal()), "{step:?}");
        };
        self.tell(&error);
        if step.is_read() {
            // Nothing was changed, nothing is in doubt.
            self.fell_on_a_read = true;
            return self.model.read(self.journal(), step).expect("reads when tried again");
        }
        self.assert_faulted(&after);
        self.assert_either(&self.disk.copy(), &after, &format!("{step:?} failed with {error}"));
        self.assert_recovery_is_safe(&after, &format!("{step:?} failed with {error}"));
        self.reopen().expect("opens when tried again");
        let done = after.is_as_long_as(self.journal()) && !matches!(step, Step::Clear(..));
        let either = self.either(&after).into_iter().find(|model| model.is_as_long_as(self.journal()));
        self.model = either.expect("as before the step or after it");
        self.assert_durable(&format!("{step:?} failed with {error}, and a reopen"));
        if !done {
            self.step(step);
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), Error> {
        let Some(journal) = &mut self.journal else { unreachable!("open between steps") };
        match step {
            Step::Append(entries) => {
                assert_eq!(journal.append(entries)?, self.model.length());
                Ok(())
            }
            Step::Checkpoint => journal.checkpoint(),
            Step::Truncate(length) => journal.truncate(*length),
            Step::Clear(from, to) => journal.clear(*from, *to),
            Step::Reopen => self.reopen(),
            Step::Close => {
                self.journal.take().map_or(Ok(()), Journal::close)?;
                self.reopen()
            }
            read => self.model.read(journal, read),
        }
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.journal = None;
        let opened = Journal::open_on(Box::new(self.disk.clone()), pair(), 0)?;
        self.journal = Some(opened.0);
        Ok(())
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("open between steps")
    }

    /// The error names the call, the file and what the system said, and keeps its kind.
    fn tell(&mut self, error: &Error) {
        let (number, errno) = self.fault.expect("no call fails in a calm life");
        let call = self.disk.calls()[usize::try_from(number).expect("small")];
        let system = io::Error::from_raw_os_error(errno);
        assert!(error.to_string().ends_with(&format!(": {call}: {system}")), "{call}: {error}");
        let Error::Io { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), system.kind());
        self.told.push(error.to_string());
    }

    /// After a failed write nothing is taken, and reads go on.
    fn assert_faulted(&mut self, after: &Model) {
        let Some(mut journal) = self.journal.take() else { return };
        let mut refused = vec![journal.append(&["more"]).map(drop), journal.checkpoint()];
        if journal.length() > 0 {
            refused.extend([journal.truncate(0), journal.clear(0, 1)]);
        }
        for refused in refused {
            assert!(matches!(refused, Err(Error::Faulted)), "{refused:?}");
        }
        let found = Found::in_journal(&journal).expect("reads go on");
        assert!(self.either(after).iter().any(|model| model.holds(&found)), "other entries once faulted");
    }

    /// The power may go at any call of the reopen that follows.
    fn assert_recovery_is_safe(&mut self, after: &Model, when: &str) {
        for at in 0..100 {
            let disk = self.disk.copy();
            disk.set_faults(Faults { fail_from: Some(disk.operations() + at), ..Faults::default() });
            let opened = Journal::open_on(Box::new(disk.clone()), pair(), 0);
            self.assert_either(&disk, after, &format!("{when}; power loss at call {at} of the reopen"));
            if opened.is_ok() {
                return;
            }
        }
        panic!("{when}: the reopen has no end");
    }

    /// Whatever the disk let through: the journal before the step or after it, and not a byte else.
    fn assert_either(&mut self, disk: &Faulty, after: &Model, when: &str) {
        let either = self.either(after);
        for keep in 0..=disk.unsynced() {
            for torn in [0, 30, 5_000] {
                let when = format!("{when}; keep {keep}, torn {torn}");
                let found = self.images.open(&disk.crash(keep, torn), &when);
                assert!(
                    either.iter().any(|model| model.holds(found)),
                    "{when}: {} entries",
                    found.entries.len()
                );
            }
        }
    }

    /// What was acknowledged outlives a power loss.
    fn assert_durable(&mut self, when: &str) {
        let when = format!("{:?} failed with {:?}, power loss after {when}", self.fault, self.told);
        let found = self.images.open(&self.disk.crash(0, 0), &when);
        assert!(self.model.holds(found), "{when}: {} entries", found.entries.len());
    }

    /// The model before a step and after it; a clearing that was begun may be done or not.
    fn either(&self, after: &Model) -> [Model; 2] {
        let mut either = [self.model.clone(), after.clone()];
        for ((_, cleared), (_, begun)) in either[0].entries.iter_mut().zip(&after.entries) {
            *cleared |= begun;
        }
        either
    }
}

#[test]
fn every_call_fails_once_and_no_acknowledgement_is_wrong() {
    let mut images = Images::default();
    let calls = Life::live(Faults::default(), &mut images).disk.calls();
    for (number, call) in (0..).zip(calls) {
        for errno in [EIO, ENOSPC] {
            for forgets in [false, true] {
                if forgets && !matches!(call, Call::Sync(_)) {
                    continue;
                }
                let fault = Faults { fail_once: Some((number, errno)), forgets, ..Faults::default() };
                let life = Life::live(fault, &mut images);
                assert_eq!(life.told.len(), 1, "{call} failed and nobody was told: {fault:?}");
            }
        }
    }
}

/// A disk fills up and is cleared: what needs no room goes on meanwhile, and afterwards everything does.
#[test]
fn a_full_disk_refuses_appends_and_takes_them_again() {
    let disk = Faulty::default();
    let mut journal = Journal::create_on(Box::new(disk.clone()), pair()).expect("creates");
    journal.append(&["one", "two"]).expect("there is room");
    disk.set_faults(Faults { full: true, ..Faults::default() });
    let error = journal.append(&["refused"]).expect_err("there is no room");
    assert!(error.to_string().ends_with("write data at 6: No space left on device (os error 28)"), "{error}");
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull));
    assert!(matches!(journal.append(&["refused"]), Err(Error::Faulted)));
    assert_eq!((journal.length(), journal.get(1).expect("reads go on")), (2, b"two".to_vec()));
    journal.prove(0).expect("proves").verify(&journal.key()).expect("holds");
    journal.verify(&mut |_, _| {}).expect("in order");
    drop(journal);

    // A reopen needs no room, and changes nothing about it.
    let (mut journal, _) = Journal::open_on(Box::new(disk.clone()), pair(), 2).expect("opens");
    assert_eq!(journal.get(1).expect("reads go on"), b"two");
    assert!(matches!(journal.append(&["refused"]), Err(Error::Io { .. })));
    drop(journal);

    disk.set_faults(Faults::default());
    let (mut journal, recovery) = Journal::open_on(Box::new(disk.clone()), pair(), 2).expect("opens");
    assert!(!recovery.tail_unproven, "{recovery:?}");
    assert_eq!(journal.append(&["three"]).expect("appends go on"), 2);
    let (left, _) =
        Journal::open_on(Box::new(disk.crash(0, 0)), pair(), 3).expect("opens after a power loss");
    let entries: Vec<_> = left.reader().range(0, u64::MAX).collect::<Result<_, _>>().expect("reads");
    assert_eq!(entries, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
}

/// In the place of a file: a folder, or a device on which there is no room.
#[derive(Clone, Copy)]
enum Obstacle {
    Folder,
    FullDevice,
}

/// Puts the obstacle there once the journal is made and holds something; gives what is said when it is met.
fn met(backend: Backend, file: &str, obstacle: Obstacle) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::create(dir.path(), backend).expect("creates");
    let mut journal = Journal::create_on(Box::new(disk), pair()).expect("creates");
    let there = dir.path().join(file);
    match obstacle {
        Obstacle::Folder => fs::create_dir(&there).expect("makes a folder"),
        Obstacle::FullDevice => symlink("/dev/full", &there).expect("links"),
    }
    let error =
        journal.append(&["entry"]).and_then(|_| journal.checkpoint()).expect_err("it cannot be written");
    assert!(matches!(journal.append(&["more"]), Err(Error::Faulted)));
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    drop(journal);
    match obstacle {
        Obstacle::Folder => fs::remove_dir(&there).expect("removed"),
        Obstacle::FullDevice => fs::remove_file(&there).expect("removed"),
    }
    // The obstacle gone, it goes on.
    let disk = Disk::open(dir.path(), backend).expect("opens");
    let (mut journal, _) = Journal::open_on(Box::new(disk), pair(), 0).expect("opens");
    journal.append(&["entry"]).and_then(|_| journal.checkpoint()).expect("appends go on");
    journal.verify(&mut |_, _| {}).expect("in order");
    error.to_string()
}

#[test]
fn a_real_disk_that_says_no_is_quoted_with_the_call_and_the_file() {
    for backend in [Backend::Positioned, Backend::RandomAccessDisk] {
        for file in ["data", "tree", "bitfield"] {
            let said = met(backend, file, Obstacle::Folder);
            assert!(
                said.ends_with(&format!(": open {file}: Is a directory (os error 21)")),
                "{backend:?}: {said}"
            );
            let said = met(backend, file, Obstacle::FullDevice);
            let full = match backend {
                // It sets the length of what it opens, which no device takes.
                Backend::RandomAccessDisk => format!(": open {file}: Invalid argument (os error 22)"),
                _ => format!(": write {file} at 0: No space left on device (os error 28)"),
            };
            assert!(said.ends_with(&full), "{backend:?}: {said}");
        }
    }
}

#[test]
fn a_folder_in_the_place_of_the_oplog_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir(dir.path().join("oplog")).expect("makes a folder");
    let is_folder = ": open oplog: Is a directory (os error 21)";
    for error in [
        Journal::create(dir.path(), pair()).map(drop).expect_err("no file"),
        Journal::open(dir.path(), pair(), 0).map(drop).expect_err("no file"),
    ] {
        assert!(error.to_string().ends_with(is_folder), "{error}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "no folder").expect("written");
    let error = Journal::create(&file, pair()).map(drop).expect_err("no folder");
    assert!(error.to_string().ends_with(": make the folder: File exists (os error 17)"), "{error}");
}

#[test]
fn a_reader_quotes_the_call_and_the_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut journal = Journal::create(dir.path(), pair()).expect("creates");
    journal.append(&["entry"; 40]).expect("appends");
    journal.close().expect("closes");
    let data = dir.path().join("data");
    fs::remove_file(&data).expect("removed");
    fs::create_dir(&data).expect("makes a folder");
    let reader = Reader::open(dir.path()).expect("opens");
    let error = reader.get(3).expect_err("cannot be read");
    assert!(error.to_string().ends_with(": read data at 15: Is a directory (os error 21)"), "{error}");
}
