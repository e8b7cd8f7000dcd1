//! A service of a cell: the real machine, with its view in memory, on a journal that loses what is not synced.

use std::collections::VecDeque;

use machine::{AnswerOf, At, Context, Decision, Machine, MemoryStore, RequestOf};
use protocol::{Caller, Problem};

use crate::random::Random;

struct Kept<R> {
    /// When it was written, by the simulation's clock and by the cell's own.
    at_us: u64,
    time_ms: u64,
    record: R,
}

/// A machine and its journal. Nothing leaves it before it is durable: effects wait for that here, and for an answer whoever asks does.
pub(crate) struct Service<M: Machine> {
    machine: M,
    journal: Vec<Kept<M::Record>>,
    durable: usize,
    /// Until when the sync takes that is under way, and what it makes durable.
    sync: Option<(u64, usize)>,
    view: MemoryStore,
    /// Effects, each with the length of the journal that it waits for.
    effects: VecDeque<(usize, M::Effect)>,
}

impl<M: Machine> Service<M> {
    pub(crate) fn new(machine: M) -> Self {
        let (journal, view) = (Vec::new(), MemoryStore::default());
        Self { machine, journal, durable: 0, sync: None, view, effects: VecDeque::new() }
    }

    /// Asks; what follows is written.
    pub(crate) fn ask(
        &mut self,
        request: RequestOf<M>,
        now_us: u64,
        clock_us: u64,
    ) -> Result<AnswerOf<M>, Problem> {
        let time_ms = clock_us / 1_000;
        let context = Context { now_ms: time_ms, entropy: [0; 32], caller: Caller::Internal };
        match self.machine.decide(&self.view, &context, request).expect("a view in memory is readable") {
            Decision::Answer(answer) => Ok(answer),
            Decision::Refuse(problem) => Err(problem),
            Decision::Commit { records, answer } => {
                for record in records {
                    let index = self.journal.len() as u64;
                    let effects = self.fold(At { index, time_ms }, &record);
                    self.journal.push(Kept { at_us: now_us, time_ms, record });
                    let needs = self.journal.len();
                    self.effects.extend(effects.into_iter().map(|effect| (needs, effect)));
                }
                Ok(answer)
            }
        }
    }

    fn fold(&mut self, at: At, record: &M::Record) -> Vec<M::Effect> {
        self.machine.apply(&mut self.view, at, record).expect("a view in memory is readable")
    }

    /// How long the journal is: what has to be durable before an answer given now may be used.
    pub(crate) fn length(&self) -> usize {
        self.journal.len()
    }

    /// Whether so much of the journal is durable.
    pub(crate) fn is_durable(&self, length: usize) -> bool {
        length <= self.durable
    }

    pub(crate) fn record(&self, index: u64) -> &M::Record {
        &self.journal[index as usize].record
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &M::Record> {
        self.journal.iter().map(|kept| &kept.record)
    }

    /// The next effect whose record is durable.
    pub(crate) fn poll_effect(&mut self) -> Option<M::Effect> {
        let durable = self.durable;
        self.effects.pop_front_if(|(needs, _)| *needs <= durable).map(|(_, effect)| effect)
    }

    /// Ends the sync that is under way, if it is over.
    pub(crate) fn end_sync(&mut self, now_us: u64) {
        if let Some((_, upto)) = self.sync.take_if(|(until, _)| *until <= now_us) {
            self.durable = upto;
        }
    }

    /// Begins a sync, if something is not durable; gives when the one that is under way ends.
    pub(crate) fn begin_sync(&mut self, now_us: u64, took_us_max: u64, random: &mut Random) -> u64 {
        if self.sync.is_none() && self.durable < self.journal.len() {
            self.sync = Some((now_us + random.between(50, took_us_max), self.journal.len()));
        }
        self.sync.map_or(u64::MAX, |(until, _)| until)
    }

    /// Loses what is not durable.
    pub(crate) fn crash(&mut self) {
        self.journal.truncate(self.durable);
    }

    /// When the record was written before which so much of the journal stands, of 100.
    pub(crate) fn written_at(&self, percent: usize) -> u64 {
        self.journal.get(self.journal.len() * percent / 100).map_or(u64::MAX, |kept| kept.at_us)
    }

    /// Loses what was written at that time or later.
    pub(crate) fn lose_from(&mut self, at_us: u64) {
        let kept = self.journal.partition_point(|kept| kept.at_us < at_us);
        self.journal.truncate(kept);
    }

    /// Starts again from what the journal holds: what is owed comes out again.
    pub(crate) fn restart(&mut self) {
        (self.durable, self.sync) = (self.journal.len(), None);
        self.view = MemoryStore::default();
        let journal = std::mem::take(&mut self.journal);
        for (index, kept) in (0..).zip(&journal) {
            self.fold(At { index, time_ms: kept.time_ms }, &kept.record);
        }
        self.journal = journal;
        let owed = self.machine.owed(&self.view).expect("a view in memory is readable");
        self.effects = owed.into_iter().map(|owed| (0, owed.effect)).collect();
    }
}
