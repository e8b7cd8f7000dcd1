//! A disk that fails on demand and forgets what was not synced.
//!
//! Every write goes to a volatile image; a sync brings the file's changes to the durable one.
//! [`Faulty::crash`] gives what a power loss leaves: the durable image, and of the unsynced changes as many
//! as the caller lets through, the last of them perhaps torn. Where none is let through, a file whose name was
//! not made durable is gone with all it held.
//!
//! Every call counts as one operation, as a system counts them: opening a file too, which each handle does
//! when it first uses it. A write that fails leaves the first half of its bytes. A sync that fails may
//! give its changes up ([`Faults::forgets`]), as Linux does: they can be read until the power goes, and no
//! later sync brings them to the disk.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Call, File, Memory, ReadStorage, Storage};

/// What goes wrong, and when. Operations are counted from 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// This operation and all after it fail: the power is gone.
    pub fail_from: Option<u64>,
    /// This operation fails, and only this one, with this error number of the system.
    pub fail_once: Option<(u64, i32)>,
    /// Whether a sync that fails gives up what it was to make durable.
    pub forgets: bool,
    /// Whether the disk has no room: a write past the end of a file fails.
    pub full: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { file: File, offset: u64, bytes: Vec<u8> },
    Truncate { file: File, length: u64 },
}

impl Change {
    const fn file(&self) -> File {
        match self {
            Self::Write { file, .. } | Self::Truncate { file, .. } => *file,
        }
    }

    /// Makes the change; of a write as many bytes as are said.
    fn make(&self, on: &mut Memory, bytes_max: usize) {
        match self {
            Self::Write { file, offset, bytes } => {
                on.write(*file, *offset, &bytes[..bytes.len().min(bytes_max)]).expect("memory takes writes");
            }
            Self::Truncate { file, length } => {
                on.truncate(*file, *length).expect("memory takes truncates");
            }
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    volatile: Memory,
    durable: Memory,
    /// The files whose names are durable.
    named: BTreeSet<File>,
    unsynced: Vec<Change>,
    calls: Vec<Call>,
    faults: Faults,
}

impl Disk {
    fn change(&mut self, change: Change) {
        change.make(&mut self.volatile, usize::MAX);
        self.unsynced.push(change);
    }

    /// Counts a call, and gives the error it fails with if it does.
    fn call(&mut self, call: Call) -> io::Result<()> {
        let number = self.calls.len() as u64;
        self.calls.push(call);
        let faults = self.faults;
        let error = match faults {
            Faults { fail_once: Some((once, errno)), .. } if number == once => {
                io::Error::from_raw_os_error(errno)
            }
            Faults { fail_from: Some(from), .. } if number >= from => {
                io::Error::other(format!("operation {number} fails on demand"))
            }
            _ => return Ok(()),
        };
        Err(call.failed(error))
    }
}

/// A disk that fails on demand. Clones share it; each opens the files it uses anew.
#[derive(Debug, Default)]
pub struct Faulty {
    disk: Arc<Mutex<Disk>>,
    opened: BTreeSet<File>,
}

impl Clone for Faulty {
    fn clone(&self) -> Self {
        Self { disk: self.disk.clone(), opened: BTreeSet::new() }
    }
}

impl Faulty {
    /// An empty disk.
    pub fn new(faults: Faults) -> Self {
        let faulty = Self::default();
        faulty.set_faults(faults);
        faulty
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.disk().calls.len() as u64
    }

    /// The operations so far, in order: those that failed too.
    pub fn calls(&self) -> Vec<Call> {
        self.disk().calls.clone()
    }

    /// A disk of its own in the same state, what is not synced with it.
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let copy = Disk {
            volatile: disk.volatile.copy(),
            durable: disk.durable.copy(),
            named: disk.named.clone(),
            unsynced: disk.unsynced.clone(),
            calls: disk.calls.clone(),
            faults: disk.faults,
        };
        Self { disk: Arc::new(Mutex::new(copy)), opened: BTreeSet::new() }
    }

    /// What a power loss leaves when `keep` of the unsynced changes reached the disk, and `torn` bytes
    /// of the next one if that was a write.
    pub fn crash(&self, keep: usize, torn: usize) -> Memory {
        let disk = self.disk();
        let mut left = disk.durable.copy();
        for (number, change) in disk.unsynced.iter().enumerate().take(keep.saturating_add(1)) {
            match change {
                _ if number < keep => change.make(&mut left, usize::MAX),
                Change::Write { .. } => change.make(&mut left, torn),
                Change::Truncate { .. } => {}
            }
        }
        // A disk that wrote something on its own may have written the names as well.
        if keep == 0 {
            for file in File::ALL.into_iter().filter(|file| !disk.named.contains(file)) {
                left.set_bytes(file, Vec::new());
            }
        }
        left
    }

    /// How many changes are not synced.
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced.len()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file if this handle has not used it yet.
    fn open(&mut self, file: File) -> io::Result<()> {
        if !self.opened.contains(&file) {
            self.disk().call(Call::Open(file))?;
            self.opened.insert(file);
        }
        Ok(())
    }
}

impl ReadStorage for Faulty {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.open(file)?;
        let mut disk = self.disk();
        disk.call(Call::Read(file, offset))?;
        disk.volatile.read(file, offset, length)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.call(Call::Length(file))?;
        disk.volatile.len(file)
    }
}

impl Storage for Faulty {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.open(file)?;
        let mut disk = self.disk();
        let mut called = disk.call(Call::Write(file, offset));
        if called.is_ok() && disk.faults.full && offset + bytes.len() as u64 > disk.volatile.len(file)? {
            called = Err(Call::Write(file, offset).failed(io::Error::from_raw_os_error(nix::libc::ENOSPC)));
        }
        let taken = if called.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        disk.change(Change::Write { file, offset, bytes: taken.to_vec() });
        called
    }

    fn clear(&mut self, file: File, offset: u64, length: u64) -> io::Result<()> {
        self.open(file)?;
        let mut disk = self.disk();
        disk.call(Call::Clear(file, offset))?;
        let there = disk.volatile.len(file)?.saturating_sub(offset).min(length);
        let zeros = vec![0; usize::try_from(there).expect("as long as what is in memory")];
        disk.change(Change::Write { file, offset, bytes: zeros });
        Ok(())
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        self.open(file)?;
        let mut disk = self.disk();
        disk.call(Call::Truncate(file, length))?;
        disk.change(Change::Truncate { file, length });
        Ok(())
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        self.open(file)?;
        let mut disk = self.disk();
        let called = disk.call(Call::Sync(file));
        if called.is_ok() || disk.faults.forgets {
            let changes: Vec<Change> = disk.unsynced.extract_if(.., |change| change.file() == file).collect();
            let made = if called.is_ok() { &changes[..] } else { &[] };
            made.iter().for_each(|change| change.make(&mut disk.durable, usize::MAX));
        }
        called
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call(Call::SyncFolder)?;
        disk.named = disk.volatile.names();
        Ok(())
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        self.disk().call(Call::OpenReader)?;
        Ok(Box::new(self.clone()))
    }
}
