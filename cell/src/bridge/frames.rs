//! Calls on a stream: frames, and how they share it.
//!
//! A frame is a little-endian u32 length, then so many bytes of CBOR. A body of more than [`PIECE_BYTES`] goes in pieces, each a frame of its own,
//! the last one with the call or the answer. Whoever writes lets all small frames go first and then one piece of one large body: so a
//! large body holds up nobody for longer than a piece takes.

use std::collections::{HashMap, VecDeque};
use std::io;

use futures_util::io::{BufReader, ReadHalf, WriteHalf};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use minicbor::{Decode, Encode};
use protocol::{Access, Caller, CellId, Problem, codec};
use tokio::sync::mpsc;

use crate::network::ByteStream;

/// The most of a body in one frame.
const PIECE_BYTES: usize = 32 * 1024;
/// The longest frame.
const FRAME_BYTES_MAX: usize = 128 * 1024;
/// How much is written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// The longest body.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of bodies that are not complete.
const PIECES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages that wait to be written.
const WAITING_MAX: usize = 1_024;

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
pub(super) enum Down {
    /// A call, with the last piece of its body.
    #[n(0)]
    Call {
        #[n(0)]
        number: u64,
        #[n(1)]
        action: String,
        #[n(2)]
        asker: Asker,
        #[n(3)]
        patience_us: u64,
        #[n(4)]
        cause: Option<machine::EffectId>,
        /// A W3C `traceparent`.
        #[n(5)]
        trace: Option<String>,
        #[cbor(n(6), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
    /// A piece of a call's body.
    #[n(1)]
    Piece {
        #[n(0)]
        number: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// Nobody waits for the answer any more.
    #[n(2)]
    Cancel {
        #[n(0)]
        number: u64,
    },
}

/// From whoever answers.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Up {
    /// The stream is served, by this life of the host.
    #[n(0)]
    Welcome {
        #[n(0)]
        incarnation: u64,
    },
    /// An answer, with the last piece of its body.
    #[n(1)]
    Answer {
        #[n(0)]
        number: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        body: Vec<u8>,
    },
    /// A refusal.
    #[n(2)]
    Refused {
        #[n(0)]
        number: u64,
        #[n(1)]
        problem: Problem,
    },
    /// A piece of an answer's body.
    #[n(3)]
    Piece {
        #[n(0)]
        number: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
}

/// Something to be written: its frames, in order.
pub(super) struct Outgoing(VecDeque<Vec<u8>>);

impl Outgoing {
    /// In one frame.
    pub(super) fn one(frame: &impl Encode<()>) -> Self {
        Self(VecDeque::from([framed(frame)]))
    }

    /// With a body, in as many frames as it takes: pieces, and the last one.
    pub(super) fn with_body<P: Encode<()>, L: Encode<()>>(
        mut body: Vec<u8>,
        piece: impl Fn(Vec<u8>) -> P,
        last: impl FnOnce(Vec<u8>) -> L,
    ) -> Self {
        if body.len() <= PIECE_BYTES {
            return Self::one(&last(body));
        }
        let rest = body.split_off((body.len() - 1) / PIECE_BYTES * PIECE_BYTES);
        let pieces = body.chunks(PIECE_BYTES).map(|bytes| framed(&piece(bytes.to_vec())));
        let mut frames: VecDeque<Vec<u8>> = pieces.collect();
        frames.push_back(framed(&last(rest)));
        Self(frames)
    }
}

fn framed(frame: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    minicbor::encode(frame, &mut bytes).expect("writing CBOR into a Vec cannot fail");
    let length = u32::try_from(bytes.len() - 4).expect("a frame is short");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Where what is to be written is put.
pub(super) fn outbox() -> (mpsc::Sender<Outgoing>, mpsc::Receiver<Outgoing>) {
    mpsc::channel(WAITING_MAX)
}

/// Writes what comes until nobody can send any more.
pub(super) async fn write(
    mut stream: WriteHalf<ByteStream>,
    mut inbox: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(WRITE_BYTES + FRAME_BYTES_MAX);
    let mut large: VecDeque<Outgoing> = VecDeque::new();
    loop {
        while buffer.len() < WRITE_BYTES
            && let Ok(next) = inbox.try_recv()
        {
            sort(next, &mut buffer, &mut large);
        }
        if let Some(Outgoing(mut frames)) = large.pop_front() {
            buffer.extend(frames.pop_front().unwrap_or_default());
            if !frames.is_empty() {
                large.push_back(Outgoing(frames));
            }
        }
        if buffer.is_empty() {
            stream.flush().await?;
            let Some(next) = inbox.recv().await else { return stream.close().await };
            sort(next, &mut buffer, &mut large);
        } else {
            stream.write_all(&buffer).await?;
            buffer.clear();
        }
    }
}

fn sort(mut next: Outgoing, buffer: &mut Vec<u8>, large: &mut VecDeque<Outgoing>) {
    if next.0.len() == 1 {
        buffer.extend(next.0.pop_front().unwrap_or_default());
    } else {
        large.push_back(next);
    }
}

/// Reads frames, and puts bodies together.
pub(super) struct Reader {
    stream: BufReader<ReadHalf<ByteStream>>,
    frame: Vec<u8>,
    pieces: HashMap<u64, Vec<u8>>,
    pieces_bytes: usize,
}

impl Reader {
    pub(super) fn new(stream: ReadHalf<ByteStream>) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BYTES, stream),
            frame: Vec::new(),
            pieces: HashMap::new(),
            pieces_bytes: 0,
        }
    }

    /// The next frame; none where the stream ends.
    pub(super) async fn next<T: for<'b> Decode<'b, ()>>(&mut self) -> io::Result<Option<T>> {
        let mut word = [0; 4];
        if self.stream.read(&mut word[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut word[1..]).await?;
        let length = u32::from_le_bytes(word) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(malformed("a frame is over the bound"));
        }
        self.frame.resize(length, 0);
        self.stream.read_exact(&mut self.frame).await?;
        codec::decode(&self.frame).map(Some).map_err(|problem| malformed(&problem.cause))
    }

    /// Keeps a piece of a body.
    pub(super) fn piece(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        self.pieces_bytes += bytes.len();
        let body = self.pieces.entry(number).or_default();
        body.extend_from_slice(bytes);
        if body.len() > BODY_BYTES_MAX || self.pieces_bytes > PIECES_BYTES_MAX {
            return Err(malformed("a body is over the bound"));
        }
        Ok(())
    }

    /// A body, with the piece that was its last.
    pub(super) fn body(&mut self, number: u64, last: Vec<u8>) -> Vec<u8> {
        let Some(mut body) = self.pieces.remove(&number) else { return last };
        self.pieces_bytes -= body.len();
        body.extend_from_slice(&last);
        body
    }

    /// Nobody wants a body any more.
    pub(super) fn drop_pieces(&mut self, number: u64) {
        self.pieces_bytes -= self.pieces.remove(&number).map_or(0, |body| body.len());
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cut_into_pieces_that_make_it_again() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 7] {
            let body: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            let piece = |bytes| Up::Piece { number: 1, bytes };
            let Outgoing(frames) =
                Outgoing::with_body(body.clone(), piece, |body| Up::Answer { number: 1, body });
            let mut again = Vec::new();
            for frame in &frames {
                assert!(frame.len() <= PIECE_BYTES + 64);
                match codec::decode::<Up>(&frame[4..]).expect("reads") {
                    Up::Piece { bytes, .. } => again.extend(bytes),
                    Up::Answer { body, .. } => again.extend(body),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(again, body);
            assert_eq!(frames.len(), length.div_ceil(PIECE_BYTES).max(1));
        }
    }
}
