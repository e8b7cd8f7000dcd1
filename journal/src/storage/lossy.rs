//! A disk whose unsynced writes die with the process: what a power loss takes, SIGKILL takes.
//!
//! The system keeps what a killed process has written, so killing a process cannot show that a sync is
//! missing. This storage keeps every change in the process until the file is synced, and makes it real
//! then. It is as safe as the disk below it for whoever syncs before acknowledging, and slower: crash tests
//! run on it.

use std::io;

use super::{File, ReadStorage, Storage, short_read};

#[derive(Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Truncate { length: u64 },
}

/// Keeps changes in the process until they are synced.
#[derive(Debug)]
pub struct Lossy<S> {
    disk: S,
    held: Vec<(File, Change)>,
}

impl<S: Storage> Lossy<S> {
    /// Nothing is held yet.
    pub const fn new(disk: S) -> Self {
        Self { disk, held: Vec::new() }
    }

    fn of(&self, file: File) -> impl Iterator<Item = &Change> {
        self.held.iter().filter(move |(of, _)| *of == file).map(|(_, change)| change)
    }
}

impl<S: Storage> ReadStorage for Lossy<S> {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        if self.of(file).next().is_none() {
            return self.disk.read(file, offset, length);
        }
        // Rare: a writer seldom reads what it has not synced.
        let there = self.disk.len(file)?;
        let mut image = self.disk.read(file, 0, there)?;
        let size = |number: u64| usize::try_from(number).map_err(|_| short_read(file));
        for change in self.of(file) {
            match change {
                Change::Write { offset, bytes } => {
                    let (from, to) = (size(*offset)?, size(*offset)? + bytes.len());
                    image.resize(image.len().max(to), 0);
                    image[from..to].copy_from_slice(bytes);
                }
                Change::Truncate { length } => image.resize(size(*length)?, 0),
            }
        }
        let to = size(offset.checked_add(length).ok_or_else(|| short_read(file))?)?;
        image.get(size(offset)?..to).map(<[u8]>::to_vec).ok_or_else(|| short_read(file))
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        let there = self.disk.len(file)?;
        Ok(self.of(file).fold(there, |length, change| match change {
            Change::Write { offset, bytes } => length.max(offset + bytes.len() as u64),
            Change::Truncate { length } => *length,
        }))
    }
}

impl<S: Storage> Storage for Lossy<S> {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.held.push((file, Change::Write { offset, bytes: bytes.to_vec() }));
        Ok(())
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        self.held.push((file, Change::Truncate { length }));
        Ok(())
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        for (_, change) in self.held.extract_if(.., |(of, _)| *of == file) {
            match change {
                Change::Write { offset, bytes } => self.disk.write(file, offset, &bytes)?,
                Change::Truncate { length } => self.disk.truncate(file, length)?,
            }
        }
        self.disk.sync(file)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn reader(&mut self) -> io::Result<Box<dyn super::ReadStorage>> {
        self.disk.reader()
    }
}
