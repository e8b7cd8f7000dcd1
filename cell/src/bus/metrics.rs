//! Counters of each action: calls, refusals, failures, latency. Plain atomics, read by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use protocol::Problem;

/// Upper bounds of the latency buckets, in microseconds; the last bucket has none.
pub const BUCKETS_US: [u64; 11] =
    [10, 50, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 1_000_000, 10_000_000];

/// One action's counters since the cell started.
pub struct ActionMetrics {
    /// The action's name.
    pub action: &'static str,
    /// Calls that were refused.
    pub refused: AtomicU64,
    /// Calls that were answered from memory, without asking the service; answered ones too.
    pub from_memory: AtomicU64,
    /// Queries whose service could not be had, and that got an answer of their caller's own.
    pub fallbacks: AtomicU64,
    /// Latency counts, one a bucket and one for what is above all.
    pub latency: [AtomicU64; BUCKETS_US.len() + 1],
    /// Sum of all latencies in microseconds.
    pub latency_sum_us: AtomicU64,
}

impl ActionMetrics {
    /// All zero.
    pub fn new(action: &'static str) -> Self {
        Self {
            action,
            refused: AtomicU64::new(0),
            from_memory: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            latency: std::array::from_fn(|_| AtomicU64::new(0)),
            latency_sum_us: AtomicU64::new(0),
        }
    }

    /// Calls that were answered.
    pub fn answered(&self) -> u64 {
        let refused = self.refused.load(Ordering::Relaxed);
        let all: u64 = self.latency.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        all.saturating_sub(refused)
    }

    /// Counts a call that was answered from memory.
    pub fn given_again(&self) {
        self.from_memory.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that was answered from memory and not measured: among the shortest, where it would be.
    pub fn recalled(&self) {
        self.given_again();
        self.latency[0].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query that got its caller's own answer.
    pub fn fell_back(&self) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// Measures a call that began at `start`.
    pub fn since(&self, start: Instant) -> Measured<'_> {
        Measured { metrics: self, start }
    }
}

/// A call being measured.
pub struct Measured<'a> {
    metrics: &'a ActionMetrics,
    start: Instant,
}

impl Measured<'_> {
    /// Counts the call's outcome.
    pub fn finish<T>(self, result: &Result<T, Problem>) {
        let elapsed_us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < elapsed_us);
        self.metrics.latency[bucket].fetch_add(1, Ordering::Relaxed);
        self.metrics.latency_sum_us.fetch_add(elapsed_us, Ordering::Relaxed);
        if result.is_err() {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}
