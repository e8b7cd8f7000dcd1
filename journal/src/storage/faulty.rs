//! A disk that fails on demand and forgets what was not synced.
//!
//! Every write goes to a volatile image; a sync copies the file to the durable one. [`Faulty::crash`]
//! gives what a power loss leaves: the durable image, and of the unsynced writes as many as the caller
//! lets through, the last of them perhaps torn.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, Memory, ReadStorage, Storage};

/// What goes wrong, and when. Operations (writes, truncates, syncs) are counted from 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// This operation and all after it fail.
    pub fail_from: Option<u64>,
}

#[derive(Debug)]
enum Change {
    Write { file: File, offset: u64, bytes: Vec<u8> },
    Truncate { file: File, length: u64 },
}

#[derive(Debug, Default)]
struct Disk {
    volatile: Memory,
    durable: Memory,
    unsynced: Vec<Change>,
    operations: u64,
    faults: Faults,
}

/// A disk that fails on demand. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faulty {
    disk: Arc<Mutex<Disk>>,
}

impl Faulty {
    /// An empty disk.
    pub fn new(faults: Faults) -> Self {
        let faulty = Self::default();
        faulty.disk().faults = faults;
        faulty
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// What a power loss leaves when `keep` of the unsynced changes reached the disk, and `torn` bytes
    /// of the next one if that was a write.
    pub fn crash(&self, keep: usize, torn: usize) -> Memory {
        let disk = self.disk();
        let mut left = disk.durable.copy();
        for (number, change) in disk.unsynced.iter().enumerate() {
            match change {
                Change::Write { file, offset, bytes } if number <= keep => {
                    let whole = if number < keep { bytes.len() } else { torn.min(bytes.len()) };
                    left.write(*file, *offset, &bytes[..whole]).expect("memory takes writes");
                }
                Change::Truncate { file, length } if number < keep => {
                    left.truncate(*file, *length).expect("memory takes truncates");
                }
                _ => {}
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

    fn operate(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk();
        let number = disk.operations;
        disk.operations += 1;
        match disk.faults.fail_from {
            Some(from) if number >= from => {
                Err(io::Error::other(format!("operation {number} fails on demand")))
            }
            _ => Ok(disk),
        }
    }
}

impl ReadStorage for Faulty {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.disk().volatile.read(file, offset, length)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        self.disk().volatile.len(file)
    }
}

impl Storage for Faulty {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.operate()?;
        disk.unsynced.push(Change::Write { file, offset, bytes: bytes.to_vec() });
        disk.volatile.write(file, offset, bytes)
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        let mut disk = self.operate()?;
        disk.unsynced.push(Change::Truncate { file, length });
        disk.volatile.truncate(file, length)
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        let mut disk = self.operate()?;
        let synced = disk.volatile.bytes(file);
        disk.durable.set_bytes(file, synced);
        disk.unsynced.retain(|change| match change {
            Change::Write { file: of, .. } | Change::Truncate { file: of, .. } => *of != file,
        });
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.operate().map(|_| ())
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        Ok(Box::new(self.disk().volatile.clone()))
    }
}
