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
pub(super) struct Outbox(Arc<Shared>);

struct Shared {
    frames: mpsc::Sender<Outgoing>,
    /// Room for large bodies that are being written.
    writing: Arc<Semaphore>,
    /// Room for those that wait for it.
    waiting: Semaphore,
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

/// Appends a frame.
type Put = Box<dyn FnOnce(&mut Vec<u8>) + Send>;

/// Something to be written.
enum Outgoing {
    /// A frame that goes before all that is large.
    Small(Vec<u8>),
    /// A frame of a stream, in its turn.
    InTurn(Put),
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
    let shared = Shared { frames, writing, waiting: Semaphore::new(WAITING_BYTES_MAX) };
    (Outbox(Arc::new(shared)), Inbox { frames: inbox, in_turn: VecDeque::new() })
}

impl Outbox {
    /// Puts a small frame.
    pub(super) async fn send(&self, frame: &impl Encode<()>) -> Result<(), Gone> {
        self.put(Outgoing::Small(framed(frame))).await
    }

    /// Puts a small frame if there is room for it now.
    pub(super) fn try_send(&self, frame: &impl Encode<()>) -> bool {
        self.0.frames.try_send(Outgoing::Small(framed(frame))).is_ok()
    }

    /// Puts a frame of a stream, which is made when it is written.
    pub(super) async fn send_in_turn(
        &self,
        frame: impl FnOnce(&mut Vec<u8>) + Send + 'static,
    ) -> Result<(), Gone> {
        self.put(Outgoing::InTurn(Box::new(frame))).await
    }

    /// Puts a body. A large one waits until there is room for it; false if there are too many that do.
    pub(super) async fn send_body(&self, body: Arc<Vec<u8>>, cut: impl Cut) -> Result<bool, Gone> {
        if body.len() <= PIECE_BYTES {
            let mut frame = Vec::with_capacity(body.len() + 128);
            cut.last(&body, &mut frame);
            return self.put(Outgoing::Small(frame)).await.map(|()| true);
        }
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let Ok(_waits) = self.0.waiting.try_acquire_many(bytes) else { return Ok(false) };
        let room = Arc::clone(&self.0.writing).acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        let large = Large { body, written: 0, cut: Box::new(cut), _room: room };
        self.put(Outgoing::Large(Box::new(large))).await.map(|()| true)
    }

    async fn put(&self, outgoing: Outgoing) -> Result<(), Gone> {
        self.0.frames.send(outgoing).await.map_err(|_| Gone)
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
            Some(Outgoing::Small(frame)) => buffer.extend_from_slice(&frame),
            Some(Outgoing::InTurn(frame)) => frame(buffer),
            Some(Outgoing::Large(mut large)) => {
                let has_more = large.next(buffer);
                self.in_turn.extend(has_more.then_some(Outgoing::Large(large)));
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

#[cfg(test)]
impl Inbox {
    /// All frames that wait, without their lengths, in the order in which they are written.
    pub(super) fn written(&mut self) -> Vec<Vec<u8>> {
        let (mut buffer, mut before) = (Vec::new(), usize::MAX);
        while buffer.len() != before {
            before = buffer.len();
            self.gather(&mut buffer);
        }
        let (mut frames, mut rest) = (Vec::new(), buffer.as_slice());
        while let Some((word, more)) = rest.split_first_chunk() {
            let (frame, after) = more.split_at(u32::from_le_bytes(*word) as usize);
            frames.push(frame.to_vec());
            rest = after;
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{BODY_BYTES_MAX, Up};
    use super::super::serve::Answer;
    use super::*;
    use protocol::codec;

    /// All that waits, in the order in which it is written: what it is, whose, and its bytes.
    fn written(inbox: &mut Inbox) -> Vec<(char, u64, Vec<u8>)> {
        let frames = inbox.written();
        assert!(frames.iter().all(|frame| frame.len() <= PIECE_BYTES + 64));
        let read = |frame: &Vec<u8>| match codec::decode::<Up<'_>>(frame).expect("reads") {
            Up::Piece { number, bytes } => ('p', number, bytes.to_vec()),
            Up::Answer { number, body } => ('a', number, body.to_vec()),
            Up::Item { number, bytes } => ('i', number, bytes.to_vec()),
            Up::End { number } => ('e', number, Vec::new()),
            other => panic!("{other:?}"),
        };
        frames.iter().map(read).collect()
    }

    #[tokio::test]
    async fn a_body_is_cut_into_pieces_that_make_it_again() {
        let (outbox, mut inbox) = outbox();
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 7] {
            let body: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            assert_eq!(outbox.send_body(Arc::new(body.clone()), Answer(1)).await, Ok(true));
            let frames = written(&mut inbox);
            assert_eq!(frames.len(), length.div_ceil(PIECE_BYTES).max(1));
            assert!(frames.iter().rev().skip(1).all(|frame| frame.0 == 'p'));
            assert_eq!(frames.last().map(|frame| frame.0), Some('a'));
            assert_eq!(frames.into_iter().flat_map(|frame| frame.2).collect::<Vec<u8>>(), body);
        }
    }

    #[tokio::test]
    async fn small_frames_go_first_large_bodies_take_turns_and_a_stream_keeps_its_order() {
        let (outbox, mut inbox) = outbox();
        let large = Arc::new(vec![7; 2 * PIECE_BYTES + 1]);
        for number in [1, 2] {
            assert_eq!(outbox.send_body(Arc::clone(&large), Answer(number)).await, Ok(true));
        }
        let (long, short) = (vec![1; PIECE_BYTES], vec![2]);
        for bytes in [long, short] {
            let item = move |buffer: &mut Vec<u8>| put(&Up::Item { number: 3, bytes: &bytes }, buffer);
            outbox.send_in_turn(item).await.expect("room");
        }
        outbox.send_in_turn(|buffer| put(&Up::End { number: 3 }, buffer)).await.expect("room");
        outbox.send(&Up::Answer { number: 4, body: &[] }).await.expect("room");
        let order: Vec<_> = written(&mut inbox).into_iter().map(|(what, whose, _)| (what, whose)).collect();
        let expected = [
            [('a', 4), ('p', 1), ('p', 2), ('i', 3), ('i', 3)].as_slice(),
            &[('e', 3), ('p', 1), ('p', 2), ('a', 1), ('a', 2)],
        ];
        assert_eq!(order, expected.concat());
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room_and_too_many_that_wait_are_refused() {
        let (outbox, mut inbox) = outbox();
        let largest = Arc::new(vec![7; BODY_BYTES_MAX]);
        let send = || outbox.send_body(Arc::clone(&largest), Answer(1));
        for _ in 0..WRITING_BYTES_MAX / BODY_BYTES_MAX {
            assert_eq!(send().await, Ok(true));
        }
        let mut waiting: Vec<_> = (0..WAITING_BYTES_MAX / BODY_BYTES_MAX).map(|_| Box::pin(send())).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending(), "it waits for what is being written");
        }
        assert_eq!(send().await, Ok(false));
        // What nobody waits for any more leaves its room to others.
        drop(waiting.pop());
        let mut last = Box::pin(send());
        assert!(futures_util::poll!(&mut last).is_pending());
        drop(written(&mut inbox));
        for one in waiting.iter_mut().take(2) {
            assert_eq!(one.await, Ok(true));
        }
        assert_eq!(outbox.send_body(Arc::new(vec![1]), Answer(2)).await, Ok(true), "a small one never waits");
    }
}
