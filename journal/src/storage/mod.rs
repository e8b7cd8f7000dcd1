//! Where a journal's files live.
//!
//! Rules of a storage: a write that returned is complete but not durable; [`Storage::sync`] makes all
//! earlier writes of that file durable or fails; a failed write is never reported as done. Reads give
//! exactly the bytes asked for or fail. The error of a call names the call and the file: [`Call`].

mod call;
mod disk;
mod faulty;
mod lossy;
mod memory;
mod positioned;

use std::io;

pub use call::Call;
pub use disk::{Backend, Disk, ReadOnlyDisk};
pub use faulty::{Faults, Faulty};
pub use lossy::Lossy;
pub use memory::Memory;
pub use positioned::Positioned;

/// The files of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// Headers and the entries since the last checkpoint.
    Oplog,
    /// Merkle nodes, 40 bytes each.
    Tree,
    /// Which entries are present, one bit each, in pages of 4096 bytes.
    Bitfield,
    /// Entries end to end.
    Data,
    /// A header that outgrew its slot.
    Header,
}

impl File {
    /// All files.
    pub const ALL: [Self; 5] = [Self::Oplog, Self::Tree, Self::Bitfield, Self::Data, Self::Header];

    /// Its name in the folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oplog => "oplog",
            Self::Tree => "tree",
            Self::Bitfield => "bitfield",
            Self::Data => "data",
            Self::Header => "header",
        }
    }
}

/// Positioned reads of a journal's files.
pub trait ReadStorage: Send {
    /// Exactly `length` bytes from `offset`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where the file is shorter; the system's error otherwise.
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>>;

    /// The file's length in bytes; 0 where it is absent.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn len(&mut self, file: File) -> io::Result<u64>;
}

/// Positioned writes of a journal's files, by one writer.
pub trait Storage: ReadStorage {
    /// Writes at `offset`, growing the file with zeros if need be. Not durable before a sync.
    ///
    /// # Errors
    ///
    /// The system's error; what is on disk is unknown then.
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills a range with zeros, and frees the space where the system can.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn clear(&mut self, file: File, offset: u64, length: u64) -> io::Result<()> {
        let zeros = [0; 64 * 1024];
        let end = (offset + length).min(self.len(file)?);
        let mut at = offset;
        while at < end {
            let piece = (end - at).min(zeros.len() as u64);
            self.write(file, at, &zeros[..piece as usize])?;
            at += piece;
        }
        Ok(())
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn truncate(&mut self, file: File, length: u64) -> io::Result<()>;

    /// Makes all earlier writes of the file durable.
    ///
    /// # Errors
    ///
    /// The system's error; nothing since the last sync may be trusted then.
    fn sync(&mut self, file: File) -> io::Result<()>;

    /// Makes the files' names durable.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// A second handle for readers.
    ///
    /// # Errors
    ///
    /// The system's error.
    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>>;
}

fn short_read(file: File) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{} is shorter than what it should hold", file.name()),
    )
}
