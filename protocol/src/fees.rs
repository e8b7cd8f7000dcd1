//! Fees: what a transaction pays, in a network whose genesis asks for fees.
//!
//! Source: EIP-1559 (Buterin and others 2019), the mechanism of its base fee.
//!
//! Rules:
//!
//! - A transaction pays `base fee × units × lane`, all of it integers. Units are bytes, and [`TRANSACTION_UNITS`] beside them for what every
//!   transaction takes. The lane of priority pays four times as much, bulk a quarter, rounded up.
//! - The base fee follows how full blocks are: after each block it goes up or down by at most an eighth, in proportion to how far the
//!   units of the block's transactions are from the target; never below the network's least, never above [`BASE_ATOMS_MAX`].
//!   All transactions of a block pay by the base fee that stood before it.
//! - It counts what a block holds, refused transactions too: they took their place.
//! - What is paid is kept in one account of the ledger. Where the genesis says so ([`FeeRules::share_blocks`]), it is shared among the members
//!   by weight: each has its part rounded down, and what does not divide stays for the next time ([`FeeRules::shares`]).
//!
//! Departures: there is no tip: place is bought by lane. Fees are not burned. A block may hold more than twice the target; it
//! counts as twice.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::genesis::Member;
use crate::id::{BlockIndex, CellId};
use crate::members::MemberSet;
use crate::transaction::Lane;

/// What every transaction counts beside its bytes: signature, nonce, receipt.
pub const TRANSACTION_UNITS: u64 = 4_096;
/// The units of a block that leave the base fee as it is, unless the genesis tells: about half of a full block of small
/// transactions.
pub const TARGET_UNITS: u64 = 2 * 1024 * 1024;
/// The least that a base fee may be, in atoms a unit: an eighth of it is an atom.
pub const BASE_ATOMS_MIN: u128 = 8;
/// The most that a base fee comes to, in atoms a unit.
pub const BASE_ATOMS_MAX: u128 = u64::MAX as u128;
/// The most by which the base fee changes with a block: this part of it.
const CHANGE_DENOMINATOR: u128 = 8;

/// A network's fees.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeeRules {
    /// The base fee at first, which it never falls below: PRANA a unit, at least 8 atoms.
    #[n(0)]
    pub base_min: Amount,
    /// The units of a block that leave the base fee as it is; [`TARGET_UNITS`] unless told.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_units: Option<u64>,
    /// Blocks after which what was paid is shared among the members, at least 1; it is kept unless told.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_blocks: Option<u64>,
}

impl FeeRules {
    /// The units of a block that leave the base fee as it is.
    pub fn target_units(&self) -> u64 {
        self.target_units.unwrap_or(TARGET_UNITS)
    }

    /// The base fee after a block whose transactions have so many units.
    pub fn next_base(&self, base: Amount, units: u64) -> Amount {
        let (base, target) = (base.0.min(BASE_ATOMS_MAX), u128::from(self.target_units().max(1)));
        let units = u128::from(units).min(2 * target);
        let change = |off: u128| base * off / target / CHANGE_DENOMINATOR;
        let next = match units.checked_sub(target) {
            Some(0) => base,
            // Never by nothing: a small base fee would not get off the ground.
            Some(over) => base + change(over).max(1),
            None => base - change(target - units),
        };
        Amount(next.max(self.base_min.0).min(BASE_ATOMS_MAX))
    }

    /// Whether what was paid is shared at the end of this block.
    pub fn is_share_due(&self, index: BlockIndex) -> bool {
        let next = index.0.saturating_add(1);
        self.share_blocks.is_some_and(|blocks| blocks > 0 && next.is_multiple_of(blocks))
    }

    /// Each member's part of so much, by weight and rounded down; in the order of the set. Together they are at most all of it.
    pub fn shares(pool: Amount, members: &MemberSet) -> Vec<(CellId, Amount)> {
        let total = members.all().iter().map(|member| u128::from(member.weight)).sum::<u128>();
        if total == 0 {
            return Vec::new();
        }
        // pool × weight ÷ total without the product: a rest is below the total, and that is below 2³⁰ in every network.
        let (each, rest) = (pool.0 / total, pool.0 % total);
        let part = |weight: u128| each * weight + rest.saturating_mul(weight) / total;
        let share = |member: &Member| (member.cell, Amount(part(u128::from(member.weight))));
        members.all().iter().map(share).collect()
    }

    /// What is wrong with them, if something is.
    ///
    /// # Errors
    ///
    /// The reason, in words.
    pub fn check(&self) -> Result<(), String> {
        if !(BASE_ATOMS_MIN..=BASE_ATOMS_MAX).contains(&self.base_min.0) {
            let (least, most) = (Amount(BASE_ATOMS_MIN), Amount(BASE_ATOMS_MAX));
            return Err(format!("the least base fee is {}, not {least} to {most} PRANA", self.base_min));
        }
        if self.target_units() == 0 {
            return Err("the target of units is 0".to_owned());
        }
        if self.share_blocks == Some(0) {
            return Err("fees are shared after a block at least".to_owned());
        }
        Ok(())
    }
}

/// What a transaction of so many units pays.
pub fn due(base: Amount, lane: Lane, units: u64) -> Amount {
    let normal = base.0.saturating_mul(u128::from(units));
    Amount(match lane {
        Lane::Priority => normal.saturating_mul(4),
        Lane::Normal => normal,
        Lane::Bulk => normal.div_ceil(4),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(base_min: u128, target_units: u64) -> FeeRules {
        FeeRules { base_min: Amount(base_min), target_units: Some(target_units), share_blocks: None }
    }

    #[test]
    fn the_base_fee_follows_how_full_blocks_are() {
        let cases = [
            (800, 1_000, 800, "on target"),
            (800, 1_500, 850, "half over it: a sixteenth up"),
            (800, 2_000, 900, "a full one: an eighth up"),
            (800, 9_999, 900, "never more"),
            (800, u64::MAX, 900, "never more"),
            (800, 500, 750, "half of it: a sixteenth down"),
            (800, 0, 700, "nothing: an eighth down"),
            (801, 1_001, 802, "an atom at least"),
            (801, 999, 801, "nothing, rounded down"),
            (102, 0, 100, "not below the least"),
            (100, 0, 100, "not below the least"),
            (u64::MAX, 2_000, u64::MAX, "not above the most"),
        ];
        for (base, units, expected, why) in cases {
            let next = rules(100, 1_000).next_base(Amount(base.into()), units);
            assert_eq!(next, Amount(expected.into()), "{base} after {units}: {why}");
        }
        let mut bases = vec![8];
        for _ in 0..10 {
            bases.push(rules(8, 1).next_base(Amount(bases[bases.len() - 1]), 2).0);
        }
        assert_eq!(bases, [8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20], "a small one gets off the ground");
    }

    #[test]
    fn lanes_have_their_price() {
        let due = |lane| due(Amount(10), lane, 4_099).0;
        assert_eq!([Lane::Priority, Lane::Normal, Lane::Bulk].map(due), [163_960, 40_990, 10_248]);
        assert_eq!(super::due(Amount(1), Lane::Bulk, 1), Amount(1), "never nothing");
        let most = super::due(Amount(BASE_ATOMS_MAX), Lane::Priority, 512 * 1024);
        assert_eq!(most.0, BASE_ATOMS_MAX * 4 * 512 * 1024, "nothing overflows");
    }

    fn members(weights: &[u64]) -> MemberSet {
        let member =
            |(number, weight): (usize, &u64)| Member::new(CellId::from_bytes([number as u8; 32]), *weight);
        MemberSet::new(weights.iter().enumerate().map(member).collect())
    }

    #[test]
    fn shares_go_by_weight_and_what_does_not_divide_stays() {
        let shares = |pool, weights: &[u64]| -> Vec<u128> {
            FeeRules::shares(Amount(pool), &members(weights)).into_iter().map(|(_, share)| share.0).collect()
        };
        assert_eq!(shares(100, &[1, 1, 1]), [33, 33, 33]);
        assert_eq!(shares(101, &[3, 2, 1]), [50, 33, 16]);
        assert_eq!(shares(2, &[1, 1, 1]), [0, 0, 0]);
        assert_eq!(shares(0, &[1]), [0]);
        assert_eq!(shares(7, &[]), [0; 0]);
        assert_eq!(shares(u128::MAX, &[1]), [u128::MAX]);
        let rules = FeeRules { share_blocks: Some(3), ..rules(8, 1) };
        let due: Vec<u64> = (0..9).filter(|index| rules.is_share_due(BlockIndex(*index))).collect();
        assert_eq!(due, [2, 5, 8]);
        assert!(!FeeRules { share_blocks: None, ..rules }.is_share_due(BlockIndex(2)));
    }

    #[test]
    fn rules_that_cannot_work_are_refused() {
        for (rules, works) in [
            (rules(8, 1), true),
            (rules(7, 1), false),
            (rules(8, 0), false),
            (rules(BASE_ATOMS_MAX, u64::MAX), true),
            (rules(BASE_ATOMS_MAX + 1, 1), false),
        ] {
            assert_eq!(rules.check().is_ok(), works, "{rules:?}");
        }
        for (blocks, works) in [(0, false), (1, true), (u64::MAX, true)] {
            let rules = FeeRules { share_blocks: Some(blocks), ..rules(8, 1) };
            assert_eq!(rules.check().is_ok(), works, "{rules:?}");
        }
    }

    proptest! {
        /// Whatever is shared: each part is pool × weight ÷ total rounded down, so less than an atom a member stays.
        #[test]
        fn shares_are_as_exact_as_atoms_are(
            pool in 0..u128::from(u64::MAX) << 26, weights in prop::collection::vec(1u64..=1_000_000, 1..40),
        ) {
            let total: u128 = weights.iter().copied().map(u128::from).sum();
            let shares = FeeRules::shares(Amount(pool), &members(&weights));
            for ((_, share), weight) in shares.iter().zip(&weights) {
                prop_assert_eq!(share.0, pool * u128::from(*weight) / total);
            }
            let shared: u128 = shares.iter().map(|(_, share)| share.0).sum();
            prop_assert!(shared <= pool && pool - shared < weights.len() as u128);
        }

        /// Whatever blocks hold.
        #[test]
        fn a_block_moves_the_base_fee_by_an_eighth_at_most(
            base_min in BASE_ATOMS_MIN..=BASE_ATOMS_MAX, more in 0..=BASE_ATOMS_MAX,
            target in 1..=u64::MAX, units in any::<u64>(),
        ) {
            let (rules, base) = (rules(base_min, target), (base_min + more).min(BASE_ATOMS_MAX));
            let next = rules.next_base(Amount(base), units).0;
            prop_assert!((base_min..=BASE_ATOMS_MAX).contains(&next));
            prop_assert!(next.abs_diff(base) <= base / 8);
            let follows = if units > target { next >= base } else { next <= base };
            prop_assert!(follows);
            prop_assert!(units != target || next == base);
        }
    }
}
