//! The Merkle tree over the state: the `jmt` crate, its nodes in the view.

use jmt::storage::{HasPreimage, LeafNode, Node, NodeBatch, NodeKey, TreeReader};
use jmt::{KeyHash, OwnedValue, Sha256Jmt, Version};
use machine::{Fault, Read, Write};
use protocol::{Hash, StateRoot};
use sha2::Sha256;

use crate::record::WriteSet;
use crate::tables::{HISTORY, NODES};

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
        // Only a restore asks for it, and there is none here.
        Err(anyhow::anyhow!("the rightmost leaf is not kept"))
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

/// The root after a write set, and the nodes it adds. An empty one keeps the root, in a new version.
pub(crate) fn root_after(
    view: &dyn Read,
    version: u64,
    writes: &WriteSet,
) -> Result<(StateRoot, NodeBatch), Fault> {
    let nodes = Nodes(view);
    let tree = Sha256Jmt::new(&nodes);
    let set = writes.0.iter().map(|(key, value)| (KeyHash(*key_hash(key).as_bytes()), value.clone()));
    let (root, batch) = tree.put_value_set(set.collect::<Vec<_>>(), version).map_err(fault)?;
    Ok((StateRoot::from_bytes(root.0), batch.node_batch))
}

pub(crate) fn store(view: &mut dyn Write, batch: NodeBatch) -> Result<(), Fault> {
    for (key, node) in batch.nodes() {
        let key = borsh::to_vec(key).map_err(|error| Fault(error.to_string()))?;
        let node = borsh::to_vec(node).map_err(|error| Fault(error.to_string()))?;
        NODES.put(view, &key, &node.into());
    }
    Ok(())
}

pub(crate) fn fault(error: impl std::fmt::Display) -> Fault {
    Fault(format!("the state tree: {error}"))
}
