//! Until when a grant may be used, and what a batch waits for before it is released.
//!
//! A host that runs a service for the one that leads asks it again and again whether it still may ([`Lease::extend`]). The time counts from when
//! it asked, by the monotonic clock of its own machine: it ends here before it ends where it was asked. So when nothing is heard for longer, the
//! service may be taken over, and
//!
//! - nothing is written here under the old grant: the writer waits until the lease holds again, or is fenced;
//! - where a replica is in the path, nothing is released that it has not, or without the lease, and nothing is answered from a view that may be
//!   of the past.
//!
//! A process that was frozen finds out by looking at the clock, before it does any of that. What it was about to release when it was frozen is
//! in the replica; what is not there, it never releases.
//!
//! The host that leads holds what it runs itself as long as it leads, where leading is by election: it says so again and again
//! ([`Lease::bind`]). Where there is nobody who could be elected, a grant of it holds for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::{Problem, ProblemKind, Service};

use super::Grant;

/// How long a thread waits at once: what it waits for wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The lease of one service's grant on this host. Clones are of the same one.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether answers have to look at the clock: a load for all that do not.
    is_strict: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    /// Until when; for ever when absent.
    until: Option<Instant>,
    /// How many entries a replica has made durable, where that is waited for.
    replicated: Option<u64>,
    is_fenced: bool,
}

impl State {
    fn holds(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Lease {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A grant begins. One by the host that leads has to be extended before it is of use; one that is known, of a service that starts again,
    /// goes on as it is.
    pub(crate) fn begin(&self, grant: &Grant) {
        let mut state = self.state();
        if state.epoch == grant.epoch() && !state.is_fenced {
            return;
        }
        *state = State {
            epoch: grant.epoch(),
            until: grant.is_leased().then(Instant::now),
            replicated: grant.is_replicated().then_some(0),
            is_fenced: false,
        };
        self.0.is_strict.store(grant.is_replicated(), Ordering::Release);
        self.0.changed.notify_all();
    }

    /// The grant under this epoch may be used until then.
    pub(crate) fn extend(&self, epoch: u64, until: Instant) {
        let mut state = self.state();
        if state.epoch == epoch && state.until.is_some_and(|before| before < until) {
            state.until = Some(until);
            self.0.changed.notify_all();
        }
    }

    /// The grant in force may be used until then, no longer and no shorter, whatever was said before. By the host that leads, of what it runs.
    pub(crate) fn bind(&self, until: Instant) {
        let mut state = self.state();
        if state.epoch > 0 && !state.is_fenced {
            state.until = Some(until);
            self.0.changed.notify_all();
        }
    }

    /// From now on nothing is released before replicas have it, nor answered without a lease.
    pub(crate) fn tighten(&self) {
        let mut state = self.state();
        if state.epoch > 0 && state.replicated.is_none() {
            state.replicated = Some(0);
            self.0.is_strict.store(true, Ordering::Release);
        }
    }

    /// So many entries are durable on as many replicas as have to have them, of those that were written under this epoch or before.
    pub(crate) fn replicated(&self, epoch: u64, entries: u64) {
        let mut state = self.state();
        if state.epoch == epoch && state.replicated.is_some_and(|before| before != entries) {
            state.replicated = Some(entries);
            self.0.changed.notify_all();
        }
    }

    /// How many of a journal's entries may be told of, when it has so many on this disk.
    pub(crate) fn told_of(&self, length: u64) -> u64 {
        self.state().replicated.map_or(length, |replicated| replicated.min(length))
    }

    /// The epoch under which the journal is written here, as long as it is.
    pub(crate) fn epoch(&self) -> Option<u64> {
        let state = self.state();
        (state.epoch > 0 && !state.is_fenced).then_some(state.epoch)
    }

    /// Another host has the journal: whatever waits here fails, and nothing is written any more.
    pub(crate) fn fence(&self) {
        self.state().is_fenced = true;
        self.0.changed.notify_all();
    }

    /// Whether the view here is that of the journal's writer, and not of the past.
    pub(crate) fn may_answer(&self) -> bool {
        if !self.0.is_strict.load(Ordering::Acquire) {
            return true;
        }
        let state = self.state();
        !state.is_fenced && state.holds()
    }

    /// Waits until the journal may be written.
    ///
    /// # Errors
    ///
    /// `service.fenced`: another host writes it.
    pub(crate) fn wait_to_write(&self, grant: &Grant) -> Result<(), Problem> {
        self.wait(grant, State::holds).map_err(|()| fenced(grant.service()))
    }

    /// Waits until a replica has so many entries, where that is asked for, and the lease holds: whoever takes the journal over when it has
    /// ended finds on the replicas all that was ever released.
    ///
    /// # Errors
    ///
    /// `service.outcome_unknown`: another host writes the journal now, and may have taken these entries over or not.
    pub(crate) fn wait_for_replica(&self, grant: &Grant, entries: u64) -> Result<(), Problem> {
        let has_all = |replicated: u64, state: &State| entries <= replicated && state.holds();
        let is_there = |state: &State| state.replicated.is_none_or(|replicated| has_all(replicated, state));
        self.wait(grant, is_there).map_err(|()| {
            let cause =
                format!("another host took the {} service over while this was under way", grant.service());
            Problem::new(ProblemKind::UnknownOutcome, "service.outcome_unknown", cause)
                .hint("ask again with the same request id, or look first")
        })
    }

    fn wait(&self, grant: &Grant, is_fine: impl Fn(&State) -> bool) -> Result<(), ()> {
        let mut state = self.state();
        loop {
            if state.is_fenced || state.epoch != grant.epoch() {
                return Err(());
            }
            if is_fine(&state) {
                return Ok(());
            }
            let waited = self.0.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The refusal of what would have to be answered from a view that may be of the past.
pub(crate) fn lapsed(service: Service) -> Problem {
    let cause = format!("this host has not heard for too long that the {service} service is still its");
    Problem::new(ProblemKind::Unavailable, "service.lease_lapsed", cause)
        .hint("ask another host, or again in a moment: cell hosts shows the connections")
}

fn fenced(service: Service) -> Problem {
    let cause = format!("another host writes the {service} journal now; nothing of this was written");
    Problem::new(ProblemKind::Unavailable, "service.fenced", cause).hint("ask again: the call goes there")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(epoch: u64, replicated: bool) -> (Lease, Grant) {
        let (lease, grant) = (Lease::default(), Grant::by_lead(Service::State, epoch, replicated, false));
        lease.begin(&grant);
        (lease, grant)
    }

    /// What came of a thread that is to end.
    fn ended<T>(thread: std::thread::JoinHandle<T>) -> T {
        let began = Instant::now();
        while !thread.is_finished() {
            assert!(began.elapsed() < Duration::from_secs(10), "it waits for ever");
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().expect("ends")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_grant_of_this_host_alone_holds_for_ever() {
        let (lease, grant) = (Lease::default(), Grant::of_nucleus());
        lease.begin(&grant);
        assert!(lease.may_answer());
        lease.wait_to_write(&grant).expect("holds");
        lease.wait_for_replica(&grant, 1_000).expect("nobody is waited for");
    }

    /// Who wakes from a frozen sleep looks at the clock before anything else.
    #[test]
    fn nothing_is_answered_or_written_when_the_lease_has_lapsed() {
        let (lease, grant) = granted(3, true);
        assert!(!lease.may_answer(), "it was never extended");
        lease.extend(3, Instant::now() + Duration::from_millis(50));
        assert!(lease.may_answer());
        lease.wait_to_write(&grant).expect("holds");
        std::thread::sleep(Duration::from_millis(60));
        assert!(!lease.may_answer());
        let (other, late) = (lease.clone(), grant);
        let writer = std::thread::spawn(move || other.wait_to_write(&late));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!writer.is_finished(), "it waits");
        lease.fence();
        let problem = ended(writer).expect_err("another host writes it");
        assert_eq!(problem.code, "service.fenced");
    }

    #[test]
    fn a_word_about_another_epoch_says_nothing() {
        let (lease, grant) = granted(3, true);
        lease.extend(2, soon());
        lease.extend(4, soon());
        assert!(!lease.may_answer());
        lease.replicated(2, 10);
        lease.extend(3, soon());
        assert!(lease.may_answer());
        lease.replicated(3, 5);
        lease.wait_for_replica(&grant, 5).expect("five are there");
        lease.begin(&Grant::by_lead(Service::State, 4, true, false));
        let problem = lease.wait_for_replica(&grant, 5).expect_err("an older writer");
        assert_eq!(
            (problem.code.as_ref(), problem.kind),
            ("service.outcome_unknown", ProblemKind::UnknownOutcome)
        );
    }

    #[test]
    fn a_batch_waits_for_the_replica() {
        let (lease, grant) = granted(1, true);
        lease.extend(1, soon());
        let other = lease.clone();
        let writer = std::thread::spawn(move || other.wait_for_replica(&grant, 7));
        lease.replicated(1, 6);
        std::thread::sleep(Duration::from_millis(30));
        assert!(!writer.is_finished(), "six are not seven");
        // Whoever may take over since would not look for the seventh.
        lease.bind(Instant::now());
        lease.replicated(1, 7);
        std::thread::sleep(Duration::from_millis(30));
        assert!(!writer.is_finished(), "nothing is released without a lease");
        lease.bind(soon());
        ended(writer).expect("it is there");
    }
}
