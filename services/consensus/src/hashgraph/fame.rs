//! Virtual voting: which witnesses are famous (rule 4).

use super::bits::Bits;
use super::graph::Hashgraph;
use super::rounds::Fame;

impl Hashgraph {
    /// A new witness votes on all witnesses of rounds before its own that are not decided. Of those of the round before, it
    /// sees some and hears some.
    pub(super) fn decide_fame(&mut self, round: u64, slot: u32, sees: Bits, hears: &Bits, coin: bool) {
        let mut votes = Vec::with_capacity(round.saturating_sub(self.pending) as usize);
        for of in self.pending..round.saturating_sub(1) {
            let vote = self.vote(round, of, hears, coin);
            votes.push((of, vote));
        }
        if round > self.pending {
            votes.push((round - 1, sees));
        }
        if let Some(witness) = self.rounds.witness_mut(round, slot) {
            witness.votes = votes;
        }
    }

    /// A vote on the witnesses of a round, two or more before the voter's. What it decides is decided.
    fn vote(&mut self, round: u64, of: u64, hears: &Bits, coin: bool) -> Bits {
        self.tally.clear();
        let mut heard = 0;
        for voter in hears.iter().filter_map(|slot| self.rounds.witness(round - 1, slot)) {
            let weight = self.weights.of(voter.creator);
            heard += weight;
            if let Some(votes) = voter.votes_on(of) {
                self.tally.add(votes, weight);
            }
        }
        let supermajority = self.weights.supermajority();
        let most_say_yes = self.tally.at_least(heard.div_ceil(2).max(1));
        let sure_yes = self.tally.at_least(supermajority);
        // A witness hears a supermajority, unless a third has forked: then nobody is sure of anything.
        let not_sure_no = heard.checked_sub(supermajority).map(|missing| self.tally.at_least(missing + 1));
        let is_coin_round = self.is_coin_round(round, of);
        let mut vote = Bits::default();
        for slot in 0..self.rounds.witnesses(of).count() as u32 {
            let sure = if sure_yes.contains(slot) {
                Some(true)
            } else if not_sure_no.as_ref().is_none_or(|unsure| unsure.contains(slot)) {
                None
            } else {
                Some(false)
            };
            if let Some(yes) = sure
                && !is_coin_round
                && let Some(witness) = self.rounds.witness_mut(of, slot)
                && witness.fame == Fame::Undecided
            {
                witness.fame = if yes { Fame::Famous } else { Fame::NotFamous };
            }
            let unsure = if is_coin_round { coin } else { most_say_yes.contains(slot) };
            if sure.unwrap_or(unsure) {
                vote.insert(slot);
            }
        }
        vote
    }

    fn is_coin_round(&self, round: u64, of: u64) -> bool {
        (round - of).is_multiple_of(self.settings.coin_rounds)
    }
}
