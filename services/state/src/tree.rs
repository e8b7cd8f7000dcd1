//! The Merkle tree over the state: the `jmt` crate, its nodes in the view.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use borsh::BorshDeserialize;
use jmt::storage::{
    HasPreimage, LeafNode, Node, NodeBatch, NodeKey, StaleNodeIndexBatch, TreeReader, TreeUpdateBatch,
};
use jmt::{KeyHash, OwnedValue, Sha256Jmt, Version};
use machine::{Fault, Read, Write};
use minicbor::bytes::ByteVec;
use protocol::{Hash, StateRoot};
use sha2::Sha256;

use crate::checkpoint;
use crate::record::WriteSet;
use crate::tables::{HISTORY, NODES};

/// The hash of a tree without keys.
pub(crate) const PLACEHOLDER: [u8; 32] = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";

/// The tree's nodes and values as the view holds them.
pub(crate) struct Nodes<'a>(pub(crate) &'a dyn Read);

impl TreeReader for Nodes<'_> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let bytes = NODES.get(self.0, &borsh::to_vec(key)?)?;
        Ok(bytes.map(|bytes| borsh::from_slice(&bytes)).transpose()?)
    }

    fn get_value_option(&self, max_version: Version, key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        Ok(value_at(self.0, &Hash::from_bytes(key.0), max_version)?.and_then(|(_, value)| value))
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        // Only the crate's own restore asks for it, which is not used here.
        Err(anyhow::anyhow!("the rightmost leaf is not kept"))
    }
}

/// A tree that grows within one version: what is there of the version stands in for the one before it.
/// Keys are only added, so each node that changes is written again in its place, and none is left over.
struct Growing<'a> {
    nodes: Nodes<'a>,
    version: Version,
}

impl TreeReader for Growing<'_> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        if key.version().checked_add(1) != Some(self.version) {
            return self.nodes.get_node_option(key);
        }
        let root = self.nodes.get_node_option(&root_key(self.version))?;
        Ok(Some(root.unwrap_or(Node::Null)))
    }

    fn get_value_option(&self, max_version: Version, key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        self.nodes.get_value_option(max_version, key)
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        self.nodes.get_rightmost_leaf()
    }
}

impl HasPreimage for Nodes<'_> {
    fn preimage(&self, _: KeyHash) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// The version that wrote a key, and its value; none where it was deleted.
pub(crate) type Written = (u64, Option<Vec<u8>>);

/// What a key's newest version at or before `version` is.
pub(crate) fn value_at(view: &dyn Read, key: &Hash, version: u64) -> Result<Option<Written>, Fault> {
    let after = (u64::MAX - version).checked_sub(1).map(|edge| (*key, edge));
    let row = HISTORY.scan(view, key, after.as_ref(), false).next().transpose()?;
    Ok(row.map(|((_, inverted), value)| (u64::MAX - inverted, value.map(Into::into))))
}

/// The hash a key is filed under.
pub(crate) fn key_hash(key: &str) -> Hash {
    Hash::from_bytes(KeyHash::with::<Sha256>(key).0)
}

/// Nodes that are kept read, beside those of one block; of about a kilobyte each, leaves less.
const KEPT_MAX: usize = 16_384;

/// What a machine keeps of the tree that it would otherwise compute or read again: what the last block came to, from when it is decided on
/// until it is folded, and the nodes on the ways of the last blocks' keys. Nothing depends on whether it is there.
#[derive(Debug, Default)]
pub struct Memo(Mutex<Kept>);

/// Another machine begins with nothing: its view may have another past.
impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct Kept {
    grown: Option<Grown>,
    /// The tree that the nodes are of.
    of: Option<(Version, StateRoot)>,
    nodes: BTreeMap<NodeKey, Node>,
}

#[derive(Debug)]
struct Grown {
    version: Version,
    root: StateRoot,
    batch: TreeUpdateBatch,
}

impl Memo {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree is about to be another one.
    pub(crate) fn forget(&self) {
        *self.lock() = Kept::default();
    }

    /// The root that a write set leads to from the version before, that has this one.
    pub(crate) fn decide(
        &self,
        view: &dyn Read,
        before: &StateRoot,
        version: Version,
        writes: &WriteSet,
    ) -> Result<StateRoot, Fault> {
        let mut kept = self.lock();
        let of = version.checked_sub(1).map(|last| (last, *before));
        if kept.of != of || kept.nodes.len() > KEPT_MAX {
            *kept = Kept { of, ..Kept::default() };
        }
        let reader = Remembering { nodes: Nodes(view), known: &kept.nodes, read: RefCell::default() };
        let (root, batch) = put(&reader, version, writes)?;
        let read = reader.read.into_inner();
        kept.nodes.extend(read);
        kept.grown = Some(Grown { version, root, batch });
        Ok(root)
    }

    /// What was decided on, if it is this: its nodes are the tree's from now on.
    pub(crate) fn take(&self, version: Version, root: &StateRoot) -> Option<TreeUpdateBatch> {
        let mut kept = self.lock();
        let grown = kept.grown.take().filter(|grown| grown.version == version && grown.root == *root);
        let Some(Grown { batch, .. }) = grown else {
            *kept = Kept::default();
            return None;
        };
        for stale in &batch.stale_node_index_batch {
            kept.nodes.remove(&stale.node_key);
        }
        let new = batch.node_batch.nodes().iter().map(|(key, node)| (key.clone(), node.clone()));
        kept.nodes.extend(new);
        kept.of = Some((version, *root));
        Some(batch)
    }
}

/// The tree's nodes: those that are known, and others, that are remembered.
struct Remembering<'a> {
    nodes: Nodes<'a>,
    known: &'a BTreeMap<NodeKey, Node>,
    read: RefCell<Vec<(NodeKey, Node)>>,
}

impl TreeReader for Remembering<'_> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        if let Some(node) = self.known.get(key) {
            return Ok(Some(node.clone()));
        }
        let node = self.nodes.get_node_option(key)?;
        self.read.borrow_mut().extend(node.clone().map(|node| (key.clone(), node)));
        Ok(node)
    }

    fn get_value_option(&self, max_version: Version, key: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        self.nodes.get_value_option(max_version, key)
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        self.nodes.get_rightmost_leaf()
    }
}

/// The root after a write set, the nodes it adds, and those it makes needless. An empty one keeps the
/// root, in a new version.
pub(crate) fn root_after(
    view: &dyn Read,
    version: u64,
    writes: &WriteSet,
) -> Result<(StateRoot, TreeUpdateBatch), Fault> {
    put(&Nodes(view), version, writes)
}

/// The root of a version that is being put together, after more keys of it, and the nodes it then has anew.
pub(crate) fn root_grown(
    view: &dyn Read,
    version: u64,
    writes: &WriteSet,
) -> Result<(StateRoot, NodeBatch), Fault> {
    let growing = Growing { nodes: Nodes(view), version };
    let (root, batch) = put(&growing, version, writes)?;
    Ok((root, batch.node_batch))
}

/// Where nothing is deleted, all keys at once: each node on their ways is read, hashed and made anew once. Else key by key.
fn put(
    nodes: &impl TreeReader,
    version: u64,
    writes: &WriteSet,
) -> Result<(StateRoot, TreeUpdateBatch), Fault> {
    let set = writes.0.iter().map(|(key, value)| Some((jmt_key(key), value.clone()?)));
    match set.collect::<Option<Vec<_>>>() {
        Some(set) if !set.is_empty() => {
            let (roots, batch) =
                Sha256Jmt::new(nodes).batch_put_value_sets(vec![set], None, version).map_err(fault)?;
            let root = roots.first().ok_or_else(|| fault("a version has no root"))?;
            Ok((StateRoot::from_bytes(root.0), batch))
        }
        _ => one_by_one(nodes, version, writes),
    }
}

fn one_by_one(
    nodes: &impl TreeReader,
    version: u64,
    writes: &WriteSet,
) -> Result<(StateRoot, TreeUpdateBatch), Fault> {
    let set = writes.0.iter().map(|(key, value)| (jmt_key(key), value.clone()));
    let (root, batch) =
        Sha256Jmt::new(nodes).put_value_set(set.collect::<Vec<_>>(), version).map_err(fault)?;
    Ok((StateRoot::from_bytes(root.0), batch))
}

fn jmt_key(key: &str) -> KeyHash {
    KeyHash(*key_hash(key).as_bytes())
}

pub(crate) fn store(view: &mut dyn Write, batch: &NodeBatch) -> Result<(), Fault> {
    for (key, node) in batch.nodes() {
        let key = borsh::to_vec(key).map_err(fault)?;
        let node = borsh::to_vec(node).map_err(fault)?;
        NODES.put(view, &key, &node.into());
    }
    Ok(())
}

/// The nodes that no version from this one on needs, by their encoded keys. The root before is one of
/// them, also where nothing changed.
pub(crate) fn stale_nodes(version: u64, batch: &StaleNodeIndexBatch) -> Result<Vec<ByteVec>, Fault> {
    let root = version.checked_sub(1).map(root_key);
    let others = batch.iter().map(|stale| &stale.node_key).filter(|key| Some(*key) != root.as_ref());
    let encode = |key: &NodeKey| borsh::to_vec(key).map(Into::into).map_err(fault);
    root.iter().chain(others).map(encode).collect()
}

fn root_key(version: u64) -> NodeKey {
    NodeKey::new(version, std::iter::empty().collect())
}

/// The root of a version, if its tree is there.
pub(crate) fn root_of(view: &dyn Read, version: u64) -> Result<Option<StateRoot>, Fault> {
    let nodes = Nodes(view);
    let root = Sha256Jmt::new(&nodes).get_root_hash_option(version).map_err(fault)?;
    Ok(root.map(|root| StateRoot::from_bytes(root.0)))
}

/// How many keys a version has.
pub(crate) fn leaves(view: &dyn Read, version: u64) -> Result<u64, Fault> {
    match Nodes(view).get_node_option(&root_key(version)).map_err(fault)? {
        Some(Node::Internal(node)) => Ok(node.leaf_count() as u64),
        Some(Node::Leaf(_)) => Ok(1),
        Some(Node::Null) => Ok(0),
        None => Err(Fault(format!("the tree of version {version} is not there"))),
    }
}

/// The path to a key hash, whether it is there or not.
pub(crate) struct Edge {
    pub(crate) key: Hash,
    /// Beside the path, from below the root down.
    pub(crate) siblings: Vec<Hash>,
    /// Hashes of key and value of the leaf that the path ends at, if it ends at one.
    pub(crate) leaf: Option<(Hash, Hash)>,
}

/// Finds a path. The crate tells siblings only in a proof's encoding: an optional leaf, then a count and,
/// from the bottom up, a tag with two hashes each, none behind the tag of an empty subtree.
pub(crate) fn edge(view: &dyn Read, version: u64, key: Hash) -> Result<Edge, Fault> {
    let nodes = Nodes(view);
    let tree = Sha256Jmt::new(&nodes);
    let (_, proof) = tree.get_with_proof(KeyHash(*key.as_bytes()), version).map_err(fault)?;
    let bytes = borsh::to_vec(&proof).map_err(fault)?;
    let mut bytes = bytes.as_slice();
    let leaf = <Option<[[u8; 32]; 2]>>::deserialize(&mut bytes).map_err(fault)?;
    let leaf = leaf.map(|[key, value]| (Hash::from_bytes(key), Hash::from_bytes(value)));
    let mut siblings = Vec::new();
    for _ in 0..u32::deserialize(&mut bytes).map_err(fault)? {
        let sibling = match u8::deserialize(&mut bytes).map_err(fault)? {
            0 => PLACEHOLDER,
            kind => {
                let [first, second] = <[[u8; 32]; 2]>::deserialize(&mut bytes).map_err(fault)?;
                match kind {
                    1 => checkpoint::internal(&first, &second),
                    _ => checkpoint::leaf(&Hash::from_bytes(first), &second),
                }
            }
        };
        siblings.push(Hash::from_bytes(sibling));
    }
    siblings.reverse();
    Ok(Edge { key, siblings, leaf })
}

pub(crate) fn fault(error: impl std::fmt::Display) -> Fault {
    Fault(format!("the state tree: {error}"))
}

#[cfg(test)]
mod tests {
    use machine::{MemoryStore, Overlay, View};
    use proptest::prelude::*;

    use super::*;

    fn writes(keys: impl IntoIterator<Item = (u16, Option<u8>)>) -> WriteSet {
        let write = |(key, value): (u16, Option<u8>)| (format!("kv/{key}"), value.map(|value| vec![value]));
        WriteSet(keys.into_iter().map(write).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// All keys at once make the same tree as one after the other: the same root, the same nodes, the same ones left behind. So does what
        /// is remembered of the versions before; and of those, only the last one's nodes are kept.
        #[test]
        fn at_once_is_as_one_by_one(
            versions in prop::collection::vec(
                (any::<bool>(), prop::collection::btree_map(0u16..600, 0u8..4, 1..200)), 1..5,
            ),
        ) {
            let (memory, mut overlay) = (MemoryStore::default(), Overlay::default());
            let mut view = View::new(&memory, None, &mut overlay);
            let (memo, mut before) = (Memo::default(), StateRoot::from_bytes(PLACEHOLDER));
            for (version, (deletes, keys)) in (0u64..).zip(versions) {
                let value = |value: u8| (!deletes || value > 0).then_some(value);
                let writes = writes(keys.into_iter().map(|(key, byte)| (key, value(byte))));
                let (root, batch) = put(&Nodes(&view), version, &writes).expect("a tree");
                let (root_of_single, single) = one_by_one(&Nodes(&view), version, &writes).expect("a tree");
                prop_assert_eq!(root, root_of_single);
                prop_assert_eq!(batch.node_batch.nodes(), single.node_batch.nodes());
                prop_assert_eq!(&batch.stale_node_index_batch, &single.stale_node_index_batch);
                prop_assert_eq!(memo.decide(&view, &before, version, &writes).expect("a tree"), root);
                let remembered = memo.take(version, &root).expect("it was decided on");
                prop_assert_eq!(remembered.node_batch.nodes(), single.node_batch.nodes());
                let kept = memo.lock();
                prop_assert!(batch.stale_node_index_batch.iter().all(|stale| !kept.nodes.contains_key(&stale.node_key)));
                before = root;
                store(&mut view, &single.node_batch).expect("it is kept");
            }
        }
    }

    /// What was decided may come to nothing, and the next decision be on a view with another past.
    #[test]
    fn what_is_remembered_is_of_one_tree_alone() {
        let memo = Memo::default();
        for value in [1, 2] {
            let (memory, mut overlay) = (MemoryStore::default(), Overlay::default());
            let mut view = View::new(&memory, None, &mut overlay);
            let first = writes((0..40).map(|key| (key, Some(value))));
            let (before, batch) = root_after(&view, 0, &first).expect("a tree");
            store(&mut view, &batch.node_batch).expect("it is kept");
            let next = writes([(7, Some(9))]);
            let (expected, _) = root_after(&view, 1, &next).expect("a tree");
            assert_eq!(memo.decide(&view, &before, 1, &next).expect("a tree"), expected);
        }
    }
}
