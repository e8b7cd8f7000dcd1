//! A file behind the trait of `random-access-storage`, by positioned system calls.
//!
//! Each call is done when it returns: the futures are ready at once, errors come with the call that
//! met them, and no thread is crossed. What that saves is measured in `docs/benchmarks.md`.

use std::fs;
use std::future::ready;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;

use nix::fcntl::{FallocateFlags, fallocate};
use random_access_storage::{RandomAccess, RandomAccessError};

type Done<T> = Pin<Box<dyn Future<Output = Result<T, RandomAccessError>> + Send>>;

/// A file for positioned reads and writes.
#[derive(Debug)]
pub struct Positioned(fs::File);

impl Positioned {
    /// Opens a file for reading and writing; makes it where it is absent.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map(Self)
    }
}

fn done<T: Send + 'static>(result: io::Result<T>) -> Done<T> {
    Box::pin(ready(result.map_err(RandomAccessError::from)))
}

impl RandomAccess for Positioned {
    fn write(&self, offset: u64, data: &[u8]) -> Done<()> {
        done(self.0.write_all_at(data, offset))
    }

    fn read(&self, offset: u64, length: u64) -> Done<Vec<u8>> {
        let read = || {
            let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
            let mut bytes = vec![0; usize::try_from(length).map_err(too_long)?];
            self.0.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        done(read())
    }

    /// Fills the range with zeros by giving its space back, or by writing them where the file system cannot;
    /// at the end of the file it cuts the file instead.
    fn del(&self, offset: u64, length: u64) -> Done<()> {
        let delete = || {
            let end = self.0.metadata()?.len();
            if offset.saturating_add(length) >= end {
                return if offset < end { self.0.set_len(offset) } else { Ok(()) };
            }
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let range = i64::try_from(offset).ok().zip(i64::try_from(length).ok());
            if range.is_some_and(|(at, length)| fallocate(&self.0, hole, at, length).is_ok()) {
                return Ok(());
            }
            let zeros = [0; 4096];
            let mut at = offset;
            while at < offset + length {
                let piece = (offset + length - at).min(zeros.len() as u64);
                self.0.write_all_at(&zeros[..piece as usize], at)?;
                at += piece;
            }
            Ok(())
        };
        done(delete())
    }

    fn truncate(&self, length: u64) -> Done<()> {
        done(self.0.set_len(length))
    }

    fn len(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Makes data and length durable; not the time of the last change, which nothing here needs.
    fn sync_all(&self) -> Done<()> {
        done(self.0.sync_data())
    }
}
