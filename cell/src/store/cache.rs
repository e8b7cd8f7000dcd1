//! Rows that a service reads again and again, in memory.
//!
//! A read that RocksDB answers from its memory costs a microsecond; most decisions read the same few rows.
//! The one who writes a keyspace is the one who reads it, so nothing here can be stale: what is written is
//! given to [`Cached::absorb`] before the layer that hid it is dropped.

use std::cell::RefCell;

use machine::{Fault, Overlay, Read, Scan};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// Memory for the rows of one keyspace.
const BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Larger rows are not kept.
const ROW_BYTES_MAX: usize = 4 * 1024;
/// What a row costs besides its bytes.
const ROW_OVERHEAD_BYTES: usize = 64;

/// A store with the rows in memory that were read lately.
pub struct Cached<S> {
    store: S,
    /// What the store has under a key: nothing too, which is as dear to find out.
    rows: RefCell<Cache<Vec<u8>, Option<Vec<u8>>, Bytes>>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Vec<u8>, Option<Vec<u8>>> for Bytes {
    fn weight(&self, key: &Vec<u8>, value: &Option<Vec<u8>>) -> u64 {
        (key.len() + value.as_ref().map_or(0, Vec::len) + ROW_OVERHEAD_BYTES) as u64
    }
}

impl<S: Read> Cached<S> {
    /// Nothing in memory yet.
    pub fn new(store: S) -> Self {
        let rows_about = (BYTES_MAX / 256) as usize;
        Self { store, rows: RefCell::new(Cache::with_weighter(rows_about, BYTES_MAX, Bytes)) }
    }

    /// These changes are in the store now.
    pub fn absorb(&mut self, changes: &Overlay) {
        let rows = self.rows.get_mut();
        if rows.is_empty() {
            return;
        }
        for (key, value) in changes.changes() {
            if value.is_some_and(|value| value.len() > ROW_BYTES_MAX) {
                rows.remove(key);
            } else if let Some(mut row) = rows.peek_mut(key) {
                match (&mut *row, value) {
                    (Some(row), Some(value)) => value.clone_into(row),
                    (row, value) => *row = value.map(<[u8]>::to_vec),
                }
            }
        }
    }
}

impl<S: Read> Read for Cached<S> {
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        if let Some(value) = self.rows.borrow().get(key) {
            look(value.as_deref());
            return Ok(());
        }
        self.store.see(key, &mut |value| {
            if value.is_none_or(|value| value.len() <= ROW_BYTES_MAX) {
                self.rows.borrow_mut().insert(key.to_vec(), value.map(<[u8]>::to_vec));
            }
            look(value);
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_> {
        self.store.scan(from, to, reverse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::MemoryStore;

    fn layer(changes: &[(u8, Option<usize>)]) -> Overlay {
        let mut overlay = Overlay::default();
        for (key, length) in changes {
            overlay.set(vec![*key], length.map(|length| vec![*key; length]));
        }
        overlay
    }

    #[test]
    fn it_reads_as_its_store_whatever_is_written() {
        let first = layer(&[(1, Some(10)), (2, Some(10)), (3, Some(10)), (4, Some(ROW_BYTES_MAX + 1))]);
        let second =
            layer(&[(1, Some(20)), (2, None), (3, Some(ROW_BYTES_MAX + 1)), (4, Some(1)), (5, Some(5))]);
        let mut store = MemoryStore::default();
        store.absorb(&first);
        let mut cached = Cached::new(store.clone());
        for changes in [Overlay::default(), second] {
            cached.store.absorb(&changes);
            cached.absorb(&changes);
            store.absorb(&changes);
            for key in 0..8 {
                assert_eq!(cached.get(&[key]), store.get(&[key]), "{key}");
                assert_eq!(cached.get(&[key]), store.get(&[key]), "{key} again, from memory");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_looked_for_again() {
        let mut cached = Cached::new(MemoryStore::default());
        assert_eq!(cached.get(&[1]), Ok(None));
        // Behind its back, which nobody does: so it tells whether it looks.
        cached.store.absorb(&layer(&[(1, Some(10))]));
        assert_eq!(cached.get(&[1]), Ok(None));
        cached.absorb(&layer(&[(1, Some(10))]));
        assert_eq!(cached.get(&[1]), Ok(Some(vec![1; 10])));
    }

    #[test]
    fn a_row_in_memory_is_not_read_again_and_memory_is_bounded() {
        let mut store = MemoryStore::default();
        let mut many = Overlay::default();
        for number in 0u32..50_000 {
            many.set(number.to_be_bytes().to_vec(), Some(vec![7; 100]));
        }
        store.absorb(&many);
        let mut cached = Cached::new(store);
        cached.get(&1u32.to_be_bytes()).expect("readable");
        cached.store = MemoryStore::default();
        assert_eq!(cached.get(&1u32.to_be_bytes()), Ok(Some(vec![7; 100])));
        cached.store.absorb(&many);
        for number in 0u32..50_000 {
            cached.get(&number.to_be_bytes()).expect("readable");
        }
        assert!(cached.rows.get_mut().weight() <= BYTES_MAX);
    }
}
