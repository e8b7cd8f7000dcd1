//! A member: its lives, its clock, and what it has seen.

use std::collections::BTreeMap;

use consensus::Record;
use consensus::gossip::Settings as GossipSettings;
use consensus::hashgraph::Pace;
use protocol::{BlockHash, StateRoot};

use crate::cells;
use crate::life::Life;
use crate::plan::{Lie, Plan};
use crate::signing::Digest;
use crate::words::Word;

/// How the members gossip.
pub const GOSSIP: GossipSettings = GossipSettings {
    pace: Pace { interval_us_min: 20_000, patience_us: 60_000 },
    answer_us_max: 100_000,
    quiet_us_max: 150_000,
    silence_us_max: 500_000,
    waiting_max: 200,
    frames_max: 16,
    payload_bytes_max: 20_000,
};

/// What the slowest clock shows when the simulation begins, in microseconds: it can be set back.
const FIRST_US: u64 = 100_000_000;

/// A cell, a member or not, and what it has seen.
pub struct Member {
    pub(crate) lie: Option<Lie>,
    pub(crate) lives: Vec<Life>,
    pub(crate) is_up: bool,
    /// How often it has crashed.
    pub(crate) crashes: u32,
    /// Whether it was restored from an older disk already.
    pub(crate) was_restored: bool,
    /// When it is woken next.
    pub(crate) wakes_us: u64,
    /// What its clock is ahead of the simulation's.
    clock_us: u64,
    /// The rounds that were ordered, each as a hash of its events and times, by epoch and number.
    pub rounds: BTreeMap<(u64, u64), Digest>,
    /// The blocks that are final, each with its root and how many transactions it has.
    pub blocks: Vec<(BlockHash, StateRoot, usize)>,
    /// The transactions in them, in their order, and when each became final.
    pub words: Vec<(Word, u64)>,
    /// Cells that it has found to have forked, each with the epoch and whether two events on one self-parent show it.
    pub forks: Vec<(usize, u64, bool)>,
    /// The most events that it had in its graph, that waited for parents, and bytes beyond what has to be in memory.
    pub memory_max: (usize, usize, usize),
    /// Events sent to it whose signatures did not hold.
    pub unsigned: u64,
    /// Events that it refused.
    pub refused: u64,
    /// Frames in which events were that had left memory.
    pub read_back: u64,
    /// Blocks that it took over from others.
    pub taken_over: u64,
}

impl Member {
    pub(crate) fn new(index: usize, plan: &Plan, life: impl Fn() -> Life) -> Self {
        let lie = plan.lies[index];
        Self {
            lie,
            lives: (0..if lie == Some(Lie::TwoLives) { 2 } else { 1 }).map(|_| life()).collect(),
            is_up: true,
            crashes: 0,
            was_restored: false,
            wakes_us: u64::MAX,
            clock_us: FIRST_US + plan.clocks[index],
            rounds: BTreeMap::new(),
            blocks: Vec::new(),
            words: Vec::new(),
            forks: Vec::new(),
            memory_max: (0, 0, 0),
            unsigned: 0,
            refused: 0,
            read_back: 0,
            taken_over: 0,
        }
    }

    /// Whether it does as it should, as far as its disk does.
    pub fn is_honest(&self) -> bool {
        self.lie.is_none()
    }

    /// Whether everything it knows of is ordered, executed and final.
    pub fn is_at_rest(&self) -> bool {
        self.lives.iter().all(|life| {
            let is_open = life.part.as_ref().is_some_and(|part| part.gossip.is_open());
            !is_open && life.progress.finalised == life.progress.ordered && life.entering.is_none()
        })
    }

    /// Whether it has found that more than two thirds of the members came to another root.
    pub fn is_diverged(&self) -> bool {
        let is = |record: &Record| matches!(record, Record::Diverged { .. });
        self.lives.iter().any(|life| life.consensus.records().any(is))
    }

    /// Members whose forks it has evidence of.
    pub fn evidence(&self) -> impl Iterator<Item = usize> {
        let accused = |record: &Record| match record {
            Record::Forked { proof } => cells::number(&proof.one.creator),
            _ => None,
        };
        self.lives.iter().flat_map(|life| life.consensus.records()).filter_map(accused)
    }

    /// Whether it has found that it was restored from an older disk.
    pub fn is_rolled_back(&self) -> bool {
        let parts = self.lives.iter().filter_map(|life| life.part.as_ref());
        parts.into_iter().any(|part| part.gossip.is_rolled_back().is_some())
    }

    /// Events that wait for a parent.
    pub fn waiting_for_parents(&self) -> usize {
        let parts = self.lives.iter().filter_map(|life| life.part.as_ref());
        parts.map(|part| part.gossip.status().waiting).sum()
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now_us: u64) -> u64 {
        self.clock_us + now_us
    }

    /// When the simulation's clock will be there when its own shows that.
    pub(crate) fn when(&self, clock_us: u64) -> u64 {
        if clock_us == u64::MAX { u64::MAX } else { clock_us.saturating_sub(self.clock_us) }
    }

    pub(crate) fn set_clock(&mut self, by_us: i64) {
        self.clock_us = self.clock_us.saturating_add_signed(by_us);
    }

    /// Its disk knows only of so many final blocks any more.
    pub(crate) fn forget_blocks(&mut self, kept: usize) {
        self.blocks.truncate(kept);
        self.words.truncate(self.blocks.iter().map(|(_, _, transactions)| transactions).sum());
    }

    pub(crate) fn count_refused(&mut self) {
        let parts = self.lives.iter().filter_map(|life| life.part.as_ref());
        self.refused += parts.map(|part| part.gossip.status().refused).sum::<u64>();
    }
}
