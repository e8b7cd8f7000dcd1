//! Calls on a stream: the words of it, and how they are read.
//!
//! A frame is a little-endian u32 length, then so many bytes of CBOR. A body of more than [`PIECE_BYTES`] goes in pieces, each a frame of its
//! own, the last one with the call or the answer (`outbox` says in which order frames are written).
//!
//! A **streamed** answer has items, each cut in the same way. Its caller gives credit: every frame of an item costs [`cost`], and no more
//! is sent than was given. So what is under way of a stream is bounded at both ends, however slow its reader is.
//!
//! Frames are decoded where they lie: what is kept of one is copied once.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use minicbor::{Decode, Encode};
use protocol::{Access, Caller, CellId, Problem, codec};

use crate::network::ByteReader;

/// The most of a body in one frame.
pub(super) const PIECE_BYTES: usize = 32 * 1024;
/// The longest frame.
pub(super) const FRAME_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// How much is read at once, at most: two of the longest frames.
const READ_BYTES: usize = 2 * FRAME_BYTES_MAX;
/// The longest body, and the longest item of a stream.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of bodies that are not complete.
pub(super) const PIECES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The version of these words. 1 has streams. What a host does not read is not said to it: a word that it does not know ends the connection.
pub(super) const WORDS: u32 = 1;
/// What a frame of an item costs besides its bytes, so that empty ones are bounded too.
pub(super) const ITEM_COST: usize = 64;

/// What a frame with so many bytes of an item takes of the credit.
pub(super) const fn cost(bytes: usize) -> usize {
    bytes + ITEM_COST
}

/// Who asks, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Asker {
    #[n(0)]
    Internal,
    #[n(1)]
    Token {
        #[n(0)]
        role: Access,
        #[n(1)]
        name: String,
    },
    #[n(2)]
    Cell(#[n(0)] CellId),
}

impl From<Caller> for Asker {
    fn from(caller: Caller) -> Self {
        match caller {
            Caller::Internal => Self::Internal,
            Caller::Token { role, name } => Self::Token { role, name },
            Caller::Cell(cell) => Self::Cell(cell),
        }
    }
}

impl From<Asker> for Caller {
    fn from(asker: Asker) -> Self {
        match asker {
            Asker::Internal => Self::Internal,
            Asker::Token { role, name } => Self::Token { role, name },
            Asker::Cell(cell) => Self::Cell(cell),
        }
    }
}

/// From whoever calls.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Down<'b> {
    /// A call, with the last piece of its body.
    #[n(0)]
    Call {
        #[n(0)]
        number: u64,
        #[b(1)]
        action: &'b str,
        #[n(2)]
        asker: Asker,
        #[n(3)]
        patience_us: u64,
        #[n(4)]
        cause: Option<machine::EffectId>,
        /// A W3C `traceparent`.
        #[n(5)]
        trace: Option<String>,
        #[cbor(b(6), with = "minicbor::bytes")]
        body: &'b [u8],
    },
    /// A piece of a call's body.
    #[n(1)]
    Piece {
        #[n(0)]
        number: u64,
        #[cbor(b(1), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// Nobody waits for the answer any more.
    #[n(2)]
    Cancel {
        #[n(0)]
        number: u64,
    },
    /// A call that is answered by a stream, with the last piece of its body.
    #[n(3)]
    Stream {
        #[n(0)]
        number: u64,
        #[b(1)]
        action: &'b str,
        #[n(2)]
        asker: Asker,
        /// For the opening.
        #[n(3)]
        patience_us: u64,
        /// A W3C `traceparent`.
        #[n(4)]
        trace: Option<String>,
        #[cbor(b(5), with = "minicbor::bytes")]
        body: &'b [u8],
        /// The credit that it begins with.
        #[n(6)]
        credit: u64,
    },
    /// More credit for a stream.
    #[n(4)]
    Credit {
        #[n(0)]
        number: u64,
        #[n(1)]
        bytes: u64,
    },
}

/// From whoever answers.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Up<'b> {
    /// The stream is served, by this life of the host.
    #[n(0)]
    Welcome {
        #[n(0)]
        incarnation: u64,
        /// Which of these words it reads: [`WORDS`]; none said nothing, and does not know streams.
        #[n(1)]
        words: Option<u32>,
    },
    /// An answer, with the last piece of its body.
    #[n(1)]
    Answer {
        #[n(0)]
        number: u64,
        #[cbor(b(1), with = "minicbor::bytes")]
        body: &'b [u8],
    },
    /// A refusal. Of a stream that is open: it has broken off.
    #[n(2)]
    Refused {
        #[n(0)]
        number: u64,
        #[n(1)]
        problem: Problem,
    },
    /// A piece of an answer's body, or of an item.
    #[n(3)]
    Piece {
        #[n(0)]
        number: u64,
        #[cbor(b(1), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// A stream is open: its items follow.
    #[n(4)]
    Open {
        #[n(0)]
        number: u64,
    },
    /// An item of a stream, with the last piece of it.
    #[n(5)]
    Item {
        #[n(0)]
        number: u64,
        #[cbor(b(1), with = "minicbor::bytes")]
        bytes: &'b [u8],
    },
    /// A stream has come to its end.
    #[n(6)]
    End {
        #[n(0)]
        number: u64,
    },
}

/// Appends a frame.
pub(super) fn put(frame: &impl Encode<()>, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend([0; 4]);
    minicbor::encode(frame, &mut *buffer).expect("writing CBOR into a Vec cannot fail");
    let length = u32::try_from(buffer.len() - start - 4).expect("a frame is short");
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends all of an item's frame, or of that of a piece of one, but its bytes: they come last, and go from where they lie.
pub(super) fn put_item_head(number: u64, bytes: usize, is_last: bool, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    // A frame without bytes ends with their number.
    let empty = if is_last { Up::Item { number, bytes: &[] } } else { Up::Piece { number, bytes: &[] } };
    put(&empty, buffer);
    buffer.pop();
    let mut encoder = minicbor::Encoder::new(&mut *buffer);
    encoder.bytes_len(bytes as u64).expect("writing CBOR into a Vec cannot fail");
    let length = u32::try_from(buffer.len() - start - LENGTH_BYTES + bytes).expect("a frame is short");
    buffer[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Reads frames. Each is decoded where it was read to.
pub(super) struct Reader {
    stream: ByteReader,
    buffer: Vec<u8>,
    /// What was read and not decoded yet.
    unread: Range<usize>,
}

impl Reader {
    pub(super) fn new(stream: ByteReader) -> Self {
        Self { stream, buffer: vec![0; READ_BYTES], unread: 0..0 }
    }

    /// The next frame; none where the stream ends.
    pub(super) async fn next<'b, T: Decode<'b, ()>>(&'b mut self) -> io::Result<Option<T>> {
        if !self.fill(LENGTH_BYTES).await? {
            return Ok(None);
        }
        let mut word = [0; LENGTH_BYTES];
        word.copy_from_slice(&self.buffer[self.unread.start..][..LENGTH_BYTES]);
        let length = u32::from_le_bytes(word) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(malformed("a frame is over the bound"));
        }
        if !self.fill(LENGTH_BYTES + length).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frame = self.unread.start + LENGTH_BYTES;
        self.unread.start = frame + length;
        let frame = &self.buffer[frame..frame + length];
        codec::decode(frame).map(Some).map_err(|problem| malformed(&problem.cause))
    }

    /// Reads until so many bytes are there; false where the stream ends before the first of them.
    async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        if self.unread.start + bytes > self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        while self.unread.len() < bytes {
            match self.stream.read(&mut self.buffer[self.unread.end..]).await? {
                0 if self.unread.is_empty() => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.unread.end += read,
            }
        }
        Ok(true)
    }
}

/// Bodies that are not complete.
#[derive(Default)]
pub(super) struct Bodies {
    pieces: HashMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Bodies {
    /// Keeps a piece of a body.
    pub(super) fn piece(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len();
        let body = self.pieces.entry(number).or_default();
        body.extend_from_slice(bytes);
        if body.len() > BODY_BYTES_MAX || self.bytes > PIECES_BYTES_MAX {
            return Err(malformed("a body is over the bound"));
        }
        Ok(())
    }

    /// A body, with the piece that was its last.
    pub(super) fn whole(&mut self, number: u64, last: &[u8]) -> Vec<u8> {
        let Some(mut body) = self.pieces.remove(&number) else { return last.to_vec() };
        self.bytes -= body.len();
        body.extend_from_slice(last);
        body
    }

    /// Nobody wants a body any more.
    pub(super) fn forget(&mut self, number: u64) {
        self.bytes -= self.pieces.remove(&number).map_or(0, |body| body.len());
    }
}

pub(super) fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
