//! Which transactions have nothing in common.
//!
//! Two that touch one key, where at least one of them may change it, belong to one group; so does whoever shares a group
//! with both. Groups touch nothing in common, so each can be carried out without knowing of the others, and what they
//! write can be laid together in any order.

use std::collections::{BTreeMap, BTreeSet};

use machine::module::Access;

use crate::scratch::Owner;

/// What a transaction may touch: keys with the module's name, and whether each may be changed. Mostly a few; in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(Vec<(String, bool)>);

impl Declared {
    /// A module's keys too.
    pub(crate) fn add<'a>(&mut self, owner: impl Into<Owner<'a>>, accesses: &[Access]) {
        let owner = owner.into();
        for access in accesses {
            let key = owner.key(access.key());
            let may_write = matches!(access, Access::Write(_));
            match self.place(&key) {
                Ok(place) => self.0[place].1 |= may_write,
                Err(place) => self.0.insert(place, (key, may_write)),
            }
        }
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.as_str().cmp(key))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    pub(crate) fn may_read(&self, key: &str) -> bool {
        self.place(key).is_ok()
    }

    pub(crate) fn may_write(&self, key: &str) -> bool {
        self.place(key).is_ok_and(|place| self.0[place].1)
    }

    fn written(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, may_write)| *may_write).map(|(key, _)| key.as_str())
    }
}

/// The groups, each as the places of its transactions in order; the first of them has the first transaction, and so on.
pub(crate) fn split(declared: &[&Declared]) -> Vec<Vec<usize>> {
    let written: BTreeSet<&str> = declared.iter().flat_map(|one| one.written()).collect();
    let mut sets = Sets::new(declared.len());
    let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, one) in declared.iter().enumerate() {
        for key in one.keys().filter(|key| written.contains(key)) {
            sets.join(*first_with.entry(key).or_insert(place), place);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in 0..declared.len() {
        groups.entry(sets.first_of(place)).or_default().push(place);
    }
    groups.into_values().collect()
}

/// Disjoint sets of places (Galler and Fischer 1964, paths halved). A set is known by its first place.
struct Sets(Vec<usize>);

impl Sets {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn first_of(&mut self, mut place: usize) -> usize {
        while self.0[place] != place {
            self.0[place] = self.0[self.0[place]];
            place = self.0[place];
        }
        place
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first_of(one), self.first_of(other));
        self.0[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a transaction as text: `a` is read, `A` is changed.
    fn declared(text: &str) -> Declared {
        let access = |key: char| {
            let name = key.to_ascii_lowercase().to_string();
            if key.is_ascii_uppercase() { Access::Write(name) } else { Access::Read(name) }
        };
        let mut declared = Declared::default();
        declared.add("m", &text.chars().map(access).collect::<Vec<_>>());
        declared
    }

    fn groups(texts: &[&str]) -> Vec<Vec<usize>> {
        let all: Vec<Declared> = texts.iter().map(|text| declared(text)).collect();
        split(&all.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_has_a_changed_key_in_common_is_one_group() {
        assert_eq!(groups(&[]), [[0usize; 0]; 0]);
        assert_eq!(groups(&["A", "B", "A"]), [vec![0, 2], vec![1]]);
        assert_eq!(groups(&["a", "a", "aB", "B"]), [vec![0], vec![1], vec![2, 3]], "reading is no conflict");
        assert_eq!(groups(&["a", "aB", "A"]), [[0, 1, 2]], "but reading what another changes is");
        assert_eq!(groups(&["A", "B", "C", "BC", "", "CA"]), [vec![0, 1, 2, 3, 5], vec![4]]);
        assert_eq!(groups(&["aA", "a"]), [[0, 1]], "a key that is named twice may be changed");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The groups are the connected parts, each in order, and in the order of their first.
        #[test]
        fn groups_are_the_connected_parts(texts in prop::collection::vec("[a-fA-F]{0,3}", 0..16)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let all: Vec<Declared> = texts.iter().map(|text| declared(text)).collect();
            let conflict = |one: &Declared, other: &Declared| {
                one.keys().any(|key| other.may_read(key) && (one.may_write(key) || other.may_write(key)))
            };
            let mut part: Vec<usize> = (0..all.len()).collect();
            for _ in 0..all.len() {
                for one in 0..all.len() {
                    for other in 0..all.len() {
                        if conflict(&all[one], &all[other]) {
                            part[one] = part[one].min(part[other]);
                        }
                    }
                }
            }
            let mut expected: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for (place, first) in part.into_iter().enumerate() {
                expected.entry(first).or_default().push(place);
            }
            prop_assert_eq!(groups(&texts), expected.into_values().collect::<Vec<_>>());
        }
    }
}
