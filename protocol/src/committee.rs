//! Committees: a few seats, drawn among the members by weight, whose word stands for that of all.
//!
//! # How one is drawn
//!
//! Weights are taken apart into **units**: a member of weight *w* has *w* ÷ *d* of them, where *d* is the greatest common divisor of all
//! weights. A committee of *m* seats is a set of *m* units, each such set as likely as any other; a seat belongs to whoever has the unit. So it
//! is drawn by weight and without replacement, a heavy member may have several seats, and nobody has more than its units.
//!
//! The set is a function of a value of the beacon, the call it is for, the members, and *m*: anybody can draw it again. Units are found
//! by Floyd's algorithm (Bentley and Floyd 1987, *A sample of brilliance*) from the output of BLAKE3, numbers by rejection; so no unit is likelier
//! than another, as far as BLAKE3's output is random and nobody knew the value.
//!
//! # The chance of a faulty quorum
//!
//! A **quorum** is more than two thirds of the seats. Let *W* be all units, and let members of less than a third of the weight be faulty, whoever they
//! are: they have *F* ≤ ⌈*W* ÷ 3⌉ − 1 units, fixed before the value was known. Of *m* seats the number that is theirs is hypergeometric, so the
//! chance that they are a quorum by themselves is exactly
//!
//! > Σ over *k* ≥ *q* of C(*F*, *k*) · C(*W* − *F*, *m* − *k*) ÷ C(*W*, *m*),  *q* = ⌊2 *m* ÷ 3⌋ + 1,
//!
//! at its largest with the largest *F*. It is counted in natural numbers of any size, without division: ordered draws are counted instead of
//! sets, which multiplies both sides by *m*!. So all members come to the same answer, to the last unit.
//!
//! # Why by units without replacement
//!
//! - *Seats with replacement* have an exact bound too (the binomial one), but never below 3⁻ᵐ: a network of four would need 26 seats and more, where two of
//!   four units cannot both be faulty.
//! - *Members without replacement, by weight* (one seat each, however heavy) have a chance that depends on which members are faulty: the worst choice is a
//!   knapsack problem. By units, the number of faulty units is all that matters.
//!
//! With 4 units it takes 2 seats, with 16 eight, 64 thirty-two, 256 seventy-two, 1 000 ninety-five, and never more than 105.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{CellId, Hash, TxId};
use crate::members::MemberSet;
use crate::natural::Natural;
use crate::signing::SignedText;

/// The most seats of a committee.
pub const SEATS_MAX: u64 = 128;
/// The chance of a faulty quorum is at most 2 to the minus this.
pub const CHANCE_BITS: u32 = 40;

/// A member's seats in a committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Who.
    #[n(0)]
    pub member: CellId,
    /// How many, at least one.
    #[n(1)]
    pub seats: u64,
}

/// How many seats are a quorum: more than two thirds.
pub const fn quorum(seats: u64) -> u64 {
    seats - seats.div_ceil(3) + 1
}

/// The fewest seats, and no more than so many, with which a committee of these members has a faulty quorum with a chance of at most 2⁻⁴⁰;
/// none if there are none.
pub fn seats_needed(members: &MemberSet, seats_max: u64) -> Option<u64> {
    let total: u64 = units(members).iter().sum();
    let faulty = total.checked_sub(1)? / 3;
    let mut chances = Chances::new(total, faulty);
    (1..=total.min(seats_max).min(SEATS_MAX)).find(|_| {
        chances.draw();
        chances.are_small()
    })
}

/// The committee of a call: so many seats, with their members in the order of the set. As many as there are units, if more are wanted.
pub fn draw(value: &Hash, call: &TxId, members: &MemberSet, seats: u64) -> Vec<Seat> {
    let units = units(members);
    let total: u64 = units.iter().sum();
    let text = SignedText::new("celluler/committee/1")
        .bytes32(value.as_bytes())
        .bytes32(call.as_bytes())
        .bytes32(members.hash().as_bytes())
        .u64(seats);
    let mut numbers = Numbers(blake3::Hasher::new().update(&text.finish()).finalize_xof());
    let mut drawn: Vec<u64> = Vec::new();
    for last in total - seats.min(total)..total {
        let unit = numbers.up_to(last);
        // In order, so that a unit is found among those drawn, and members are found in theirs.
        match drawn.binary_search(&unit) {
            // Those drawn are all below the last one.
            Ok(_) => drawn.push(last),
            Err(place) => drawn.insert(place, unit),
        }
    }
    let mut first = 0;
    let seat = |(member, units): (&crate::genesis::Member, u64)| {
        let end = first + units;
        let seats = drawn.partition_point(|unit| *unit < end) - drawn.partition_point(|unit| *unit < first);
        first = end;
        Seat { member: member.cell, seats: seats as u64 }
    };
    members.all().iter().zip(units).map(seat).filter(|seat| seat.seats > 0).collect()
}

/// How many units each member has.
fn units(members: &MemberSet) -> Vec<u64> {
    let weights = || members.all().iter().map(|member| member.weight);
    let divisor = weights().fold(0, greatest_common_divisor).max(1);
    weights().map(|weight| weight / divisor).collect()
}

fn greatest_common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

/// Numbers out of BLAKE3, each as likely as any other.
struct Numbers(blake3::OutputReader);

impl Numbers {
    /// One of 0 to `last`.
    fn up_to(&mut self, last: u64) -> u64 {
        let Some(count) = last.checked_add(1) else { return self.next() };
        // The numbers above the last whole run of `count` would make some remainders likelier.
        let over = (u64::MAX % count + 1) % count;
        loop {
            let number = self.next();
            if number <= u64::MAX - over {
                return number % count;
            }
        }
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// How many ways there are to draw seats one after the other, by how many of them are faulty.
struct Chances {
    faulty: u64,
    honest: u64,
    /// Seats drawn so far.
    seats: u64,
    /// Ways to draw them.
    all: Natural,
    /// Those of them with so many faulty ones, from 0.
    ways: Vec<Natural>,
}

impl Chances {
    fn new(total: u64, faulty: u64) -> Self {
        Self { faulty, honest: total - faulty, seats: 0, all: Natural::one(), ways: vec![Natural::one()] }
    }

    /// One seat more.
    fn draw(&mut self) {
        let mut ways = vec![Natural::default(); self.ways.len() + 1];
        for (count, before) in (0u64..).zip(&self.ways) {
            let place = count as usize;
            let honest_left = self.honest.saturating_sub(self.seats - count);
            ways[place] = ways[place].plus(&before.times(honest_left));
            ways[place + 1] = before.times(self.faulty.saturating_sub(count));
        }
        self.all = self.all.times(self.faulty + self.honest - self.seats);
        self.ways = ways;
        self.seats += 1;
    }

    /// Whether a faulty quorum is one way out of 2⁴⁰, or a smaller part of all.
    fn are_small(&self) -> bool {
        let faulty = self.ways[quorum(self.seats) as usize..].iter();
        let faulty = faulty.fold(Natural::default(), |sum, ways| sum.plus(ways));
        faulty.times(1 << CHANCE_BITS).is_at_most(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::genesis::Member;

    fn members(weights: &[u64]) -> MemberSet {
        let member = |(number, weight): (u32, &u64)| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Member::new(CellId::from_bytes(bytes), *weight)
        };
        MemberSet::new((0..).zip(weights).map(member).collect())
    }

    fn equals(count: usize) -> MemberSet {
        members(&vec![1; count])
    }

    fn call(number: u64) -> TxId {
        TxId::from_bytes(*Hash::of(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds() {
        for seats in 1..=SEATS_MAX {
            let quorum = quorum(seats);
            assert!(quorum * 3 > seats * 2 && (quorum - 1) * 3 <= seats * 2 && quorum <= seats, "{seats}");
        }
    }

    /// Counted another way, with rational numbers of any size (Python's `math.comb`).
    #[test]
    fn the_fewest_seats_are_these() {
        for (count, seats) in [
            (1, 1),
            (2, 1),
            (3, 1),
            (4, 2),
            (7, 3),
            (10, 5),
            (13, 6),
            (16, 8),
            (20, 9),
            (31, 15),
            (32, 15),
            (50, 24),
            (64, 32),
            (100, 45),
            (128, 53),
            (200, 66),
            (256, 72),
            (400, 81),
            (512, 86),
            (1_000, 95),
        ] {
            assert_eq!(seats_needed(&equals(count), SEATS_MAX), Some(seats), "{count} equals");
            assert_eq!(seats_needed(&equals(count), seats), Some(seats), "{count} equals");
            assert_eq!(seats_needed(&equals(count), seats - 1), None, "{count} equals, too few seats");
        }
        for (weights, seats) in [
            (vec![1_000_000; 4], 2),
            (vec![3_000, 7_000], 5),
            (vec![1_000_000, 999_999, 1, 1_000_000 - 7], 105),
            (vec![1_000_000_000, 1], 105),
            (vec![999, 1], 95),
            (vec![u64::MAX >> 1, u64::MAX >> 2], 105),
        ] {
            assert_eq!(seats_needed(&members(&weights), SEATS_MAX), Some(seats), "{weights:?}");
        }
        assert_eq!(seats_needed(&equals(0), SEATS_MAX), None, "nobody");
        assert_eq!(seats_needed(&equals(4), 0), None, "no seats");
    }

    /// Small networks, tried out: all committees of all faulty sets.
    #[test]
    fn chances_are_those_of_all_committees() {
        for total in 1..=12u32 {
            let faulty = (total - 1) / 3;
            let mut chances = Chances::new(total.into(), faulty.into());
            for seats in 1..=total {
                chances.draw();
                let mut counted = BTreeMap::<u32, u64>::new();
                for committee in (0u32..1 << total).filter(|set| set.count_ones() == seats) {
                    *counted.entry((committee & ((1 << faulty) - 1)).count_ones()).or_default() += 1;
                }
                let orders = (1..=u64::from(seats)).product::<u64>();
                for (count, ways) in (0..).zip(&chances.ways) {
                    let sets = counted.get(&count).copied().unwrap_or(0);
                    assert_eq!(*ways, Natural::one().times(sets).times(orders), "{seats} of {total}");
                }
                let sets = counted.values().sum::<u64>();
                assert_eq!(chances.all, Natural::one().times(sets).times(orders));
            }
        }
    }

    /// What a committee is may never change: it is agreed on.
    #[test]
    fn a_committee_is_as_it_ever_was() {
        let seats = |weights: &[u64], seats| -> Vec<u64> {
            let set = members(weights);
            let committee = draw(&Hash::of(b"value"), &call(1), &set, seats);
            let of = |cell| committee.iter().find(|seat| seat.member == cell).map_or(0, |seat| seat.seats);
            set.all().iter().map(|member| of(member.cell)).collect()
        };
        assert_eq!(seats(&[1; 8], 4), GOLDEN_EQUALS);
        assert_eq!(seats(&[50, 10, 30, 90], 9), GOLDEN_WEIGHTS);
    }

    const GOLDEN_EQUALS: [u64; 8] = [0, 1, 0, 1, 1, 0, 1, 0];
    const GOLDEN_WEIGHTS: [u64; 4] = [3, 1, 2, 3];

    /// Each set of two out of four comes about as often as any other: 6 000 draws, each of six sets 1 000 times give or take five deviations.
    #[test]
    fn no_committee_is_likelier_than_another() {
        let set = equals(4);
        let mut counts = BTreeMap::<Vec<CellId>, u32>::new();
        for number in 0..6_000 {
            let committee = draw(&Hash::of(b"value"), &call(number), &set, 2);
            *counts.entry(committee.iter().map(|seat| seat.member).collect()).or_default() += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_committee_has_its_seats_and_nobody_more_than_its_units(
            weights in prop::collection::vec(1u64..9, 1..20), factor in 1u64..1_000, seats in 0u64..200, value in any::<[u8; 32]>(),
        ) {
            let scaled: Vec<u64> = weights.iter().map(|weight| weight * factor).collect();
            let (set, value) = (members(&scaled), Hash::from_bytes(value));
            let committee = draw(&value, &call(7), &set, seats);
            prop_assert_eq!(&committee, &draw(&value, &call(7), &set, seats));
            let units = units(&set);
            let total: u64 = units.iter().sum();
            prop_assert_eq!(committee.iter().map(|seat| seat.seats).sum::<u64>(), seats.min(total));
            let mut places = set.all().iter().zip(&units);
            for seat in &committee {
                let (_, units) = places.find(|(member, _)| member.cell == seat.member).expect("in the set's order, each once");
                prop_assert!((1..=*units).contains(&seat.seats));
            }
        }

        /// Of all that is drawn from, whatever changes gives another committee, but for chance.
        #[test]
        fn a_committee_depends_on_all_that_it_is_drawn_from(value in any::<[u8; 32]>(), number in any::<u64>()) {
            let (set, value) = (equals(200), Hash::from_bytes(value));
            let committee = draw(&value, &call(number), &set, 60);
            prop_assert_ne!(&committee, &draw(&Hash::of(value.as_bytes()), &call(number), &set, 60));
            prop_assert_ne!(&committee, &draw(&value, &call(number.wrapping_add(1)), &set, 60));
            let mut other = vec![1; 200];
            other[199] = 2;
            prop_assert_ne!(&committee, &draw(&value, &call(number), &members(&other), 60));
        }

        /// With the seats that are needed, faulty members below a third are no quorum, in whatever is tried.
        #[test]
        fn faulty_members_are_no_quorum(weights in prop::collection::vec(1u64..50, 4..30), number in any::<u64>()) {
            let set = members(&weights);
            let seats = seats_needed(&set, SEATS_MAX).expect("enough");
            let (mut faulty, mut weight) = (Vec::new(), 0);
            for member in set.all() {
                if (weight + member.weight) * 3 < set.weight_total() {
                    weight += member.weight;
                    faulty.push(member.cell);
                }
            }
            let committee = draw(&Hash::of(b"value"), &call(number), &set, seats);
            let theirs: u64 = committee.iter().filter(|seat| faulty.contains(&seat.member)).map(|seat| seat.seats).sum();
            prop_assert!(theirs < quorum(seats));
        }
    }
}
