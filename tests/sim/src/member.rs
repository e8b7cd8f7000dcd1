//! A member: its gossip, its disk, its clock, and what it has seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use consensus::gossip::{Gossip, Held, Said, Settings as GossipSettings};
use consensus::hashgraph::{EventId, Fork, Hashgraph, MemberIndex, Pace, Settings};

use crate::plan::{Lie, Plan};
use crate::signing::{Digest, Word};

/// How the members gossip.
pub const GOSSIP: GossipSettings = GossipSettings {
    pace: Pace { interval_us_min: 10_000, patience_us: 40_000 },
    answer_us_max: 100_000,
    quiet_us_max: 150_000,
    silence_us_max: 500_000,
    waiting_max: 200,
    frames_max: 16,
    payload_bytes_max: 20_000,
};

/// What the slowest clock shows when the simulation begins, in microseconds: it can be set back.
const FIRST_US: u64 = 100_000_000;

/// A life of a member: one, but for liars.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) gossip: Gossip,
    /// Events on the disk; of these the first are durable.
    pub(crate) disk: Vec<Arc<Said>>,
    pub(crate) durable: usize,
    /// Until when the sync takes that is under way, and what it makes durable.
    pub(crate) sync: Option<(u64, usize)>,
}

impl Life {
    /// Events to be sent, what is not in memory read from the disk.
    pub(crate) fn read(&self, events: Vec<Held>) -> Vec<Arc<Said>> {
        let read = |held| match held {
            Held::Here(said) => said,
            Held::Recorded(place) => {
                assert!((place as usize) < self.durable, "what is out of memory is durable");
                Arc::clone(&self.disk[place as usize])
            }
        };
        events.into_iter().map(read).collect()
    }
}

/// A member and what it has seen.
#[derive(Debug)]
pub struct Member {
    index: usize,
    pub(crate) lie: Option<Lie>,
    pub(crate) lives: Vec<Life>,
    pub(crate) is_up: bool,
    /// How often it has crashed.
    pub(crate) crashes: u32,
    /// When it is woken next.
    pub(crate) wakes_us: u64,
    /// What its clock is ahead of the simulation's.
    clock_us: u64,
    /// What is to be said.
    pub(crate) waiting: Vec<Word>,
    /// Members that have told all since it is up, and its own events that they had.
    pub(crate) told_by: BTreeSet<usize>,
    pub(crate) told: BTreeSet<EventId>,
    /// The rounds that were ordered, each as a hash of its events and times; and those before the last crash.
    pub rounds: Vec<Digest>,
    pub(crate) rounds_before: Vec<Digest>,
    /// The words in their order, and when each came out.
    pub words: Vec<(Word, u64)>,
    /// Events in those rounds.
    pub(crate) taken_out: usize,
    /// Forks that it knows of.
    pub forks: Vec<Fork>,
    /// The most events that it had in its graph, that waited for parents, and bytes beyond what has to be in memory.
    pub memory_max: (usize, usize, usize),
    /// Events sent to it whose signatures did not hold.
    pub unsigned: u64,
    /// Events that it refused.
    pub refused: u64,
    /// Frames in which events were that had left memory.
    pub read_back: u64,
}

impl Member {
    pub(crate) fn new(index: usize, plan: &Plan) -> Self {
        let lie = plan.lies[index];
        let clock_us = FIRST_US + plan.clocks[index];
        let life =
            || Life { gossip: gossip(index, plan, clock_us), disk: Vec::new(), durable: 0, sync: None };
        Self {
            index,
            lie,
            lives: (0..if lie == Some(Lie::TwoLives) { 2 } else { 1 }).map(|_| life()).collect(),
            is_up: true,
            crashes: 0,
            wakes_us: u64::MAX,
            clock_us,
            waiting: Vec::new(),
            told_by: BTreeSet::new(),
            told: BTreeSet::new(),
            rounds: Vec::new(),
            rounds_before: Vec::new(),
            words: Vec::new(),
            taken_out: 0,
            forks: Vec::new(),
            memory_max: (0, 0, 0),
            unsigned: 0,
            refused: 0,
            read_back: 0,
        }
    }

    /// Whether it does as it should, as far as its disk does.
    pub fn is_honest(&self) -> bool {
        self.lie.is_none()
    }

    /// Whether everything it knows of is ordered.
    pub fn is_at_rest(&self) -> bool {
        self.lives.iter().all(|life| !life.gossip.is_open())
    }

    /// Whether it has found that it was restored from an older disk.
    pub fn is_rolled_back(&self) -> bool {
        self.lives.iter().any(|life| life.gossip.is_rolled_back().is_some())
    }

    /// Events that wait for a parent.
    pub fn waiting_for_parents(&self) -> usize {
        self.lives.iter().map(|life| life.gossip.status().waiting).sum()
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

    pub(crate) fn crash(&mut self) {
        if self.is_up {
            self.is_up = false;
            self.crashes += 1;
            self.wakes_us = u64::MAX;
            self.waiting.clear();
            self.count_refused();
        }
    }

    /// Comes back with so much of its disk lost, of 100. The events that it had made durable and has no more.
    pub(crate) fn come_back(&mut self, plan: &Plan, lost: u64, now_us: u64) -> Vec<Arc<Said>> {
        self.is_up = true;
        self.told_by.clear();
        self.told.clear();
        // What was ordered before is ordered again from what is on the disk.
        if self.rounds.len() > self.rounds_before.len() {
            self.rounds_before = std::mem::take(&mut self.rounds);
        }
        self.rounds.clear();
        self.words.clear();
        self.taken_out = 0;
        let clock_us = self.clock(now_us);
        let mut gone = Vec::new();
        for life in &mut self.lives {
            life.disk.truncate(life.durable);
            gone = life.disk.split_off(life.durable - life.durable * lost as usize / 100);
            life.durable = life.disk.len();
            life.sync = None;
            life.gossip = gossip(self.index, plan, clock_us);
            for (place, said) in (0..).zip(&life.disk) {
                life.gossip.replay(Arc::clone(said), place);
            }
            life.gossip.begin(clock_us);
        }
        gone
    }

    pub(crate) fn count_refused(&mut self) {
        self.refused += self.lives.iter().map(|life| life.gossip.status().refused).sum::<u64>();
    }
}

fn gossip(me: usize, plan: &Plan, clock_us: u64) -> Gossip {
    let settings = Settings { coin_rounds: 6, events_a_round_max: plan.events_a_round_max };
    let graph = Hashgraph::new(&vec![1; plan.members], settings);
    Gossip::new(MemberIndex(me as u16), graph, GOSSIP, clock_us)
}
