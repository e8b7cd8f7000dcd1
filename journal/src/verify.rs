//! Checking a whole log: every entry, every node, the roots, the signature.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::hash;
use crate::reader::Reader;
use crate::recover::State;
use crate::tree::{self, Node};

/// How many entries are checked between two reports of progress.
const PROGRESS_ENTRIES: u64 = 4096;

/// How many entries' nodes are read and checked together.
const RUN_ENTRIES: u64 = 1024;

/// What a check found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries checked.
    pub entries: u64,
    /// Of those, entries whose bytes are not kept here: of them only the tree was checked, as far as it is known.
    pub absent: u64,
    /// Bytes of the entries.
    pub bytes: u64,
    /// The tree hash they lead to.
    pub tree_hash: hash::Digest,
}

pub(crate) fn verify(reader: &Reader, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    let state = reader.state();
    let mut roots = Vec::new();
    let mut report = Report { entries: state.length, absent: 0, bytes: 0, tree_hash: [0; 32] };
    let mut range = reader.checked_range(0, state.length);
    for first in (0..state.length).step_by(RUN_ENTRIES as usize) {
        progress(first, state.length);
        let end = state.length.min(first + RUN_ENTRIES);
        let mut leaves = Vec::with_capacity(RUN_ENTRIES as usize);
        for index in first..end {
            let leaf = match range.next_with_leaf() {
                Some(Ok((leaf, _))) => leaf,
                Some(Err(Error::Absent { .. })) => {
                    report.absent += 1;
                    match reader.leaf(index) {
                        Ok(leaf) => leaf,
                        // A replica does not know of it: from the roots down, as far as it does.
                        Err(Error::Corrupt(_)) => return Sparse::new(reader, progress).verify(),
                        Err(error) => return Err(error),
                    }
                }
                // What completes above the entries before it comes first.
                Some(Err(error)) => {
                    check_parents(reader, &mut roots, leaves, first..index)?;
                    return Err(error);
                }
                None => return Err(Error::corrupt("the journal was cut while it was checked")),
            };
            let bytes = report.bytes.checked_add(leaf.size);
            report.bytes = bytes.ok_or_else(|| Error::corrupt("sizes overflow"))?;
            leaves.push(leaf);
        }
        check_parents(reader, &mut roots, leaves, first..end)?;
    }
    progress(state.length, state.length);
    report.tree_hash = hash::tree(&roots);
    check_signature(reader, &state, &report.tree_hash)?;
    Ok(report)
}

/// Compares the parents that leaves complete with the stored ones. The leaves themselves are checked.
fn check_parents(
    reader: &Reader,
    roots: &mut Vec<Node>,
    leaves: Vec<Node>,
    entries: Range<u64>,
) -> Result<()> {
    let near_from = entries.start * 2;
    let near = if entries.is_empty() { None } else { reader.run(entries.start, entries.end)? };
    let near = near.unwrap_or_default();
    let count = leaves.len();
    for node in &tree::extend(roots, leaves)[count..] {
        let place = node.index.checked_sub(near_from).and_then(|place| usize::try_from(place).ok());
        let stored = match place.and_then(|place| near.get(place).copied().flatten()) {
            Some(stored) => stored,
            None => reader.node(node.index)?,
        };
        if stored != *node {
            let (_, end) = tree::span(node.index);
            return Err(Error::corrupt(format!(
                "the node {} above entry {} is damaged",
                node.index,
                end - 1
            )));
        }
    }
    Ok(())
}

fn check_signature(reader: &Reader, state: &State, tree_hash: &hash::Digest) -> Result<()> {
    let message = hash::signable(tree_hash, state.length, state.fork);
    let signed = match &state.signature {
        Some(signature) => reader.key().verify(&message, signature),
        None => state.length == 0,
    };
    if signed { Ok(()) } else { Err(Error::corrupt("the signature over the tree does not hold")) }
}

/// Checks a log of which not every node is known.
struct Sparse<'a> {
    reader: &'a Reader,
    state: State,
    report: Report,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Sparse<'a> {
    fn new(reader: &'a Reader, progress: &'a mut dyn FnMut(u64, u64)) -> Self {
        let state = reader.state();
        let report = Report {
            entries: state.length,
            absent: 0,
            bytes: state.byte_length,
            tree_hash: state.tree_hash(),
        };
        Self { reader, state, report, progress }
    }

    fn verify(mut self) -> Result<Report> {
        for root in self.state.roots.clone() {
            self.check(&root)?;
        }
        (self.progress)(self.state.length, self.state.length);
        check_signature(self.reader, &self.state, &self.report.tree_hash)?;
        Ok(self.report)
    }

    /// Checks what is known below a node.
    fn check(&mut self, node: &Node) -> Result<()> {
        let (from, to) = tree::span(node.index);
        if from % PROGRESS_ENTRIES == 0 {
            (self.progress)(from, self.state.length);
        }
        if tree::level(node.index) == 0 {
            return match self.reader.get_with_leaf(from) {
                Ok((leaf, _)) if leaf != *node => Err(Error::Damaged { index: from }),
                Ok(_) => Ok(()),
                Err(Error::Absent { .. }) => {
                    self.report.absent += 1;
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        let (left, right) = tree::children(node.index);
        match (self.reader.known_node(left)?, self.reader.known_node(right)?) {
            (Some(left), Some(right)) if Node::parent_of(&left, &right) == *node => {
                self.check(&left)?;
                self.check(&right)
            }
            (None, None) => match self.reader.first_kept(from, to)? {
                Some(index) => Err(Error::Damaged { index }),
                None => {
                    self.report.absent += to - from;
                    Ok(())
                }
            },
            _ => Err(Error::corrupt(format!("a node below {} is damaged", node.index))),
        }
    }
}
