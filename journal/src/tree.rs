//! The Merkle tree over entries, as a flat tree.
//!
//! Entry `i` is node `2i`; a node's level is its count of trailing one bits; the parent of two
//! siblings lies between them. A log of length n has one root for each one bit of n, largest first.
//! Source: hypercore-format §2; RFC 7574 bins numbers.

use crate::hash;

/// One node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its place in the flat tree.
    pub index: u64,
    /// Bytes of the entries below it.
    pub size: u64,
    /// Its hash.
    pub hash: hash::Digest,
}

/// No log is longer.
pub(crate) const LENGTH_MAX: u64 = 1 << 40;

/// Bytes of a node in the `tree` file: u64 size, 32-byte hash.
pub(crate) const NODE_BYTES: u64 = 40;

impl Node {
    pub(crate) fn of_entry(index: u64, entry: &[u8]) -> Self {
        Self { index: index * 2, size: entry.len() as u64, hash: hash::leaf(entry) }
    }

    /// The leaves of entries that lie side by side, the first of which has this number.
    pub(crate) fn of_entries(first: u64, entries: &[impl AsRef<[u8]>]) -> Vec<Self> {
        let leaf = |((number, entry), hash): ((u64, &_), _)| {
            let size = AsRef::<[u8]>::as_ref(entry).len() as u64;
            Self { index: number * 2, size, hash }
        };
        (first..).zip(entries).zip(hash::leaves(entries)).map(leaf).collect()
    }

    pub(crate) fn parent_of(left: &Self, right: &Self) -> Self {
        Self {
            index: (left.index + right.index) / 2,
            size: left.size.wrapping_add(right.size),
            hash: hash::parent(left, right),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; NODE_BYTES as usize] {
        let mut bytes = [0; NODE_BYTES as usize];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..].copy_from_slice(&self.hash);
        bytes
    }

    /// Reads a node; `None` where it is absent (all zero).
    pub(crate) fn from_bytes(index: u64, bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let hash: [u8; 32] = rest.get(..32)?.try_into().ok()?;
        let node = Self { index, size: u64::from_le_bytes(*size), hash };
        (node.size != 0 || node.hash != [0; 32]).then_some(node)
    }
}

/// A node's level: 0 for a leaf.
pub(crate) fn level(index: u64) -> u32 {
    index.trailing_ones()
}

/// The left and right child of an inner node.
pub(crate) fn children(index: u64) -> (u64, u64) {
    let half = 1 << (level(index) - 1);
    (index - half, index + half)
}

/// The entries below a node: first, and one past the last.
pub(crate) fn span(index: u64) -> (u64, u64) {
    let width = 1u64 << level(index);
    let first = (index + 1 - width) / 2;
    (first, first + width)
}

/// The roots of a log of this length, largest first.
pub(crate) fn roots_of(length: u64) -> Vec<u64> {
    let mut roots = Vec::new();
    let mut first = 0;
    for bit in (0..63).rev() {
        let width = 1u64 << bit;
        if length & width != 0 {
            roots.push(2 * first + width - 1);
            first += width;
        }
    }
    roots
}

/// Where an entry's bytes begin: the sizes of all subtrees to its left. `None` past the end, or if the sizes
/// overflow.
pub(crate) fn offset<E>(
    roots: &[Node],
    entry: u64,
    mut node: impl FnMut(u64) -> Result<Node, E>,
) -> Result<Option<u64>, E> {
    let mut offset = 0u64;
    let mut at = None;
    for root in roots {
        if entry < span(root.index).1 {
            at = Some(root.index);
            break;
        }
        let Some(sum) = offset.checked_add(root.size) else { return Ok(None) };
        offset = sum;
    }
    let Some(mut at) = at else { return Ok(None) };
    while at != entry * 2 {
        let (left, right) = children(at);
        at = if entry < span(left).1 {
            left
        } else {
            let Some(sum) = offset.checked_add(node(left)?.size) else { return Ok(None) };
            offset = sum;
            right
        };
    }
    Ok(Some(offset))
}

/// The nodes above both the last entry of a log of this length and the one after it: what a longer log
/// had and this one has no more. Lowest first, up to where no log reaches.
pub(crate) fn ancestors_across(length: u64) -> impl Iterator<Item = u64> {
    let last = length.checked_sub(1);
    (1..40).filter_map(move |level| {
        let width = 1u64 << level;
        let first = last? / width * width;
        // Above the last entry; the one after it lies below as well where the node is not full.
        (first + width > length).then_some(2 * first + width - 1)
    })
}

/// Adds a leaf to the roots, completing parents; `seen` is given the leaf and each new parent in order.
pub(crate) fn push(roots: &mut Vec<Node>, leaf: Node, mut seen: impl FnMut(Node)) {
    seen(leaf);
    roots.push(leaf);
    while let [.., left, right] = roots[..] {
        if level(left.index) != level(right.index) {
            break;
        }
        let parent = Node::parent_of(&left, &right);
        seen(parent);
        roots.truncate(roots.len() - 2);
        roots.push(parent);
    }
}

/// Adds leaves that lie side by side to the roots, completing parents; gives the leaves and the parents, lower
/// levels first. The same roots as by one [`push`] after the other, with many hashes at once.
pub(crate) fn extend(roots: &mut Vec<Node>, leaves: Vec<Node>) -> Vec<Node> {
    let mut came = Vec::with_capacity(leaves.len() * 2);
    let mut row = leaves;
    let mut last_of_rows = Vec::new();
    while let Some(first) = row.first() {
        let at_level = level(first.index);
        came.extend_from_slice(&row);
        // Its left sibling was there already.
        if let Some(root) = roots.pop_if(|root| level(root.index) == at_level) {
            row.insert(0, root);
        }
        let (pairs, last) = row.as_chunks();
        last_of_rows.extend_from_slice(last);
        let parent = |([left, right], hash): (&[Node; 2], _)| Node {
            index: (left.index + right.index) / 2,
            size: left.size.wrapping_add(right.size),
            hash,
        };
        row = pairs.iter().zip(hash::parents(pairs)).map(parent).collect();
    }
    roots.extend(last_of_rows.into_iter().rev());
    came
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_entries_at_once_are_one_after_the_other() {
        // Longer than what is hashed together, and than what is put on the stack.
        let entry = |index: u64| vec![index as u8; (index * 37 % 700) as usize];
        for length in [0, 1, 2, 3, 5, 8, 100, 129] {
            for added in [0, 1, 2, 3, 7, 64, 200] {
                let (mut one_by_one, mut nodes) = (Vec::new(), Vec::new());
                (0..length)
                    .for_each(|index| push(&mut one_by_one, Node::of_entry(index, &entry(index)), |_| {}));
                let mut at_once = one_by_one.clone();
                for index in length..length + added {
                    push(&mut one_by_one, Node::of_entry(index, &entry(index)), |node| nodes.push(node));
                }
                let entries: Vec<_> = (length..length + added).map(entry).collect();
                let mut came = extend(&mut at_once, Node::of_entries(length, &entries));
                assert_eq!(at_once, one_by_one, "{length} and {added}");
                nodes.sort_by_key(|node| node.index);
                came.sort_by_key(|node| node.index);
                assert_eq!(came, nodes, "{length} and {added}");
            }
        }
    }

    #[test]
    fn pushing_leaves_gives_the_roots_of_the_length() {
        let mut roots = Vec::new();
        for index in 0..300u64 {
            push(&mut roots, Node::of_entry(index, &index.to_le_bytes()), |_| {});
            let indices: Vec<u64> = roots.iter().map(|root| root.index).collect();
            assert_eq!(indices, roots_of(index + 1));
        }
        assert_eq!(roots_of(5), [3, 8]);
        assert_eq!(span(3), (0, 4));
        assert_eq!(children(3), (1, 5));
        // Below 7: entries 0 to 3. A log of 3 has no 3 (0 to 3) and no 5 (2 and 3).
        assert_eq!(ancestors_across(3).take(3).collect::<Vec<_>>(), [5, 3, 7]);
        assert_eq!(ancestors_across(4).take(2).collect::<Vec<_>>(), [7, 15]);
        assert_eq!(ancestors_across(0).count(), 0);
    }
}
