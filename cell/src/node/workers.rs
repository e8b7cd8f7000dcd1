//! Threads for State: transactions that have nothing in common are executed at the same time.

use std::sync::{Mutex, PoisonError};
use std::thread;

use state::{InTurn, Job, Workers};

/// Fewer jobs are done sooner by the thread that has them than by others that have to be started.
const JOBS_MIN: usize = 128;

/// As many threads as there are cores, the caller's among them; they last as long as the jobs.
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
    fn run(&self, jobs: Vec<Job<'_>>) {
        if self.count == 1 || jobs.len() < JOBS_MIN {
            return InTurn.run(jobs);
        }
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
        for (count, jobs) in [(1, 500), (4, 3), (4, JOBS_MIN), (4, 5_000)] {
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
