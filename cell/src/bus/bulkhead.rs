//! Bulkhead, deadline and answer in one: a bounded number of places a service. In its place a call leaves
//! until when it waits and whom to wake, and there its answer is put.
//!
//! A timer and a channel for each call would cost more than the call. Here one thread, the keeper, looks
//! at all taken places every few milliseconds, wakes the calls whose time is over, and rests while nothing
//! is under way. So a call ends at its deadline or up to [`TICK`] later, and it ends even when the runtime
//! that its service runs on is stuck.
//!
//! Invariant: an answer reaches the asking that it answers, or nobody. Each asking in a place is a turn
//! with a number of its own; what comes for an earlier turn finds another number, and is dropped.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How often the keeper looks.
const TICK: Duration = Duration::from_millis(10);
/// Ticks without a call under way after which the keeper rests.
const REST_AFTER_TICKS: u32 = 10;

/// Nobody has the place.
const FREE: u64 = 0;
/// The time of the call in this place is over.
const LATE: u64 = u64::MAX;

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<T> {
    /// The answer.
    Answer(T),
    /// Whoever was to answer is gone.
    Gone,
    /// The deadline has passed.
    Late,
}

struct Slot<T> {
    /// Milliseconds after the keeper began; or [`FREE`], or [`LATE`].
    until_ms: AtomicU64,
    seat: Mutex<Seat<T>>,
}

struct Seat<T> {
    /// Which asking this is, of all in this place.
    turn: u64,
    /// What came of it, once something did; never [`Heard::Late`].
    heard: Option<Heard<T>>,
    /// Who waits for it.
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn new() -> Self {
        let seat = Seat { turn: 0, heard: None, waker: None };
        Self { until_ms: AtomicU64::new(FREE), seat: Mutex::new(seat) }
    }

    fn seat(&self) -> MutexGuard<'_, Seat<T>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the asking of this turn, if it still is the one.
    fn tell(&self, turn: u64, heard: Heard<T>) {
        let mut seat = self.seat();
        if seat.turn != turn {
            return;
        }
        seat.heard = Some(heard);
        let waker = seat.waker.take();
        drop(seat);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Marks a call whose time is over; says whom to wake.
    fn look(&self, now_ms: u64) -> Option<Waker> {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        let over = until_ms != FREE && until_ms <= now_ms;
        // The place may have gone to another call since: then its time is another one.
        let late = Ordering::AcqRel;
        if over && self.until_ms.compare_exchange(until_ms, LATE, late, Ordering::Relaxed).is_ok() {
            return self.seat().waker.take();
        }
        None
    }
}

/// The places of one service. They are made when first needed, and kept.
pub(super) struct Bulkhead<T> {
    places: Mutex<Places<T>>,
    places_max: usize,
}

struct Places<T> {
    all: Vec<Arc<Slot<T>>>,
    free: Vec<Arc<Slot<T>>>,
}

impl<T> Bulkhead<T> {
    /// So many places.
    pub(super) fn new(places_max: usize) -> Self {
        Self { places: Mutex::new(Places { all: Vec::new(), free: Vec::new() }), places_max }
    }

    fn places(&self) -> MutexGuard<'_, Places<T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Arc<Slot<T>>> {
        let mut places = self.places();
        if let Some(slot) = places.free.pop() {
            return Some(slot);
        }
        (places.all.len() < self.places_max).then(|| {
            let slot = Arc::new(Slot::new());
            places.all.push(Arc::clone(&slot));
            slot
        })
    }
}

/// What the keeper sees of a bulkhead.
pub(super) trait Kept: Send + Sync {
    /// Calls under way.
    fn taken(&self) -> usize;
    /// Wakes the calls whose time is over.
    fn look(&self, now_ms: u64);
}

impl<T: Send> Kept for Bulkhead<T> {
    fn taken(&self) -> usize {
        let places = self.places();
        places.all.len() - places.free.len()
    }

    fn look(&self, now_ms: u64) {
        let late: Vec<Waker> = self.places().all.iter().filter_map(|slot| slot.look(now_ms)).collect();
        late.into_iter().for_each(Waker::wake);
    }
}

/// Who keeps the deadlines of all services.
pub(super) struct Keeper {
    watch: Arc<Watch>,
    thread: Thread,
}

struct Watch {
    bulkheads: Vec<Arc<dyn Kept>>,
    began: Instant,
    /// Whether the keeper rests, and wants to be woken by the next call.
    resting: AtomicBool,
}

impl Watch {
    fn taken(&self) -> usize {
        self.bulkheads.iter().map(|bulkhead| bulkhead.taken()).sum()
    }

    fn ms_after_began(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.began).as_millis()).unwrap_or(LATE - 1)
    }
}

impl Keeper {
    /// Keeps these.
    pub(super) fn new(bulkheads: Vec<Arc<dyn Kept>>) -> Self {
        let watch = Watch { bulkheads, began: Instant::now(), resting: AtomicBool::new(false) };
        let watch = Arc::new(watch);
        let kept = Arc::downgrade(&watch);
        let thread = std::thread::Builder::new().name("bus-deadlines".to_owned()).spawn(move || keep(&kept));
        let thread = thread.expect("the system gives a thread to a process that starts").thread().clone();
        Self { watch, thread }
    }

    /// Takes a place for a call; none if all are taken.
    pub(super) fn take<'a, T>(&self, bulkhead: &'a Bulkhead<T>, deadline: Instant) -> Option<Place<'a, T>> {
        let slot = bulkhead.pop()?;
        // One more than the whole milliseconds: never early, and never FREE.
        let until_ms = self.watch.ms_after_began(deadline).saturating_add(1).min(LATE - 1);
        slot.until_ms.store(until_ms, Ordering::Release);
        // The lock was held since: either the keeper has seen the place taken, or this sees it rest.
        if self.watch.resting.load(Ordering::Relaxed) && self.watch.resting.swap(false, Ordering::AcqRel) {
            self.thread.unpark();
        }
        Some(Place { bulkhead, slot: Some(slot) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It finds that there is nothing to keep any more, and ends.
        self.thread.unpark();
    }
}

fn keep(watch: &Weak<Watch>) {
    let mut idle_ticks = 0;
    loop {
        std::thread::park_timeout(TICK);
        let Some(watch) = watch.upgrade() else { return };
        let now_ms = watch.ms_after_began(Instant::now());
        watch.bulkheads.iter().filter(|it| it.taken() > 0).for_each(|it| it.look(now_ms));
        idle_ticks = if watch.taken() == 0 { idle_ticks + 1 } else { 0 };
        if idle_ticks >= REST_AFTER_TICKS {
            watch.resting.store(true, Ordering::Release);
            // A call that came before it could see the flag is looked after by staying awake.
            let wanted = watch.taken() > 0;
            drop(watch);
            if !wanted {
                std::thread::park();
            }
            idle_ticks = 0;
        }
    }
}

/// A call's place, given back when dropped.
pub(super) struct Place<'a, T> {
    bulkhead: &'a Bulkhead<T>,
    /// There until the drop.
    slot: Option<Arc<Slot<T>>>,
}

impl<T> Place<'_, T> {
    /// Sends a request with the way back to this place, and waits for what comes of it, at most until the
    /// place's deadline.
    pub(super) async fn ask<E>(&self, send: impl FnOnce(Reply<T>) -> Result<(), E>) -> Result<Heard<T>, E> {
        let Some(slot) = &self.slot else { return Ok(Heard::Gone) };
        let mut turn = Turn { slot, over: false };
        let mut send = Some(send);
        poll_fn(|cx| match send.take() {
            // The waker is left before the request goes, so nothing is missed by not looking again.
            Some(send) => match send(turn.begin(cx.waker())) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
            None => turn.look(cx.waker()).map(Ok),
        })
        .await
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.until_ms.store(FREE, Ordering::Release);
            self.bulkhead.places().free.push(slot);
        }
    }
}

/// One asking in a place; over when dropped.
struct Turn<'a, T> {
    slot: &'a Arc<Slot<T>>,
    /// Whether it was heard of, so that nothing of it is left in the seat.
    over: bool,
}

impl<T> Turn<'_, T> {
    fn begin(&self, waker: &Waker) -> Reply<T> {
        let mut seat = self.slot.seat();
        seat.turn += 1;
        seat.waker = Some(waker.clone());
        Reply { slot: Some(Arc::clone(self.slot)), turn: seat.turn }
    }

    fn look(&mut self, waker: &Waker) -> Poll<Heard<T>> {
        let mut seat = self.slot.seat();
        if let Some(heard) = seat.heard.take() {
            // A turn has one way back, and telling took the waker along.
            self.over = true;
            return Poll::Ready(heard);
        }
        if !seat.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            seat.waker = Some(waker.clone());
        }
        drop(seat);
        // Looked at with the waker left, or the keeper's wake could be missed.
        match self.slot.until_ms.load(Ordering::Acquire) {
            LATE => Poll::Ready(Heard::Late),
            _ => Poll::Pending,
        }
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut seat = self.slot.seat();
        seat.turn += 1;
        // Neither an answer that nobody took nor a task that is done is kept alive here.
        let left = (seat.heard.take(), seat.waker.take());
        drop(seat);
        drop(left);
    }
}

/// The way back to who asked. Dropped without an answer, it tells that none will come.
pub struct Reply<T> {
    /// There until an answer is sent.
    slot: Option<Arc<Slot<T>>>,
    turn: u64,
}

impl<T> Reply<T> {
    /// Answers; nobody hears it if the caller has gone.
    pub fn send(mut self, answer: T) {
        if let Some(slot) = self.slot.take() {
            slot.tell(self.turn, Heard::Answer(answer));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.tell(self.turn, Heard::Gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::mpsc;

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    /// One bulkhead with so many places, and its keeper.
    fn kept(places_max: usize) -> (Arc<Bulkhead<u32>>, Keeper) {
        let bulkhead = Arc::new(Bulkhead::new(places_max));
        let keeper = Keeper::new(vec![Arc::<Bulkhead<u32>>::clone(&bulkhead)]);
        (bulkhead, keeper)
    }

    /// Asks somebody who keeps the way back.
    async fn ask(place: &Place<'_, u32>, kept: &mpsc::Sender<Reply<u32>>) -> Heard<u32> {
        let keep = |reply| {
            kept.send(reply).expect("kept");
            Ok::<_, Infallible>(())
        };
        place.ask(keep).await.expect("sent")
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let (bulkhead, keeper) = kept(3);
        let taken: Vec<_> = (0..3).map(|_| keeper.take(&bulkhead, soon(1_000)).expect("room")).collect();
        assert!(keeper.take(&bulkhead, soon(1_000)).is_none());
        assert_eq!(bulkhead.taken(), 3);
        drop(taken);
        assert_eq!(bulkhead.taken(), 0);
        assert!(keeper.take(&bulkhead, soon(1_000)).is_some());
        assert_eq!(bulkhead.places().all.len(), 3, "no more were made");
    }

    #[tokio::test]
    async fn an_answer_reaches_who_asked_from_another_thread() {
        let (bulkhead, keeper) = kept(1);
        let (replies, to_answer) = mpsc::channel::<Reply<u32>>();
        let other = std::thread::spawn(move || {
            for (number, reply) in (0u32..).zip(to_answer) {
                if number % 2 == 0 {
                    reply.send(number);
                }
            }
        });
        for number in 0..1_000 {
            let place = keeper.take(&bulkhead, soon(60_000)).expect("room");
            let expected = if number % 2 == 0 { Heard::Answer(number) } else { Heard::Gone };
            assert_eq!(ask(&place, &replies).await, expected);
        }
        drop(replies);
        other.join().expect("it ends");
    }

    #[tokio::test]
    async fn what_is_never_answered_ends_at_its_deadline_and_not_before() {
        let (bulkhead, keeper) = kept(2);
        let (replies, _kept) = mpsc::channel();
        // The second round finds the keeper at rest.
        for _ in 0..2 {
            let began = Instant::now();
            let place = keeper.take(&bulkhead, soon(60)).expect("room");
            let longer = keeper.take(&bulkhead, soon(60_000)).expect("room");
            let (heard, answered) = tokio::join!(ask(&place, &replies), async {
                let answer = |reply: Reply<u32>| {
                    reply.send(7);
                    Ok::<_, Infallible>(())
                };
                longer.ask(answer).await.expect("sent")
            });
            assert_eq!((heard, answered), (Heard::Late, Heard::Answer(7)));
            assert!(began.elapsed() >= Duration::from_millis(60));
            drop((place, longer));
            tokio::time::sleep(TICK * (2 * REST_AFTER_TICKS)).await;
            assert!(keeper.watch.resting.load(Ordering::SeqCst));
        }
    }

    #[tokio::test]
    async fn a_late_answer_does_not_reach_the_next_call_in_the_place() {
        let (bulkhead, keeper) = kept(1);
        let (replies, kept) = mpsc::channel();
        let place = keeper.take(&bulkhead, soon(0)).expect("room");
        assert_eq!(ask(&place, &replies).await, Heard::Late);
        drop(place);
        let late = kept.recv().expect("the first way back");
        let place = keeper.take(&bulkhead, soon(60_000)).expect("room");
        let next = ask(&place, &replies);
        let answering = async {
            let reply = kept.recv().expect("the second way back");
            late.send(1);
            tokio::time::sleep(TICK * 3).await;
            reply.send(2);
        };
        assert_eq!(tokio::join!(next, answering).0, Heard::Answer(2));
        // Tried again in the same place: what comes of the first try is not taken for the second's.
        let (first, second) = (ask(&place, &replies), ask(&place, &replies));
        assert!(tokio::time::timeout(TICK, first).await.is_err(), "nobody has answered");
        drop(kept.recv());
        let answering = async { kept.recv().expect("the way back").send(3) };
        assert_eq!(tokio::join!(second, answering).0, Heard::Answer(3));
    }

    #[test]
    fn the_keeper_ends_with_the_bus() {
        let (_bulkhead, keeper) = kept(1);
        let watch = Arc::downgrade(&keeper.watch);
        drop(keeper);
        let began = Instant::now();
        while watch.strong_count() > 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "the keeper holds on");
            std::thread::yield_now();
        }
    }
}
