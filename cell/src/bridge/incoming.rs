//! Streams of another host, as whoever takes their items has them.
//!
//! The reader of the connection never waits for a taker: what comes is put into a queue that has room for all that was given credit for.
//! Taking items gives credit again, in halves of the window, so a stream has at most a window under way: a narrow one while calls are made
//! as well, which it would hold up, and a wide one where nobody calls ([`WINDOW_BYTES`], [`WIDE_WINDOW_BYTES`]).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use protocol::{Problem, ProblemKind};
use tokio::sync::{mpsc, oneshot};

use super::frames::{BODY_BYTES_MAX, Down, ITEM_COST, PIECE_BYTES, cost, malformed};
use super::outbox::Outbox;
use crate::bus::Items;

/// What may be under way of one stream beside calls: little, for they wait for the connection, or for a processor.
pub(super) const WINDOW_BYTES: usize = 128 * 1024;
/// The same while nobody calls, on a connection that only streams have.
pub(super) const WIDE_WINDOW_BYTES: usize = 1024 * 1024;
/// Nobody calls where nobody has for so long.
const QUIET_AFTER: Duration = Duration::from_millis(5);
/// Streams of one host that are open; one more is refused.
pub(super) const STREAMS_MAX: usize = 256;

// A window whose half has not been given back has room for a piece.
const _: () = assert!(WINDOW_BYTES / 2 >= cost(PIECE_BYTES));

/// What came of a stream.
enum Came {
    Piece(Vec<u8>),
    /// The last piece of an item.
    Item(Vec<u8>),
    End,
    Refused(Problem),
}

struct Open {
    /// Until it is open.
    opened: Option<oneshot::Sender<Result<(), Problem>>>,
    /// What may still come.
    credit: usize,
    came: mpsc::Sender<Came>,
}

/// The streams that this host has asked another for, on one connection.
pub(super) struct Streams {
    open: Mutex<HashMap<u64, Open>>,
    /// What may be under way of each, at most.
    widest: usize,
    /// Calls of the same host since the start.
    calls: Arc<AtomicU64>,
}

impl Streams {
    /// On a connection where so many bytes of each may be under way while nobody calls. Whoever calls counts it.
    pub(super) fn new(widest: usize, calls: &Arc<AtomicU64>) -> Self {
        Self { open: Mutex::default(), widest, calls: Arc::clone(calls) }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stream that is about to be asked for; none if there are too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        number: u64,
        outbox: Outbox,
        unreachable: Problem,
    ) -> Option<(Incoming, oneshot::Receiver<Result<(), Problem>>)> {
        let mut all = self.all();
        if all.len() >= STREAMS_MAX {
            return None;
        }
        // One more for how it ends.
        let (came, queue) = mpsc::channel(self.widest / ITEM_COST + 1);
        let (opened, is_open) = oneshot::channel();
        all.insert(number, Open { opened: Some(opened), credit: WINDOW_BYTES, came });
        let pace = Pace { calls: self.calls.load(Ordering::Relaxed), called: Instant::now() };
        let (streams, under_way) = (Arc::clone(self), WINDOW_BYTES);
        let incoming =
            Incoming { number, streams, outbox, queue, under_way, pace, is_over: false, unreachable };
        Some((incoming, is_open))
    }

    /// A stream is open.
    pub(super) fn opened(&self, number: u64) {
        let opened = self.all().get_mut(&number).and_then(|open| open.opened.take());
        if let Some(opened) = opened {
            let _ = opened.send(Ok(()));
        }
    }

    /// Whether a number is that of a stream.
    pub(super) fn has(&self, number: u64) -> bool {
        self.all().contains_key(&number)
    }

    /// A piece of an item has come. What nobody wants any more is dropped.
    ///
    /// # Errors
    ///
    /// Where there is more than was given credit for.
    pub(super) fn piece(&self, number: u64, bytes: &[u8], is_last: bool) -> io::Result<()> {
        let mut all = self.all();
        let Some(open) = all.get_mut(&number) else { return Ok(()) };
        let over = || malformed("a stream is over its credit");
        open.credit = open.credit.checked_sub(cost(bytes.len())).ok_or_else(over)?;
        let came = if is_last { Came::Item } else { Came::Piece };
        // Where it finds no room, nobody takes it any more: the queue has room for all that there is credit for.
        let _ = open.came.try_send(came(bytes.to_vec()));
        Ok(())
    }

    /// A stream has come to its end.
    pub(super) fn end(&self, number: u64, how: Result<(), Problem>) {
        let Some(open) = self.all().remove(&number) else { return };
        match (open.opened, how) {
            (Some(opened), how) => drop(opened.send(how)),
            (None, Ok(())) => drop(open.came.try_send(Came::End)),
            (None, Err(problem)) => drop(open.came.try_send(Came::Refused(problem))),
        }
    }

    /// The connection has ended, and with it all of them.
    pub(super) fn fail_all(&self) {
        // Who waits finds that nobody sends any more.
        self.all().clear();
    }
}

/// A stream of another host. Dropped before its end, it tells the other host to stop.
pub(super) struct Incoming {
    number: u64,
    streams: Arc<Streams>,
    outbox: Outbox,
    queue: mpsc::Receiver<Came>,
    /// Credit that was given, and whose items were not taken yet.
    under_way: usize,
    pace: Pace,
    is_over: bool,
    unreachable: Problem,
}

/// Whether calls are made beside a stream.
struct Pace {
    /// How many there were when it was looked at last.
    calls: u64,
    /// When it was seen last that there were more.
    called: Instant,
}

impl Pace {
    /// The window, now that there were so many calls.
    fn window(&mut self, calls: u64, now: Instant, widest: usize) -> usize {
        if calls != self.calls {
            (self.calls, self.called) = (calls, now);
        }
        let is_quiet = now.saturating_duration_since(self.called) >= QUIET_AFTER;
        if is_quiet { widest } else { WINDOW_BYTES }
    }
}

impl Incoming {
    /// Its items.
    pub(super) fn items(self) -> Items {
        let next = async |mut this: Self| this.next().await.map(|item| (item, this));
        futures_util::stream::unfold(self, next).boxed()
    }

    async fn next(&mut self) -> Option<Result<Vec<u8>, Problem>> {
        let mut item = Vec::new();
        while !self.is_over {
            match self.queue.recv().await {
                Some(Came::Piece(bytes)) if item.len() + bytes.len() <= BODY_BYTES_MAX => {
                    self.eat(bytes.len()).await;
                    item.extend(bytes);
                }
                Some(Came::Item(bytes)) if item.len() + bytes.len() <= BODY_BYTES_MAX => {
                    self.eat(bytes.len()).await;
                    if item.is_empty() {
                        return Some(Ok(bytes));
                    }
                    item.extend(bytes);
                    return Some(Ok(item));
                }
                Some(Came::Piece(_) | Came::Item(_)) => {
                    self.cancel();
                    return Some(Err(too_large()));
                }
                Some(Came::End) => self.is_over = true,
                Some(Came::Refused(problem)) => {
                    self.is_over = true;
                    return Some(Err(problem));
                }
                None => {
                    self.is_over = true;
                    return Some(Err(self.unreachable.clone()));
                }
            }
        }
        None
    }

    async fn eat(&mut self, bytes: usize) {
        self.under_way = self.under_way.saturating_sub(cost(bytes));
        if self.under_way > WIDE_WINDOW_BYTES / 2 {
            return;
        }
        let calls = self.streams.calls.load(Ordering::Relaxed);
        let window = self.pace.window(calls, Instant::now(), self.streams.widest);
        if self.under_way <= window / 2 {
            let bytes = window - self.under_way;
            self.under_way = window;
            if let Some(open) = self.streams.all().get_mut(&self.number) {
                open.credit += bytes;
            }
            let bytes = bytes as u64;
            // Where the connection has ended, the queue says so.
            let _ = self.outbox.send(&Down::Credit { number: self.number, bytes }).await;
        }
    }

    /// Has the other host stop.
    fn cancel(&mut self) {
        self.is_over = true;
        self.streams.all().remove(&self.number);
        let cancel = Down::Cancel { number: self.number };
        if self.outbox.try_send(&cancel) {
            return;
        }
        // It has to be told: a stream has no deadline. Without a runtime the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (outbox, number) = (self.outbox.clone(), self.number);
            runtime.spawn(async move { outbox.send(&Down::Cancel { number }).await });
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_over {
            self.cancel();
        }
    }
}

fn too_large() -> Problem {
    let cause = format!("an item of a stream has more than {BODY_BYTES_MAX} bytes");
    Problem::new(ProblemKind::Fault, "bus.too_large", cause)
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{self, Inbox};
    use super::*;
    use protocol::codec;

    fn lost() -> Problem {
        Problem::new(ProblemKind::Unavailable, "bus.host_unreachable", "lost")
    }

    /// On a connection that calls have too.
    fn streams() -> Arc<Streams> {
        Arc::new(Streams::new(WINDOW_BYTES, &Arc::default()))
    }

    /// An open stream, and what is said to the other host.
    fn open(streams: &Arc<Streams>, number: u64) -> (Items, Inbox) {
        let (outbox, inbox) = outbox::outbox(None);
        let (incoming, _) = streams.enter(number, outbox, lost()).expect("room");
        streams.opened(number);
        (incoming.items(), inbox)
    }

    #[tokio::test]
    async fn what_is_taken_gives_its_credit_back_and_no_more_comes_than_was_given() {
        let streams = streams();
        let (mut items, mut inbox) = open(&streams, 1);
        let (piece, mut credit) = (vec![7; PIECE_BYTES], WINDOW_BYTES);
        for _ in 0..100 {
            while credit >= cost(piece.len()) {
                credit -= cost(piece.len());
                streams.piece(1, &piece, true).expect("within the credit");
            }
            assert_eq!(items.next().await.expect("it goes on").expect("an item"), piece);
            for frame in inbox.written() {
                match codec::decode(&frame).expect("reads") {
                    Down::Credit { number: 1, bytes } => credit += bytes as usize,
                    other => panic!("{other:?}"),
                }
            }
            assert!(credit <= WINDOW_BYTES);
        }
        let over = (0..WINDOW_BYTES).find_map(|_| streams.piece(1, &[], true).err());
        assert_eq!(over.expect("who sends without credit is cut off").kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn an_item_in_pieces_is_one_and_a_stream_ends_as_it_is_said() {
        let streams = streams();
        let ((mut first, _), (mut second, _)) = (open(&streams, 1), open(&streams, 2));
        streams.piece(1, b"ab", false).expect("taken");
        streams.piece(2, b"x", true).expect("taken");
        streams.piece(1, b"c", true).expect("taken");
        streams.end(1, Ok(()));
        streams.end(2, Err(problem("data.damaged")));
        assert_eq!(first.next().await, Some(Ok(b"abc".to_vec())));
        assert_eq!(first.next().await, None);
        assert_eq!(second.next().await, Some(Ok(b"x".to_vec())));
        assert_eq!(second.next().await, Some(Err(problem("data.damaged"))));
        assert_eq!(second.next().await, None);
        let (mut third, _) = open(&streams, 3);
        streams.fail_all();
        assert_eq!(third.next().await, Some(Err(lost())));
        assert_eq!(third.next().await, None);
    }

    fn problem(code: &'static str) -> Problem {
        Problem::new(ProblemKind::Fault, code, "")
    }

    #[tokio::test]
    async fn who_stops_taking_has_the_other_host_stop_however_much_there_is_to_say() {
        let streams = streams();
        let (items, mut inbox) = open(&streams, 1);
        drop(items);
        let cancel = Down::Cancel { number: 1 };
        assert_eq!(inbox.written(), [codec::encode(&cancel)]);
        assert!(!streams.has(1));
        streams.piece(1, b"late", true).expect("dropped");
        // There is no room for a word: it is said once there is.
        let (outbox, mut inbox) = outbox::outbox(None);
        let (incoming, _) = streams.enter(2, outbox.clone(), lost()).expect("room");
        while outbox.try_send(&Down::Credit { number: 2, bytes: 0 }) {}
        drop(incoming);
        let cancel = codec::encode(&Down::Cancel { number: 2 });
        while !inbox.written().contains(&cancel) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_stream_widens_while_nobody_calls_and_narrows_when_somebody_does() {
        let began = Instant::now();
        let mut pace = Pace { calls: 7, called: began };
        let mut window = |calls, later| pace.window(calls, began + later, WIDE_WINDOW_BYTES);
        assert_eq!(window(7, Duration::ZERO), WINDOW_BYTES, "calls may have been made a moment ago");
        assert_eq!(window(7, QUIET_AFTER), WIDE_WINDOW_BYTES);
        assert_eq!(window(8, QUIET_AFTER), WINDOW_BYTES);
        assert_eq!(window(8, QUIET_AFTER * 3 / 2), WINDOW_BYTES);
        assert_eq!(window(8, QUIET_AFTER * 2), WIDE_WINDOW_BYTES);
    }

    #[tokio::test]
    async fn streams_of_one_host_are_bounded() {
        let streams = streams();
        let open: Vec<_> = (0..STREAMS_MAX as u64).map(|number| open(&streams, number)).collect();
        let (outbox, _inbox) = outbox::outbox(None);
        assert!(streams.enter(u64::MAX, outbox.clone(), lost()).is_none());
        drop(open);
        assert!(streams.enter(u64::MAX, outbox, lost()).is_some());
    }
}
