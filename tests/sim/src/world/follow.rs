//! Final blocks taken over from others: by a member whose epoch is over elsewhere or who lacks words for a block, and by who is no
//! member.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::BlockIndex;
use protocol::block::BlockProof;
use protocol::consensus::{AdoptRequest, Answer, BlockRef, Request};
use protocol::members::{MemberSet, SET_KEY};
use protocol::state::{Answer as StateAnswer, GetRequest, Request as StateRequest};

use super::{Sent, World};
use crate::life::Target;

/// Blocks of one answer.
const ANSWER_BLOCKS_MAX: u64 = 16;
/// A block that is open for so long is asked for.
const STUCK_US: u64 = 1_000_000;
/// How often one who is behind, or no member, asks all others.
const BEHIND_US: u64 = 250_000;
/// Frames of the next epoch that are kept until it begins here.
const EARLY_MAX: usize = 64;

impl World {
    /// Looks whether others have gone on, and goes after them.
    pub(super) fn follow(&mut self, who: usize, life: usize) {
        let is_out = self.members[who].lives[life].part.is_none();
        if is_out && !self.members[who].is_honest() {
            // Whoever lies is rid of.
            self.members[who].lives[life].looks_us = u64::MAX;
            return;
        }
        self.aim(who, life);
        if self.now_us < self.members[who].lives[life].looks_us {
            return;
        }
        let at = &mut self.members[who].lives[life];
        let is_started = at.part.as_ref().is_some_and(|part| part.gossip.is_started());
        let is_stuck = at.progress.finalised < at.ordered_before;
        let is_behind = at.part.is_none() || at.target.is_some();
        at.looks_us = self.now_us + if is_behind { BEHIND_US } else { STUCK_US };
        at.ordered_before = at.progress.ordered;
        if is_behind || is_stuck || !is_started {
            let from = self.progress(who, life).finalised;
            for other in (0..self.members.len()).filter(|other| *other != who) {
                self.carry(who, other, Sent::AskBlocks { from });
            }
        }
    }

    /// Where so many members say to be that one of them is honest; goes on there once all blocks before are final here.
    fn aim(&mut self, who: usize, life: usize) {
        let at = &mut self.members[who].lives[life];
        if at.claims.is_empty() || at.entering.is_some() {
            return;
        }
        let claims: BTreeSet<Target> = at.claims.values().copied().collect();
        let latest = claims.last().copied();
        let is_news =
            latest.is_some_and(|target| target.epoch > at.part.as_ref().map_or(0, |part| part.epoch.number));
        if !is_news {
            return;
        }
        let view = self.epoch_of(who, life);
        let at = &mut self.members[who].lives[life];
        let is_believed = |target: &Target| {
            let same = at.claims.iter().filter(|(_, claimed)| *claimed == target);
            view.members.has_honest(
                view.members.weight_of_all(same.map(|(cell, _)| crate::cells::id(*cell)).collect()),
            )
        };
        let here = at.part.as_ref().map_or(view.epoch, |part| part.epoch.number);
        let Some(target) = claims.into_iter().rev().find(|target| target.epoch > here && is_believed(target))
        else {
            return;
        };
        if at.part.is_some() {
            at.looks_us = if at.target == Some(target) { at.looks_us } else { self.now_us };
            at.target = Some(target);
            if view.progress.finalised >= target.base {
                self.enter(who, life, target);
            }
        } else if view.progress.finalised == target.base
            && view.progress.ordered == target.base
            && self.named(who, life).is_some_and(|named| named != view.members)
        {
            self.enter(who, life, target);
        }
    }

    /// The members that the state here names.
    fn named(&mut self, who: usize, life: usize) -> Option<MemberSet> {
        let asked = StateRequest::Get(GetRequest { key: SET_KEY.to_owned(), at: None });
        match self.members[who].lives[life].state.ask(asked, 0, 0) {
            Ok(StateAnswer::Get(found)) => MemberSet::from_state(found.value?.as_bytes()).ok(),
            _ => None,
        }
    }

    /// A frame of an epoch that has not begun here: whoever sent it has ended this one.
    pub(super) fn keep_early(&mut self, from: usize, who: usize, life: usize, epoch: u64, frame: Sent) {
        let clock = self.members[who].clock(self.now_us);
        let at = &mut self.members[who].lives[life];
        let Some(part) = &mut at.part else { return };
        if let Some(sender) = part.epoch.place(from) {
            part.gossip.handle_connected(sender, clock);
        }
        if epoch == part.epoch.number + 1 && at.early.len() < EARLY_MAX {
            at.early.push((from, frame));
        }
    }

    /// Answers a question for final blocks.
    pub(super) fn asked_for_blocks(&mut self, from: usize, who: usize, life: usize, first: u64) {
        let view = self.epoch_of(who, life);
        let consensus = &mut self.members[who].lives[life].consensus;
        let mut proofs = Vec::new();
        for index in first..view.progress.finalised.min(first + ANSWER_BLOCKS_MAX) {
            let asked = Request::GetBlock(BlockRef { index: BlockIndex(index) });
            if let Ok(Answer::GetBlock(mut found)) = consensus.ask(asked, 0, 0) {
                found.proof.handoffs.clear();
                proofs.push(found.proof);
            }
        }
        // Where it is goes out with the rest once it is durable; what is not is asked for again.
        let is_durable = consensus.is_durable(consensus.length());
        let target = Target { epoch: view.epoch, base: view.base };
        if is_durable {
            self.carry(who, from, Sent::Blocks { proofs: Arc::new(proofs), target });
        }
    }

    /// Takes blocks over, each checked by the members of its epoch.
    pub(super) fn take_blocks(
        &mut self,
        from: usize,
        who: usize,
        life: usize,
        proofs: &[BlockProof],
        target: Target,
    ) {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        self.members[who].lives[life].claims.insert(from, target);
        let view = self.epoch_of(who, life);
        let present = view.members.hash();
        let at = &self.members[who].lives[life];
        // Of blocks that are ordered here, it lacks words only if they have been for a while.
        let is_stuck = view.progress.finalised < at.ordered_before;
        let from_block = if is_stuck { view.progress.finalised } else { view.progress.ordered };
        let mut news = proofs.iter().filter(|proof| proof.block.header.index.0 >= from_block).peekable();
        let Some(first) = news.peek().map(|proof| proof.block.header.clone()) else { return };
        if first.members != present {
            let is_next = first.epoch > view.epoch
                && first.index.0 == view.progress.finalised
                && view.progress.finalised == view.progress.ordered;
            if is_next && self.members[who].lives[life].entering.is_none() {
                self.enter(who, life, Target { epoch: first.epoch, base: first.index.0 });
            }
            return;
        }
        let of_present: Vec<BlockProof> =
            news.take_while(|proof| proof.block.header.members == present).cloned().collect();
        let genesis = self.genesis.hash();
        if of_present.iter().any(|proof| proof.check(&genesis, &view.members).is_err()) {
            return;
        }
        let member = &mut self.members[who];
        let at = &mut member.lives[life];
        let taken = of_present.len() as u64;
        match at.consensus.ask(Request::Adopt(AdoptRequest { proofs: of_present }), now, clock) {
            Ok(Answer::Adopt(progress)) => {
                at.progress.ordered = at.progress.ordered.max(progress.ordered);
                let is_more = progress.ordered > view.progress.ordered;
                if is_more && (at.part.is_none() || at.target.is_some()) {
                    // There may be more.
                    at.looks_us = now + 1;
                }
                member.taken_over += if is_more { taken } else { 0 };
            }
            other => {
                self.break_at(who, "same root", || format!("a final block is not taken over: {other:?}"))
            }
        }
    }
}
