//! From what was ordered to what is final.

use consensus::Effect;
use protocol::block::Attestation;
use protocol::consensus::{Answer, AttestedRequest, BlockRef, ExecutedRequest, Progress, Request};
use protocol::state::{self, ApplyRequest};
use protocol::{BlockIndex, StateRoot, signing};

use super::World;
use crate::cells;
use crate::words::Word;

impl World {
    /// What is durable may leave: answers, effects.
    pub(super) fn release(&mut self, who: usize, life: usize) {
        let at = &mut self.members[who].lives[life];
        at.consensus.end_sync(self.now_us);
        at.state.end_sync(self.now_us);
        self.release_part(who, life);
        self.acknowledge(who, life);
        while let Some(effect) = self.members[who].lives[life].consensus.poll_effect() {
            let Self { members, words, .. } = self;
            let at = &mut members[who].lives[life];
            match effect {
                Effect::Say(waiting) => at.pool.add(waiting.entry, words.transaction(&waiting.transaction)),
                Effect::Execute(block) => at.blocks.push_back(block),
                Effect::Attest(word) => {
                    let has = |known: &Word| words.as_attestation(*known) == Some(&*word);
                    if !at.pool.words.iter().any(has) {
                        at.pool.words.push_back(words.attestation(*word));
                    }
                }
                Effect::Final(index) => {
                    at.progress.finalised = at.progress.finalised.max(index.0 + 1);
                    self.note_final(who, life, index);
                }
            }
        }
    }

    /// What is taken in and durable is promised; but not where nonces may have been used that nobody here knows of: by a disk that was
    /// restored, and by who has asked to join through others.
    fn acknowledge(&mut self, who: usize, life: usize) {
        let Self { members, acknowledged, plan, .. } = self;
        let member = &mut members[who];
        let promises = member.is_honest() && !member.was_restored && who < plan.members;
        let at = &mut member.lives[life];
        let durable = at.admitted.extract_if(.., |(needs, _)| at.consensus.is_durable(*needs));
        acknowledged.extend(durable.filter(|_| promises).map(|(_, word)| word));
    }

    /// Executes the next block, one at a time; gives its word once the result is durable.
    pub(super) fn execute(&mut self, who: usize, life: usize) {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        let at = &mut self.members[who].lives[life];
        if let Some((_, block, applied)) = at.applying.take_if(|(needs, ..)| at.state.is_durable(*needs)) {
            let attestation = Attestation::sign(cells::key(who), &block.header, applied.root);
            let asked = ExecutedRequest { applied, attestation: Some(attestation) };
            if let Err(problem) = at.consensus.ask(Request::Executed(asked), now, clock) {
                self.break_at(who, "same root", || problem.to_string());
            }
        }
        let at = &mut self.members[who].lives[life];
        if at.applying.is_none()
            && let Some(block) = at.blocks.pop_front()
        {
            let asked = ApplyRequest { block: (*block).clone() };
            match at.state.ask(state::Request::Apply(asked), now, clock) {
                Ok(state::Answer::Apply(applied)) => at.applying = Some((at.state.length(), block, applied)),
                other => self.break_at(who, "same root", || format!("a block is not applied: {other:?}")),
            }
        }
    }

    /// Journals what others say of blocks, all that has come together.
    pub(super) fn hear(&mut self, who: usize, life: usize) {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        let at = &mut self.members[who].lives[life];
        if at.heard.is_empty() || !at.consensus.is_durable(at.hearing) {
            return;
        }
        for (epoch, attestations) in std::mem::take(&mut at.heard) {
            let at = &mut self.members[who].lives[life];
            let asked = AttestedRequest { epoch, attestations };
            match at.consensus.ask(Request::Attested(asked), now, clock) {
                Ok(Answer::Attested(_)) => at.hearing = at.consensus.length(),
                other => self.break_at(who, "same root", || format!("words are not taken: {other:?}")),
            }
        }
    }

    /// A block is final: it has to be the one that it is everywhere, by the words of its own epoch's members.
    fn note_final(&mut self, who: usize, life: usize, index: BlockIndex) {
        let (now, clock) = (self.now_us, self.members[who].clock(self.now_us));
        let at = &mut self.members[who].lives[life];
        let Ok(Answer::GetBlock(found)) = at.consensus.ask(Request::GetBlock(BlockRef { index }), now, clock)
        else {
            return self.break_at(who, "same root", || format!("block {} is final and not there", index.0));
        };
        let block = &found.proof.block;
        let root = found.summary.root.unwrap_or(StateRoot::from_bytes([0; 32]));
        let hash = block.header.hash();
        let words = &self.words;
        let transactions = block.transactions.iter().filter_map(|transaction| words.of(&transaction.id()));
        let transactions: Vec<(Word, u64)> = transactions.map(|word| (word, now)).collect();
        self.trace.add_all(hash.as_bytes());
        self.trace.add_all(root.as_bytes());
        let member = &mut self.members[who];
        if index.0 != member.blocks.len() as u64 {
            return self.break_at(who, "same root", || format!("block {} is final out of turn", index.0));
        }
        member.blocks.push((hash, root, transactions.len()));
        member.words.extend(transactions);
        if !member.is_honest() {
            return;
        }
        let place = index.0 as usize;
        if self.blocks.len() == place {
            self.blocks.push((hash, root));
        }
        if self.blocks[place] != (hash, root) {
            self.break_at(who, "same root", || format!("block {place} is another one, or has another root"));
        }
        let header = &block.header;
        let voters: Vec<_> = found.proof.attestations.iter().map(|word| word.member).collect();
        let is_by_members = self.epochs.get(&header.epoch).is_none_or(|epoch| {
            let weight = epoch.members.weight_of_all(voters.clone());
            let all_are = voters.iter().all(|voter| epoch.members.contains(voter));
            epoch.members.hash() == header.members && all_are && epoch.members.is_supermajority(weight)
        });
        if !is_by_members {
            self.break_at(who, "membership", || format!("block {place} is final by others than its members"));
        }
    }

    /// A liar's words for blocks: some with a wrong root, beside the right one or in its place.
    pub(super) fn lie_about_roots(&mut self, who: usize, said: Vec<Word>) -> Vec<Word> {
        let mut lies = Vec::new();
        for word in said {
            if let Some(attestation) = self.words.as_attestation(word) {
                let mut lie = attestation.clone();
                lie.root = StateRoot::from_bytes([0xee; 32]);
                lie.signature = signing::sign(cells::key(who), &lie.signed_text(&self.genesis.hash()));
                lies.push(self.words.attestation(lie));
                if self.random.chance(70) {
                    continue;
                }
            }
            lies.push(word);
        }
        lies
    }

    /// How far blocks have come.
    pub(super) fn progress(&mut self, who: usize, life: usize) -> Progress {
        self.epoch_of(who, life).progress
    }
}
