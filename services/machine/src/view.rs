//! Views: ordered bytes to bytes, in layers.
//!
//! The lowest layer is a store (RocksDB, or memory in tests) and holds only what is durable in the
//! journal. Above it stand at most two overlays: the batch that is being synced, and the batch that is
//! being filled. [`View`] reads through all of them and writes to the top one.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;

/// The view cannot be read: the service stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view cannot be read: {0}")]
pub struct Fault(pub String);

impl From<protocol::Problem> for Fault {
    fn from(problem: protocol::Problem) -> Self {
        Self(problem.to_string())
    }
}

/// An ordered walk: keys and values.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Vec<u8>, Vec<u8>), Fault>> + 'a>;

/// Reads of a view.
pub trait Read {
    /// Shows the value of a key where it lies, or that there is none.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the store cannot be read; then nothing is shown.
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault>;

    /// A copy of the value of a key.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let mut copy = None;
        self.see(key, &mut |value| copy = value.map(<[u8]>::to_vec))?;
        Ok(copy)
    }

    /// Keys from `from` (included) to `to` (excluded) in ascending order, or in descending order when
    /// `reverse`. An empty `to` means: to the end.
    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_>;
}

/// Writes of a view. They go to the top layer and cannot fail.
pub trait Write: Read {
    /// Sets a key.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);
    /// Removes a key.
    fn delete(&mut self, key: Vec<u8>);
}

/// A layer of changes: `None` hides a key of the layers below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Overlay {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in key order.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Sets or removes a key.
    pub fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.changes.insert(key, value);
    }

    /// Moves all changes of a later layer into this one.
    pub fn absorb(&mut self, later: Self) {
        self.changes.extend(later.changes);
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8], reverse: bool) -> OverlayScan<'a> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if !to.is_empty() && from >= to {
            return OverlayScan { range: None, reverse };
        }
        let upper = if to.is_empty() { Unbounded } else { Excluded(to) };
        OverlayScan { range: Some(self.changes.range::<[u8], _>((Included(from), upper))), reverse }
    }
}

struct OverlayScan<'a> {
    range: Option<btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>>,
    reverse: bool,
}

impl<'a> Iterator for OverlayScan<'a> {
    type Item = (&'a Vec<u8>, &'a Option<Vec<u8>>);
    fn next(&mut self) -> Option<Self::Item> {
        let range = self.range.as_mut()?;
        if self.reverse { range.next_back() } else { range.next() }
    }
}

/// A store with overlays on top, the last one newest.
pub struct View<'a> {
    store: &'a dyn Read,
    frozen: Option<&'a Overlay>,
    top: &'a mut Overlay,
}

impl<'a> View<'a> {
    /// A view on `store`, through the layer being synced (if any), writing to `top`.
    pub fn new(store: &'a dyn Read, frozen: Option<&'a Overlay>, top: &'a mut Overlay) -> Self {
        Self { store, frozen, top }
    }
}

impl Read for View<'_> {
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        let layers = [Some(&*self.top), self.frozen];
        match layers.into_iter().flatten().find_map(|layer| layer.changes.get(key)) {
            Some(value) => look(value.as_deref()),
            None => self.store.see(key, look)?,
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_> {
        let mut scan = self.store.scan(from, to, reverse);
        for layer in [self.frozen, Some(&*self.top)].into_iter().flatten() {
            if !layer.is_empty() {
                scan = Box::new(Merged {
                    below: scan.peekable(),
                    above: layer.range(from, to, reverse).peekable(),
                    reverse,
                });
            }
        }
        scan
    }
}

impl Write for View<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.top.set(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.top.set(key, None);
    }
}

/// Two ordered walks as one, where the upper layer wins.
struct Merged<'a> {
    below: Peekable<Scan<'a>>,
    above: Peekable<OverlayScan<'a>>,
    reverse: bool,
}

impl Iterator for Merged<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.below.peek(), self.above.peek()) {
                (Some(Err(_)), _) | (Some(_), None) => return self.below.next(),
                (None, None) => return None,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(Ok((below, _))), Some((above, _))) => {
                    let order = below.cmp(above);
                    if self.reverse { order.reverse() } else { order }
                }
            };
            if order.is_lt() {
                return self.below.next();
            }
            if order.is_eq() {
                self.below.next();
            }
            if let Some((key, Some(value))) = self.above.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

/// A store in memory, for tests and for simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// Applies a layer.
    pub fn absorb(&mut self, overlay: &Overlay) {
        for (key, value) in overlay.changes() {
            match value {
                Some(value) => self.map.insert(key.to_vec(), value.to_vec()),
                None => self.map.remove(key),
            };
        }
    }
}

impl Read for MemoryStore {
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        look(self.map.get(key).map(Vec::as_slice));
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if !to.is_empty() && from >= to {
            return Box::new(std::iter::empty());
        }
        let upper = if to.is_empty() { Unbounded } else { Excluded(to) };
        let range = self.map.range::<[u8], _>((Included(from), upper));
        let pairs = range.map(|(key, value)| Ok((key.clone(), value.clone())));
        if reverse { Box::new(pairs.rev()) } else { Box::new(pairs) }
    }
}

impl Write for MemoryStore {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.map.insert(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.map.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Change = (u8, Option<u8>);

    fn layer(changes: &[Change]) -> Overlay {
        let mut overlay = Overlay::default();
        for (key, value) in changes {
            overlay.set(vec![*key], value.map(|value| vec![value]));
        }
        overlay
    }

    proptest! {
        /// Reading through the layers is reading a store that has absorbed them.
        #[test]
        fn layers_read_as_one(
            store in prop::collection::vec(any::<Change>(), 0..12),
            frozen in prop::collection::vec(any::<Change>(), 0..12),
            top in prop::collection::vec(any::<Change>(), 0..12),
            from in any::<u8>(), to in any::<u8>(), reverse in any::<bool>(),
        ) {
            let mut base = MemoryStore::default();
            base.absorb(&layer(&store));
            let (frozen, mut top) = (layer(&frozen), layer(&top));
            let mut flat = base.clone();
            flat.absorb(&frozen);
            flat.absorb(&top);
            let view = View::new(&base, Some(&frozen), &mut top);
            let seen: Vec<_> = view.scan(&[from], &[to], reverse).collect();
            let expected: Vec<_> = flat.scan(&[from], &[to], reverse).collect();
            prop_assert_eq!(seen, expected);
            for key in 0..=255u8 {
                prop_assert_eq!(view.get(&[key]), flat.get(&[key]));
            }
        }
    }
}
