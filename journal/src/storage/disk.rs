//! A journal's folder on disk, behind the trait of `random-access-storage`: by `random-access-disk`, or
//! by positioned system calls of our own.
//!
//! `random-access-disk`, on tokio, was measured to report failed writes as done until the next write on
//! the handle, to return long reads zero-filled past 2 MiB, and never to sync the directory. The guards:
//!
//! - auto-sync is off; after each write its last byte is written again, which brings out the first
//!   write's error; [`Storage::sync`] follows before anything is acknowledged;
//! - reads go in pieces of at most 1 MiB and never past the length the system gives;
//! - the directory is synced by us; after any error the journal stops using the handle.
//!
//! The guards hold, and each call crosses to another thread and back, eight times an append. That is why
//! [`Backend::Positioned`] is what a journal uses unless told: see `docs/adr/0005-file-backend.md`.
//!
//! Readers use [`ReadOnlyDisk`]: plain positioned reads, because `random-access-disk` creates what it
//! opens and a reader changes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use nix::fcntl::{FcntlArg, fcntl};
use random_access_disk::RandomAccessDisk;
use random_access_storage::{RandomAccess, RandomAccessError};
use tokio::runtime::Runtime;

use super::positioned::Positioned;
use super::{Call, File, Lossy, ReadStorage, Storage, short_read};
use crate::error::{Error, Result};

/// The longest single read: longer ones come back cut from `random-access-disk` on tokio.
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes that are read without a look at the file's length first.
const UNSEEN_BYTES_MAX: u64 = 64 * 1024;

/// What writes a journal's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Positioned system calls on the caller's thread.
    #[default]
    Positioned,
    /// The crate `random-access-disk`, with guards.
    RandomAccessDisk,
    /// [`Backend::Positioned`] behind [`Lossy`]: for crash tests.
    Lossy,
}

impl Backend {
    /// Opens a folder that holds a journal.
    ///
    /// # Errors
    ///
    /// As [`Disk::open`].
    pub fn open(self, folder: &Path) -> Result<Box<dyn Storage>> {
        let disk = Disk::open(folder, self)?;
        Ok(if self == Self::Lossy { Box::new(Lossy::new(disk)) } else { Box::new(disk) })
    }
}

enum Handle {
    Positioned(Positioned),
    RandomAccessDisk(RandomAccessDisk),
}

impl Handle {
    async fn open(backend: Backend, path: PathBuf) -> Result<Self, RandomAccessError> {
        Ok(match backend {
            Backend::Positioned | Backend::Lossy => Self::Positioned(Positioned::open(&path)?),
            Backend::RandomAccessDisk => {
                Self::RandomAccessDisk(RandomAccessDisk::builder(path).auto_sync(false).build().await?)
            }
        })
    }

    fn access(&self) -> &dyn RandomAccess {
        match self {
            Self::Positioned(file) => file,
            Self::RandomAccessDisk(file) => file,
        }
    }
}

/// A journal's folder, open for writing, locked.
pub struct Disk {
    folder: PathBuf,
    backend: Backend,
    /// For a backend whose calls are done on another thread.
    runtime: Option<Runtime>,
    handles: [Option<Handle>; 5],
    /// Holds the open-file-description lock on the whole oplog, as the JavaScript package does.
    _lock: Lock,
}

/// Given back when it goes: a process that is being started at that moment holds every open file for an instant, and would hold the
/// lock as well.
struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&whole(nix::libc::F_UNLCK)));
    }
}

/// A lock of that kind on a whole file.
const fn whole(kind: i32) -> nix::libc::flock {
    nix::libc::flock {
        l_type: kind as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl Disk {
    /// Opens a folder that holds a journal.
    ///
    /// # Errors
    ///
    /// [`Error::NotCreated`] without an oplog, [`Error::Locked`] if another process writes.
    pub fn open(folder: &Path, backend: Backend) -> Result<Self> {
        let oplog = folder.join(File::Oplog.name());
        match fs::OpenOptions::new().read(true).write(true).open(&oplog) {
            Ok(lock) => Self::locked(folder, backend, lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotCreated),
            Err(error) => Err(Error::io("opening the journal")(Call::Open(File::Oplog).failed(error))),
        }
    }

    /// Makes the folder and an empty oplog in it.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if a finished journal is there, [`Error::Locked`] if another process writes.
    pub fn create(folder: &Path, backend: Backend) -> Result<Self> {
        let failed = |call: Call| move |error| Error::io("making the journal")(call.failed(error));
        fs::create_dir_all(folder).map_err(failed(Call::MakeFolder))?;
        let lock = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(File::Oplog.name()))
            .map_err(failed(Call::Open(File::Oplog)))?;
        // A file shorter than its two header slots is a creation that was cut short: made anew.
        if lock.metadata().map_err(failed(Call::Length(File::Oplog)))?.len() >= crate::oplog::ENTRIES_AT {
            return Err(Error::Exists);
        }
        Self::locked(folder, backend, lock)
    }

    fn locked(folder: &Path, backend: Backend, lock: fs::File) -> Result<Self> {
        fcntl(&lock, FcntlArg::F_OFD_SETLK(&whole(nix::libc::F_WRLCK))).map_err(|errno| match errno {
            nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES => Error::Locked,
            other => Error::io("opening the journal")(Call::Lock(File::Oplog).failed(other.into())),
        })?;
        let start = || tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        let runtime = (backend == Backend::RandomAccessDisk).then(start).transpose();
        let runtime = runtime.map_err(Error::io("starting the journal's I/O"))?;
        Ok(Self {
            folder: folder.to_owned(),
            backend,
            runtime,
            handles: [const { None }; 5],
            _lock: Lock(lock),
        })
    }

    fn with<T>(
        &mut self,
        file: File,
        call: Call,
        operation: impl AsyncFnOnce(&dyn RandomAccess) -> Result<T, RandomAccessError>,
    ) -> io::Result<T> {
        let (folder, backend) = (&self.folder, self.backend);
        let handle = &mut self.handles[file as usize];
        let done = async {
            let handle = match handle {
                Some(handle) => handle,
                None => {
                    let opened = Handle::open(backend, folder.join(file.name())).await;
                    handle.insert(opened.map_err(|error| Call::Open(file).failed(system_error(error)))?)
                }
            };
            operation(handle.access()).await.map_err(|error| call.failed(system_error(error)))
        };
        match &self.runtime {
            Some(runtime) => runtime.block_on(done),
            // Positioned calls are done when they return: there is nothing to wait for.
            None => match pin!(done).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => result,
                Poll::Pending => Err(io::Error::other("a positioned call is not done")),
            },
        }
    }
}

fn system_error(error: RandomAccessError) -> io::Error {
    match error {
        RandomAccessError::IO { source, .. } => source,
        other => io::Error::new(io::ErrorKind::UnexpectedEof, other.to_string()),
    }
}

impl ReadStorage for Disk {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let there = self.len(file)?;
        if offset.checked_add(length).is_none_or(|end| end > there) {
            return Err(short_read(file));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(|_| short_read(file))?);
        let mut at = offset;
        while at < offset + length {
            let piece = (offset + length - at).min(READ_BYTES_MAX);
            bytes.extend_from_slice(
                &self.with(file, Call::Read(file, at), async |disk| disk.read(at, piece).await)?,
            );
            at += piece;
        }
        Ok(bytes)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        // The system's word: the crate's own count is wrong after a failed write.
        length_of(&self.folder, file)
    }
}

impl Storage for Disk {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        let last_at = offset + bytes.len() as u64 - 1;
        let guarded = self.backend == Backend::RandomAccessDisk;
        self.with(file, Call::Write(file, offset), async |disk| {
            disk.write(offset, bytes).await?;
            if guarded { disk.write(last_at, &[*last]).await } else { Ok(()) }
        })
    }

    fn clear(&mut self, file: File, offset: u64, length: u64) -> io::Result<()> {
        let length = self.len(file)?.saturating_sub(offset).min(length);
        if length == 0 {
            return Ok(());
        }
        self.with(file, Call::Clear(file, offset), async |disk| disk.del(offset, length).await)
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        self.with(file, Call::Truncate(file, length), async |disk| disk.truncate(length).await)
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        self.with(file, Call::Sync(file), async |disk| disk.sync_all().await)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let sync = || fs::File::open(&self.folder)?.sync_all();
        sync().map_err(|error| Call::SyncFolder.failed(error))
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        Ok(Box::new(ReadOnlyDisk::new(&self.folder)))
    }
}

/// A journal's folder, read only: no lock, nothing created, nothing changed.
pub struct ReadOnlyDisk {
    folder: PathBuf,
    handles: [Option<fs::File>; 5],
}

impl ReadOnlyDisk {
    /// A reader of a folder; its files are opened when they are first read.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), handles: [const { None }; 5] }
    }
}

impl ReadStorage for ReadOnlyDisk {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        if length == 0 {
            return Ok(Vec::new());
        }
        // Of a long read the length is looked at first: memory is taken for no more than there is.
        if length > UNSEEN_BYTES_MAX || i64::try_from(offset).is_err() {
            let there = self.len(file)?;
            if offset.checked_add(length).is_none_or(|end| end > there) {
                return Err(short_read(file));
            }
        }
        let short = |error: io::Error, call: Call| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => short_read(file),
            _ => call.failed(error),
        };
        let handle = &mut self.handles[file as usize];
        let handle = match handle {
            Some(handle) => handle,
            None => {
                let opened = fs::File::open(self.folder.join(file.name()));
                handle.insert(opened.map_err(|error| short(error, Call::Open(file)))?)
            }
        };
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| short_read(file))?];
        handle.read_exact_at(&mut bytes, offset).map_err(|error| short(error, Call::Read(file, offset)))?;
        Ok(bytes)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        match &self.handles[file as usize] {
            Some(handle) => match handle.metadata() {
                Ok(metadata) => Ok(metadata.len()),
                Err(error) => Err(Call::Length(file).failed(error)),
            },
            None => length_of(&self.folder, file),
        }
    }
}

fn length_of(folder: &Path, file: File) -> io::Result<u64> {
    match fs::metadata(folder.join(file.name())) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Call::Length(file).failed(error)),
    }
}
