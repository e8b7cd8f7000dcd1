//! Which chunks of a checkpoint to fetch while others are on their way.
//!
//! A chunk begins behind a key's hash and ends where its sender has filled it, so where the next one begins is known only once it is here. But hashes
//! are even: the next ones are guessed at a little less than the span of those before, and fetched at the same time, each from
//! another cell. One that begins before its predecessor's end is cut by State; where a guess was too far, what lies between is fetched
//! as soon as that is seen. Pure.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Hash;

/// A guess is this much of the span away from the one before, of so many.
const GUESS: u128 = 15;
/// See [`GUESS`].
const GUESS_OF: u128 = 16;

/// Where a chunk begins: behind this hash, or with the first key.
pub(super) type Start = Option<Hash>;

/// Chunks on their way, and those that are here and not in their turn.
#[derive(Debug)]
pub(super) struct Ahead<T> {
    /// How many, of both kinds together, but for one that is needed next.
    width: usize,
    flying: BTreeSet<Start>,
    /// With the last hash of each; none for the one behind which nothing comes.
    here: BTreeMap<Start, (Start, T)>,
    /// How far a chunk reaches, lately.
    span: Option<u128>,
    /// The farthest one that was asked for.
    farthest: Start,
}

impl<T> Ahead<T> {
    pub(super) fn new(width: usize) -> Self {
        let (flying, here) = (BTreeSet::new(), BTreeMap::new());
        Self { width, flying, here, span: None, farthest: None }
    }

    /// The next chunk to fetch, if there is one to fetch now, where all up to `at` is taken in.
    pub(super) fn next(&mut self, at: Start) -> Option<Start> {
        let covered = self.here.range(..=at).any(|(_, (last, _))| reaches(*last, at));
        let comes = self.flying.range(..=at).next().is_some();
        if !covered && !comes {
            self.flying.insert(at);
            self.farthest = self.farthest.max(at);
            return Some(at);
        }
        if self.flying.len() + self.here.len() >= self.width {
            return None;
        }
        let guess = place(self.farthest.max(at)).checked_add(self.span? / GUESS_OF * GUESS)?;
        let start = Some(hash(guess));
        self.farthest = start;
        self.flying.insert(start);
        Some(start)
    }

    /// A chunk came, that ends with `last`.
    pub(super) fn came(&mut self, start: Start, last: Start, chunk: T) {
        self.flying.remove(&start);
        if let Some(last) = last {
            let span = place(Some(last)).saturating_sub(place(start));
            // One that is made short does not make the next ones so.
            self.span = Some(self.span.map_or(span, |before| span.max(before / 2)).max(GUESS_OF));
        }
        self.here.insert(start, (last, chunk));
    }

    /// A chunk is not to be had; it is fetched again if it is needed.
    pub(super) fn failed(&mut self, start: Start) {
        self.flying.remove(&start);
    }

    /// The chunk to take in next where all up to `at` is, if it is here.
    pub(super) fn take(&mut self, at: Start) -> Option<(Start, T)> {
        self.here.retain(|_, (last, _)| reaches(*last, at));
        let start = *self.here.range(..=at).next()?.0;
        self.here.remove(&start).map(|(_, chunk)| (start, chunk))
    }
}

/// Whether a chunk that ends there has something behind `at`.
fn reaches(last: Start, at: Start) -> bool {
    last.is_none() || last > at
}

fn place(start: Start) -> u128 {
    start.map_or(0, |hash| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        u128::from_be_bytes(bytes)
    })
}

fn hash(place: u128) -> Hash {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&place.to_be_bytes());
    Hash::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a cell answers: up to so many of the keys behind a start, and where they end.
    fn chunk(keys: &BTreeSet<Hash>, start: Start, most: usize) -> (Start, Vec<Hash>) {
        let behind = keys.iter().filter(|key| Some(**key) > start);
        let some: Vec<Hash> = behind.clone().take(most).copied().collect();
        let last = if behind.count() > most { some.last().copied() } else { None };
        (last, some)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever comes first, and however the keys lie: all are taken in, in order, each once, and few wait.
        #[test]
        fn every_key_is_taken_in_once(
            keys in prop::collection::btree_set(any::<[u8; 4]>(), 0..300),
            is_even in any::<bool>(),
            (width, most) in (1usize..6, 1usize..30),
            turns in prop::collection::vec(any::<prop::sample::Index>(), 1..64),
        ) {
            let hash = |key: &[u8; 4]| if is_even { Hash::of(key) } else {
                let mut bytes = [0; 32];
                bytes[12..16].copy_from_slice(key);
                Hash::from_bytes(bytes)
            };
            let keys: BTreeSet<Hash> = keys.iter().map(hash).collect();
            let (mut ahead, mut at, mut taken) = (Ahead::new(width), None, Vec::new());
            let mut flying: Vec<Start> = Vec::new();
            let mut asked = 0;
            let mut turns = turns.iter().cycle();
            'all: loop {
                while let Some(start) = ahead.next(at) {
                    flying.push(start);
                    asked += 1;
                }
                prop_assert!(flying.len() + ahead.here.len() <= width + 1);
                prop_assert!(!flying.is_empty() && asked <= 4 * (keys.len() + 1) * (width + 1));
                let start = flying.swap_remove(turns.next().expect("endless").index(flying.len()));
                let (last, keys) = chunk(&keys, start, most);
                ahead.came(start, last, (last, keys));
                while let Some((start, (last, keys))) = ahead.take(at) {
                    prop_assert!(start <= at);
                    taken.extend(keys.into_iter().filter(|key| Some(*key) > at));
                    if last.is_none() {
                        break 'all;
                    }
                    prop_assert!(last > at);
                    at = last;
                }
            }
            prop_assert_eq!(taken, keys.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn even_keys_come_several_at_once() {
        let keys: BTreeSet<Hash> = (0..1_000u32).map(|key| Hash::of(&key.to_le_bytes())).collect();
        let (mut ahead, mut at, mut rounds, mut asked) = (Ahead::new(4), None, 0, 0);
        loop {
            let flying: Vec<Start> = std::iter::from_fn(|| ahead.next(at)).collect();
            (rounds, asked) = (rounds + 1, asked + flying.len());
            for start in flying {
                let (last, _) = chunk(&keys, start, 20);
                ahead.came(start, last, last);
            }
            let mut is_done = false;
            while let Some((_, last)) = ahead.take(at) {
                (at, is_done) = (last, last.is_none());
                if is_done {
                    break;
                }
            }
            if is_done {
                break;
            }
        }
        assert!(rounds < 30 && asked < 90, "{rounds} rounds, {asked} questions for 50 chunks");
    }
}
