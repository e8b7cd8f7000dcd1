//! The codec of requests and replies: a little-endian u32 length, then the bytes.
//!
//! The length is checked against the bound before anything is allocated, and the bytes are read in
//! pieces: a peer that announces 4 GiB costs nothing.

use std::io;
use std::sync::Arc;

use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

use super::Counters;

/// The protocol's name on the wire.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/celluler/cell/1");
/// How much is read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Reads and writes frames.
#[derive(Clone)]
pub(super) struct Frames {
    pub(super) bytes_max: usize,
    pub(super) counters: Arc<Counters>,
}

impl Frames {
    async fn read<T: AsyncRead + Unpin + Send>(&self, io: &mut T) -> io::Result<Vec<u8>> {
        let mut word = [0; 4];
        self.whole(io.read_exact(&mut word).await)?;
        let length = u32::from_le_bytes(word) as usize;
        if length > self.bytes_max {
            Counters::count(&self.counters.refused_oversized);
            let why = format!("a frame of {length} bytes, {} are allowed", self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let at = bytes.len();
            bytes.resize(length.min(at + PIECE_BYTES), 0);
            self.whole(io.read_exact(&mut bytes[at..]).await)?;
        }
        Ok(bytes)
    }

    fn whole(&self, result: io::Result<()>) -> io::Result<()> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            Counters::count(&self.counters.refused_malformed);
        }
        result
    }

    async fn write<T: AsyncWrite + Unpin + Send>(&self, io: &mut T, bytes: Vec<u8>) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length as usize <= self.bytes_max);
        let Some(length) = length else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the frame is over the bound"));
        };
        io.write_all(&length.to_le_bytes()).await?;
        io.write_all(&bytes).await?;
        io.close().await
    }
}

impl Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, bytes).await
    }
}
