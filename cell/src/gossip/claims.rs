//! How many blocks others say to have final.
//!
//! Rules:
//!
//! - Anybody can say anything. What counts is what members with an honest one among them say at least; so a liar makes no cell believe
//!   that it is behind.
//! - Claims are asked for anew every [`OLD_AFTER`], of all at once, and of who is connected since; who does not answer claims nothing.
//! - Where too few members are connected for that, whoever is there is believed: nobody contradicts it, and no block is taken over for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::CellId;
use protocol::members::MemberSet;

/// How long claims are good for.
const OLD_AFTER: Duration = Duration::from_secs(5);

/// The last claim of each cell.
#[derive(Debug, Default)]
pub struct Claims(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    of: BTreeMap<CellId, u64>,
    /// Who was asked since then, whether or not it has answered.
    asked: BTreeSet<CellId>,
    since: Option<Instant>,
    turns: usize,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cell says to have so many final blocks.
    pub(super) fn hear(&self, cell: CellId, finalised: u64) {
        self.lock().of.insert(cell, finalised);
    }

    /// Those of the connected who are to be asked now. All are, anew, when what was heard is old.
    pub(super) fn due(&self, connected: &[CellId], now: Instant) -> Vec<CellId> {
        let mut heard = self.lock();
        if heard.since.is_none_or(|since| now.duration_since(since) >= OLD_AFTER) {
            heard.since = Some(now);
            heard.asked.clear();
            heard.of.clear();
        }
        connected.iter().filter(|cell| heard.asked.insert(**cell)).copied().collect()
    }

    /// A number that is another one each time: whose turn it is to be asked first.
    pub(super) fn turn(&self) -> usize {
        let mut heard = self.lock();
        heard.turns = heard.turns.wrapping_add(1);
        heard.turns
    }

    /// The most blocks that are believed to be final.
    pub(super) fn believed(&self, members: &MemberSet, connected: &[CellId]) -> Option<u64> {
        let heard = self.lock();
        let of_connected = heard.of.iter().filter(|(cell, _)| connected.contains(cell));
        let mut claims: Vec<(u64, CellId)> = of_connected.map(|(cell, blocks)| (*blocks, *cell)).collect();
        claims.sort_unstable_by(|one, other| other.cmp(one));
        if !members.has_honest(members.weight_of_all(connected.to_vec())) {
            return claims.first().map(|(blocks, _)| *blocks);
        }
        let mut weight = 0;
        claims.into_iter().find_map(|(blocks, cell)| {
            weight += members.weight_of(&cell);
            members.has_honest(weight).then_some(blocks)
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::genesis::Member;

    use super::*;

    #[test]
    fn one_liar_of_four_makes_nobody_believe_anything() {
        let cell = |number: u8| CellId::from_bytes([number; 32]);
        let members = MemberSet::new((1..=4).map(|number| Member::new(cell(number), 1)).collect());
        let connected = [cell(2), cell(3), cell(4), cell(9)];
        let believed = |claims: &[(u8, u64)], connected: &[CellId]| {
            let heard = Claims::default();
            claims.iter().for_each(|(number, blocks)| heard.hear(cell(*number), *blocks));
            heard.believed(&members, connected)
        };
        assert_eq!(believed(&[(4, 1_000)], &connected), None, "nobody says the same");
        assert_eq!(believed(&[(4, 1_000), (9, 1_000)], &connected), None, "a stranger has no weight");
        assert_eq!(believed(&[(2, 7), (3, 8), (4, 1_000)], &connected), Some(8));
        assert_eq!(believed(&[(2, 7), (3, 8), (4, 0)], &connected), Some(7));
        assert_eq!(believed(&[(2, 7)], &connected[..1]), Some(7), "there is nobody else");
        assert_eq!(believed(&[(9, 5)], &connected[3..]), Some(5), "nor here");
    }

    #[test]
    fn claims_are_asked_for_anew_and_who_is_gone_claims_nothing() {
        let cell = |number: u8| CellId::from_bytes([number; 32]);
        let members = MemberSet::new(vec![Member::new(cell(1), 1)]);
        let (claims, now) = (Claims::default(), Instant::now());
        assert_eq!(claims.due(&[cell(1)], now), [cell(1)]);
        claims.hear(cell(1), 5);
        assert_eq!(claims.due(&[cell(1), cell(2)], now + OLD_AFTER / 2), [cell(2)], "it came later");
        assert!(claims.due(&[cell(1), cell(2)], now + OLD_AFTER / 2).is_empty(), "it was asked");
        assert_eq!(claims.believed(&members, &[cell(1)]), Some(5));
        assert_eq!(claims.believed(&members, &[cell(2)]), None);
        assert_eq!(claims.due(&[cell(1)], now + OLD_AFTER), [cell(1)]);
        assert_eq!(claims.believed(&members, &[cell(1)]), None);
    }
}
