//! The rounds with their witnesses.

use std::collections::VecDeque;

use super::bits::Bits;
use super::event::MemberIndex;
use super::graph::Number;
use super::weights::Weights;

/// What is known of a witness's fame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fame {
    /// Not enough votes are known.
    Undecided,
    /// Its round was settled by members who saw it early.
    Famous,
    /// It was not.
    NotFamous,
}

/// A witness.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) number: Number,
    pub(super) creator: MemberIndex,
    pub(super) birth: u64,
    pub(super) fame: Fame,
    /// Its votes on the witnesses of earlier rounds, by round.
    pub(super) votes: Vec<(u64, Bits)>,
}

impl Witness {
    pub(super) fn new(number: Number, creator: MemberIndex, birth: u64) -> Self {
        Self { number, creator, birth, fame: Fame::Undecided, votes: Vec::new() }
    }

    pub(super) fn votes_on(&self, round: u64) -> Option<&Bits> {
        self.votes.iter().find(|(of, _)| *of == round).map(|(_, votes)| votes)
    }
}

#[derive(Clone, Debug)]
struct Info {
    /// A witness's place here is its slot.
    witnesses: Vec<Witness>,
    least_birth: u64,
}

impl Default for Info {
    fn default() -> Self {
        Self { witnesses: Vec::new(), least_birth: u64::MAX }
    }
}

/// The rounds that are remembered.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    first: u64,
    infos: VecDeque<Info>,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { first: 1, infos: VecDeque::new() }
    }
}

impl Rounds {
    fn info(&self, round: u64) -> Option<&Info> {
        self.infos.get(usize::try_from(round.checked_sub(self.first)?).ok()?)
    }

    fn info_mut(&mut self, round: u64) -> Option<&mut Info> {
        self.infos.get_mut(usize::try_from(round.checked_sub(self.first)?).ok()?)
    }

    /// A round's witnesses, each with its slot.
    pub(super) fn witnesses(&self, round: u64) -> impl Iterator<Item = (u32, &Witness)> {
        (0..).zip(self.info(round).map_or(&[][..], |info| &info.witnesses))
    }

    pub(super) fn witness(&self, round: u64, slot: u32) -> Option<&Witness> {
        self.info(round)?.witnesses.get(slot as usize)
    }

    pub(super) fn witness_mut(&mut self, round: u64, slot: u32) -> Option<&mut Witness> {
        self.info_mut(round)?.witnesses.get_mut(slot as usize)
    }

    /// The least birth round of a round's witnesses.
    pub(super) fn least_birth(&self, round: u64) -> u64 {
        self.info(round).map_or(u64::MAX, |info| info.least_birth)
    }

    /// Whether the fame of all of a round's witnesses is decided, and there are some.
    pub(super) fn is_decided(&self, round: u64) -> bool {
        let decided = |info: &Info| info.witnesses.iter().all(|witness| witness.fame != Fame::Undecided);
        self.info(round).is_some_and(|info| !info.witnesses.is_empty() && decided(info))
    }

    /// Takes in a witness and gives its slot; `None` if its round is forgotten. Who comes when two rounds further
    /// there are witnesses is not famous: none of those has it as an ancestor, so each has heard a supermajority of noes.
    pub(super) fn add(&mut self, round: u64, mut witness: Witness, pending: u64) -> Option<u32> {
        let place = usize::try_from(round.checked_sub(self.first)?).ok()?;
        if self.infos.len() <= place {
            self.infos.resize(place + 1, Info::default());
        }
        if round < pending || self.witness(round + 2, 0).is_some() {
            witness.fame = Fame::NotFamous;
        }
        let info = self.info_mut(round)?;
        info.least_birth = info.least_birth.min(witness.birth);
        info.witnesses.push(witness);
        Some(info.witnesses.len() as u32 - 1)
    }

    /// The weight of the creators of some of a round's witnesses, each counted once.
    pub(super) fn weight_of(&self, round: u64, slots: &Bits, weights: &Weights) -> u64 {
        let Some(info) = self.info(round) else { return 0 };
        let creator = |slot: u32| info.witnesses.get(slot as usize).map(|witness| witness.creator);
        let counted = |slot: u32, creator: MemberIndex| {
            // Only a member that has forked has two slots.
            info.witnesses.len() > weights.count()
                && slots.iter().take_while(|other| *other < slot).any(|other| {
                    info.witnesses.get(other as usize).is_some_and(|witness| witness.creator == creator)
                })
        };
        let weight = |slot: u32| {
            creator(slot).filter(|member| !counted(slot, *member)).map_or(0, |member| weights.of(member))
        };
        slots.iter().map(weight).sum()
    }

    pub(super) fn forget_before(&mut self, round: u64) {
        while self.first < round && self.infos.pop_front().is_some() {
            self.first += 1;
        }
    }
}
