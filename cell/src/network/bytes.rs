//! A stream of bytes to a peer, and its two ends: a connection of its own (`direct`), or a stream of libp2p's.

use std::io;
use std::sync::Arc;

use futures_util::io::{ReadHalf, WriteHalf};
use futures_util::{AsyncReadExt, AsyncWriteExt};

use super::direct::{Direct, DirectReader};

/// What a connection of its own carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// What is short and has to be soon.
    Calls,
    /// What is long.
    Streams,
}

/// A stream of bytes to a peer: encrypted, and known to be that peer's.
pub struct ByteStream(Way);

enum Way {
    Direct(DirectReader),
    Shared(libp2p::Stream),
}

impl From<DirectReader> for ByteStream {
    fn from(reader: DirectReader) -> Self {
        Self(Way::Direct(reader))
    }
}

impl From<libp2p::Stream> for ByteStream {
    fn from(stream: libp2p::Stream) -> Self {
        Self(Way::Shared(stream))
    }
}

impl ByteStream {
    /// What it carries, where it is a connection of its own.
    pub fn carries(&self) -> Option<Carries> {
        match &self.0 {
            Way::Direct(reader) => Some(reader.carries()),
            Way::Shared(_) => None,
        }
    }

    /// Its two ends.
    pub fn split(self) -> (ByteReader, ByteWriter) {
        match self.0 {
            Way::Direct(reader) => {
                let writer = reader.writer();
                (ByteReader(Reading::Direct(reader)), ByteWriter(Writing::Direct(writer)))
            }
            Way::Shared(stream) => {
                let (reader, writer) = stream.split();
                (ByteReader(Reading::Shared(reader)), ByteWriter(Writing::Shared(writer)))
            }
        }
    }
}

/// The end that is read.
pub struct ByteReader(Reading);

enum Reading {
    Direct(DirectReader),
    Shared(ReadHalf<libp2p::Stream>),
}

impl ByteReader {
    /// Reads some bytes; none at the end.
    ///
    /// # Errors
    ///
    /// Where the stream has broken.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Reading::Direct(reader) => reader.read(buffer).await,
            Reading::Shared(reader) => reader.read(buffer).await,
        }
    }
}

/// The end that is written.
pub struct ByteWriter(Writing);

enum Writing {
    Direct(Arc<Direct>),
    Shared(WriteHalf<libp2p::Stream>),
}

impl ByteWriter {
    /// A way to write beside this end, at once and from any thread, where there is one.
    pub fn beside(&self) -> Option<WriteBeside> {
        match &self.0 {
            Writing::Direct(direct) => Some(WriteBeside(Arc::clone(direct))),
            Writing::Shared(_) => None,
        }
    }

    /// Writes, and waits until the system has taken all of it.
    ///
    /// # Errors
    ///
    /// Where the stream has broken.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_parts(&[bytes]).await
    }

    /// The same of some bytes, one after the other, which need not lie together.
    ///
    /// # Errors
    ///
    /// Where the stream has broken.
    pub async fn write_parts(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        match &mut self.0 {
            Writing::Direct(direct) => direct.write_all(parts).await,
            Writing::Shared(writer) => {
                for part in parts {
                    writer.write_all(part).await?;
                }
                Ok(())
            }
        }
    }

    /// Waits until all is on its way, what was written beside this end too.
    ///
    /// # Errors
    ///
    /// Where the stream has broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Writing::Direct(direct) => direct.flush().await,
            Writing::Shared(writer) => writer.flush().await,
        }
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    ///
    /// Where the stream has broken.
    pub async fn close(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Writing::Direct(direct) => direct.finish().await,
            Writing::Shared(writer) => writer.close().await,
        }
    }
}

/// Writes beside whoever has the writing end.
#[derive(Clone)]
pub struct WriteBeside(Arc<Direct>);

/// What became of bytes that were to be written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// They are on their way.
    Written,
    /// They are taken, and wait: the writing end has to be flushed.
    Waits,
    /// Something else waits already: they were not taken.
    NotTaken,
}

impl WriteBeside {
    /// Writes at once, or not at all.
    ///
    /// # Errors
    ///
    /// Where the stream has broken.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<Beside> {
        self.0.write_now(bytes)
    }
}
