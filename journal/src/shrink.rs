//! What takes entries away: truncation cuts the end of the log, clearing frees the bytes of a range.
//!
//! Both end in a checkpoint: other readers of the format do not replay them from the oplog, or do it
//! wrongly. A truncation raises the fork, so a tree of the same length can be told from the one before.
//! A cleared range keeps its tree nodes: all other entries can be read and proven, and a replica that
//! has the bytes can give them back.

use crate::codec;
use crate::error::{Error, Result};
use crate::hash;
use crate::journal::{Journal, mark};
use crate::oplog::{BitfieldUpdate, ENTRIES_AT, HINTS_MAX, OplogEntry, Upgrade};
use crate::recover::{State, bytes_below};
use crate::storage::File;
use crate::tree::{self, NODE_BYTES, Node};

impl Journal {
    /// Cuts the log to its first `length` entries and raises the fork by one. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`] past the end; else as [`Journal::append`].
    pub fn truncate(&mut self, length: u64) -> Result<()> {
        let now = self.length();
        if length > now {
            return Err(Error::NoEntry { index: length, length: now });
        }
        if length == now {
            return Ok(());
        }
        self.guarded(|journal| journal.cut_to(length))
    }

    fn cut_to(&mut self, length: u64) -> Result<()> {
        self.checkpoint_if_due()?;
        let state = self.reader.state();
        let roots: Vec<Node> =
            tree::roots_of(length).into_iter().map(|index| self.reader.node(index)).collect::<Result<_>>()?;
        let fork = state.fork.checked_add(1).ok_or_else(|| Error::corrupt("the fork can rise no more"))?;
        let mut next = State { fork, length, byte_length: bytes_below(&roots)?, roots, ..state.clone() };
        next.signature = (length > 0)
            .then(|| self.key_pair.sign(&hash::signable(&next.tree_hash(), next.length, next.fork)));
        let upgrade = Upgrade { fork: next.fork, ancestors: length, length, signature: next.signature };
        let gone = BitfieldUpdate { drop: true, start: length, length: state.length - length };
        self.log(&OplogEntry { nodes: Vec::new(), upgrade: Some(upgrade), bitfield: Some(gone) })?;
        self.hints.push([state.fork, next.fork, length]);
        self.reader.advance(next);
        self.write_shrunk()
    }

    /// Frees the bytes of the entries from `from` up to `to` (excluded); what the tree knows of them
    /// stays. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`] past the end; else as [`Journal::append`].
    pub fn clear(&mut self, from: u64, to: u64) -> Result<()> {
        let length = self.length();
        if to > length {
            return Err(Error::NoEntry { index: to - 1, length });
        }
        if from >= to {
            return Ok(());
        }
        self.guarded(|journal| journal.clear_range(from, to))
    }

    fn clear_range(&mut self, from: u64, to: u64) -> Result<()> {
        // An entry that is only in the oplog is checked against its bytes when the journal is opened.
        self.checkpoint_if_due()?;
        let start = self.reader.offset(from)?;
        let last = self.reader.node((to - 1) * 2)?;
        let end = self.reader.offset(to - 1)?.checked_add(last.size).filter(|end| *end >= start);
        let end = end.ok_or_else(|| Error::corrupt("sizes overflow"))?;
        let gone = BitfieldUpdate { drop: true, start: from, length: to - from };
        self.log(&OplogEntry { nodes: Vec::new(), upgrade: None, bitfield: Some(gone) })?;
        self.contiguous = self.contiguous.min(from);
        self.write_checkpoint()?;
        // Only now: whoever opens the journal knows that these bytes are gone.
        self.storage.clear(File::Data, start, end - start).map_err(Error::io("clearing entries"))
    }

    /// Writes the checkpoint of a log that has become shorter, and takes out of the tree what it no longer
    /// has. In this order: until the header is there, the header before it needs those nodes.
    pub(crate) fn write_shrunk(&mut self) -> Result<()> {
        let length = self.length();
        self.contiguous = self.contiguous.min(length);
        let surplus = self.hints.len().saturating_sub(HINTS_MAX);
        self.hints.drain(..surplus);
        self.write_checkpoint()?;
        let tree_bytes = if length == 0 { 0 } else { (2 * (length - 1) + 1) * NODE_BYTES };
        let there = self.storage.len(File::Tree).map_err(Error::io("looking at the tree"))?;
        if there > tree_bytes {
            self.storage.truncate(File::Tree, tree_bytes).map_err(Error::io("cutting the tree"))?;
        }
        for index in tree::ancestors_across(length) {
            if (index + 1) * NODE_BYTES <= tree_bytes {
                self.storage
                    .write(File::Tree, index * NODE_BYTES, &[0; NODE_BYTES as usize])
                    .map_err(Error::io("writing the tree"))?;
            }
        }
        self.reader.forget_nodes();
        self.storage.sync(File::Tree).map_err(Error::io("syncing the tree"))
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.oplog_end > ENTRIES_AT { self.write_checkpoint() } else { Ok(()) }
    }

    /// Makes an entry of the oplog durable that brings no data.
    fn log(&mut self, entry: &OplogEntry) -> Result<()> {
        let frame = codec::frame(&entry.encode(), self.slots.current());
        self.storage.write(File::Oplog, self.oplog_end, &frame).map_err(Error::io("writing the oplog"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        self.oplog_end += frame.len() as u64;
        entry.bitfield.map_or(Ok(()), |update| mark(&mut *self.storage, &mut self.dirty_pages, update))
    }

    fn guarded(&mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.faulted {
            return Err(Error::Faulted);
        }
        let result = change(self);
        self.faulted |= result.is_err();
        result
    }
}
