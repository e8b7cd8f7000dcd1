//! Checking a whole log: every entry, every node, the roots, the signature.

use crate::error::{Error, Result};
use crate::hash;
use crate::reader::Reader;
use crate::tree::{self, Node};

/// How many entries are checked between two reports of progress.
const PROGRESS_ENTRIES: u64 = 4096;

/// How many entries' nodes are read together.
const RUN_ENTRIES: u64 = 1024;

/// What a check found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries checked.
    pub entries: u64,
    /// Of those, entries whose bytes were cleared: of them only the tree was checked.
    pub cleared: u64,
    /// Bytes of the entries.
    pub bytes: u64,
    /// The tree hash they lead to.
    pub tree_hash: hash::Digest,
}

pub(crate) fn verify(reader: &Reader, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
    let state = reader.state();
    let (mut roots, mut completed) = (Vec::new(), Vec::new());
    let mut report = Report { entries: state.length, cleared: 0, bytes: 0, tree_hash: [0; 32] };
    let mut range = reader.range(0, state.length);
    // The stored nodes of the entries around the one that is checked.
    let mut run: (u64, Vec<Option<Node>>) = (0, Vec::new());
    for index in 0..state.length {
        if index % RUN_ENTRIES == 0 {
            let to = state.length.min(index + RUN_ENTRIES);
            run = (index * 2, reader.run(index, to)?.unwrap_or_default());
        }
        let leaf = match range.next_with_leaf() {
            Some(Ok((leaf, _))) => leaf,
            Some(Err(Error::Cleared { .. })) => {
                report.cleared += 1;
                reader.leaf(index)?
            }
            Some(Err(error)) => return Err(error),
            None => return Err(Error::corrupt("the journal was cut while it was checked")),
        };
        let bytes = report.bytes.checked_add(leaf.size);
        report.bytes = bytes.ok_or_else(|| Error::corrupt("sizes overflow"))?;
        // The range has checked the leaf; the parents it completes are compared with the stored ones.
        completed.clear();
        tree::push(&mut roots, leaf, |node| completed.push(node));
        for node in &completed[1..] {
            let near =
                node.index.checked_sub(run.0).and_then(|place| run.1.get(usize::try_from(place).ok()?));
            let stored = match near.copied().flatten() {
                Some(stored) => stored,
                None => reader.node(node.index)?,
            };
            if stored != *node {
                return Err(Error::corrupt(format!(
                    "the node {} above entry {index} is damaged",
                    node.index
                )));
            }
        }
        if index % PROGRESS_ENTRIES == 0 {
            progress(index, state.length);
        }
    }
    progress(state.length, state.length);
    let tree_hash = hash::tree(&roots);
    let message = hash::signable(&tree_hash, state.length, state.fork);
    let signed = match &state.signature {
        Some(signature) => reader.key().verify(&message, signature),
        None => state.length == 0,
    };
    if !signed {
        return Err(Error::corrupt("the signature over the tree does not hold"));
    }
    report.tree_hash = tree_hash;
    Ok(report)
}
