//! How long the journal has been, in a file beside it.
//!
//! It is written after the journal was synced, and not synced itself: it never says more than the journal has had, and after a loss of power
//! perhaps less.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const NAME: &str = "length";

/// What remembers the journal's length.
pub(super) struct Witness {
    file: File,
    length: u64,
}

impl Witness {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(NAME))?;
        let mut bytes = [0; 8];
        let length = match file.read_at(&mut bytes, 0)? {
            8 => u64::from_le_bytes(bytes),
            _ => 0,
        };
        Ok(Self { file, length })
    }

    /// Entries that the journal has had at least.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// The journal has so many entries, synced.
    pub(super) fn note(&self, length: u64) -> io::Result<()> {
        self.file.write_all_at(&length.to_le_bytes(), 0)
    }
}
