//! The members' weights, and what a supermajority of them is.

use super::event::MemberIndex;

/// The weights of all members, with no common divisor: only their ratios count.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    each: Vec<u64>,
    total: u64,
}

impl Weights {
    /// # Panics
    ///
    /// Without a member, with a weight of nothing, or with so much that three times the sum fits no `u64`.
    pub(super) fn new(weights: &[u64]) -> Self {
        assert!(!weights.is_empty() && !weights.contains(&0), "each of one or more members has a weight");
        let divisor = weights.iter().copied().reduce(greatest_common_divisor).unwrap_or(1);
        let each: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
        let total = each.iter().try_fold(0u64, |sum, weight| sum.checked_add(*weight));
        let total = total.filter(|total| *total <= u64::MAX / 3).expect("the weights are in bounds");
        Self { each, total }
    }

    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    pub(super) fn of(&self, member: MemberIndex) -> u64 {
        self.each[usize::from(member.0)]
    }

    /// The least weight that is more than two thirds.
    pub(super) fn supermajority(&self) -> u64 {
        self.total * 2 / 3 + 1
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supermajority_is_more_than_two_thirds() {
        for (weights, least) in [
            (&[1][..], 1),
            (&[1, 1], 2),
            (&[1, 1, 1], 3),
            (&[1; 4], 3),
            (&[5; 4], 3),
            (&[1; 7], 5),
            (&[2, 4, 6], 5),
            (&[1_000_000; 1_000], 667),
            (&[u64::MAX; 4], 3),
            (&[u64::MAX / 3 - 2, 1, 1], 4_099_276_460_824_344_804),
        ] {
            assert_eq!(Weights::new(weights).supermajority(), least, "{weights:?}");
        }
    }

    #[test]
    #[should_panic(expected = "in bounds")]
    fn weights_whose_sum_fits_no_number_are_refused() {
        Weights::new(&[u64::MAX, u64::MAX - 1]);
    }

    #[test]
    #[should_panic(expected = "in bounds")]
    fn weights_of_which_three_times_the_sum_fits_no_number_are_refused() {
        Weights::new(&[u64::MAX / 3, 1]);
    }
}
