//! What is to be written on a stream of calls, and in which order.
//!
//! Whoever writes lets all small frames go first and then one piece of what is large: so a large body, or a stream, holds up nobody for
//! longer than a piece takes. Large bodies take turns. What belongs to one stream keeps its order.
//!
//! Bounds: small frames that wait ([`WAITING_MAX`]); the bytes of large bodies that are being written ([`WRITING_BYTES_MAX`], below what the
//! other side puts together at once) and that wait for it ([`WAITING_BYTES_MAX`]); frames of streams by the credit that their readers gave.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use futures_util::AsyncWriteExt;
use futures_util::io::WriteHalf;
use minicbor::Encode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frames::{FRAME_BYTES_MAX, PIECE_BYTES, PIECES_BYTES_MAX, put};
use crate::network::ByteStream;

/// How much is written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// Frames that wait to be written.
const WAITING_MAX: usize = 1_024;
/// Bytes of large bodies that are being written.
const WRITING_BYTES_MAX: usize = PIECES_BYTES_MAX / 2;
/// Bytes of large bodies that wait until others are written.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where what is to be written is put. Clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Outbox {
    frames: mpsc::Sender<Outgoing>,
    writing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// The stream has ended: what was to be written is for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// How a body that goes in pieces is written.
pub(super) trait Cut: Send + Sync + 'static {
    /// Appends the frame of a piece.
    fn piece(&self, bytes: &[u8], buffer: &mut Vec<u8>);
    /// Appends the last frame, with what is left.
    fn last(&self, bytes: &[u8], buffer: &mut Vec<u8>);
}

/// Something to be written.
enum Outgoing {
    /// A frame that goes before all that is large.
    Small(Vec<u8>),
    /// A frame of a stream, in its turn.
    InTurn(Vec<u8>),
    /// A body in pieces, which takes turns.
    Large(Box<Large>),
}

struct Large {
    body: Arc<Vec<u8>>,
    written: usize,
    cut: Box<dyn Cut>,
    /// Given back when it is written.
    _room: OwnedSemaphorePermit,
}

impl Large {
    /// Appends the next frame; whether there are more.
    fn next(&mut self, buffer: &mut Vec<u8>) -> bool {
        let rest = &self.body[self.written..];
        match rest.split_at_checked(PIECE_BYTES) {
            Some((piece, more)) if !more.is_empty() => {
                self.cut.piece(piece, buffer);
                self.written += PIECE_BYTES;
                true
            }
            _ => {
                self.cut.last(rest, buffer);
                false
            }
        }
    }
}

/// An outbox, and what is written out of it.
pub(super) fn outbox() -> (Outbox, Inbox) {
    let (frames, inbox) = mpsc::channel(WAITING_MAX);
    let writing = Arc::new(Semaphore::new(WRITING_BYTES_MAX));
    let waiting = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    (Outbox { frames, writing, waiting }, Inbox { frames: inbox, in_turn: VecDeque::new() })
}

impl Outbox {
    /// Puts a small frame.
    pub(super) async fn send(&self, frame: &impl Encode<()>) -> Result<(), Gone> {
        self.put(Outgoing::Small(framed(frame))).await
    }

    /// Puts a small frame if there is room for it now.
    pub(super) fn try_send(&self, frame: &impl Encode<()>) -> bool {
        self.frames.try_send(Outgoing::Small(framed(frame))).is_ok()
    }

    /// Puts a frame of a stream.
    pub(super) async fn send_in_turn(&self, frame: &impl Encode<()>) -> Result<(), Gone> {
        self.put(Outgoing::InTurn(framed(frame))).await
    }

    /// Puts a body. A large one waits until there is room for it; false if there are too many that do.
    pub(super) async fn send_body(&self, body: Arc<Vec<u8>>, cut: impl Cut) -> Result<bool, Gone> {
        if body.len() <= PIECE_BYTES {
            let mut frame = Vec::with_capacity(body.len() + 128);
            cut.last(&body, &mut frame);
            return self.put(Outgoing::Small(frame)).await.map(|()| true);
        }
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let Ok(_waits) = self.waiting.try_acquire_many(bytes) else { return Ok(false) };
        let room = Arc::clone(&self.writing).acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        let large = Large { body, written: 0, cut: Box::new(cut), _room: room };
        self.put(Outgoing::Large(Box::new(large))).await.map(|()| true)
    }

    async fn put(&self, outgoing: Outgoing) -> Result<(), Gone> {
        self.frames.send(outgoing).await.map_err(|_| Gone)
    }
}

fn framed(frame: &impl Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(frame, &mut bytes);
    bytes
}

/// What waits to be written.
pub(super) struct Inbox {
    frames: mpsc::Receiver<Outgoing>,
    in_turn: VecDeque<Outgoing>,
}

impl Inbox {
    /// Writes what comes until nobody can send any more.
    pub(super) async fn write(mut self, mut stream: WriteHalf<ByteStream>) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(WRITE_BYTES + FRAME_BYTES_MAX);
        loop {
            self.gather(&mut buffer);
            if buffer.is_empty() {
                stream.flush().await?;
                let Some(next) = self.frames.recv().await else { return stream.close().await };
                self.sort(next, &mut buffer);
            } else {
                stream.write_all(&buffer).await?;
                buffer.clear();
            }
        }
    }

    /// Appends small frames that wait, and one of what is large.
    fn gather(&mut self, buffer: &mut Vec<u8>) {
        while buffer.len() < WRITE_BYTES
            && let Ok(next) = self.frames.try_recv()
        {
            self.sort(next, buffer);
        }
        match self.in_turn.pop_front() {
            Some(Outgoing::Small(frame) | Outgoing::InTurn(frame)) => buffer.extend_from_slice(&frame),
            Some(Outgoing::Large(mut large)) => {
                if large.next(buffer) {
                    self.in_turn.push_back(Outgoing::Large(large));
                }
            }
            None => {}
        }
    }

    fn sort(&mut self, next: Outgoing, buffer: &mut Vec<u8>) {
        match next {
            Outgoing::Small(frame) => buffer.extend_from_slice(&frame),
            other => self.in_turn.push_back(other),
        }
    }
}
