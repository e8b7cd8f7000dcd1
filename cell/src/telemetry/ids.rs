//! Ids of traces and spans: unlikely to be given twice, and nothing else. Whoever guesses one learns nothing by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The step between two states: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A SplitMix64 generator (Steele, Lea, Flood 2014): one addition that all threads share, and no state beside it. It runs through all 2^64
/// states before it repeats one. Seeded by the system once, so that an id costs no call of it.
pub(super) struct Ids(AtomicU64);

impl Ids {
    pub(super) fn seeded() -> Self {
        let mut seed = [0; 8];
        if getrandom::fill(&mut seed).is_err() {
            // Two hosts may then give the same ids, and no promise hangs on that.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
            seed = (now as u64 ^ u64::from(std::process::id()) << 32).to_le_bytes();
        }
        Self(AtomicU64::new(u64::from_le_bytes(seed)))
    }

    fn next(&self) -> u64 {
        let state = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The id of a new span; not all zero.
    pub(super) fn span_id(&self) -> [u8; 8] {
        match self.next() {
            0 => STEP.to_be_bytes(),
            id => id.to_be_bytes(),
        }
    }

    /// The id of a new trace; not all zero.
    pub(super) fn trace_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.span_id());
        id[8..].copy_from_slice(&self.next().to_be_bytes());
        id
    }

    /// True so many times out of 1 000.
    pub(super) fn happens(&self, per_1000: u64) -> bool {
        per_1000 > 0 && self.next() % 1_000 < per_1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn it_is_splitmix64() {
        // The first values for the seed 1234567, as the generator's authors print them.
        let ids = Ids(AtomicU64::new(1_234_567));
        let first: Vec<u64> = (0..3).map(|_| ids.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn ids_differ_and_chances_are_kept() {
        let ids = Ids::seeded();
        let many: HashSet<[u8; 8]> = (0..10_000).map(|_| ids.span_id()).collect();
        assert_eq!(many.len(), 10_000);
        assert_ne!(ids.trace_id(), Ids::seeded().trace_id());
        let drawn = |per_1000| (0..100_000).filter(|_| ids.happens(per_1000)).count();
        assert_eq!((drawn(0), drawn(1_000)), (0, 100_000));
        assert!((500..1_500).contains(&drawn(10)), "about 1 000");
    }
}
