//! How often one call is tried, and what of it is sent each time.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use protocol::action::Kind;
use protocol::{ActionInfo, Problem, ProblemKind, Service};

use super::Breaker;

/// Times a query is tried again.
const RETRIES_MAX: u32 = 2;
/// Pause before the first retry, half of it more or less; the second waits twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// The tries of one call: each is let through by the breaker, and heard of by it. Commands have one.
pub(super) struct Tries<'a> {
    breaker: &'a Breaker,
    service: Service,
    /// Tries after the one under way.
    left: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(breaker: &'a Breaker, action: &ActionInfo) -> Self {
        let left = match action.kind {
            Kind::Query => RETRIES_MAX,
            Kind::Command => 0,
        };
        Self { breaker, service: action.service, left }
    }

    /// Begins one.
    ///
    /// # Errors
    ///
    /// `bus.circuit_open`.
    pub(super) fn begin(&mut self) -> Result<(), Problem> {
        self.breaker.check(self.service)
    }

    /// Whether there is none after it.
    pub(super) fn is_last(&self) -> bool {
        self.left == 0
    }

    /// Takes note of what came of a try; how long to rest before the next one, if there is to be one.
    pub(super) fn pause_after<T>(&mut self, result: &Result<T, Problem>) -> Option<Duration> {
        self.breaker.saw(result);
        let Err(problem) = result else { return None };
        if self.is_last() || !worth_a_retry(problem) {
            return None;
        }
        self.left -= 1;
        Some(jittered(RETRY_PAUSE * (RETRIES_MAX - self.left)))
    }
}

/// Waits before the next try.
pub(super) async fn rest(pause: Duration) {
    // In a box: hardly any call rests, and each would carry the timer about.
    Box::pin(tokio::time::sleep(pause)).await;
}

/// A call's request: sent once, or kept for when it has to be sent again.
pub(super) struct Sent<R> {
    request: Option<R>,
    /// Whether it is needed after the last try.
    pub(super) is_kept: bool,
}

impl<R: Clone> Sent<R> {
    /// One that nobody needs after its last try.
    pub(super) fn last(request: R) -> Self {
        Self { request: Some(request), is_kept: false }
    }

    /// One that stays.
    pub(super) fn kept(request: R) -> Self {
        Self { request: Some(request), is_kept: true }
    }

    /// A look at it.
    ///
    /// # Errors
    ///
    /// `bus.request_gone`: a defect.
    pub(super) fn request(&self) -> Result<&R, Problem> {
        self.request.as_ref().ok_or_else(gone)
    }

    /// What to send.
    ///
    /// # Errors
    ///
    /// As [`Sent::request`].
    pub(super) fn take(&mut self, is_last_try: bool) -> Result<R, Problem> {
        let sent = if is_last_try && !self.is_kept { self.request.take() } else { self.request.clone() };
        sent.ok_or_else(gone)
    }
}

fn gone() -> Problem {
    Problem::new(ProblemKind::Fault, "bus.request_gone", "a call was tried again after its last try")
}

/// Between half and one and a half of a pause: who was refused together does not come back together.
fn jittered(pause: Duration) -> Duration {
    let chance = RandomState::new().hash_one(()) % 1_024;
    pause / 2 + pause * u32::try_from(chance).unwrap_or(0) / 1_024
}

fn worth_a_retry(problem: &Problem) -> bool {
    ["bus.busy", "bus.not_running", "bus.not_here", "bus.host_unreachable"].contains(&&*problem.code)
}
