//! Sets of small numbers, and sums of weights over many of them at once.

use smallvec::SmallVec;

/// A set of small numbers. What was never put in is not in it, however large.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(SmallVec<[u64; 1]>);

impl FromIterator<u32> for Bits {
    fn from_iter<T: IntoIterator<Item = u32>>(numbers: T) -> Self {
        let mut bits = Self::default();
        numbers.into_iter().for_each(|number| bits.insert(number));
        bits
    }
}

impl Bits {
    pub(super) fn insert(&mut self, number: u32) {
        let word = (number / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    pub(super) fn remove(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut((number / 64) as usize) {
            *word &= !(1 << (number % 64));
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn keep_only(&mut self, other: &Self) {
        let others = other.0.iter().chain(std::iter::repeat(&0));
        self.0.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.0).flat_map(|(place, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(place * 64 + bit)
            })
        })
    }
}

/// For each number, the weight of the sets that hold it. Sums lie bit by bit in planes, 64 numbers a word: adding a set
/// costs a few operations a word, not one a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Plane `p`: bit `p` of each number's sum.
    planes: Vec<Bits>,
}

impl Tally {
    pub(super) fn clear(&mut self) {
        self.planes.iter_mut().for_each(Bits::clear);
    }

    pub(super) fn add(&mut self, set: &Bits, weight: u64) {
        for (place, word) in set.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            let mut carry = 0;
            let mut plane = 0;
            while weight >> plane != 0 || carry != 0 {
                if self.planes.len() <= plane {
                    self.planes.push(Bits::default());
                }
                let sum = &mut self.planes[plane].0;
                if sum.len() <= place {
                    sum.resize(place + 1, 0);
                }
                let added = if weight >> plane & 1 == 1 { *word } else { 0 };
                let before = sum[place];
                sum[place] = before ^ added ^ carry;
                carry = before & added | carry & (before ^ added);
                plane += 1;
            }
        }
    }

    /// The numbers whose sum is at least this.
    pub(super) fn at_least(&self, least: u64) -> Bits {
        let words = self.planes.iter().map(|plane| plane.0.len()).max().unwrap_or(0);
        let planes = self.planes.len().max((u64::BITS - least.leading_zeros()) as usize);
        // From the highest bit down: above `least` already, or the same so far.
        let word = |place: usize| {
            let (mut above, mut same) = (0, u64::MAX);
            for plane in (0..planes).rev() {
                let sum = self.planes.get(plane).and_then(|plane| plane.0.get(place)).copied().unwrap_or(0);
                if plane < 64 && least >> plane & 1 == 1 {
                    same &= sum;
                } else {
                    above |= same & sum;
                    same &= !sum;
                }
            }
            above | same
        };
        // What was never added has a sum of nothing.
        if least == 0 { Bits::default() } else { Bits((0..words).map(word).collect()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(numbers: &[u32]) -> Bits {
        let mut bits = Bits::default();
        numbers.iter().for_each(|number| bits.insert(*number));
        bits
    }

    proptest! {
        #[test]
        fn a_tally_is_a_sum_for_each_number(
            sets in prop::collection::vec((prop::collection::vec(0..150u32, 0..40), 1..9u64), 0..20),
            least in 1..60u64,
        ) {
            let (mut tally, mut sums) = (Tally::default(), [0; 150]);
            for (numbers, weight) in &sets {
                let set = bits(numbers);
                set.iter().for_each(|number| sums[number as usize] += weight);
                tally.add(&set, *weight);
            }
            let enough = tally.at_least(least);
            for (number, sum) in (0..).zip(sums) {
                prop_assert_eq!(enough.contains(number), sum >= least);
            }
            prop_assert_eq!(enough.iter().count(), sums.iter().filter(|sum| **sum >= least).count());
        }

        #[test]
        fn sets_join_and_meet(a in prop::collection::vec(0..150u32, 0..40), b in prop::collection::vec(0..150u32, 0..40)) {
            let (mut joined, mut met) = (bits(&a), bits(&a));
            joined.join(&bits(&b));
            met.keep_only(&bits(&b));
            for number in 0..200 {
                prop_assert_eq!(joined.contains(number), a.contains(&number) || b.contains(&number));
                prop_assert_eq!(met.contains(number), a.contains(&number) && b.contains(&number));
            }
            let mut without = bits(&a);
            a.iter().for_each(|number| without.remove(*number));
            prop_assert_eq!(without.iter().count(), 0);
        }
    }
}
