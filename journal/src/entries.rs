//! Entries in memory: the ones that are read again and again.
//!
//! They are kept by the hash of their leaf, as they are stored, after they were checked: an entry that
//! was cut off and written anew is another one. So nothing in here can be stale, and what is encrypted stays so.
//!
//! Bound: [`BYTES_MAX`] for a journal and all its readers in this process.

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::hash::Digest;

/// The most bytes, with what it takes to keep them.
const BYTES_MAX: u64 = 1024 * 1024;
/// Bytes that an entry takes beside its own.
const OVERHEAD_BYTES: u64 = 96;
/// Larger entries are not kept: they would push out too many others.
const ENTRY_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone)]
struct Bytes;

impl Weighter<Digest, Vec<u8>> for Bytes {
    fn weight(&self, _: &Digest, entry: &Vec<u8>) -> u64 {
        entry.len() as u64 + OVERHEAD_BYTES
    }
}

/// Entries that were read.
pub(crate) struct Entries(Cache<Digest, Vec<u8>, Bytes>);

impl Default for Entries {
    fn default() -> Self {
        let usual = 4 * OVERHEAD_BYTES;
        Self(Cache::with_weighter((BYTES_MAX / usual) as usize, BYTES_MAX, Bytes))
    }
}

impl Entries {
    pub(crate) fn get(&self, leaf: &Digest) -> Option<Vec<u8>> {
        self.0.get(leaf).cloned()
    }

    /// Keeps an entry that hashes to this leaf.
    pub(crate) fn keep(&mut self, leaf: Digest, entry: &[u8]) {
        if entry.len() <= ENTRY_BYTES_MAX {
            self.0.insert(leaf, entry.to_vec());
        }
    }

    /// Forgets all: some were cleared.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_bound() {
        let mut entries = Entries::default();
        for number in 0..40_000u64 {
            entries.keep(crate::hash::leaf(&number.to_le_bytes()), &[7; 500]);
        }
        assert!(entries.0.weight() <= BYTES_MAX && entries.0.len() > 1_000);
        entries.keep([1; 32], &[7; ENTRY_BYTES_MAX + 1]);
        entries.keep([2; 32], &[7; ENTRY_BYTES_MAX]);
        assert_eq!(
            (entries.get(&[1; 32]), entries.get(&[2; 32]).map(|entry| entry.len())),
            (None, Some(ENTRY_BYTES_MAX))
        );
        entries.forget();
        assert_eq!(entries.0.len(), 0);
    }
}
