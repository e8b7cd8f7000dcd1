//! A plain binary Merkle tree over BLAKE3, used where one signature covers many items: the receipts of
//! a batch, the transactions of a block.
//!
//! Leaf = hash(`00` || item), node = hash(`01` || left || right); an odd node is carried up unchanged.
//! The two tags keep a leaf from being passed off as a node (RFC 6962, section 2.1).

use crate::id::Hash;

/// The hash of one leaf.
pub fn leaf(item: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0]).update(item);
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[1]).update(left.as_bytes()).update(right.as_bytes());
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

fn next_level(level: &[Hash]) -> Vec<Hash> {
    level.chunks(2).map(|pair| if let [left, right] = pair { node(left, right) } else { pair[0] }).collect()
}

/// The root over `leaves`; the zero hash when there are none.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = next_level(&level);
    }
    level.first().copied().unwrap_or(Hash::ZERO)
}

/// The root, and for each leaf the sibling hashes on its way up (bottom first).
pub fn paths(leaves: &[Hash]) -> (Hash, Vec<Vec<Hash>>) {
    let mut paths = vec![Vec::new(); leaves.len()];
    let mut level = leaves.to_vec();
    let mut width = 1;
    while level.len() > 1 {
        for (index, path) in paths.iter_mut().enumerate() {
            if let Some(sibling) = level.get((index / width) ^ 1) {
                path.push(*sibling);
            }
        }
        level = next_level(&level);
        width *= 2;
    }
    (level.first().copied().unwrap_or(Hash::ZERO), paths)
}

/// The root that `leaf`, at place `index` of `count`, has under `path`; `None` if the path's length is
/// not the one that such a place has.
pub fn root_of(leaf: Hash, index: u64, count: u64, path: &[Hash]) -> Option<Hash> {
    if index >= count {
        return None;
    }
    let (mut hash, mut index, mut count) = (leaf, index, count);
    let mut rest = path.iter();
    while count > 1 {
        let alone = index == count - 1 && index % 2 == 0;
        if !alone {
            let sibling = rest.next()?;
            hash = if index % 2 == 0 { node(&hash, sibling) } else { node(sibling, &hash) };
        }
        index /= 2;
        count = count.div_ceil(2);
    }
    rest.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_the_root_and_no_other_place_does() {
        for count in 1..40u64 {
            let leaves: Vec<Hash> = (0..count).map(|i| leaf(&i.to_le_bytes())).collect();
            let (root, paths) = paths(&leaves);
            assert_eq!(root, super::root(&leaves));
            for (index, path) in (0u64..).zip(&paths) {
                assert_eq!(root_of(leaves[index as usize], index, count, path), Some(root));
                for other in (0..count).filter(|other| *other != index) {
                    assert_ne!(root_of(leaves[index as usize], other, count, path), Some(root));
                }
            }
        }
    }
}
