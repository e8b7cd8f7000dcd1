//! Bulkhead and deadline in one: a bounded number of places a service, each with the time its call may
//! wait until.
//!
//! A timer for each call would cost more than the call. Here one thread, the keeper, looks at all taken
//! places every few milliseconds, wakes the calls whose time is over, and rests while nothing is under
//! way. So a call ends at its deadline or up to [`TICK`] later, and it ends even when the runtime that
//! its service runs on is stuck.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

/// How often the keeper looks.
const TICK: Duration = Duration::from_millis(10);
/// Ticks without a call under way after which the keeper rests.
const REST_AFTER_TICKS: u32 = 10;

/// Nobody has the place.
const FREE: u64 = 0;
/// The time of the call in this place is over.
const LATE: u64 = u64::MAX;

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late;

struct Slot {
    /// Milliseconds after the bus began; or [`FREE`], or [`LATE`].
    until_ms: AtomicU64,
    waker: AtomicWaker,
}

/// The places of one service.
struct Bulkhead {
    slots: Box<[Slot]>,
    free: Mutex<Vec<u32>>,
}

impl Bulkhead {
    fn new(places: usize) -> Self {
        let slot = |_| Slot { until_ms: AtomicU64::new(FREE), waker: AtomicWaker::new() };
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        Self { slots: (0..places).map(slot).collect(), free: Mutex::new((0..places).rev().collect()) }
    }

    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> usize {
        self.slots.len() - self.free().len()
    }

    /// Marks the calls whose time is over, and wakes them.
    fn look(&self, now_ms: u64) {
        for slot in &self.slots {
            let until_ms = slot.until_ms.load(Ordering::Acquire);
            let over = until_ms != FREE && until_ms <= now_ms;
            // The place may have gone to another call since: then its time is another one.
            let late = Ordering::AcqRel;
            if over && slot.until_ms.compare_exchange(until_ms, LATE, late, Ordering::Relaxed).is_ok() {
                slot.waker.wake();
            }
        }
    }
}

/// The places of all services, and who keeps their deadlines.
pub(super) struct Bulkheads {
    services: Arc<Services>,
    keeper: Thread,
}

struct Services {
    bulkheads: Box<[Bulkhead]>,
    began: Instant,
    /// Whether the keeper rests, and wants to be woken by the next call.
    resting: AtomicBool,
}

impl Services {
    fn taken(&self) -> usize {
        self.bulkheads.iter().map(Bulkhead::taken).sum()
    }

    fn ms_after_began(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.began).as_millis()).unwrap_or(LATE - 1)
    }
}

impl Bulkheads {
    /// So many places for each of so many services.
    pub(super) fn new(services: usize, places: usize) -> Self {
        let services = Arc::new(Services {
            bulkheads: (0..services).map(|_| Bulkhead::new(places)).collect(),
            began: Instant::now(),
            resting: AtomicBool::new(false),
        });
        let kept = Arc::downgrade(&services);
        let keeper = std::thread::Builder::new().name("bus-deadlines".to_owned()).spawn(move || keep(&kept));
        let keeper = keeper.expect("the system gives a thread to a process that starts").thread().clone();
        Self { services, keeper }
    }

    /// Takes a place for a call; none if all are taken.
    pub(super) fn take(&self, service: usize, deadline: Instant) -> Option<Place<'_>> {
        let bulkhead = &self.services.bulkheads[service];
        let number = bulkhead.free().pop()?;
        // One more than the whole milliseconds: never early, and never FREE.
        let until_ms = self.services.ms_after_began(deadline).saturating_add(1).min(LATE - 1);
        let slot = &bulkhead.slots[number as usize];
        slot.until_ms.store(until_ms, Ordering::Release);
        // The lock was held since: either the keeper has seen the place taken, or this sees it rest.
        if self.services.resting.load(Ordering::Relaxed)
            && self.services.resting.swap(false, Ordering::AcqRel)
        {
            self.keeper.unpark();
        }
        Some(Place { bulkhead, number, slot })
    }

    /// Calls under way to a service.
    pub(super) fn taken(&self, service: usize) -> usize {
        self.services.bulkheads[service].taken()
    }
}

impl Drop for Bulkheads {
    fn drop(&mut self) {
        // It finds that there is nothing to keep any more, and ends.
        self.keeper.unpark();
    }
}

fn keep(services: &Weak<Services>) {
    let mut idle_ticks = 0;
    loop {
        std::thread::park_timeout(TICK);
        let Some(services) = services.upgrade() else { return };
        let now_ms = services.ms_after_began(Instant::now());
        services.bulkheads.iter().filter(|it| it.taken() > 0).for_each(|it| it.look(now_ms));
        idle_ticks = if services.taken() == 0 { idle_ticks + 1 } else { 0 };
        if idle_ticks >= REST_AFTER_TICKS {
            services.resting.store(true, Ordering::Release);
            // A call that came before it could see the flag is looked after by staying awake.
            let wanted = services.taken() > 0;
            drop(services);
            if !wanted {
                std::thread::park();
            }
            idle_ticks = 0;
        }
    }
}

/// A call's place, given back when dropped.
pub(super) struct Place<'a> {
    bulkhead: &'a Bulkhead,
    number: u32,
    slot: &'a Slot,
}

impl Place<'_> {
    /// Waits for `work`, at most until the place's deadline.
    pub(super) async fn wait<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Result<T, Late> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.slot.waker.register(cx.waker());
            // Looked at after registering, or the keeper's wake could be missed.
            if self.slot.until_ms.load(Ordering::Acquire) == LATE {
                return Poll::Ready(Err(Late));
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slot.until_ms.store(FREE, Ordering::Release);
        // Else it would keep a task alive that is done.
        drop(self.slot.waker.take());
        self.bulkhead.free().push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let bulkheads = Bulkheads::new(2, 3);
        let taken: Vec<_> = (0..3).map(|_| bulkheads.take(0, soon(1_000)).expect("room")).collect();
        assert!(bulkheads.take(0, soon(1_000)).is_none());
        assert!(bulkheads.take(1, soon(1_000)).is_some(), "another service has room");
        assert_eq!(bulkheads.taken(0), 3);
        drop(taken);
        assert_eq!(bulkheads.taken(0), 0);
        assert!(bulkheads.take(0, soon(1_000)).is_some());
    }

    #[tokio::test]
    async fn what_is_never_answered_ends_at_its_deadline_and_not_before() {
        let bulkheads = Bulkheads::new(1, 2);
        // The second round finds the keeper at rest.
        for _ in 0..2 {
            let began = Instant::now();
            let place = bulkheads.take(0, soon(60)).expect("room");
            let longer = bulkheads.take(0, soon(60_000)).expect("room");
            assert_eq!(place.wait(pin!(std::future::pending::<()>())).await, Err(Late));
            assert!(began.elapsed() >= Duration::from_millis(60));
            assert_eq!(longer.wait(pin!(std::future::ready(7))).await, Ok(7));
            drop((place, longer));
            tokio::time::sleep(TICK * (2 * REST_AFTER_TICKS)).await;
            assert!(bulkheads.services.resting.load(Ordering::SeqCst));
        }
    }

    #[tokio::test]
    async fn a_place_that_was_late_is_new_for_the_next_call() {
        let bulkheads = Bulkheads::new(1, 1);
        let place = bulkheads.take(0, soon(0)).expect("room");
        assert_eq!(place.wait(pin!(std::future::pending::<()>())).await, Err(Late));
        drop(place);
        let place = bulkheads.take(0, soon(60_000)).expect("room");
        let answer = async {
            tokio::time::sleep(TICK * 3).await;
            7
        };
        assert_eq!(place.wait(pin!(answer)).await, Ok(7));
    }

    #[test]
    fn the_keeper_ends_with_the_bus() {
        let bulkheads = Bulkheads::new(1, 1);
        let services = Arc::downgrade(&bulkheads.services);
        drop(bulkheads);
        let began = Instant::now();
        while services.strong_count() > 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "the keeper holds on");
            std::thread::yield_now();
        }
    }
}
