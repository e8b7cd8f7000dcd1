//! Entries with the nodes that lead from them up to a node that is known.

use minicbor::{Decode, Encode};

use super::exchange::SLICE_BYTES_MAX;
use crate::error::{Error, Result};
use crate::proof::{EntryBytes, ProofNode, Scope, Walk, cover};
use crate::reader::Reader;
use crate::tree::{self, Node};

/// Entries below a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Slice {
    /// The node.
    #[n(0)]
    pub under: u64,
    /// The index of the first entry.
    #[n(1)]
    pub first: u64,
    /// The entries, in order; at least one.
    #[n(2)]
    pub entries: Vec<EntryBytes>,
    /// The nodes below it that cannot be computed from the entries, from the left.
    #[n(3)]
    pub nodes: Vec<ProofNode>,
}

/// What a slice was found to hold.
pub(super) struct Checked {
    /// Every node below and including the one that was known.
    pub(super) nodes: Vec<Node>,
    /// Bytes between the first entry below the node and the first of these.
    pub(super) before: u64,
}

impl Slice {
    /// The entries from `first` up to `end` (excluded) as far as they are kept and one slice takes them.
    pub(super) fn of(reader: &Reader, under: u64, first: u64, end: u64) -> Result<Self> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in reader.stored_range(first, end) {
            match entry {
                Ok(entry) => {
                    bytes += entry.len() as u64;
                    if bytes > SLICE_BYTES_MAX && !entries.is_empty() {
                        break;
                    }
                    entries.push(EntryBytes(entry));
                }
                Err(Error::Absent { .. }) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if entries.is_empty() {
            // The log was cut meanwhile.
            return Err(Error::Absent { index: first });
        }
        let scope = Scope { first, end: first + entries.len() as u64, since: 0 };
        let mut nodes = Vec::new();
        cover(reader, under, scope, &mut nodes)?;
        Ok(Self { under, first, entries, nodes })
    }

    /// Checks it against the node that is known.
    pub(super) fn check(&self, under: &Node) -> Result<Checked> {
        let (from, to) = tree::span(under.index);
        let end = self.first.checked_add(self.entries.len() as u64);
        let end = end.filter(|end| from <= self.first && self.first < *end && *end <= to);
        let end = end.filter(|_| self.under == under.index);
        let end = end.ok_or(Error::BadProof("its entries are not those below the node"))?;
        let mut walk = Walk::new(Scope { first: self.first, end, since: 0 }, &self.entries, &self.nodes);
        let found = walk.node(under.index)?;
        let (nodes, _) = walk.end()?;
        if found != *under {
            return Err(Error::BadProof("it leads to another node than the one that was signed"));
        }
        let before = self.nodes.iter().filter(|node| tree::span(node.index).1 <= self.first);
        Ok(Checked { nodes, before: before.map(|node| node.size).sum() })
    }
}
