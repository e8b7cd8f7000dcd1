//! Nodes that are not in the `tree` file yet.
//!
//! A log that grows at its end adds nodes side by side, but for a few parents that reach further back: those
//! side by side lie in a vector, which costs a push each; all others in an ordered map.
//!
//! Invariant: a place of the vector that is taken is newer than the same index in the map.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::tree::{NODE_BYTES, Node};

/// Places that the vector leaves empty at most for a node behind its end: between two leaves lies one.
const GAP_MAX: u64 = 2;

/// Nodes that wait for the next checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// The index of the first place.
    base: u64,
    near: Vec<Option<Node>>,
    far: BTreeMap<u64, Node>,
}

impl Pending {
    pub(crate) fn insert(&mut self, node: Node) {
        if self.near.is_empty() {
            self.base = node.index;
        }
        let end = self.near.len() as u64;
        match node.index.checked_sub(self.base) {
            Some(at) if at < end => self.near[at as usize] = Some(node),
            Some(at) if at - end <= GAP_MAX => {
                self.near.resize(at as usize, None);
                self.near.push(Some(node));
            }
            _ => {
                self.far.insert(node.index, node);
            }
        }
    }

    pub(crate) fn get(&self, index: u64) -> Option<Node> {
        let near = index.checked_sub(self.base).and_then(|at| self.near.get(usize::try_from(at).ok()?));
        near.copied().flatten().or_else(|| self.far.get(&index).copied())
    }

    /// Whether one of these waits.
    pub(crate) fn any_of(&self, indices: Range<u64>) -> bool {
        let place = |index: u64| (index.saturating_sub(self.base)).min(self.near.len() as u64) as usize;
        let near = &self.near[place(indices.start)..place(indices.end)];
        near.iter().any(Option::is_some) || self.far.range(indices).next().is_some()
    }

    pub(crate) fn retain(&mut self, keeps: impl Fn(u64) -> bool) {
        for place in &mut self.near {
            place.take_if(|node| !keeps(node.index));
        }
        self.far.retain(|index, _| keeps(*index));
    }

    pub(crate) fn clear(&mut self) {
        self.near.clear();
        self.far.clear();
    }

    /// As bytes of the `tree` file, neighbouring nodes together, with the index of each run's first: fewer,
    /// larger writes. To be written in this order.
    pub(crate) fn runs(&self) -> Vec<(u64, Vec<u8>)> {
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for node in self.far.values().chain(self.near.iter().flatten()) {
            match runs.last_mut() {
                Some((first, run)) if *first + run.len() as u64 / NODE_BYTES == node.index => {
                    run.extend_from_slice(&node.to_bytes());
                }
                _ => runs.push((node.index, node.to_bytes().to_vec())),
            }
        }
        runs
    }
}

impl Extend<Node> for Pending {
    fn extend<N: IntoIterator<Item = Node>>(&mut self, nodes: N) {
        nodes.into_iter().for_each(|node| self.insert(node));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(index: u64, size: u64) -> Node {
        Node { index, size, hash: [7; 32] }
    }

    proptest! {
        #[test]
        fn it_is_a_map_whatever_the_order(
            inserts in prop::collection::vec((0..200u64, 1..9u64), 0..60),
            (from, to, until) in (0..200u64, 0..200u64, 0..200u64),
        ) {
            let (mut pending, mut model) = (Pending::default(), BTreeMap::new());
            for (index, size) in inserts {
                pending.insert(node(index, size));
                model.insert(index, node(index, size));
            }
            for shrunk in [false, true] {
                if shrunk {
                    pending.retain(|index| index < until);
                    model.retain(|index, _| *index < until);
                }
                let range = from.min(to)..from.max(to);
                prop_assert_eq!(pending.any_of(range.clone()), model.range(range).next().is_some());
                let mut written = BTreeMap::new();
                for (first, run) in pending.runs() {
                    let nodes = (first..).zip(run.chunks(NODE_BYTES as usize));
                    let node = |(index, bytes)| (index, Node::from_bytes(index, bytes).expect("there"));
                    written.extend(nodes.map(node));
                }
                prop_assert_eq!(&written, &model);
                prop_assert!((0..200).all(|index| pending.get(index) == model.get(&index).copied()));
            }
        }
    }
}
