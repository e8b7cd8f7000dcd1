//! The rounds with their witnesses.

use super::bits::Bits;
use super::event::MemberIndex;
use super::graph::Number;
use super::weights::Weights;

/// What is known of a witness's fame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fame {
    /// The votes that are known decide nothing yet.
    Undecided,
    /// Most members saw it early: it may be a judge of its round.
    Famous,
    /// They did not, and it is no judge.
    NotFamous,
}

/// A witness.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) number: Number,
    pub(super) creator: MemberIndex,
    pub(super) fame: Fame,
    /// Its votes on the witnesses of earlier rounds, by round.
    pub(super) votes: Vec<(u64, Bits)>,
}

impl Witness {
    pub(super) fn new(number: Number, creator: MemberIndex) -> Self {
        Self { number, creator, fame: Fame::Undecided, votes: Vec::new() }
    }

    pub(super) fn votes_on(&self, round: u64) -> Option<&Bits> {
        self.votes.iter().find(|(of, _)| *of == round).map(|(_, votes)| votes)
    }
}

/// All rounds from 1 on. A witness's place in its round is its slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds(Vec<Vec<Witness>>);

impl Rounds {
    fn of(&self, round: u64) -> &[Witness] {
        let place = usize::try_from(round).ok().and_then(|round| round.checked_sub(1));
        place.and_then(|place| self.0.get(place)).map_or(&[], Vec::as_slice)
    }

    /// A round's witnesses, each with its slot.
    pub(super) fn witnesses(&self, round: u64) -> impl Iterator<Item = (u32, &Witness)> {
        (0..).zip(self.of(round))
    }

    pub(super) fn witness(&self, round: u64, slot: u32) -> Option<&Witness> {
        self.of(round).get(slot as usize)
    }

    pub(super) fn witness_mut(&mut self, round: u64, slot: u32) -> Option<&mut Witness> {
        self.0.get_mut(round as usize - 1)?.get_mut(slot as usize)
    }

    /// Whether the fame of all of a round's witnesses is decided, and there are some.
    pub(super) fn is_decided(&self, round: u64) -> bool {
        let witnesses = self.of(round);
        !witnesses.is_empty() && witnesses.iter().all(|witness| witness.fame != Fame::Undecided)
    }

    /// Takes in a witness and gives its slot. Who comes when two rounds further there are witnesses is not famous: none of
    /// those has it as an ancestor, so each has heard a supermajority of noes.
    pub(super) fn add(&mut self, round: u64, mut witness: Witness, pending: u64) -> u32 {
        let place = round as usize - 1;
        if self.0.len() <= place {
            self.0.resize(place + 1, Vec::new());
        }
        if round < pending || self.witness(round + 2, 0).is_some() {
            witness.fame = Fame::NotFamous;
        }
        self.0[place].push(witness);
        self.0[place].len() as u32 - 1
    }

    /// The weight of the creators of some of a round's witnesses that one event sees: so none has two among them.
    pub(super) fn weight_of(&self, round: u64, slots: &Bits, weights: &Weights) -> u64 {
        let witnesses = self.of(round);
        slots.iter().map(|slot| weights.of(witnesses[slot as usize].creator)).sum()
    }

    /// Forgets the votes of a round's witnesses: those of the next round will not ask for them any more.
    pub(super) fn forget_votes(&mut self, round: u64) {
        if let Some(witnesses) = self.0.get_mut(round as usize - 1) {
            witnesses.iter_mut().for_each(|witness| witness.votes = Vec::new());
        }
    }
}
