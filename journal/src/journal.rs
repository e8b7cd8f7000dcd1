//! The writer: create, open, append, checkpoint. What takes entries away is in `shrink`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::hash::{self, Digest};
use crate::key::{KeyPair, PublicKey};
use crate::log::Log;
use crate::oplog::{BitfieldUpdate, OplogEntry, Upgrade};
use crate::proof::Proof;
use crate::reader::Reader;
use crate::recover::{self, Recovery, State};
use crate::storage::{Backend, Disk, Storage};
use crate::tree::{self, Node};
use crate::verify::Report;

/// A journal open for writing: the only one.
pub struct Journal {
    pub(crate) log: Log,
    pub(crate) key_pair: KeyPair,
}

impl Journal {
    /// Makes a new journal in a folder. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] if there is one, [`Error::Io`] if the disk says no.
    pub fn create(folder: &Path, key_pair: KeyPair) -> Result<Self> {
        Self::create_on(Box::new(Disk::create(folder, Backend::default())?), key_pair)
    }

    /// Opens the journal of a folder. `witnessed` is the longest length that anybody outside (a view, a
    /// replica, a receipt) has seen acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::NotCreated`], [`Error::Locked`], [`Error::WrongKey`], [`Error::Corrupt`]; and
    /// [`Error::ShorterThanWitnessed`], with nothing on disk changed.
    pub fn open(folder: &Path, key_pair: KeyPair, witnessed: u64) -> Result<(Self, Recovery)> {
        Self::open_on(Box::new(Disk::open(folder, Backend::default())?), key_pair, witnessed)
    }

    /// [`Journal::create`] on any storage.
    ///
    /// # Errors
    ///
    /// As [`Journal::create`].
    pub fn create_on(mut storage: Box<dyn Storage>, key_pair: KeyPair) -> Result<Self> {
        Log::create(&mut *storage, key_pair.public())?;
        Self::open_on(storage, key_pair, 0).map(|(journal, _)| journal)
    }

    /// [`Journal::open`] on any storage.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    pub fn open_on(
        mut storage: Box<dyn Storage>,
        key_pair: KeyPair,
        witnessed: u64,
    ) -> Result<(Self, Recovery)> {
        let loaded = recover::load(&mut *storage)?;
        if loaded.key != key_pair.public() {
            return Err(Error::WrongKey);
        }
        if loaded.state.length < witnessed {
            return Err(Error::ShorterThanWitnessed { length: loaded.state.length, witnessed });
        }
        let (log, recovery) = Log::open(storage, loaded)?;
        Ok((Self { log, key_pair }, recovery))
    }

    /// Appends a batch: all of it or nothing. Durable when it returns; gives the index of the first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk says no, and from then on [`Error::Faulted`].
    pub fn append<E: AsRef<[u8]>>(&mut self, entries: &[E]) -> Result<u64> {
        let first = self.length();
        self.log
            .guarded(|log| if entries.is_empty() { Ok(()) } else { append(log, &self.key_pair, entries) })?;
        Ok(first)
    }

    /// Writes tree and bitfield, then the header, then cuts the oplog: each step durable before the next.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`].
    pub fn checkpoint(&mut self) -> Result<()> {
        self.log.guarded(Log::checkpoint_if_due)
    }

    /// Checkpoints, so that the next open has nothing to replay, and closes.
    ///
    /// # Errors
    ///
    /// As [`Journal::checkpoint`]; no entry is lost by it.
    pub fn close(mut self) -> Result<()> {
        self.checkpoint()
    }

    /// A handle for reading, from any thread, while this one writes.
    pub fn reader(&self) -> Reader {
        self.log.reader.clone()
    }

    /// Entries.
    pub fn length(&self) -> u64 {
        self.log.reader.length()
    }

    /// Bytes of all entries.
    pub fn byte_length(&self) -> u64 {
        self.log.reader.byte_length()
    }

    /// The fork: rises when the log's past is changed.
    pub fn fork(&self) -> u64 {
        self.log.reader.fork()
    }

    /// The hash that is signed.
    pub fn tree_hash(&self) -> Digest {
        self.log.reader.tree_hash()
    }

    /// The journal's key.
    pub fn key(&self) -> PublicKey {
        self.key_pair.public()
    }

    /// One entry; see [`Reader::get`].
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn get(&self, index: u64) -> Result<Vec<u8>> {
        self.log.reader.get(index)
    }

    /// A proof of one entry; see [`Reader::prove`].
    ///
    /// # Errors
    ///
    /// As [`Reader::prove`].
    pub fn prove(&self, index: u64) -> Result<Proof> {
        self.log.reader.prove(index)
    }

    /// Checks everything; see [`Reader::verify`].
    ///
    /// # Errors
    ///
    /// As [`Reader::verify`].
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
        self.log.reader.verify(progress)
    }
}

fn append(log: &mut Log, key_pair: &KeyPair, entries: &[impl AsRef<[u8]>]) -> Result<()> {
    let state = log.reader.state();
    let (next, entry) = batch(key_pair, &state, entries);
    let mut data = Vec::with_capacity((next.byte_length - state.byte_length) as usize);
    entries.iter().for_each(|entry| data.extend_from_slice(entry.as_ref()));
    log.commit(Some((state.byte_length, &data)), &entry, next)?;
    log.checkpoint_if_long()
}

/// The state after a batch, and the oplog entry that brings it about.
fn batch(key_pair: &KeyPair, state: &State, entries: &[impl AsRef<[u8]>]) -> (State, OplogEntry) {
    let mut next = state.clone();
    let mut nodes = Vec::with_capacity(entries.len() * 2);
    for (index, entry) in (state.length..).zip(entries) {
        let leaf = Node::of_entry(index, entry.as_ref());
        next.byte_length += leaf.size;
        tree::push(&mut next.roots, leaf, |node| nodes.push(node));
    }
    next.length += entries.len() as u64;
    let message = hash::signable(&next.tree_hash(), next.length, next.fork);
    next.signature = Some(key_pair.sign(&message));
    next.nodes = nodes.iter().map(|node| (node.index, *node)).collect();
    let upgrade =
        Upgrade { fork: next.fork, ancestors: state.length, length: next.length, signature: next.signature };
    let added = BitfieldUpdate { drop: false, start: state.length, length: entries.len() as u64 };
    (next, OplogEntry { upgrade: Some(upgrade), bitfield: Some(added), nodes })
}
