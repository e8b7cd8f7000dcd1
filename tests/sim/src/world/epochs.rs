//! An epoch ends, and the next begins.

use std::sync::Arc;

use protocol::BlockIndex;
use protocol::consensus::{EnterRequest, Request};
use protocol::members::{MemberSet, SET_KEY};
use protocol::rules::RULES_KEY;
use protocol::state::{Answer as StateAnswer, GetRequest, Request as StateRequest};

use super::{World, lives};
use crate::cells::Epoch;
use crate::life::{Entering, Previous, Target};

impl World {
    /// Ends the epoch once its last round is ordered and all blocks are final, and begins the next with the members that the
    /// state names then.
    pub(super) fn turn(&mut self, who: usize, life: usize) {
        let at = &mut self.members[who].lives[life];
        if let Some(entering) = at.entering.take_if(|entering| at.consensus.is_durable(entering.needs)) {
            return self.begin_epoch(who, life, entering.epoch);
        }
        let Some(part) = &at.part else { return };
        let is_done = part.round >= part.last_round && part.decided.is_empty() && part.ordering.is_none();
        let is_final = at.progress.finalised == at.progress.ordered;
        if is_done && is_final && part.recording.is_none() && at.entering.is_none() {
            let target = Target { epoch: part.epoch.number + 1, base: at.progress.ordered };
            self.enter(who, life, target);
        }
    }

    /// Finds out who the members of an epoch are, all blocks before its first one being final, and journals it; whether it could.
    pub(super) fn enter(&mut self, who: usize, life: usize, target: Target) -> bool {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        let before = self.epoch_of(who, life);
        if before.epoch >= target.epoch {
            // Blocks of it were taken over: it has begun here with its first one.
            self.take_part(who, life);
            return true;
        }
        let at = &mut self.members[who].lives[life];
        let block = before.progress.ordered.checked_sub(1).map(BlockIndex);
        let asked = GetRequest { key: SET_KEY.to_owned(), at: block };
        let Ok(StateAnswer::ProveKey(proof)) = at.state.ask(StateRequest::ProveKey(asked), now, clock) else {
            return false;
        };
        let named = proof.value.as_ref().and_then(|value| hex::decode(value).ok());
        let named = named.and_then(|value| MemberSet::from_state(&value).ok());
        let Some(members) = named else { return false };
        if members != before.members {
            let rules = GetRequest { key: RULES_KEY.to_owned(), at: block };
            let Ok(StateAnswer::ProveKey(rules)) = at.state.ask(StateRequest::ProveKey(rules), now, clock)
            else {
                return false;
            };
            let asked = EnterRequest { epoch: target.epoch, members: members.clone(), proof, rules };
            if at.consensus.ask(Request::Enter(asked), now, clock).is_err() {
                return false;
            }
        }
        let epoch = Arc::new(Epoch::new(target.epoch, target.base, members));
        at.entering = Some(Entering { needs: at.consensus.length(), epoch });
        true
    }

    /// Begins an epoch, as one of its members or as one who follows.
    fn begin_epoch(&mut self, who: usize, life: usize, epoch: Arc<Epoch>) {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        let is_member = epoch.place(who).is_some() && epoch.cells().len() > 1;
        let Some(before) = at.part.take().filter(|_| is_member) else {
            // Who was no member asks the others first, and who is none any more follows.
            return self.take_part(who, life);
        };
        if epoch.number <= before.epoch.number {
            at.part = Some(before);
            return;
        }
        let finals = self.members[who].blocks.len() as u64;
        if finals < epoch.base {
            let (number, base) = (epoch.number, epoch.base);
            self.break_at(who, "membership", || {
                format!("it begins epoch {number} with {finals} final blocks of the {base} before it")
            });
        }
        self.note_epoch(who, &epoch);
        let next = lives::part(who, &self.plan, Arc::clone(&epoch), self.genesis.epoch_rounds(), clock);
        let is_next = epoch.number == before.epoch.number + 1;
        // As they were said: what no round has received is later than what one has that came too late.
        for payload in &before.void {
            self.say_again(who, life, payload);
        }
        for said in before.gossip.unordered_own() {
            self.say_again(who, life, &said.payload);
        }
        self.members[who].refused += before.gossip.status().refused;
        let at = &mut self.members[who].lives[life];
        at.part = next;
        if let Some(part) = &mut at.part {
            part.was_heard = before.was_heard;
            part.gossip.go_on(before.was_heard, clock);
            part.has_asked = !before.was_heard;
        }
        at.previous = is_next.then(|| Previous { epoch: before.epoch, gossip: before.gossip });
        at.claims.clear();
        at.target = None;
        at.looks_us = at.looks_us.min(self.now_us + 1);
        for (from, frame) in std::mem::take(&mut at.early) {
            self.deliver(from, who, life, frame);
        }
    }

    /// An honest cell begins an epoch, as every other one has to.
    pub(super) fn note_epoch(&mut self, who: usize, epoch: &Arc<Epoch>) {
        if !self.members[who].is_honest() {
            return;
        }
        let agreed = self.epochs.entry(epoch.number).or_insert_with(|| Arc::clone(epoch));
        if agreed != epoch {
            let why = format!("it begins {epoch:?}, where another one began {agreed:?}");
            self.break_at(who, "membership", || why);
        }
    }
}
