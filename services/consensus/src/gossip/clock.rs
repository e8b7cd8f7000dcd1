//! A clock that is never set back, made of one that may be.

/// What a clock has shown, and how far behind it was set since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    last_us: u64,
    behind_us: u64,
}

impl Clock {
    pub(super) fn new(now_us: u64) -> Self {
        Self { last_us: now_us, behind_us: 0 }
    }

    /// The time, never before what it was.
    pub(super) fn steady(&mut self, now_us: u64) -> u64 {
        let steady_us = now_us.saturating_add(self.behind_us);
        self.behind_us += self.last_us.saturating_sub(steady_us);
        self.last_us = self.last_us.max(steady_us);
        self.last_us
    }

    /// What the clock will show at a time.
    pub(super) fn shown(&self, steady_us: u64) -> u64 {
        if steady_us == u64::MAX { u64::MAX } else { steady_us.saturating_sub(self.behind_us) }
    }
}
