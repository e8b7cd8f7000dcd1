//! Who runs what may run at the same time. Services have no threads: they say what is independent, `cell` has hands.

use machine::Fault;

/// A piece of work that touches nothing another one of its list touches.
pub type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs jobs.
pub trait Workers: Send + Sync {
    /// Whether so many pieces of work, of some microseconds each, are done sooner if they are made into jobs.
    fn are_worth(&self, pieces: usize) -> bool;

    /// Runs all of them to their end before it returns: in any order, at the same time or one by one.
    fn run(&self, jobs: Vec<Job<'_>>);
}

/// Runs jobs one after the other, where it stands.
#[derive(Clone, Copy, Debug)]
pub struct InTurn;

impl Workers for InTurn {
    fn are_worth(&self, _: usize) -> bool {
        false
    }

    fn run(&self, jobs: Vec<Job<'_>>) {
        jobs.into_iter().for_each(|job| job());
    }
}

/// What `work` makes of each item, in the items' order, whoever runs it when.
pub(crate) fn each<T, R>(
    workers: &dyn Workers,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Result<Vec<R>, Fault>
where
    T: Send,
    R: Send,
{
    if !workers.are_worth(items.len()) {
        return Ok(items.into_iter().map(work).collect());
    }
    let work = &work;
    let mut done: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let jobs = items.into_iter().zip(&mut done);
    workers.run(jobs.map(|(item, slot)| Box::new(move || *slot = Some(work(item))) as Job<'_>).collect());
    done.into_iter().collect::<Option<_>>().ok_or_else(|| Fault("a job was left undone".to_owned()))
}
