//! A member's part in the gossip of its epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use consensus::gossip::{Draft, Ordered, Said};
use consensus::hashgraph::{EventId, Fork};
use protocol::consensus::{Answer, OrderRequest, OrderedRound, Progress, RecordRequest, Request};
use protocol::members::CHANGE_ROUNDS;

use super::{Made, World};
use crate::cells::Epoch;
use crate::plan::Lie;
use crate::signing::{Digest, is_signed, make};
use crate::words::{Word, numbers};

/// Microseconds within which events of others are journaled that nothing waits for.
const RECORD_WITHIN_US: u64 = 20_000;
/// Bytes that an event takes in memory at most: parents and words are few here.
const EVENT_BYTES_MAX: usize = 2_000;

impl World {
    /// Does what is due in the gossip.
    pub(super) fn gossip(&mut self, who: usize, life: usize) {
        self.speak(who, life);
        self.record(who, life);
        self.decide(who, life);
        self.order(who, life);
        self.report(who, life);
    }

    /// Makes an event, if one is due.
    fn speak(&mut self, who: usize, life: usize) {
        let clock = self.members[who].clock(self.now_us);
        let epoch_rounds = self.genesis.epoch_rounds();
        let member = &mut self.members[who];
        let at = &mut member.lives[life];
        let Some(part) = &mut at.part else { return };
        let is_ending = part.round >= part.last_round;
        // Rounds come only with events: where the epoch is to end early, everybody goes on until it does.
        let goes_on = part.last_round < epoch_rounds && !is_ending;
        part.gossip.set_awaits(goes_on || at.progress.finalised < at.progress.ordered);
        let is_behind = at.progress.ordered >= at.progress.finalised + consensus::EXECUTION_LAG_BLOCKS_MAX;
        // Who has found that it was restored says nothing any more in this epoch.
        let may_speak = part.gossip.is_rolled_back().is_none();
        let has_to_say = goes_on || at.pool.has_to_say(!is_ending && !is_behind);
        part.gossip.set_to_say(may_speak && has_to_say);
        part.gossip.handle_timeout(clock);
        let Some(mut draft) = part.gossip.draft(clock) else { return };
        if member.lie == Some(Lie::Deaf) {
            draft.other_parents.clear();
        }
        let mut said: Vec<Word> = at.pool.words.drain(..).collect();
        if !is_ending && !is_behind {
            said.extend(at.pool.again.drain(..).chain(at.pool.waiting.drain(..)));
        }
        if member.lie == Some(Lie::WrongRoot) {
            said = self.lie_about_roots(who, said);
        }
        let payload: Vec<u8> = said.into_iter().flat_map(Word::to_le_bytes).collect();
        let Some(part) = &mut self.members[who].lives[life].part else { return };
        // Two lives of one member never say the very same.
        let draft = Draft { time_us: draft.time_us + life as u64, ..draft };
        let said = make(&part.epoch, part.me, draft, payload, &self.words);
        part.gossip.say(Arc::clone(&said), clock);
        let epoch = Arc::clone(&part.epoch);
        self.check_start(who, life, &said);
        self.note_made(&epoch, &said);
    }

    /// Who makes an event is a member, has been told all by enough others, and none of them had another one in its place.
    fn check_start(&mut self, who: usize, life: usize, said: &Said) {
        let Some(part) = &self.members[who].lives[life].part else { return };
        let agreed = self.epochs.get(&part.epoch.number);
        if agreed.is_none_or(|epoch| epoch.place(who).is_none()) {
            let epoch = part.epoch.number;
            return self
                .break_at(who, "membership", || format!("it speaks in epoch {epoch}, which it is not in"));
        }
        if !part.has_asked {
            return;
        }
        let has_enough = 3 * (part.told_by.len() + 1) > 2 * part.epoch.cells().len();
        let (self_parent, epoch) = (said.event.self_parent, part.epoch.number);
        let mut told = part.told.iter().filter_map(|id| self.made.get(id));
        let was_told = told.any(|made| made.epoch == epoch && made.self_parent == self_parent);
        if !has_enough {
            self.break_at(who, "start", || "it speaks too early".to_owned());
        }
        if was_told {
            self.break_at(who, "start", || "it was told of what it has lost".to_owned());
        }
    }

    pub(crate) fn note_made(&mut self, epoch: &Epoch, said: &Arc<Said>) {
        if let Some(by) = epoch.cell(said.event.creator).filter(|_| is_signed(epoch, said)) {
            let (self_parent, at_us, said) = (said.event.self_parent, self.now_us, Arc::clone(said));
            let id = said.event.id;
            self.made.insert(id, Made { by, epoch: epoch.number, self_parent, at_us, said });
            self.made_by[by].push(id);
        }
    }

    /// Gives the journal what has to be durable, one batch at a time. Others' events wait for an event of this member, or for
    /// a round that was decided, if one comes soon.
    fn record(&mut self, who: usize, life: usize) {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        let Some(part) = &mut at.part else { return };
        while let Some((number, said)) = part.gossip.poll_record() {
            if part.to_record.is_empty() {
                part.record_first = number;
                part.record_due_us = self.now_us + RECORD_WITHIN_US;
            }
            part.to_record.push(said);
            if self.careless {
                part.gossip.recorded(number, number);
            }
        }
        let is_due = part.gossip.waits_for_records() || part.record_due_us <= self.now_us;
        if part.recording.is_some() || part.to_record.is_empty() || !(is_due || self.careless) {
            return;
        }
        let batch = std::mem::take(&mut part.to_record);
        part.record_due_us = u64::MAX;
        let first = part.record_first;
        let events: Vec<Vec<u8>> = batch.iter().map(|said| said.event.id.0.to_vec()).collect();
        let numbers = first..=first + events.len() as u64 - 1;
        let asked = RecordRequest { epoch: part.epoch.number, first, events };
        match at.consensus.ask(Request::Record(asked), self.now_us, clock) {
            Ok(_) => part.recording = Some((at.consensus.length(), numbers)),
            // Blocks of a later epoch were taken over.
            Err(_) => self.take_part(who, life),
        }
    }

    /// What was journaled is durable, and may leave.
    pub(super) fn release_part(&mut self, who: usize, life: usize) {
        let at = &mut self.members[who].lives[life];
        let Some(part) = &mut at.part else { return };
        if let Some((_, numbers)) = part.recording.take_if(|(needs, _)| at.consensus.is_durable(*needs)) {
            numbers.for_each(|number| part.gossip.recorded(number, number));
        }
        if let Some((_, progress)) = part.ordering.take_if(|(needs, _)| at.consensus.is_durable(*needs)) {
            let finalised = at.progress.finalised.max(progress.finalised);
            at.progress = Progress { finalised, ..progress };
        }
    }

    /// Takes the rounds that were decided.
    pub(super) fn decide(&mut self, who: usize, life: usize) {
        loop {
            let part = self.members[who].lives[life].part.as_mut();
            let Some(ordered) = part.and_then(|part| part.gossip.poll_ordered()) else { return };
            self.note_round(who, life, &ordered);
            let Some(part) = &mut self.members[who].lives[life].part else { return };
            if ordered.round.0 > part.last_round {
                // What comes after an epoch's last round is said again in the next.
                let own = ordered.events.into_iter().map(|(said, _)| said);
                let own = own.filter(|said| said.event.creator == part.me && said.orders);
                part.void.extend(own.map(|said| said.payload.clone()));
                continue;
            }
            part.round = ordered.round.0;
            part.was_heard |= part.gossip.speaks_in(&ordered);
            if ordered.events.iter().any(|(said, _)| said.changes) {
                part.last_round = part.last_round.min(part.round.saturating_add(CHANGE_ROUNDS));
            }
            let time_us = ordered.events.iter().map(|(_, time)| *time).max().unwrap_or(0);
            let payloads =
                ordered.events.iter().filter(|(said, _)| said.orders).map(|(said, _)| &said.payload);
            let transactions: Vec<_> =
                payloads.flat_map(|payload| self.words.transactions(payload).cloned()).collect();
            if !transactions.is_empty() {
                let round = part.round;
                part.decided.push_back(OrderedRound { round, time_us, transactions, drawn: None });
            }
        }
    }

    /// Compares a round with what the first honest member had.
    fn note_round(&mut self, who: usize, life: usize, ordered: &Ordered) {
        let Some(part) = &mut self.members[who].lives[life].part else { return };
        let (epoch, before) = (part.epoch.number, part.rounds);
        part.rounds = ordered.round.0;
        part.taken_out += ordered.events.len();
        let mut digest = Digest::new(ordered.round.0);
        let mut all_signed = true;
        for (said, time_us) in &ordered.events {
            digest.add_all(&said.event.id.0);
            digest.add(*time_us);
            all_signed &= self.made.contains_key(&said.event.id);
        }
        self.trace.add_all(&digest.bytes());
        self.trace.add(who as u64);
        let place = (epoch, ordered.round.0);
        let had = self.members[who].rounds.insert(place, digest);
        if !self.members[who].is_honest() {
            return;
        }
        if !all_signed {
            self.break_at(who, "validity", || "it has ordered what nobody said".to_owned());
        }
        if ordered.round.0 != before + 1 {
            self.break_at(who, "agreement", || format!("it has left a round out before {place:?}"));
        }
        if had.is_some_and(|had| had != digest) {
            self.break_at(who, "replay", || format!("it has ordered {place:?} another way after a crash"));
        }
        if *self.rounds.entry(place).or_insert(digest) != digest {
            self.break_at(who, "agreement", || format!("it has ordered {place:?} as another one did not"));
        }
    }

    /// Gives Consensus what was decided.
    fn order(&mut self, who: usize, life: usize) {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        let Some(part) = &mut at.part else { return };
        if part.ordering.is_some() || part.decided.is_empty() {
            return;
        }
        let rounds = part.decided.drain(..).collect();
        let asked = OrderRequest { epoch: part.epoch.number, rounds };
        match at.consensus.ask(Request::Order(asked), self.now_us, clock) {
            Ok(Answer::Order(progress)) => part.ordering = Some((at.consensus.length(), progress)),
            other => self.break_at(who, "same root", || format!("nothing is ordered any more: {other:?}")),
        }
    }

    /// Who has forked is accused.
    fn report(&mut self, who: usize, life: usize) {
        loop {
            let Some(part) = &mut self.members[who].lives[life].part else { return };
            let Some(fork) = part.gossip.poll_fork() else { return };
            let epoch = Arc::clone(&part.epoch);
            let Some(forker) = epoch.cell(fork.member) else { continue };
            let holds = self.is_fork(forker, &epoch, &fork);
            let forks = &mut self.members[who].forks;
            let found = (forker, epoch.number, holds);
            // After a crash, it is found again.
            if !forks.contains(&found) {
                forks.push(found);
            }
            self.accuse(who, life, &epoch, &fork);
        }
    }

    fn is_fork(&self, forker: usize, epoch: &Epoch, fork: &Fork) -> bool {
        match fork.events.map(|event| self.made.get(&event)) {
            [Some(one), Some(other)] => {
                let is_of = |made: &Made| made.by == forker && made.epoch == epoch.number;
                is_of(one)
                    && is_of(other)
                    && one.self_parent == other.self_parent
                    && fork.events[0] != fork.events[1]
            }
            _ => false,
        }
    }

    /// Of whom it has two events on one self-parent in its graph.
    pub(crate) fn forkers_in_graph_of(&self, who: usize) -> BTreeSet<usize> {
        let parts = self.members[who].lives.iter().filter_map(|life| life.part.as_ref());
        let has = |id: &&EventId| parts.clone().any(|part| part.gossip.graph().contains(id));
        let unsound = (0..self.members.len()).filter(|cell| !self.plan.is_sound(*cell));
        let forks = |cell: &usize| {
            let mut places = BTreeSet::new();
            let of = self.made_by[*cell].iter().filter(has).map(|id| &self.made[id]);
            let places_of = of.map(|made| (made.epoch, made.self_parent));
            places_of.fold(false, |forks, place| forks | !places.insert(place))
        };
        unsound.filter(forks).collect()
    }

    /// Says again what was in an event that came to nothing.
    pub(super) fn say_again(&mut self, who: usize, life: usize, payload: &[u8]) {
        let transactions = numbers(payload).filter(|word| self.words.as_attestation(*word).is_none());
        self.members[who].lives[life].pool.again.extend(transactions);
    }

    /// How much it has in memory. To look at all of it each time would take most of the time.
    pub(super) fn look(&mut self, who: usize, life: usize) {
        let member = &mut self.members[who];
        if let Some(part) = &member.lives[life].part
            && self.coming.count().is_multiple_of(32)
        {
            let status = part.gossip.status();
            let has_to_be = status.events.saturating_sub(part.taken_out) * EVENT_BYTES_MAX;
            let (events, waiting, bytes) = &mut member.memory_max;
            *events = (*events).max(status.events);
            *waiting = (*waiting).max(status.waiting);
            *bytes = (*bytes).max(status.payload_bytes.saturating_sub(has_to_be));
        }
    }
}
