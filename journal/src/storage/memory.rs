//! A journal's files in memory, for tests and simulation. Clones share the files, so a "restart" opens
//! what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{File, ReadStorage, Storage, short_read};

type Files = BTreeMap<File, Vec<u8>>;

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: Arc<Mutex<Files>>,
}

impl Memory {
    /// The bytes of a file.
    pub fn bytes(&self, file: File) -> Vec<u8> {
        self.files().get(&file).cloned().unwrap_or_default()
    }

    /// Replaces the bytes of a file: a disk that lies.
    pub fn set_bytes(&self, file: File, bytes: Vec<u8>) {
        self.files().insert(file, bytes);
    }

    /// Files of their own with the same bytes.
    pub fn copy(&self) -> Self {
        Self { files: Arc::new(Mutex::new(self.files().clone())) }
    }

    /// The files that are there.
    pub(crate) fn names(&self) -> BTreeSet<File> {
        self.files().keys().copied().collect()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadStorage for Memory {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let range = usize::try_from(offset)
            .ok()
            .zip(offset.checked_add(length).and_then(|end| usize::try_from(end).ok()));
        let (from, to) = range.ok_or_else(|| short_read(file))?;
        self.files()
            .get(&file)
            .and_then(|bytes| bytes.get(from..to))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| short_read(file))
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        Ok(self.files().get(&file).map_or(0, |bytes| bytes.len() as u64))
    }
}

impl Storage for Memory {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| short_read(file))?;
        let mut files = self.files();
        let there = files.entry(file).or_default();
        if there.len() < offset + bytes.len() {
            there.resize(offset + bytes.len(), 0);
        }
        there[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| short_read(file))?;
        self.files().entry(file).or_default().resize(length, 0);
        Ok(())
    }

    fn sync(&mut self, _: File) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        Ok(Box::new(self.clone()))
    }
}
