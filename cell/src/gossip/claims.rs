//! How many blocks others say to have final.
//!
//! Rules:
//!
//! - Anybody can say anything. What counts is what members with an honest one among them say at least; so a liar makes no cell believe
//!   that it is behind.
//! - Where too few members are connected for that, whoever is there is believed: nobody contradicts it, and no block is taken over for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use protocol::CellId;
use protocol::members::MemberSet;

/// The last claim of each cell that is connected.
#[derive(Debug, Default)]
pub struct Claims(Mutex<BTreeMap<CellId, u64>>);

impl Claims {
    /// A cell says to have so many final blocks.
    pub(super) fn hear(&self, cell: CellId, finalised: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(cell, finalised);
    }

    /// Forgets who is not among these, and gives those of them who have said nothing yet.
    pub(super) fn silent(&self, connected: &[CellId]) -> Vec<CellId> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|cell, _| connected.contains(cell));
        connected.iter().filter(|cell| !claims.contains_key(cell)).copied().collect()
    }

    /// The most blocks that are believed to be final.
    pub(super) fn believed(&self, members: &MemberSet, connected: &[CellId]) -> Option<u64> {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut claims: Vec<(u64, CellId)> = claims.iter().map(|(cell, blocks)| (*blocks, *cell)).collect();
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
    fn who_is_gone_claims_nothing() {
        let cell = |number: u8| CellId::from_bytes([number; 32]);
        let claims = Claims::default();
        claims.hear(cell(1), 5);
        claims.hear(cell(2), 6);
        assert_eq!(claims.silent(&[cell(2), cell(3)]), [cell(3)]);
        assert_eq!(claims.silent(&[cell(1), cell(2)]), [cell(1)]);
    }
}
