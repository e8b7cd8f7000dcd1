//! Processes begin, end, and come back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use consensus::gossip::{Gossip, Said};
use consensus::hashgraph::{EventId, Hashgraph, Settings};
use consensus::{ConsensusMachine, Record};
use machine::module::RuleSets;
use protocol::consensus::{Answer, EpochView, Request};
use protocol::genesis::Genesis;
use protocol::shared::{Empty, ListRequest};
use state::StateMachine;

use super::World;
use crate::cells::Epoch;
use crate::life::{Life, Part};
use crate::member::GOSSIP;
use crate::plan::Plan;
use crate::words::numbers;

/// A process before its first start.
pub(super) fn life(genesis: &Arc<Genesis>, rules: &RuleSets) -> Life {
    let consensus = ConsensusMachine { genesis: Arc::clone(genesis), rules: rules.clone() };
    Life::new(consensus, StateMachine::new(Arc::clone(genesis), rules.clone()))
}

/// A part in an epoch in which nothing is known yet.
pub(super) fn part(
    who: usize,
    plan: &Plan,
    epoch: Arc<Epoch>,
    last_round: u64,
    clock_us: u64,
) -> Option<Part> {
    let me = epoch.place(who)?;
    let settings = Settings { coin_rounds: 6, events_a_round_max: plan.events_a_round_max };
    let weights: Vec<u64> = epoch.members.all().iter().map(|member| member.weight).collect();
    let gossip = Gossip::new(me, Hashgraph::new(&weights, settings), GOSSIP, clock_us);
    Some(Part {
        epoch,
        me,
        gossip,
        last_round,
        round: 0,
        decided: VecDeque::new(),
        void: Vec::new(),
        to_record: Vec::new(),
        record_first: 0,
        record_due_us: u64::MAX,
        recording: None,
        ordering: None,
        was_heard: false,
        has_asked: false,
        told_by: BTreeSet::new(),
        told: BTreeSet::new(),
        rounds: 0,
        taken_out: 0,
    })
}

impl World {
    /// A process starts from what its journals hold.
    pub(super) fn begin_life(&mut self, who: usize, life: usize) {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        let asked = at.state.ask(protocol::state::Request::Initialise(Empty {}), self.now_us, clock);
        asked.expect("a state begins");
        self.take_part(who, life);
    }

    /// Takes the part that the present epoch gives, as far as the journal knows: gossips from where its events stand, or
    /// follows.
    pub(super) fn take_part(&mut self, who: usize, life: usize) {
        let view = self.epoch_of(who, life);
        let epoch = Arc::new(Epoch::new(view.epoch, view.base, view.members.clone()));
        let clock = self.members[who].clock(self.now_us);
        let part = part(who, &self.plan, Arc::clone(&epoch), self.genesis.epoch_rounds(), clock);
        let at = &mut self.members[who].lives[life];
        at.forget_part();
        at.progress = view.progress;
        at.looks_us = self.now_us + 1;
        let mut said = BTreeSet::new();
        if let Some(mut part) = part {
            self.note_epoch(who, &epoch);
            for (number, event) in (0..).zip(self.read_events(who, life, &view)) {
                let at = &mut self.members[who].lives[life];
                at.heard
                    .entry(epoch.number)
                    .or_default()
                    .extend(self.words.attestations(&event.payload).cloned());
                part.gossip.replay(event, number);
            }
            part.gossip.begin(clock);
            part.has_asked = true;
            for event in part.gossip.unordered_own() {
                said.extend(
                    numbers(&event.payload).filter(|word| self.words.as_attestation(*word).is_none()),
                );
            }
            self.members[who].lives[life].part = Some(part);
        }
        self.fill_pool(who, life, said);
    }

    /// Puts what waits in Consensus's view into the pool, but for what was said.
    fn fill_pool(&mut self, who: usize, life: usize, said: BTreeSet<u64>) {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        at.pool.reset(said);
        let list = ListRequest { limit: Some(1_000), cursor: None };
        if let Ok(Answer::Waits(page)) = at.consensus.ask(Request::Waits(list), self.now_us, clock) {
            for waiting in page.items {
                at.pool.add(waiting.entry, self.words.transaction(&waiting.transaction));
            }
        }
        if let Ok(Answer::OwnWords(page)) = at.consensus.ask(Request::OwnWords(Empty {}), self.now_us, clock)
        {
            for word in page.items {
                at.pool.words.push_back(self.words.attestation(word));
            }
        }
    }

    /// Where Consensus stands.
    pub(super) fn epoch_of(&mut self, who: usize, life: usize) -> EpochView {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        match at.consensus.ask(Request::GetEpoch(Empty {}), self.now_us, clock) {
            Ok(Answer::GetEpoch(view)) => view,
            other => unreachable!("the epoch can always be asked for: {other:?}"),
        }
    }

    /// The events of the present epoch that are in the journal.
    fn read_events(&self, who: usize, life: usize, view: &EpochView) -> Vec<Arc<Said>> {
        let Some(first) = view.entry else { return Vec::new() };
        let mut events = Vec::new();
        for record in self.members[who].lives[life].consensus.records().skip(first as usize) {
            if let Record::Events { epoch, events: batch, .. } = record
                && *epoch == view.epoch
            {
                events.extend(batch.iter().map(|bytes| self.event_of(bytes)));
            }
        }
        events
    }

    /// An event as the journal names it: by its id.
    pub(super) fn event_of(&self, bytes: &[u8]) -> Arc<Said> {
        Arc::clone(&self.made[&id_of(bytes)].said)
    }

    pub(super) fn crash(&mut self, who: usize) {
        let member = &mut self.members[who];
        if member.is_up {
            member.is_up = false;
            member.crashes += 1;
            member.wakes_us = u64::MAX;
            member.count_refused();
        }
    }

    /// It comes back with so much of its disk lost, of 100.
    pub(super) fn come_back(&mut self, who: usize, lost: u64) {
        self.members[who].is_up = true;
        for life in 0..self.members[who].lives.len() {
            let at = &mut self.members[who].lives[life];
            let before = at.part.as_ref().map(|part| (part.epoch.number, part.rounds));
            at.forget();
            at.consensus.crash();
            at.state.crash();
            if lost > 0 {
                self.lose(who, life, lost);
            }
            let at = &mut self.members[who].lives[life];
            at.consensus.restart();
            at.state.restart();
            self.begin_life(who, life);
            self.decide(who, life);
            let part = self.members[who].lives[life].part.as_ref();
            if let (Some((epoch, rounds)), Some(part)) = (before, part)
                && lost == 0
                && part.epoch.number == epoch
                && part.rounds < rounds
            {
                let now = part.rounds;
                self.break_at(who, "replay", || format!("it has given {now} rounds again of {rounds}"));
            }
        }
    }

    /// Both journals as they were some time ago. Of what was promised, only what is in events that it still has stays so: a disk has
    /// promised it that is lost.
    fn lose(&mut self, who: usize, life: usize, lost: u64) {
        let Self { members, made, submitted, acknowledged, .. } = self;
        let member = &mut members[who];
        member.was_restored = true;
        let at = &mut member.lives[life];
        let at_us = at.consensus.written_at(100 - lost as usize);
        at.consensus.lose_from(at_us);
        at.state.lose_from(at_us);
        let (mut kept, mut finals) = (BTreeSet::new(), 0);
        for record in at.consensus.records() {
            match record {
                Record::Events { events, .. } => {
                    let ids = events.iter().map(|bytes| id_of(bytes));
                    let own = ids.filter_map(|id| made.get(&id)).filter(|made| made.by == who);
                    kept.extend(own.flat_map(|made| numbers(&made.said.payload)));
                }
                Record::Finalised { .. } => finals += 1,
                _ => {}
            }
        }
        acknowledged.retain(|word| submitted.get(word) != Some(&who) || kept.contains(word));
        member.forget_blocks(finals);
    }
}

/// An event as the journal names it.
fn id_of(bytes: &[u8]) -> EventId {
    EventId(bytes.try_into().expect("ids are journaled"))
}
