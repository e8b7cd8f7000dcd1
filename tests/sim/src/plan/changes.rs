//! What is brought to members about members: who wants to be one, who goes, who is voted in or out, and when.
//!
//! A cell that wants to be a member is honest. Whatever is asked for is asked for again once all has healed, by all who vote: what was
//! brought to who was down, or was overtaken by the end of an epoch in between, comes about then. Nobody honest goes while those who
//! stay would be faulty for a third.

use super::{HEALS_US, Lie};
use crate::random::Random;
use crate::world::Ask;

/// Who brings what, and when.
pub(super) type Changes = Vec<(usize, u64, Ask)>;

/// Some changes among members with these lies, of whom so many may be faulty; and how many cells want to be members.
pub(super) fn some(random: &mut Random, lies: &[Option<Lie>], faulty: usize) -> (usize, Changes) {
    let (members, mut changes) = (lies.len(), Vec::new());
    let honest: Vec<usize> = (0..members).filter(|who| lies[*who].is_none()).collect();
    let first_us = random.between(100_000, HEALS_US - 2_000_000);
    let again_us = HEALS_US + random.between(100_000, 800_000);
    let kinds = random.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    if kinds == 1 || kinds == 3 {
        let joiner = members;
        for at_us in [first_us, again_us] {
            changes.push((random.pick(&honest), at_us, Ask::Join(joiner)));
            votes(random, &honest, at_us + 500_000, Ask::Accept(joiner), &mut changes);
        }
    }
    if (kinds == 2 || kinds == 3) && 3 * faulty + 1 < members {
        let who = random.pick(&honest);
        changes.extend([first_us, again_us].map(|at_us| (who, at_us, Ask::Leave)));
    }
    let liar = (0..members).find(|who| lies[*who].is_some());
    if let Some(liar) = liar.filter(|_| kinds == 4) {
        for at_us in [first_us, again_us] {
            votes(random, &honest, at_us, Ask::Evict(liar), &mut changes);
        }
    }
    (usize::from(kinds == 1 || kinds == 3), changes)
}

/// All who are honest vote, within a while.
fn votes(random: &mut Random, honest: &[usize], from_us: u64, ask: Ask, changes: &mut Changes) {
    changes.extend(honest.iter().map(|who| (*who, from_us + random.between(0, 300_000), ask)));
}
