//! Frames: a little-endian u32 length, then so many bytes: a little-endian u64 number, a tag, a body.
//!
//! A request and its reply have the same number. The length is checked against the bound before anything
//! is allocated, and the bytes are read in pieces: a peer that announces 4 GiB costs nothing.

use std::io;

use futures_util::{AsyncRead, AsyncReadExt};

use super::Counters;

/// How much is read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Number and tag.
const HEAD_BYTES: usize = 9;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    /// What the opener of a stream says first; has no reply.
    Hello = 0,
    /// A request.
    Request = 1,
    /// The reply to a request.
    Reply = 2,
    /// The refusal of a request: too many of this peer are under way.
    Busy = 3,
    /// What has no reply.
    Push = 4,
}

impl Tag {
    fn of(byte: u8) -> Option<Self> {
        let all = [Self::Hello, Self::Request, Self::Reply, Self::Busy, Self::Push];
        all.into_iter().find(|tag| *tag as u8 == byte)
    }
}

/// A frame as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u64,
    /// None for a tag of another version.
    pub(super) tag: Option<Tag>,
    pub(super) body: Vec<u8>,
}

/// A frame's bytes; none if it is over the bound.
pub(super) fn encode(number: u64, tag: Tag, body: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let length = HEAD_BYTES + body.len();
    let word = u32::try_from(length).ok().filter(|_| length <= bytes_max)?;
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&word.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.push(tag as u8);
    bytes.extend_from_slice(body);
    Some(bytes)
}

/// Reads the length of the next frame; none where the stream ends before it.
pub(super) async fn read_length<T: AsyncRead + Unpin>(
    io: &mut T,
    bytes_max: usize,
    counters: &Counters,
) -> io::Result<Option<usize>> {
    let mut word = [0; 4];
    let mut there = 0;
    while there < word.len() {
        match io.read(&mut word[there..]).await? {
            0 if there == 0 => return Ok(None),
            0 => return Err(malformed(counters, "half a length")),
            read => there += read,
        }
    }
    let length = u32::from_le_bytes(word) as usize;
    if length > bytes_max {
        Counters::count(&counters.refused_oversized);
        let why = format!("a frame of {length} bytes, {bytes_max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    if length < HEAD_BYTES {
        return Err(malformed(counters, "a frame without a head"));
    }
    Ok(Some(length))
}

/// Reads the frame behind a length.
pub(super) async fn read_frame<T: AsyncRead + Unpin>(
    io: &mut T,
    length: usize,
    counters: &Counters,
) -> io::Result<Frame> {
    let mut head = [0; HEAD_BYTES];
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed(counters, "a frame that is cut short"),
        _ => error,
    };
    io.read_exact(&mut head).await.map_err(cut)?;
    let [number @ .., tag] = head;
    let length = length - HEAD_BYTES;
    let mut body = Vec::new();
    while body.len() < length {
        let at = body.len();
        body.resize(length.min(at + PIECE_BYTES), 0);
        io.read_exact(&mut body[at..]).await.map_err(cut)?;
    }
    Ok(Frame { number: u64::from_le_bytes(number), tag: Tag::of(tag), body })
}

fn malformed(counters: &Counters, why: &str) -> io::Error {
    Counters::count(&counters.refused_malformed);
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::Cursor;
    use std::sync::atomic::Ordering;

    async fn read(bytes: &[u8], counters: &Counters) -> io::Result<Option<Frame>> {
        let mut io = Cursor::new(bytes);
        match read_length(&mut io, 1_000, counters).await? {
            Some(length) => read_frame(&mut io, length, counters).await.map(Some),
            None => Ok(None),
        }
    }

    #[tokio::test]
    async fn a_frame_reads_back_and_a_bad_one_is_counted() {
        let counters = Counters::default();
        let bytes = encode(7, Tag::Reply, b"body", 1_000).expect("fits");
        let frame = Frame { number: 7, tag: Some(Tag::Reply), body: b"body".to_vec() };
        assert_eq!(read(&bytes, &counters).await.expect("reads"), Some(frame));
        assert_eq!(read(&[], &counters).await.expect("the end"), None);
        assert_eq!(encode(7, Tag::Reply, &[0; 992], 1_000), None);
        for cut in 1..bytes.len() {
            assert!(read(&bytes[..cut], &counters).await.is_err(), "{cut}");
        }
        assert!(read(&[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], &counters).await.is_err());
        assert_eq!(counters.refused_malformed.load(Ordering::Relaxed), bytes.len() as u64);
        assert!(read(&u32::MAX.to_le_bytes(), &counters).await.is_err());
        assert_eq!(counters.refused_oversized.load(Ordering::Relaxed), 1);
    }
}
