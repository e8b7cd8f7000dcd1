//! A circuit breaker: a service that keeps failing is left alone for a while.
//!
//! Counts failures in a row: missed deadlines, faults, "not running". Refusals are answers, not
//! failures. When the count reaches the bound the circuit opens; after the pause one call is let
//! through, and its outcome closes the circuit or opens it again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::{Problem, ProblemKind, Service};

/// One service's breaker.
pub struct Breaker {
    failures: AtomicU32,
    /// Milliseconds after `born` at which the circuit lets a call through again; 0 when closed.
    open_until_ms: AtomicU64,
    born: Instant,
    failures_max: u32,
    pause: Duration,
}

impl Breaker {
    /// A closed circuit.
    pub fn new(failures_max: u32, pause: Duration) -> Self {
        Self {
            failures: AtomicU32::new(0),
            open_until_ms: AtomicU64::new(0),
            born: Instant::now(),
            failures_max,
            pause,
        }
    }

    /// Whether a call may pass.
    ///
    /// # Errors
    ///
    /// `bus.circuit_open` while it is open.
    pub fn check(&self, service: Service) -> Result<(), Problem> {
        let until = self.open_until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(());
        }
        let now = self.now_ms();
        // Whoever moves the mark is the one call that is let through as a probe.
        if now >= until
            && self
                .open_until_ms
                .compare_exchange(until, now + self.pause_ms(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Unavailable,
            "bus.circuit_open",
            format!("the {service} service failed several times in a row and is left alone for a moment"),
        )
        .hint("cell status shows its health; ask again in a second"))
    }

    /// Counts an outcome.
    pub fn saw<T>(&self, result: &Result<T, Problem>) {
        match result {
            Err(problem) if is_failure(problem) => self.failed(),
            _ if self.failures.load(Ordering::Relaxed) == 0 => {}
            _ => {
                self.failures.store(0, Ordering::Relaxed);
                self.open_until_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Closes the circuit: the service is another one than that which failed.
    pub fn forget(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.open_until_ms.store(0, Ordering::Relaxed);
    }

    fn failed(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= self.failures_max {
            self.open_until_ms.store(self.now_ms() + self.pause_ms(), Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn pause_ms(&self) -> u64 {
        u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

fn is_failure(problem: &Problem) -> bool {
    matches!(problem.kind, ProblemKind::Fault | ProblemKind::UnknownOutcome)
        || problem.code == "bus.not_running"
        || problem.code == "bus.host_unreachable"
        || problem.code == "bus.deadline"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Result<(), Problem> {
        Err(Problem::new(ProblemKind::Fault, "test.fault", "broken"))
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_probe_through() {
        let breaker = Breaker::new(3, Duration::from_millis(1));
        for _ in 0..2 {
            breaker.saw(&fault());
        }
        breaker.saw(&Ok(()));
        for _ in 0..3 {
            assert!(breaker.check(Service::State).is_ok());
            breaker.saw(&fault());
        }
        let probe = loop {
            match breaker.check(Service::State) {
                Ok(()) => break true,
                Err(problem) => assert_eq!(problem.code, "bus.circuit_open"),
            }
        };
        assert!(probe);
        breaker.saw(&Ok(()));
        assert!(breaker.check(Service::State).is_ok() && breaker.check(Service::State).is_ok());
    }
}
