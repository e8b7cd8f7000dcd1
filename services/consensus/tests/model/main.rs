//! Small worlds, searched whole: every graph that a few members can make, in every order of arrival, and every way in which
//! members can come from one epoch to the next. Each search is shown to find what it looks for, on a world that breaks the rule.
//!
//! The searcher is `stateright` (breadth first, states told apart by a 64-bit hash).

mod epochs;
mod fame;

/// As many threads as there are cores.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
