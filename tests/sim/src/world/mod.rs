//! The network, and what happens to its members.
//!
//! - `frames` carries what is sent, loses, doubles and delays it, and hands it over.
//! - `lives` begins and ends processes.
//! - `gossip` drives a member's part in its epoch: events, records, rounds.
//! - `blocks` executes what was ordered, and gives words for it.
//! - `epochs` ends an epoch and begins the next; `follow` takes final blocks over from others.
//! - `submit` brings transactions; `show` is for who looks into a seed.
//!
//! All of these do what `cell/src/gossip` does, in one thread.

mod blocks;
mod epochs;
mod follow;
mod frames;
mod gossip;
mod lives;
mod show;
mod submit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consensus::gossip::Said;
use consensus::hashgraph::EventId;
use machine::module::{Module, RuleSets};
use protocol::genesis::Genesis;
use protocol::{BlockHash, StateRoot};

pub(crate) use frames::Sent;
pub use submit::Ask;

use crate::agenda::Agenda;
use crate::cells::{self, Epoch};
use crate::member::Member;
use crate::plan::{Lie, Plan};
use crate::random::Random;
use crate::signing::Digest;
use crate::words::{Word, Words};

enum Coming {
    Frame { from: usize, to: usize, life: usize, frame: Sent },
    Submit(usize, Ask),
    Crash(usize),
    Back(usize, u64),
    Wake(usize),
    Heal(usize),
    Jump(usize, i64),
    Flood(usize),
}

/// An event that somebody has made and signed.
#[derive(Clone, Debug)]
pub struct Made {
    /// Who.
    pub by: usize,
    /// In which epoch.
    pub epoch: u64,
    /// On which event of its own.
    pub self_parent: Option<EventId>,
    /// When.
    pub at_us: u64,
    pub(crate) said: Arc<Said>,
}

/// A run.
pub struct World {
    /// Its plan.
    pub plan: Plan,
    /// The members, and those who are none yet.
    pub members: Vec<Member>,
    /// Transactions that were submitted, to whom.
    pub submitted: BTreeMap<Word, usize>,
    /// Transactions that are promised: durable where they were submitted.
    pub acknowledged: BTreeSet<Word>,
    /// All events that were ever made.
    pub made: BTreeMap<EventId, Made>,
    /// Of each member, its events.
    made_by: Vec<Vec<EventId>>,
    /// All events that were ever sent by who made them, by creator, epoch and self-parent.
    pub sent: BTreeMap<(usize, u64, Option<EventId>), BTreeSet<EventId>>,
    /// The epochs, as the first honest member began them.
    pub epochs: BTreeMap<u64, Arc<Epoch>>,
    /// The rounds and blocks, as the first honest member had them.
    rounds: BTreeMap<(u64, u64), Digest>,
    blocks: Vec<(BlockHash, StateRoot)>,
    /// What was seen to be broken on the way: by which invariant.
    pub broken: Vec<(&'static str, String)>,
    /// A hash over all that has happened.
    pub trace: Digest,
    /// Whether events are sent before they are durable: to see a test go red.
    pub careless: bool,
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) words: Words,
    pub(crate) random: Random,
    pub(crate) now_us: u64,
    coming: Agenda<Coming>,
}

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::of(&mut random);
        Self::with(plan, random)
    }

    /// A world with this plan.
    pub fn with(plan: Plan, random: Random) -> Self {
        let founders: Vec<_> = (0..plan.members).map(cells::id).collect();
        let genesis = Genesis {
            epoch_rounds: plan.epoch_rounds,
            allocations: Vec::new(),
            ..Genesis::of_equals("sim", 1, &founders)
        };
        let genesis = Arc::new(genesis);
        let modules: [Arc<dyn Module>; 2] = [Arc::new(state::kv::Kv), Arc::new(consensus::members::Members)];
        let rules = RuleSets::first(modules);
        let cells = plan.cells();
        let mut world = Self {
            members: (0..cells)
                .map(|index| Member::new(index, &plan, || lives::life(&genesis, &rules)))
                .collect(),
            submitted: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            made: BTreeMap::new(),
            made_by: vec![Vec::new(); cells],
            sent: BTreeMap::new(),
            epochs: BTreeMap::new(),
            rounds: BTreeMap::new(),
            blocks: Vec::new(),
            broken: Vec::new(),
            trace: Digest::new(0),
            careless: false,
            genesis,
            words: Words::default(),
            plan,
            random,
            now_us: 0,
            coming: Agenda::default(),
        };
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for crash in self.plan.crashes.clone() {
            self.later(crash.at_us, Coming::Crash(crash.member));
            self.later(crash.back_us, Coming::Back(crash.member, crash.lost));
        }
        for jump in self.plan.jumps.clone() {
            self.later(jump.at_us, Coming::Jump(jump.member, jump.by_us));
        }
        for (place, until_us) in self.plan.cuts.iter().map(|cut| cut.until_us).enumerate().collect::<Vec<_>>()
        {
            self.later(until_us, Coming::Heal(place));
        }
        for who in 0..self.plan.members {
            if self.plan.lies[who] == Some(Lie::Flooding) {
                for _ in 0..2 {
                    let at_us = self.random.between(100_000, self.plan.heals_us);
                    self.later(at_us, Coming::Flood(who));
                }
            }
        }
        let mut at_us = self.random.between(1, 2 * self.plan.submit_us);
        while at_us < self.plan.submits_us {
            let who = self.random.below(self.plan.members);
            self.submit_at(who, at_us);
            at_us += self.random.between(1, 2 * self.plan.submit_us);
        }
        for (who, at_us, ask) in self.plan.changes.clone() {
            self.later(at_us, Coming::Submit(who, ask));
        }
    }

    /// Runs to the end.
    pub fn run(&mut self) {
        for who in 0..self.members.len() {
            for life in 0..self.members[who].lives.len() {
                self.begin_life(who, life);
            }
            self.settle(who);
        }
        while let Some((now, coming)) = self.coming.pop() {
            if now > self.plan.ends_us {
                break;
            }
            self.now_us = now;
            let touched = self.happen(coming);
            self.settle(touched);
        }
        self.members.iter_mut().for_each(Member::count_refused);
    }

    /// Gives a transaction to a member at some time.
    pub fn submit_at(&mut self, who: usize, at_us: u64) {
        self.later(at_us, Coming::Submit(who, Ask::Put));
    }

    fn later(&mut self, at_us: u64, coming: Coming) {
        self.coming.put(at_us, coming);
    }

    /// Lets something happen; to whom.
    fn happen(&mut self, coming: Coming) -> usize {
        let now = self.now_us;
        match coming {
            Coming::Frame { from, to, life, frame } => {
                self.deliver(from, to, life, frame);
                to
            }
            Coming::Submit(who, ask) => {
                self.submit(who, &ask);
                who
            }
            Coming::Crash(who) => {
                self.crash(who);
                who
            }
            Coming::Back(who, lost) => {
                if !self.members[who].is_up {
                    self.come_back(who, lost);
                }
                who
            }
            Coming::Wake(who) => {
                // Another wake may have come in between.
                if self.members[who].wakes_us == now {
                    self.members[who].wakes_us = u64::MAX;
                }
                who
            }
            Coming::Heal(cut) => {
                self.heal(cut);
                0
            }
            Coming::Jump(who, by_us) => {
                self.members[who].set_clock(by_us);
                who
            }
            Coming::Flood(who) => {
                if self.members[who].is_up {
                    self.flood(who);
                }
                who
            }
        }
    }

    /// Does all that a member has to do now.
    fn settle(&mut self, who: usize) {
        if !self.members[who].is_up || self.members[who].lie == Some(Lie::Silent) {
            return;
        }
        for life in 0..self.members[who].lives.len() {
            self.release(who, life);
            self.execute(who, life);
            self.hear(who, life);
            self.gossip(who, life);
            self.turn(who, life);
            self.follow(who, life);
            self.send(who, life);
            self.look(who, life);
            let next = self.sync(who, life).min(self.next(who, life)).max(self.now_us + 1);
            if next < self.members[who].wakes_us {
                self.members[who].wakes_us = next;
                self.later(next, Coming::Wake(who));
            }
        }
    }

    /// Begins what syncs are due; when the next one is over.
    fn sync(&mut self, who: usize, life: usize) -> u64 {
        let Self { members, random, plan, now_us, .. } = self;
        let at = &mut members[who].lives[life];
        let consensus = at.consensus.begin_sync(*now_us, plan.sync_us_max, random);
        consensus.min(at.state.begin_sync(*now_us, plan.sync_us_max, random))
    }

    /// When something is due though nothing comes.
    fn next(&self, who: usize, life: usize) -> u64 {
        let member = &self.members[who];
        let at = &member.lives[life];
        let Some(part) = &at.part else { return at.looks_us };
        let record_us = if part.recording.is_none() { part.record_due_us } else { u64::MAX };
        member.when(part.gossip.next_timeout_us()).min(record_us).min(at.looks_us)
    }

    /// Something that must not be was seen at an honest member.
    fn break_at(&mut self, who: usize, invariant: &'static str, why: impl FnOnce() -> String) {
        if self.members[who].is_honest() {
            self.broken.push((invariant, format!("member {who}: {}", why())));
        }
    }
}
