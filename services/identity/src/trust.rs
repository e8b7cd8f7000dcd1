//! Trust: what checked interaction proofs add up to.
//!
//! trust = 0.9 old + 0.1 new, where new is the proof's confidence if it passed and 0 if not. Without
//! contact it falls by half every half-life: whole half-lives by shifting, the part between by a
//! straight line, so it never rises and needs no floats. It counts once the two share enough
//! messages. All numbers are parts per million. Source: Celluler's public documents (REFERENCE).

use machine::{Context, Read, answer, commit, refuse};
use protocol::CellId;
use protocol::identity::{Answer, ObserveRequest, TrustView};
use protocol::shared::{Empty, ListRequest};

use crate::contacts::cell_of;
use crate::proof::{PASS_PPM, PPM, confidence_ppm};
use crate::tables::{CONTACTS, Observed, TRUST};
use crate::{Decided, IdentityMachine, Record, Refusal, cell_cursor};

/// Trust after `elapsed_ms` without contact.
pub fn decayed_ppm(trust_ppm: u32, elapsed_ms: u64, half_life_ms: u64) -> u32 {
    let half_life_ms = half_life_ms.max(1);
    let halvings = elapsed_ms / half_life_ms;
    if halvings >= 32 {
        return 0;
    }
    let (upper, part_ms) = (u64::from(trust_ppm >> halvings), elapsed_ms % half_life_ms);
    let fall = u128::from(upper) * u128::from(part_ms) / (2 * u128::from(half_life_ms));
    u32::try_from(u128::from(upper) - fall).unwrap_or(PPM)
}

/// Trust after one more observation.
pub fn updated_ppm(old_ppm: u32, confidence_ppm: u32) -> u32 {
    let new_ppm = if confidence_ppm >= PASS_PPM { confidence_ppm } else { 0 };
    (old_ppm * 9 + new_ppm) / 10
}

pub(crate) fn observe(
    machine: &IdentityMachine,
    view: &dyn Read,
    context: &Context,
    asked: &ObserveRequest,
) -> Decided {
    let old = TRUST.get(view, &asked.cell)?;
    let elapsed_ms = old.map_or(0, |old| context.now_ms.saturating_sub(old.time_ms));
    let before_ppm =
        decayed_ppm(old.map_or(0, |old| old.trust_ppm), elapsed_ms, machine.settings.half_life_ms);
    // A proof that shows nothing tells nothing: two cells that meet for the first time have nothing to show.
    let (confidence, trust_ppm) = if asked.shown == 0 {
        (old.map_or(0, |old| old.confidence_ppm), before_ppm)
    } else {
        let confidence = confidence_ppm(asked.matching, asked.shown);
        (confidence, updated_ppm(before_ppm, confidence))
    };
    let observed = Observed {
        shown: asked.shown,
        matching: asked.matching,
        confidence_ppm: confidence,
        shared: asked.shared,
        before_ppm,
        trust_ppm,
        time_ms: context.now_ms,
    };
    commit(vec![Record::Observed { cell: asked.cell, observed }], Answer::Observe(Empty {}))
}

pub(crate) fn list(
    machine: &IdentityMachine,
    view: &dyn Read,
    context: &Context,
    list: &ListRequest,
) -> Decided {
    let after = match cell_cursor(list) {
        Ok(after) => after,
        Err(problem) => return refuse(problem),
    };
    let mut names = std::collections::BTreeMap::new();
    for row in CONTACTS.scan(view, &(), None, false) {
        let (cell, contact) = row?;
        names.insert(cell, contact.name);
    }
    let rows = TRUST.scan(view, &(), after.as_ref(), false);
    let page = machine::page::collect(rows, list.limit(), |(cell, observed)| {
        let name = names.get(&cell).cloned().flatten();
        (shown(machine, context, cell, name, &observed), cell.to_string())
    })?;
    answer(Answer::Trust(page))
}

pub(crate) fn of_one(machine: &IdentityMachine, view: &dyn Read, context: &Context, who: &str) -> Decided {
    let cell = match cell_of(view, who)? {
        Ok(cell) => cell,
        Err(refusal) => return refuse(refusal),
    };
    let name = CONTACTS.get(view, &cell)?.and_then(|contact| contact.name);
    match TRUST.get(view, &cell)? {
        Some(observed) => answer(Answer::TrustIn(shown(machine, context, cell, name, &observed))),
        None => refuse(Refusal::UnknownContact { who: who.chars().take(80).collect() }),
    }
}

fn shown(
    machine: &IdentityMachine,
    context: &Context,
    cell: CellId,
    name: Option<String>,
    observed: &Observed,
) -> TrustView {
    let elapsed_ms = context.now_ms.saturating_sub(observed.time_ms);
    let now_ppm = decayed_ppm(observed.trust_ppm, elapsed_ms, machine.settings.half_life_ms);
    TrustView {
        cell,
        name,
        trust_ppm: (observed.shared >= machine.settings.shared_min).then_some(now_ppm),
        confidence_ppm: observed.confidence_ppm,
        verified: observed.confidence_ppm >= PASS_PPM,
        shared: observed.shared,
        shared_min: machine.settings.shared_min,
        updated_ms: observed.time_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    #[test]
    fn worked_by_hand() {
        assert_eq!(updated_ppm(0, PPM), 100_000);
        assert_eq!(updated_ppm(100_000, PPM), 190_000);
        assert_eq!(updated_ppm(190_000, 800_000), 251_000, "0.8 passes");
        assert_eq!(updated_ppm(190_000, 799_999), 171_000, "less does not");
        assert_eq!(decayed_ppm(800_000, 30 * DAY_MS, 30 * DAY_MS), 400_000);
        assert_eq!(decayed_ppm(800_000, 60 * DAY_MS, 30 * DAY_MS), 200_000);
        assert_eq!(decayed_ppm(800_000, 15 * DAY_MS, 30 * DAY_MS), 600_000);
        assert_eq!(decayed_ppm(PPM, u64::MAX, 1), 0);
    }

    proptest! {
        #[test]
        fn it_never_rises_by_waiting(trust in 0..=PPM, a in any::<u32>(), b in any::<u32>(), half in 1u64..100_000) {
            let (early, late) = (u64::from(a.min(b)), u64::from(a.max(b)));
            prop_assert!(decayed_ppm(trust, late, half) <= decayed_ppm(trust, early, half));
            prop_assert!(decayed_ppm(trust, early, half) <= trust);
        }

        #[test]
        fn it_stays_within_one(old in 0..=PPM, confidence in 0..=PPM) {
            prop_assert!(updated_ppm(old, confidence) <= PPM);
        }
    }
}
