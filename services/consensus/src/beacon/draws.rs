//! The draws of an epoch: what the order makes of dealings and openings (rules 2 to 4).
//!
//! Of each member the first dealing for a draw counts, and the first opening of one, if it is signed: who signs a bad one is out for that
//! draw. So a member costs the others one check a draw and kind, however much it sends.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use protocol::beacon::{Dealing, Opening};
use protocol::{CellId, Hash};

use super::deal::{self, Dealt, Sealed};
use super::open::{self, Opened};
use super::{Holders, Refusal};
use crate::hashgraph::Round;

/// Draws beyond the last fixed one for which members deal, so that one can be fixed as soon as its time has come.
pub const AHEAD_MAX: u64 = 4;
/// Draws that are fixed and not opened in the order, at most: the next one waits.
pub const OPEN_MAX: usize = 8;

/// What an ordered event carries for the beacon.
#[derive(Clone, Copy, Debug)]
pub enum Word<'a> {
    /// A dealing.
    Dealing(&'a Dealing),
    /// An opening.
    Opening(&'a Opening),
}

/// What follows from an ordered round, in its order; the same at every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A draw is fixed: whoever holds shares opens them now.
    Fixed {
        /// Which.
        draw: u64,
    },
    /// A draw's value is known by the order alone.
    Opened {
        /// Which.
        draw: u64,
        /// The value.
        value: Hash,
        /// The round that fixed it.
        fixed: Round,
    },
    /// A member has signed what it should not have.
    Bad {
        /// Which of the round's words, from 0.
        place: usize,
        /// What it is.
        why: Refusal,
    },
}

/// Dealings for a draw that is not fixed.
#[derive(Debug, Default)]
struct Gathering {
    /// By dealer; `None` if it was a bad one.
    tried: BTreeMap<CellId, Option<u64>>,
    dealings: Vec<Dealt>,
}

impl Gathering {
    fn weight(&self) -> u128 {
        self.tried.values().flatten().map(|weight| u128::from(*weight)).sum()
    }
}

/// A draw that is fixed.
#[derive(Debug)]
struct Draw {
    round: Round,
    value: Option<Hash>,
    /// Until it is opened in the order.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sealed: Sealed,
    /// Openings that hold, ordered or not.
    heard: BTreeMap<CellId, (Opening, Opened)>,
    /// Members of whom a bad one was heard: no more of theirs are checked before they are ordered.
    refused: BTreeSet<CellId>,
    /// Of members whose opening was ordered, how many shares it opens; of a bad one, none.
    ordered: BTreeMap<CellId, usize>,
}

/// The beacon in one epoch.
#[derive(Debug)]
pub struct Beacon {
    holders: Holders,
    every_rounds: u64,
    /// The last round that was ordered.
    round: u64,
    /// Draw *k* at place *k* − 1.
    draws: Vec<Draw>,
    gathering: BTreeMap<u64, Gathering>,
    /// Openings of draws that are not fixed here yet, one a member and draw.
    early: BTreeMap<(u64, CellId), Opening>,
}

impl Beacon {
    /// The beacon of an epoch that begins, with a draw every so many rounds at most (0 is taken as 1).
    pub fn new(holders: Holders, every_rounds: u64) -> Self {
        Self {
            holders,
            every_rounds: every_rounds.max(1),
            round: 0,
            draws: Vec::new(),
            gathering: BTreeMap::new(),
            early: BTreeMap::new(),
        }
    }

    /// Who holds the shares.
    pub fn holders(&self) -> &Holders {
        &self.holders
    }

    /// How many draws are fixed.
    pub fn fixed(&self) -> u64 {
        self.draws.len() as u64
    }

    /// A draw's value, as soon as it is known here.
    pub fn value(&self, draw: u64) -> Option<Hash> {
        self.draw(draw)?.value
    }

    /// The value for whoever has committed to something by this round: that of the first draw which a later round has fixed.
    /// Nobody could know it while that round was open.
    pub fn value_after(&self, round: Round) -> Option<(u64, Hash)> {
        let place = self.draws.partition_point(|draw| draw.round <= round);
        Some((place as u64 + 1, self.draws.get(place)?.value?))
    }

    /// The draws that a member should deal for: it has not in what was ordered, and they are not fixed.
    pub fn to_deal(&self, member: &CellId) -> Vec<u64> {
        let is_done = |draw: &u64| {
            self.gathering
                .get(draw)
                .is_some_and(|gathering| gathering.tried.contains_key(member) || self.is_enough(gathering))
        };
        if self.holders.of(member).is_none() {
            return Vec::new();
        }
        self.window().filter(|draw| !is_done(draw)).collect()
    }

    /// The draws that a member should open: they are fixed, not opened in the order, and it has not in what was ordered.
    pub fn to_open(&self, member: &CellId) -> Vec<u64> {
        if self.holders.of(member).is_none_or(|holder| holder.shares == 0) {
            return Vec::new();
        }
        let waits = |draw: &Draw| draw.open.as_ref().is_some_and(|open| !open.ordered.contains_key(member));
        (1..).zip(&self.draws).filter(|(_, draw)| waits(draw)).map(|(number, _)| number).collect()
    }

    /// Deals for a draw; see [`deal`](super::deal()).
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownMember`].
    pub fn deal(&self, key: &SigningKey, draw: u64, seed: &[u8; 32]) -> Result<Dealing, Refusal> {
        deal::deal(&self.holders, key, draw, seed)
    }

    /// Opens a draw that is fixed and not opened in the order.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotFixed`], [`Refusal::UnknownMember`].
    pub fn open(&self, key: &SigningKey, draw: u64) -> Result<Opening, Refusal> {
        let open = self.draw(draw).and_then(|draw| draw.open.as_ref()).ok_or(Refusal::NotFixed { draw })?;
        open::open(&self.holders, key, &open.sealed)
    }

    /// Takes in what the next decided round has ordered, an empty one as well.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotNextRound`]; nothing has changed then.
    pub fn order<'a>(
        &mut self,
        round: Round,
        words: impl IntoIterator<Item = Word<'a>>,
    ) -> Result<Vec<News>, Refusal> {
        if round.0 != self.round + 1 {
            return Err(Refusal::NotNextRound { round: round.0, next: self.round + 1 });
        }
        self.round = round.0;
        let mut news = Vec::new();
        for (place, word) in words.into_iter().enumerate() {
            let said = match word {
                Word::Dealing(dealing) => self.order_dealing(dealing).map(|()| None),
                Word::Opening(opening) => self.order_opening(opening),
            };
            match said {
                Ok(opened) => news.extend(opened),
                Err(why) => news.push(News::Bad { place, why }),
            }
        }
        news.extend(self.fix());
        Ok(news)
    }

    /// Takes in an opening that is not ordered yet. Gives the draw's value if it is known now.
    ///
    /// # Errors
    ///
    /// As [`super::check_opening`] has them; [`Refusal::NotFixed`] for a draw that is too far ahead.
    pub fn hear(&mut self, opening: &Opening) -> Result<Option<Hash>, Refusal> {
        let number = opening.draw;
        if self.window().contains(&number) {
            let key = (number, opening.member);
            if !self.early.contains_key(&key) {
                open::check_signed(&self.holders, opening)?;
                self.early.insert(key, opening.clone());
            }
            return Ok(None);
        }
        let Self { holders, draws, .. } = self;
        let draw =
            place(number).and_then(|place| draws.get_mut(place)).ok_or(Refusal::NotFixed { draw: number })?;
        if let Some(open) = &mut draw.open
            && draw.value.is_none()
            && !open.heard.contains_key(&opening.member)
            && !open.refused.contains(&opening.member)
        {
            match open::check_opening(holders, &open.sealed, opening) {
                Ok(opened) => open.heard.insert(opening.member, (opening.clone(), opened)),
                Err(why) => {
                    if why != Refusal::NotSigned {
                        open.refused.insert(opening.member);
                    }
                    return Err(why);
                }
            };
            draw.value = open.value(holders);
        }
        Ok(draw.value)
    }

    /// The first dealings that hold count, until their dealers weigh more than a third.
    fn order_dealing(&mut self, dealing: &Dealing) -> Result<(), Refusal> {
        if !self.window().contains(&dealing.draw) {
            return Ok(());
        }
        let gathering = self.gathering.get(&dealing.draw);
        let is_void = |gathering: &Gathering| {
            gathering.tried.contains_key(&dealing.dealer) || self.is_enough(gathering)
        };
        if gathering.is_some_and(is_void) {
            return Ok(());
        }
        let checked = deal::check_dealing(&self.holders, dealing);
        let gathering = self.gathering.entry(dealing.draw).or_default();
        match checked {
            Ok(dealt) => {
                let weight = self.holders.of(&dealing.dealer).map(|holder| holder.weight);
                gathering.tried.insert(dealing.dealer, weight);
                gathering.dealings.push(dealt);
                Ok(())
            }
            Err(why) if why.is_evidence() => {
                gathering.tried.insert(dealing.dealer, None);
                Err(why)
            }
            // Nobody has signed it, or no member: it says nothing.
            Err(_) => Ok(()),
        }
    }

    fn order_opening(&mut self, opening: &Opening) -> Result<Option<News>, Refusal> {
        let Self { holders, draws, .. } = self;
        let Some(draw) = place(opening.draw).and_then(|place| draws.get_mut(place)) else { return Ok(None) };
        let Some(open) = &mut draw.open else { return Ok(None) };
        if open.ordered.contains_key(&opening.member) {
            return Ok(None);
        }
        let known = open.heard.get(&opening.member).filter(|(heard, _)| heard == opening);
        let checked = match known {
            Some((_, opened)) => Ok(opened.clone()),
            None => open::check_opening(holders, &open.sealed, opening),
        };
        match checked {
            Ok(opened) => {
                open.ordered.insert(opening.member, opened.shares());
                open.heard.entry(opening.member).or_insert_with(|| (opening.clone(), opened));
            }
            Err(why @ (Refusal::BadOpening { .. } | Refusal::OtherDealings)) => {
                open.ordered.insert(opening.member, 0);
                return Err(why);
            }
            Err(_) => return Ok(None),
        }
        if open.ordered.values().sum::<usize>() < holders.threshold() {
            return Ok(None);
        }
        let Some(value) = draw.value.or_else(|| open.value(holders)) else { return Ok(None) };
        draw.value = Some(value);
        draw.open = None;
        Ok(Some(News::Opened { draw: opening.draw, value, fixed: draw.round }))
    }

    /// Fixes the next draw if its time has come.
    fn fix(&mut self) -> Option<News> {
        let number = self.fixed() + 1;
        let last = self.draws.last().map(|draw| draw.round.0);
        let is_time = last.is_none_or(|last| self.round >= last.saturating_add(self.every_rounds));
        let open = self.draws.iter().filter(|draw| draw.open.is_some()).count();
        if !is_time || open >= OPEN_MAX || !self.is_enough(self.gathering.get(&number)?) {
            return None;
        }
        let gathering = self.gathering.remove(&number)?;
        let sealed = Sealed::new(&self.holders, number, &gathering.dealings);
        let open =
            Open { sealed, heard: BTreeMap::new(), refused: BTreeSet::new(), ordered: BTreeMap::new() };
        self.draws.push(Draw { round: Round(self.round), value: None, open: Some(open) });
        let later = self.early.split_off(&(number + 1, CellId::from_bytes([0; 32])));
        for opening in std::mem::replace(&mut self.early, later).into_values() {
            // One that does not hold comes again in the order, and is shown then.
            let _ = self.hear(&opening);
        }
        Some(News::Fixed { draw: number })
    }

    fn is_enough(&self, gathering: &Gathering) -> bool {
        self.holders.is_more_than_a_third(gathering.weight())
    }

    /// The draws that are dealt for.
    fn window(&self) -> std::ops::RangeInclusive<u64> {
        self.fixed() + 1..=self.fixed() + AHEAD_MAX
    }

    fn draw(&self, number: u64) -> Option<&Draw> {
        self.draws.get(place(number)?)
    }
}

impl Open {
    fn value(&self, holders: &Holders) -> Option<Hash> {
        open::combine(holders, &self.sealed, self.heard.values().map(|(_, opened)| opened))
    }
}

/// Where a draw stands in the list.
fn place(draw: u64) -> Option<usize> {
    usize::try_from(draw.checked_sub(1)?).ok()
}
