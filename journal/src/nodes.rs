//! Nodes of the `tree` file in memory.
//!
//! A way from a root to an entry visits one node a level. The lowest levels lie side by side in the file
//! and are read together; the higher ones are few, and kept. Nodes that are not checkpointed are not asked
//! for here.
//!
//! Bounds: [`KEPT_MAX`] nodes and one chunk.

use quick_cache::unsync::Cache;

use crate::error::{Error, Result};
use crate::storage::{File, ReadStorage};
use crate::tree::{self, NODE_BYTES, Node};

/// Nodes of the higher levels that are kept.
const KEPT_MAX: usize = 32 * 1024;
/// Nodes that are read together: an entry's lowest six levels.
const CHUNK_NODES: u64 = 64;
/// The lowest level of which nodes are kept: in a chunk there is one of it or above.
const KEPT_LEVEL: u32 = CHUNK_NODES.trailing_zeros();

/// What was read of a `tree` file.
pub(crate) struct Nodes {
    kept: Cache<u64, Node>,
    /// The last chunk that was read: which, and its bytes.
    chunk: Option<(u64, Vec<u8>)>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { kept: Cache::new(KEPT_MAX), chunk: None }
    }
}

impl Nodes {
    pub(crate) fn get(&mut self, storage: &mut dyn ReadStorage, index: u64) -> Result<Option<Node>> {
        if tree::level(index) >= KEPT_LEVEL {
            if let Some(node) = self.kept.get(&index) {
                return Ok(Some(*node));
            }
            let node = read_node(storage, index)?;
            if let Some(node) = node {
                self.kept.insert(index, node);
            }
            return Ok(node);
        }
        let (number, place) = (index / CHUNK_NODES, (index % CHUNK_NODES * NODE_BYTES) as usize);
        let known = self.chunk.as_ref().filter(|(known, _)| *known == number);
        if let Some(node) = known.and_then(|(_, bytes)| Node::from_bytes(index, bytes.get(place..)?)) {
            return Ok(Some(node));
        }
        match storage.read(File::Tree, number * CHUNK_NODES * NODE_BYTES, CHUNK_NODES * NODE_BYTES) {
            Ok(bytes) => {
                let node = Node::from_bytes(index, &bytes[place..]);
                self.chunk = Some((number, bytes));
                Ok(node)
            }
            // The file ends within the chunk.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => read_node(storage, index),
            Err(error) => Err(Error::io("reading the tree")(error)),
        }
    }

    /// Nodes were written: a chunk may have been read while its nodes were half there.
    pub(crate) fn written(&mut self) {
        self.chunk = None;
    }

    /// Nodes were taken away.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Reads one node; `None` where it is absent.
pub(crate) fn read_node(storage: &mut dyn ReadStorage, index: u64) -> Result<Option<Node>> {
    match storage.read(File::Tree, index * NODE_BYTES, NODE_BYTES) {
        Ok(bytes) => Ok(Node::from_bytes(index, &bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Error::io("reading the tree")(error)),
    }
}
