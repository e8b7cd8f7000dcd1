//! Natural numbers of any size: as much of them as exact chances need. What they decide is agreed on, so there is no rounding in it.

/// A natural number, its least digit first, in base 2⁶⁴; no leading zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Natural(Vec<u64>);

impl Natural {
    pub(crate) fn one() -> Self {
        Self(vec![1])
    }

    pub(crate) fn times(&self, factor: u64) -> Self {
        let mut carry = 0u128;
        let mut digits = Vec::with_capacity(self.0.len() + 1);
        for digit in &self.0 {
            carry += u128::from(*digit) * u128::from(factor);
            digits.push(low(carry));
            carry >>= 64;
        }
        digits.push(low(carry));
        Self(digits).trimmed()
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut carry = 0u128;
        let digit = |number: &Self, place: usize| u128::from(number.0.get(place).copied().unwrap_or(0));
        let mut digits: Vec<u64> = Vec::with_capacity(self.0.len().max(other.0.len()) + 1);
        for place in 0..self.0.len().max(other.0.len()) {
            carry += digit(self, place) + digit(other, place);
            digits.push(low(carry));
            carry >>= 64;
        }
        digits.push(low(carry));
        Self(digits).trimmed()
    }

    pub(crate) fn is_at_most(&self, other: &Self) -> bool {
        let length = self.0.len().cmp(&other.0.len());
        length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_le()
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }
}

/// The lower half of a number.
fn low(number: u128) -> u64 {
    (number & u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(number: u128) -> Natural {
        Natural(vec![low(number), low(number >> 64)]).trimmed()
    }

    proptest! {
        #[test]
        fn it_counts_as_machine_numbers_do(one in any::<u128>(), other in any::<u128>(), factor in any::<u64>()) {
            let (half, small) = (one >> 1, one >> 64);
            prop_assert_eq!(of(half).plus(&of(other >> 1)), of(half + (other >> 1)));
            prop_assert_eq!(of(small).times(factor), of(small * u128::from(factor)));
            prop_assert_eq!(of(one).is_at_most(&of(other)), one <= other);
            prop_assert!(of(one).is_at_most(&of(one)));
        }

        /// Beyond machine numbers: the distributive law, and order.
        #[test]
        fn large_numbers_keep_the_laws(factors in prop::collection::vec(1..=u64::MAX, 1..9), one in 1..=u64::MAX, other in 1..=u64::MAX >> 1) {
            let large = factors.iter().fold(Natural::one(), |product, factor| product.times(*factor));
            let sum = large.times(one >> 1).plus(&large.times(other));
            prop_assert_eq!(&sum, &large.times((one >> 1) + other));
            prop_assert!(large.is_at_most(&sum) && !sum.plus(&Natural::one()).is_at_most(&sum));
        }
    }

    #[test]
    fn nothing_has_one_spelling() {
        assert_eq!(Natural::one().times(0), Natural::default());
        assert_eq!(Natural::default().plus(&Natural::default()), Natural::default());
        assert!(Natural::default().is_at_most(&Natural::one()));
    }
}
