//! What is to be written on a stream of calls, and in which order.
//!
//! Whoever writes lets all small frames go first and then one piece of what is large: so a large body, or a stream, holds up nobody for
//! longer than a piece takes. Large bodies take turns. What belongs to one stream keeps its order.
//!
//! On a connection of its own, small frames are written by the threads that put them: each, once all that could run on it has put its own. So what
//! comes together is written together, and no other thread has to be woken for it. Where something is being written already, it is left to the one
//! who writes.
//!
//! Bounds: small frames that wait ([`WAITING_MAX`]); the bytes of large bodies that are being written ([`WRITING_BYTES_MAX`], below what the
//! other side puts together at once) and that wait for it ([`WAITING_BYTES_MAX`]); frames of streams by the credit that their readers gave.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use minicbor::Encode;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::frames::{PIECE_BYTES, PIECES_BYTES_MAX, put, put_item_head};
use crate::network::{Beside, ByteWriter, WriteBeside};

/// How much room a buffer begins with.
const WRITE_BYTES: usize = 64 * 1024;
/// Frames that wait to be written.
const WAITING_MAX: usize = 1_024;
/// So many small frames are written at once, whoever else may have some: the other side is to begin with them.
const TOGETHER_FRAMES: usize = 16;
/// The largest room that is kept for the next small frames.
const REUSED_BYTES_MAX: usize = 1024 * 1024;
/// How much of what is large is written at once, where nothing small waits.
const TOGETHER_BYTES: usize = 64 * 1024;
/// Bytes of large bodies that are being written.
const WRITING_BYTES_MAX: usize = PIECES_BYTES_MAX / 2;
/// Bytes of large bodies that wait until others are written.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where what is to be written is put. Clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Outbox(Arc<Puts>);

/// All handles to one: when the last is gone, nothing more comes.
struct Puts {
    shared: Arc<Shared>,
    in_turn: mpsc::Sender<Outgoing>,
}

impl Drop for Puts {
    fn drop(&mut self) {
        self.shared.end();
    }
}

struct Shared {
    small: Mutex<Small>,
    /// There is something to write, or nothing more comes.
    ready: Notify,
    /// There is room again for small frames.
    room: Notify,
    /// Past the queue, where the connection can do that.
    beside: Option<WriteBeside>,
    /// Room for large bodies that are being written.
    writing: Arc<Semaphore>,
    /// Room for those that wait for it.
    waiting: Semaphore,
}

impl Shared {
    fn small(&self) -> MutexGuard<'_, Small> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.small().is_over = true;
        self.ready.notify_one();
        self.room.notify_waiters();
    }

    /// Takes all small frames.
    fn take(&self) -> (Vec<u8>, usize) {
        let mut small = self.small();
        small.writers.clear();
        let (bytes, frames) = (std::mem::take(&mut small.bytes), std::mem::take(&mut small.frames));
        drop(small);
        if frames >= WAITING_MAX {
            self.room.notify_waiters();
        }
        (bytes, frames)
    }

    /// Gives room back that frames had, for the next ones.
    fn reuse(&self, mut bytes: Vec<u8>) {
        let mut small = self.small();
        if small.bytes.capacity() < bytes.capacity()
            && bytes.capacity() <= REUSED_BYTES_MAX
            && small.bytes.is_empty()
        {
            bytes.clear();
            small.bytes = bytes;
        }
    }

    /// Writes the small frames that wait, or leaves them to the one who writes.
    fn write_now(&self, beside: &WriteBeside) {
        let (mut bytes, frames) = self.take();
        if frames == 0 {
            return;
        }
        match beside.write_now(&bytes) {
            Ok(Beside::Written) => self.reuse(bytes),
            Ok(Beside::Waits) => self.ready.notify_one(),
            Ok(Beside::NotTaken) => {
                let mut small = self.small();
                bytes.append(&mut small.bytes);
                small.bytes = bytes;
                small.frames += frames;
                drop(small);
                self.ready.notify_one();
            }
            // Half a frame that is followed by no other half is no frame: what was not written was not said. Who reads finds the same.
            Err(_) => self.end(),
        }
    }
}

/// Frames that go before all that is large, one after the other.
#[derive(Default)]
struct Small {
    bytes: Vec<u8>,
    frames: usize,
    /// The threads that are about to write them.
    writers: Vec<ThreadId>,
    /// Nobody puts, or nobody writes, any more.
    is_over: bool,
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

/// Something to be written that takes turns.
enum Outgoing {
    /// A frame of a stream, in its turn.
    InTurn(Put),
    /// One with a piece of an item.
    Piece(Piece),
    /// A body in pieces.
    Large(Box<Large>),
}

/// Some of an item of a stream.
struct Piece {
    number: u64,
    item: Arc<Vec<u8>>,
    range: Range<usize>,
}

/// What is written together: bytes that were put together here, and between them pieces where they lie.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Each with how many of those bytes come before it.
    pieces: Vec<(usize, Piece)>,
}

impl Batch {
    fn len(&self) -> usize {
        self.bytes.len() + self.pieces.iter().map(|(_, piece)| piece.range.len()).sum::<usize>()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
    }

    fn push(&mut self, piece: Piece) {
        let is_last = piece.range.end == piece.item.len();
        put_item_head(piece.number, piece.range.len(), is_last, &mut self.bytes);
        self.pieces.push((self.bytes.len(), piece));
    }

    /// All of it, in order.
    fn parts(&self) -> Vec<&[u8]> {
        let (mut parts, mut from) = (Vec::with_capacity(2 * self.pieces.len() + 1), 0);
        for (until, piece) in &self.pieces {
            parts.push(&self.bytes[from..*until]);
            parts.push(&piece.item[piece.range.clone()]);
            from = *until;
        }
        parts.push(&self.bytes[from..]);
        parts
    }
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
pub(super) fn outbox(beside: Option<WriteBeside>) -> (Outbox, Inbox) {
    let (in_turn, inbox) = mpsc::channel(WAITING_MAX);
    let shared = Arc::new(Shared {
        small: Mutex::default(),
        ready: Notify::new(),
        room: Notify::new(),
        beside,
        writing: Arc::new(Semaphore::new(WRITING_BYTES_MAX)),
        waiting: Semaphore::new(WAITING_BYTES_MAX),
    });
    let puts = Puts { shared: Arc::clone(&shared), in_turn };
    (Outbox(Arc::new(puts)), Inbox { shared, inbox, in_turn: VecDeque::new() })
}

impl Outbox {
    /// Puts a small frame.
    pub(super) async fn send(&self, frame: &impl Encode<()>) -> Result<(), Gone> {
        self.put_small(|buffer| put(frame, buffer)).await
    }

    /// Puts a small frame if there is room for it now.
    pub(super) fn try_send(&self, frame: &impl Encode<()>) -> bool {
        self.try_put(|buffer| put(frame, buffer)) == Ok(true)
    }

    /// Puts a frame of a stream, which is made when it is written.
    pub(super) async fn send_in_turn(
        &self,
        frame: impl FnOnce(&mut Vec<u8>) + Send + 'static,
    ) -> Result<(), Gone> {
        self.put_in_turn(Outgoing::InTurn(Box::new(frame))).await
    }

    /// Puts a piece of an item of a stream.
    pub(super) async fn send_piece(
        &self,
        number: u64,
        item: Arc<Vec<u8>>,
        range: Range<usize>,
    ) -> Result<(), Gone> {
        self.put_in_turn(Outgoing::Piece(Piece { number, item, range })).await
    }

    /// Puts a body. A large one waits until there is room for it; false if there are too many that do.
    pub(super) async fn send_body(&self, body: Arc<Vec<u8>>, cut: impl Cut) -> Result<bool, Gone> {
        let shared = &self.0.shared;
        if body.len() <= PIECE_BYTES {
            return self.put_small(|buffer| cut.last(&body, buffer)).await.map(|()| true);
        }
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let Ok(_waits) = shared.waiting.try_acquire_many(bytes) else { return Ok(false) };
        let room = Arc::clone(&shared.writing).acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        let large = Large { body, written: 0, cut: Box::new(cut), _room: room };
        self.put_in_turn(Outgoing::Large(Box::new(large))).await.map(|()| true)
    }

    async fn put_small(&self, frame: impl Fn(&mut Vec<u8>)) -> Result<(), Gone> {
        loop {
            // Told of all room that there is from now on.
            let room = self.0.shared.room.notified();
            if self.try_put(&frame)? {
                return Ok(());
            }
            room.await;
        }
    }

    /// Puts a small frame; false if too many wait.
    fn try_put(&self, frame: impl FnOnce(&mut Vec<u8>)) -> Result<bool, Gone> {
        let mut small = self.0.shared.small();
        if small.is_over {
            return Err(Gone);
        }
        if small.frames >= WAITING_MAX {
            return Ok(false);
        }
        frame(&mut small.bytes);
        small.frames += 1;
        let Some(beside) = &self.0.shared.beside else {
            drop(small);
            self.0.shared.ready.notify_one();
            return Ok(true);
        };
        if small.frames >= TOGETHER_FRAMES {
            drop(small);
            self.0.shared.write_now(beside);
            return Ok(true);
        }
        let here = std::thread::current().id();
        if !small.writers.contains(&here) {
            small.writers.push(here);
            drop(small);
            self.write_soon();
        }
        Ok(true)
    }

    /// Has this thread write what waits, once all that can run on it now has run.
    fn write_soon(&self) {
        let shared = Arc::clone(&self.0.shared);
        let Ok(runtime) = Handle::try_current() else { return shared.ready.notify_one() };
        // What is spawned on a thread of many goes before all else on it.
        let goes_first = runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        runtime.spawn(async move {
            if goes_first {
                tokio::task::yield_now().await;
            }
            if let Some(beside) = &shared.beside {
                shared.write_now(beside);
            }
        });
    }

    async fn put_in_turn(&self, outgoing: Outgoing) -> Result<(), Gone> {
        self.0.in_turn.send(outgoing).await.map_err(|_| Gone)?;
        self.0.shared.ready.notify_one();
        Ok(())
    }
}

/// What waits to be written.
pub(super) struct Inbox {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Outgoing>,
    in_turn: VecDeque<Outgoing>,
}

impl Drop for Inbox {
    /// Nobody writes any more: whoever waits for room is told.
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Inbox {
    /// Writes what comes until nobody can send any more.
    pub(super) async fn write(mut self, mut stream: ByteWriter) -> io::Result<()> {
        let mut batch = Batch { bytes: Vec::with_capacity(WRITE_BYTES), pieces: Vec::new() };
        loop {
            let is_over = self.shared.small().is_over;
            self.gather(&mut batch);
            if batch.len() > 0 {
                stream.write_parts(&batch.parts()).await?;
                batch.clear();
                continue;
            }
            stream.flush().await?;
            if is_over {
                return stream.close().await;
            }
            self.shared.ready.notified().await;
            // Who can run now may have something to say as well.
            tokio::task::yield_now().await;
        }
    }

    /// Appends small frames that wait, and one of what is large; more of it where nothing shares the connection with it at the moment.
    fn gather(&mut self, batch: &mut Batch) {
        let (bytes, frames) = self.shared.take();
        batch.bytes.extend_from_slice(&bytes);
        self.shared.reuse(bytes);
        while let Ok(next) = self.inbox.try_recv() {
            self.in_turn.push_back(next);
        }
        let enough = if frames == 0 && self.shared.beside.is_some() { TOGETHER_BYTES } else { 0 };
        while let Some(next) = self.in_turn.pop_front() {
            match next {
                Outgoing::InTurn(frame) => frame(&mut batch.bytes),
                Outgoing::Piece(piece) => batch.push(piece),
                Outgoing::Large(mut large) => {
                    let has_more = large.next(&mut batch.bytes);
                    self.in_turn.extend(has_more.then_some(Outgoing::Large(large)));
                }
            }
            if batch.len() >= enough {
                break;
            }
        }
    }
}

#[cfg(test)]
impl Inbox {
    /// All frames that wait, without their lengths, in the order in which they are written.
    pub(super) fn written(&mut self) -> Vec<Vec<u8>> {
        let (mut batch, mut before) = (Batch::default(), usize::MAX);
        while batch.len() != before {
            before = batch.len();
            self.gather(&mut batch);
        }
        let all = batch.parts().concat();
        let (mut frames, mut rest) = (Vec::new(), all.as_slice());
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
        let (outbox, mut inbox) = outbox(None);
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
    async fn a_piece_is_written_where_it_lies_and_read_as_any_frame() {
        let (outbox, mut inbox) = outbox(None);
        let item: Arc<Vec<u8>> = Arc::new((0..PIECE_BYTES).map(|place| (place % 251) as u8).collect());
        for length in [0, 1, 23, 24, 255, 256, 65_535.min(PIECE_BYTES), PIECE_BYTES] {
            for number in [0, 23, 24, u64::MAX] {
                // Of one that goes on, and of one that ends.
                for range in [0..length, item.len() - length..item.len()] {
                    let bytes = &item[range.clone()];
                    let mut whole = Vec::new();
                    match range.end == item.len() {
                        true => put(&Up::Item { number, bytes }, &mut whole),
                        false => put(&Up::Piece { number, bytes }, &mut whole),
                    }
                    outbox.send_piece(number, Arc::clone(&item), range).await.expect("room");
                    assert_eq!(inbox.written(), [&whole[4..]], "{length} {number}");
                }
            }
        }
    }

    #[tokio::test]
    async fn small_frames_go_first_large_bodies_take_turns_and_a_stream_keeps_its_order() {
        let (outbox, mut inbox) = outbox(None);
        let large = Arc::new(vec![7; 2 * PIECE_BYTES + 1]);
        for number in [1, 2] {
            assert_eq!(outbox.send_body(Arc::clone(&large), Answer(number)).await, Ok(true));
        }
        let (long, short) = (vec![1; PIECE_BYTES], vec![2]);
        for bytes in [long, short] {
            let length = bytes.len();
            outbox.send_piece(3, Arc::new(bytes), 0..length).await.expect("room");
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
        let (outbox, mut inbox) = outbox(None);
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
