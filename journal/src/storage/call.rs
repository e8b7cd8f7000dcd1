//! What a storage was asked for, so that an error can say which call on which file failed.

use std::fmt;
use std::io;

use super::File;

/// One call of the system, as an error names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A file is opened, and made where it is absent.
    Open(File),
    /// A file is locked for its one writer.
    Lock(File),
    /// A file's length is asked for.
    Length(File),
    /// Bytes are read from an offset on.
    Read(File, u64),
    /// Bytes are written from an offset on.
    Write(File, u64),
    /// Bytes from an offset on are filled with zeros.
    Clear(File, u64),
    /// A file is cut or extended to a length.
    Truncate(File, u64),
    /// A file is made durable.
    Sync(File),
    /// The folder is made.
    MakeFolder,
    /// The names in the folder are made durable.
    SyncFolder,
    /// A second handle for readers is opened.
    OpenReader,
}

impl Call {
    /// The error of this call: of the same kind, with the call and the file in its words.
    ///
    /// A short read stays as it is: it tells where a file ends, and is asked about often.
    pub fn failed(self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::UnexpectedEof
            || error.get_ref().is_some_and(|inner| inner.is::<Failed>())
        {
            return error;
        }
        io::Error::new(error.kind(), Failed { call: self, source: error })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(file) => write!(f, "open {}", file.name()),
            Self::Lock(file) => write!(f, "lock {}", file.name()),
            Self::Length(file) => write!(f, "length of {}", file.name()),
            Self::Read(file, offset) => write!(f, "read {} at {offset}", file.name()),
            Self::Write(file, offset) => write!(f, "write {} at {offset}", file.name()),
            Self::Clear(file, offset) => write!(f, "clear {} at {offset}", file.name()),
            Self::Truncate(file, length) => write!(f, "truncate {} to {length}", file.name()),
            Self::Sync(file) => write!(f, "sync {}", file.name()),
            Self::MakeFolder => write!(f, "make the folder"),
            Self::SyncFolder => write!(f, "sync the folder"),
            Self::OpenReader => write!(f, "open the files for reading"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
struct Failed {
    call: Call,
    source: io::Error,
}
