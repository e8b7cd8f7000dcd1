//! A replica: a copy of somebody else's log, of which every byte was checked before it was kept.
//!
//! It is sparse: it knows how long the log is before it has its entries, and may have any of them. In its
//! folder lies the same format as in the writer's, so every tool that reads one reads the other.
//!
//! Rules:
//!
//! - Nothing is kept that does not lead, hash by hash, to a tree that the log's key has signed. A source
//!   is believed nothing else, so it does not matter who it is.
//! - A node is only built upon after it was checked against its parent, up to the signed roots: damage on
//!   this disk is not blamed on a source.
//! - What was kept is durable when the call returns; what was damaged is dropped and asked for again.
//! - A newer fork of the writer's replaces what differs, and keeps what is the same.
//!
//! Absent: the Hypercore wire protocol (`docs/adr/0010-replication.md`).

mod exchange;
mod mirror;
mod slice;

use std::ops::Range;
use std::path::Path;

use rangemap::RangeSet;

pub use exchange::{Answer, Request, SLICE_BYTES_MAX, SLICE_ENTRIES_MAX, answer, decode, encode};
pub use mirror::{Failed, Mirror, Took};
pub use slice::Slice;

use crate::encryption::{EncryptionKey, Seal};
use crate::error::{Error, Result};
use crate::hash;
use crate::key::PublicKey;
use crate::log::{Log, PAGE_BYTES};
use crate::oplog::{BitfieldUpdate, OplogEntry, Upgrade};
use crate::pending::Pending;
use crate::proof::{Checked, Proof};
use crate::reader::Reader;
use crate::recover::{self, State};
use crate::storage::{Backend, Disk, File, Storage};
use crate::tree::{self, NODE_BYTES, Node};
use crate::user_data::UserData;

/// Entries of a bitfield page.
const PAGE_ENTRIES: u64 = PAGE_BYTES * 8;
/// How many entries are checked between two reports of progress.
const PROGRESS_ENTRIES: u64 = 4096;

/// What a proof of growth changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The log is longer now.
    Grown,
    /// Nothing: it is about no more than what is known, or grows out of another length.
    None,
    /// It is of a newer fork: see [`Replica::same_until`] and [`Replica::refork`].
    NewerFork,
}

/// A verified copy of a log, open for writing.
pub struct Replica {
    log: Log,
    missing: RangeSet<u64>,
}

impl Replica {
    /// Makes an empty replica of the log with this key in a folder. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if there is a journal, [`Error::Io`].
    pub fn create(folder: &Path, key: PublicKey) -> Result<Self> {
        Self::create_on(Box::new(Disk::create(folder, Backend::default())?), key)
    }

    /// [`Replica::create`] of an encrypted log, by whoever can read it: what is kept is what its writer has written, and it can be read here.
    ///
    /// # Errors
    ///
    /// As [`Replica::create`].
    pub fn create_encrypted(folder: &Path, key: PublicKey, encryption_key: &EncryptionKey) -> Result<Self> {
        let mut storage: Box<dyn Storage> = Box::new(Disk::create(folder, Backend::default())?);
        let mut user_data = UserData::default();
        encryption_key.cipher(&key).mark(&mut user_data);
        Log::create(&mut *storage, key, user_data)?;
        Self::open_loaded(storage, key, Some(encryption_key))
    }

    /// [`Replica::open`] by whoever can read the log, if it is encrypted.
    ///
    /// # Errors
    ///
    /// As [`Replica::open`], and [`Error::WrongEncryptionKey`].
    pub fn open_with(folder: &Path, key: PublicKey, encryption_key: Option<&EncryptionKey>) -> Result<Self> {
        Self::open_loaded(Box::new(Disk::open(folder, Backend::default())?), key, encryption_key)
    }

    /// Opens the replica of a folder; what was torn by a crash is dropped and missing again.
    ///
    /// # Errors
    ///
    /// [`Error::NotCreated`], [`Error::Locked`], [`Error::WrongKey`], [`Error::Corrupt`], [`Error::Io`].
    pub fn open(folder: &Path, key: PublicKey) -> Result<Self> {
        Self::open_on(Box::new(Disk::open(folder, Backend::default())?), key)
    }

    /// [`Replica::create`] on any storage.
    ///
    /// # Errors
    ///
    /// As [`Replica::create`].
    pub fn create_on(mut storage: Box<dyn Storage>, key: PublicKey) -> Result<Self> {
        Log::create(&mut *storage, key, UserData::default())?;
        Self::open_on(storage, key)
    }

    /// [`Replica::open`] on any storage.
    ///
    /// # Errors
    ///
    /// As [`Replica::open`].
    pub fn open_on(storage: Box<dyn Storage>, key: PublicKey) -> Result<Self> {
        Self::open_loaded(storage, key, None)
    }

    fn open_loaded(
        mut storage: Box<dyn Storage>,
        key: PublicKey,
        encryption_key: Option<&EncryptionKey>,
    ) -> Result<Self> {
        let loaded = recover::load(&mut *storage)?;
        if loaded.key != key {
            return Err(Error::WrongKey);
        }
        let seal = Seal::of(&loaded.user_data, &loaded.key, encryption_key)?;
        let (mut log, _) = Log::open(storage, loaded, seal)?;
        let missing = missing(&mut log)?;
        Ok(Self { log, missing })
    }

    /// A handle for reading, from any thread. Entries that are not here yet are [`Error::Absent`].
    pub fn reader(&self) -> Reader {
        self.log.reader.clone()
    }

    /// Entries of the log, here or not.
    pub fn length(&self) -> u64 {
        self.log.reader.length()
    }

    /// Entries that are not here.
    pub fn missing(&self) -> &RangeSet<u64> {
        &self.missing
    }

    /// Takes a proof of growth. What it shows is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::BadProof`] or [`Error::WrongKey`]: whoever sent it lies. [`Error::Contradiction`]: the
    /// writer does. [`Error::Io`], [`Error::Faulted`].
    pub fn grow(&mut self, proof: &Proof) -> Result<Growth> {
        let checked = self.check_growth(proof)?;
        let state = self.log.reader.state();
        if proof.fork > state.fork && state.length > 0 {
            return Ok(Growth::NewerFork);
        }
        if proof.fork < state.fork {
            return Ok(Growth::None);
        }
        let since = proof.since.unwrap_or(0);
        if proof.length <= state.length {
            return self.same_roots(proof.length, &checked.roots, proof).map(|_| Growth::None);
        }
        if since <= state.length {
            self.same_roots(since, &checked.roots_since, proof)?;
        }
        if since != state.length {
            return Ok(Growth::None);
        }
        let upgrade = upgrade(proof, state.length);
        self.take_growth(checked, proof, upgrade, None)?;
        self.missing.insert(state.length..proof.length);
        Ok(Growth::Grown)
    }

    /// Whether this log was at `since` what a newer fork was there; `None` where this copy does not know
    /// its own tree there.
    ///
    /// # Errors
    ///
    /// As [`Replica::grow`].
    pub fn same_until(&self, proof: &Proof) -> Result<Option<bool>> {
        let checked = self.check_growth(proof)?;
        let since = proof.since.unwrap_or(0);
        match self.log.reader.tree_hash_at(since) {
            Ok(ours) => Ok(Some(ours == hash::tree(&checked.roots_since))),
            Err(Error::Corrupt(_) | Error::NoEntry { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a newer fork over: what is beyond the proof's `since`, up to where both are the same, goes.
    ///
    /// # Errors
    ///
    /// As [`Replica::grow`]; [`Error::BadRequest`] if the fork is not newer or differs before `since`.
    pub fn refork(&mut self, proof: &Proof) -> Result<()> {
        if self.same_until(proof)? != Some(true) || proof.fork <= self.log.reader.fork() {
            return Err(Error::BadRequest("the fork is not newer, or differs before that length"));
        }
        let checked = self.check_growth(proof)?;
        let (before, kept) = (self.length(), proof.since.unwrap_or(0));
        self.log.guarded(Log::checkpoint_if_due)?;
        self.log.hints.push([self.log.reader.fork(), proof.fork, kept]);
        let nodes: Vec<u64> = checked.nodes.iter().map(|node| node.index).collect();
        let gone =
            (before > kept).then_some(BitfieldUpdate { drop: true, start: kept, length: before - kept });
        self.take_growth(checked, proof, upgrade(proof, kept), gone)?;
        self.log.guarded(|log| {
            log.write_shrunk()?;
            forget_nodes(log, kept, nodes)
        })?;
        self.missing.remove(kept..u64::MAX);
        if proof.length > kept {
            self.missing.insert(kept..proof.length);
        }
        Ok(())
    }

    /// The lowest known node above `first` and as many of the entries up to `end` (excluded) as lie below one;
    /// gives its index and where those end. `None` past the end of the log.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn anchor(&self, first: u64, end: u64) -> Result<Option<(u64, u64)>> {
        let state = self.log.reader.state();
        let root = state.roots.iter().find(|root| first < tree::span(root.index).1);
        let Some(root) = root.filter(|_| first < end) else { return Ok(None) };
        let end = end.min(tree::span(root.index).1);
        let down = |index| {
            let (from, to) = tree::span(index);
            from <= first && end <= to
        };
        Ok(self.descend(&state, first, down)?.map(|(node, _)| (node.index, end)))
    }

    /// Takes entries. They are durable when this returns; gives which they were.
    ///
    /// # Errors
    ///
    /// [`Error::BadProof`]: whoever sent them lies. [`Error::BadRequest`] if this copy does not know the node
    /// they are proven to lie below. [`Error::Io`], [`Error::Faulted`].
    pub fn fill(&mut self, slice: &Slice) -> Result<Range<u64>> {
        let state = self.log.reader.state();
        let (first_below, _) = tree::span(slice.under);
        let known = self.descend(&state, first_below, |index| holds(index, slice.under))?;
        let (under, offset) = known
            .filter(|(node, _)| node.index == slice.under)
            .ok_or(Error::BadRequest("the node that the entries lie below is not known"))?;
        let checked = slice.check(&under)?;
        let data: Vec<u8> = slice.entries.iter().flat_map(|entry| &entry.0).copied().collect();
        let taken = slice.first..slice.first + slice.entries.len() as u64;
        let added = BitfieldUpdate { drop: false, start: taken.start, length: taken.end - taken.start };
        let next = State { sparse: true, changes: vec![added], ..state };
        let entry = OplogEntry { nodes: checked.nodes, bitfield: Some(added), ..OplogEntry::default() };
        self.log.guarded(|log| {
            log.commit(Some((offset + checked.before, &data)), &entry, next)?;
            log.checkpoint_if_long()
        })?;
        self.missing.remove(taken.clone());
        Ok(taken)
    }

    /// Checks every entry that is here, and drops those that do not lead to the signed tree any more: they
    /// are missing then. Gives how many. `progress` is told how many entries of how many are done.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Faulted`].
    pub fn drop_damaged(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<u64> {
        let mut damaged = RangeSet::new();
        let state = self.log.reader.state();
        for root in &state.roots {
            self.find_damage(*root, &mut damaged, &mut |done| progress(done, state.length))?;
        }
        progress(state.length, state.length);
        for range in damaged.iter() {
            let gone = BitfieldUpdate { drop: true, start: range.start, length: range.end - range.start };
            let next = State { sparse: true, changes: vec![gone], ..self.log.reader.state() };
            let entry = OplogEntry { bitfield: Some(gone), ..OplogEntry::default() };
            self.log.guarded(|log| log.commit(None, &entry, next))?;
            self.missing.insert(range.clone());
        }
        if !damaged.is_empty() {
            self.log.guarded(Log::checkpoint_if_due)?;
        }
        Ok(damaged.iter().map(|range| range.end - range.start).sum())
    }

    /// Checkpoints, so that the next open has nothing to replay, and closes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Faulted`]; nothing is lost by it.
    pub fn close(mut self) -> Result<()> {
        self.log.guarded(Log::checkpoint_if_due)
    }

    fn check_growth(&self, proof: &Proof) -> Result<Checked> {
        if !proof.entries.is_empty() {
            return Err(Error::BadProof("entries come by themselves"));
        }
        proof.check(&self.log.reader.key())
    }

    /// Compares roots that were proven with the nodes that are known in their places.
    fn same_roots(&self, length: u64, roots: &[Node], proof: &Proof) -> Result<()> {
        let state = self.log.reader.state();
        for root in roots {
            let (first, _) = tree::span(root.index);
            let known = self.descend(&state, first, |index| holds(index, root.index))?;
            let Some((ours, _)) = known.filter(|(node, _)| node.index == root.index) else { continue };
            if ours.hash != root.hash {
                return Err(Error::Contradiction { fork: proof.fork, length });
            }
            // A hash binds the sum of the sizes below, not each: this is not the writer's word.
            if ours.size != root.size {
                return Err(Error::BadProof("its sizes are not the ones that are known"));
            }
        }
        Ok(())
    }

    fn take_growth(
        &mut self,
        checked: Checked,
        proof: &Proof,
        upgrade: Upgrade,
        gone: Option<BitfieldUpdate>,
    ) -> Result<()> {
        let next = State {
            fork: proof.fork,
            length: proof.length,
            byte_length: checked.byte_length,
            roots: checked.roots,
            signature: Some(proof.signature),
            nodes: Pending::default(),
            sparse: true,
            changes: gone.into_iter().collect(),
        };
        let entry = OplogEntry {
            nodes: checked.nodes,
            upgrade: Some(upgrade),
            bitfield: gone,
            ..OplogEntry::default()
        };
        self.log.guarded(|log| {
            log.commit(None, &entry, next)?;
            log.checkpoint_if_long()
        })
    }

    /// From the root above an entry down to the lowest node that holds, as far as each node is what its parent
    /// says; with the offset of its first byte.
    fn descend(&self, state: &State, entry: u64, holds: impl Fn(u64) -> bool) -> Result<Option<(Node, u64)>> {
        let mut offset = 0;
        let mut at = None;
        for root in &state.roots {
            if entry < tree::span(root.index).1 {
                at = Some(*root);
                break;
            }
            offset += root.size;
        }
        let Some(mut node) = at.filter(|root| holds(root.index)) else { return Ok(None) };
        while tree::level(node.index) > 0 {
            let (left, right) = tree::children(node.index);
            let next = if holds(left) { left } else { right };
            let Some((left, right)) = self.checked_children(&node)?.filter(|_| holds(next)) else { break };
            if next == right.index {
                offset += left.size;
            }
            node = if next == left.index { left } else { right };
        }
        Ok(Some((node, offset)))
    }

    /// The children of a node, if they are known and are what it was made of.
    fn checked_children(&self, node: &Node) -> Result<Option<(Node, Node)>> {
        let (left, right) = tree::children(node.index);
        let both = self.log.reader.known_node(left)?.zip(self.log.reader.known_node(right)?);
        Ok(both.filter(|(left, right)| Node::parent_of(left, right) == *node))
    }

    fn find_damage(
        &self,
        node: Node,
        damaged: &mut RangeSet<u64>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let (from, to) = tree::span(node.index);
        if self.missing.gaps(&(from..to)).next().is_none() {
            return Ok(());
        }
        if tree::level(node.index) == 0 {
            match self.log.reader.get_with_leaf(from) {
                Ok(_) => {}
                Err(Error::Io { context, source }) => return Err(Error::Io { context, source }),
                Err(_) => damaged.insert(from..to),
            }
            if from % PROGRESS_ENTRIES == 0 {
                progress(from);
            }
            return Ok(());
        }
        match self.checked_children(&node)? {
            Some((left, right)) => {
                self.find_damage(left, damaged, progress)?;
                self.find_damage(right, damaged, progress)
            }
            None => {
                damaged.extend(self.missing.gaps(&(from..to)));
                Ok(())
            }
        }
    }
}

fn upgrade(proof: &Proof, ancestors: u64) -> Upgrade {
    Upgrade { fork: proof.fork, ancestors, length: proof.length, signature: Some(proof.signature) }
}

/// Whether a node lies at or above another.
fn holds(node: u64, below: u64) -> bool {
    let ((from, to), (first, end)) = (tree::span(node), tree::span(below));
    from <= first && end <= to
}

/// The entries of a log that the bitfield does not name.
pub(crate) fn missing(log: &mut Log) -> Result<RangeSet<u64>> {
    let length = log.reader.length();
    let mut missing = RangeSet::new();
    let in_file = log.storage.len(File::Bitfield).map_err(Error::io("looking at the bitfield"))? * 8;
    let in_memory = log.dirty_pages.last_key_value().map_or(0, |(page, _)| (page + 1) * PAGE_ENTRIES);
    let known = length.min(in_file.max(in_memory));
    for page in 0..known.div_ceil(PAGE_ENTRIES) {
        let bytes = log.bitfield_page(page)?;
        let first = page * PAGE_ENTRIES;
        for index in first..known.min(first + PAGE_ENTRIES) {
            let bit = index - first;
            if bytes[(bit / 8) as usize] & 1 << (bit % 8) == 0 {
                missing.insert(index..index + 1);
            }
        }
    }
    if known < length {
        missing.insert(known..length);
    }
    Ok(missing)
}

/// Takes the nodes out of the tree that reach beyond a length, except for those that are new.
fn forget_nodes(log: &mut Log, length: u64, mut new: Vec<u64>) -> Result<()> {
    let end = log.storage.len(File::Tree).map_err(Error::io("looking at the tree"))? / NODE_BYTES;
    new.sort_unstable();
    let is_new = |index: &u64| new.binary_search(index).is_ok();
    let beyond = (2 * length).saturating_sub(1);
    let across = tree::ancestors_across(length).filter(|index| *index < beyond);
    let mut gone: Vec<Range<u64>> =
        across.filter(|index| !is_new(index)).map(|index| index..index + 1).collect();
    let mut from = beyond;
    for index in new.iter().copied().filter(|index| *index >= beyond).chain([end.max(beyond)]) {
        if from < index {
            gone.push(from..index);
        }
        from = index + 1;
    }
    // From the last on: the end of the file may be cut.
    for range in gone.into_iter().rev() {
        let (at, bytes) = (range.start * NODE_BYTES, (range.end - range.start) * NODE_BYTES);
        log.storage.clear(File::Tree, at, bytes).map_err(Error::io("clearing the tree"))?;
    }
    log.reader.forget_nodes();
    log.storage.sync(File::Tree).map_err(Error::io("syncing the tree"))
}
