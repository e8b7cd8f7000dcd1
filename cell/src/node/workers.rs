//! Threads for State: transactions that have nothing in common are executed at the same time.

use std::sync::{Mutex, PoisonError};
use std::thread;

use state::{Job, Workers};

/// Fewer pieces are done sooner by the thread that has them than by others that have to be started.
const PIECES_MIN: usize = 256;

/// As many threads as there are cores, the caller's among them; they last as long as the jobs.
///
/// Two do not win: what one of them saves, finding out what is independent costs (ADR 0017).
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads {
    count: usize,
}

impl Threads {
    pub(super) fn all() -> Self {
        Self { count: thread::available_parallelism().map_or(1, usize::from) }
    }
}

impl Workers for Threads {
    fn are_worth(&self, pieces: usize) -> bool {
        self.count > 2 && pieces >= PIECES_MIN
    }

    fn run(&self, jobs: Vec<Job<'_>>) {
        let queue = Mutex::new(jobs.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(job) = next() {
                job();
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.count {
                scope.spawn(work);
            }
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_once_before_it_returns() {
        for (count, jobs) in [(1, 500), (4, 0), (4, 3), (4, 5_000)] {
            let done: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
            let job = |slot: &AtomicUsize| {
                slot.fetch_add(1, Ordering::Relaxed);
            };
            let all = done.iter().map(|slot| Box::new(move || job(slot)) as Job<'_>);
            Threads { count }.run(all.collect());
            assert!(
                done.iter().all(|slot| slot.load(Ordering::Relaxed) == 1),
                "{jobs} jobs of {count} threads"
            );
        }
    }
}
