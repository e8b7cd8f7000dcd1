//! What takes entries away: truncation cuts the end of the log, clearing frees the bytes of a range.
//!
//! Both end in a checkpoint: other readers of the format do not replay them from the oplog, or do it
//! wrongly. A truncation raises the fork, so a tree of the same length can be told from the one before.
//! A cleared range keeps its tree nodes: all other entries can be read and proven, and a replica that
//! has the bytes can give them back.
//!
//! A fork can rise alone, without an entry going: whoever has seen it refuses what the writer of the fork
//! before appends.

use crate::error::{Error, Result};
use crate::hash;
use crate::journal::Journal;
use crate::key::KeyPair;
use crate::log::Log;
use crate::oplog::{BitfieldUpdate, OplogEntry, Upgrade};
use crate::recover::{State, bytes_below};
use crate::replica::missing;
use crate::storage::File;
use crate::tree::{self, Node};

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
        let fork = self.fork().saturating_add(1);
        self.log.guarded(|log| cut_to(log, &self.key_pair, length, fork))
    }

    /// Goes on where a copy ends, when the writer that it was copied from is not known to have stopped: the fork rises, to `fork` or by one,
    /// whichever is more, and with it go the entries from the first one on that had not come yet. Durable when it returns.
    ///
    /// Two that may take over without knowing of each other must not come to the same fork: each is to name one of its own.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`].
    pub fn take_over(&mut self, fork: u64) -> Result<()> {
        let (key_pair, fork) = (&self.key_pair, fork.max(self.fork().saturating_add(1)));
        self.log.guarded(|log| {
            log.checkpoint_if_due()?;
            let end = missing(log)?.iter().next().map_or(log.reader.length(), |gap| gap.start);
            cut_to(log, key_pair, end, fork)
        })
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
        self.log.guarded(|log| clear_range(log, from, to))
    }
}

fn cut_to(log: &mut Log, key_pair: &KeyPair, length: u64, fork: u64) -> Result<()> {
    log.checkpoint_if_due()?;
    let state = log.reader.state();
    let roots: Vec<Node> =
        tree::roots_of(length).into_iter().map(|index| log.reader.node(index)).collect::<Result<_>>()?;
    if fork <= state.fork {
        return Err(Error::corrupt("the fork can rise no more"));
    }
    let mut next = State { fork, length, byte_length: bytes_below(&roots)?, roots, ..state.clone() };
    next.signature =
        (length > 0).then(|| key_pair.sign(&hash::signable(&next.tree_hash(), next.length, next.fork)));
    let upgrade = Upgrade { fork: next.fork, ancestors: length, length, signature: next.signature };
    let gone = state.length - length;
    let gone = (gone > 0).then_some(BitfieldUpdate { drop: true, start: length, length: gone });
    log.hints.push([state.fork, next.fork, length]);
    let entry = OplogEntry { upgrade: Some(upgrade), bitfield: gone, ..OplogEntry::default() };
    log.commit(None, &entry, next)?;
    log.write_shrunk()
}

fn clear_range(log: &mut Log, from: u64, to: u64) -> Result<()> {
    // An entry that is only in the oplog is checked against its bytes when the journal is opened.
    log.checkpoint_if_due()?;
    let start = log.reader.offset(from)?;
    let last = log.reader.node((to - 1) * 2)?;
    let end = log.reader.offset(to - 1)?.checked_add(last.size).filter(|end| *end >= start);
    let end = end.ok_or_else(|| Error::corrupt("sizes overflow"))?;
    let gone = BitfieldUpdate { drop: true, start: from, length: to - from };
    let state = log.reader.state();
    log.commit(None, &OplogEntry { bitfield: Some(gone), ..OplogEntry::default() }, state)?;
    log.write_checkpoint()?;
    // Only now: whoever opens the journal knows that these bytes are gone.
    log.storage.clear(File::Data, start, end - start).map_err(Error::io("clearing entries"))?;
    log.reader.forget_entries();
    Ok(())
}
