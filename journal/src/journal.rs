//! The writer: create, open, append, checkpoint. What takes entries away is in `shrink`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::codec;
use crate::error::{Error, Result};
use crate::hash::{self, Digest};
use crate::key::{KeyPair, PublicKey};
use crate::oplog::{BitfieldUpdate, ENTRIES_AT, Header, OplogEntry, SLOT_BYTES, Slots, Upgrade};
use crate::proof::Proof;
use crate::reader::Reader;
use crate::recover::{self, Recovery, State};
use crate::storage::{Backend, Disk, File, Storage};
use crate::tree::{self, NODE_BYTES, Node};
use crate::verify::Report;

/// Oplog entries beyond which a checkpoint is due. Smaller ones cost speed, larger ones memory and
/// time at open.
const CHECKPOINT_BYTES: u64 = 1024 * 1024;
/// Bytes of a bitfield page: 32 768 entries.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// A journal open for writing: the only one.
pub struct Journal {
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) key_pair: KeyPair,
    pub(crate) slots: Slots,
    /// The last truncations: fork before, fork after, length.
    pub(crate) hints: Vec<[u64; 3]>,
    /// Entries present from the first on without a gap, as far as is known.
    pub(crate) contiguous: u64,
    pub(crate) oplog_end: u64,
    pub(crate) reader: Reader,
    /// Entries present, as pages by number; only pages that changed since the last checkpoint.
    pub(crate) dirty_pages: BTreeMap<u64, Vec<u8>>,
    pub(crate) faulted: bool,
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
        let there = storage.len(File::Oplog).map_err(Error::io("looking at the oplog"))?;
        if there >= ENTRIES_AT {
            return Err(Error::Exists);
        }
        let header = Header {
            key: key_pair.public(),
            signer: Some(key_pair.public()),
            fork: 0,
            length: 0,
            tree_hash: None,
            signature: None,
            hints: Vec::new(),
            contiguous: 0,
        };
        // Both slots in one write and a sync before the key is handed out: a shorter file would count
        // as "no journal here", to us and to others.
        let (_, bit) = Slots::EMPTY.next();
        let mut bytes = codec::frame(&header.encode(), bit);
        bytes.resize(2 * SLOT_BYTES, 0);
        storage.truncate(File::Oplog, 0).map_err(Error::io("clearing the oplog"))?;
        storage.write(File::Oplog, 0, &bytes).map_err(Error::io("writing the header"))?;
        storage.sync(File::Oplog).map_err(Error::io("syncing the header"))?;
        storage.sync_directory().map_err(Error::io("syncing the folder"))?;
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
        let dirty_pages = pages_of(&mut *storage, &loaded.bitfield)?;
        let reader =
            Reader::new(storage.reader().map_err(Error::io("opening a reader"))?, loaded.key, loaded.state);
        let mut journal = Self {
            storage,
            key_pair,
            slots: loaded.slots,
            hints: loaded.hints,
            contiguous: loaded.contiguous,
            oplog_end: loaded.oplog_end,
            reader,
            dirty_pages,
            faulted: false,
        };
        journal.write_again()?;
        journal.cut_torn_tail(&loaded.recovery)?;
        if loaded.shrunk {
            journal.write_shrunk()?;
        }
        Ok((journal, loaded.recovery))
    }

    /// Appends a batch: all of it or nothing. Durable when it returns; gives the index of the first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk says no, and from then on [`Error::Faulted`].
    pub fn append<E: AsRef<[u8]>>(&mut self, entries: &[E]) -> Result<u64> {
        if self.faulted {
            return Err(Error::Faulted);
        }
        let state = self.reader.state();
        let first = state.length;
        if entries.is_empty() {
            return Ok(first);
        }
        let result = self.append_to(state, entries);
        self.faulted |= result.is_err();
        result.map(|()| first)
    }

    fn append_to(&mut self, state: State, entries: &[impl AsRef<[u8]>]) -> Result<()> {
        let (next, frame) = self.batch(&state, entries);
        let mut data = Vec::with_capacity((next.byte_length - state.byte_length) as usize);
        entries.iter().for_each(|entry| data.extend_from_slice(entry.as_ref()));
        self.storage.write(File::Data, state.byte_length, &data).map_err(Error::io("writing entries"))?;
        self.storage.sync(File::Data).map_err(Error::io("syncing entries"))?;
        // The oplog entry makes the batch count: it goes out after the data is safe.
        self.storage.write(File::Oplog, self.oplog_end, &frame).map_err(Error::io("writing the oplog"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        if self.oplog_end == ENTRIES_AT && state.length == 0 {
            // The first entry may have created `data`.
            self.storage.sync_directory().map_err(Error::io("syncing the folder"))?;
        }
        self.oplog_end += frame.len() as u64;
        let added = BitfieldUpdate { drop: false, start: state.length, length: next.length - state.length };
        mark(&mut *self.storage, &mut self.dirty_pages, added)?;
        if self.contiguous == state.length {
            self.contiguous = next.length;
        }
        self.reader.advance(next);
        if self.oplog_end - ENTRIES_AT >= CHECKPOINT_BYTES {
            self.write_checkpoint()?;
        }
        Ok(())
    }

    /// The state after a batch, and the oplog frame that brings it about.
    fn batch(&self, state: &State, entries: &[impl AsRef<[u8]>]) -> (State, Vec<u8>) {
        let mut next = state.clone();
        let mut nodes = Vec::with_capacity(entries.len() * 2);
        for (index, entry) in (state.length..).zip(entries) {
            let leaf = Node::of_entry(index, entry.as_ref());
            next.byte_length += leaf.size;
            tree::push(&mut next.roots, leaf, |node| nodes.push(node));
        }
        next.length += entries.len() as u64;
        next.nodes.clear();
        let message = hash::signable(&next.tree_hash(), next.length, next.fork);
        next.signature = Some(self.key_pair.sign(&message));
        let entry = OplogEntry {
            upgrade: Some(Upgrade {
                fork: next.fork,
                ancestors: state.length,
                length: next.length,
                signature: next.signature,
            }),
            bitfield: Some(BitfieldUpdate { drop: false, start: state.length, length: entries.len() as u64 }),
            nodes,
        };
        let frame = codec::frame(&entry.encode(), self.slots.current());
        next.nodes = entry.nodes.into_iter().map(|node| (node.index, node)).collect();
        (next, frame)
    }

    /// Writes tree and bitfield, then the header, then cuts the oplog: each step durable before the next.
    ///
    /// # Errors
    ///
    /// As [`Journal::append`].
    pub fn checkpoint(&mut self) -> Result<()> {
        if self.faulted {
            return Err(Error::Faulted);
        }
        if self.oplog_end == ENTRIES_AT {
            return Ok(());
        }
        let result = self.write_checkpoint();
        self.faulted |= result.is_err();
        result
    }

    pub(crate) fn write_checkpoint(&mut self) -> Result<()> {
        let state = self.reader.state_with_nodes();
        for (first, run) in runs(&state.nodes) {
            self.storage
                .write(File::Tree, first * NODE_BYTES, &run)
                .map_err(Error::io("writing the tree"))?;
        }
        for (page, bytes) in &self.dirty_pages {
            self.storage
                .write(File::Bitfield, page * PAGE_BYTES, bytes)
                .map_err(Error::io("writing the bitfield"))?;
        }
        self.storage.sync(File::Tree).map_err(Error::io("syncing the tree"))?;
        self.storage.sync(File::Bitfield).map_err(Error::io("syncing the bitfield"))?;
        self.storage.sync_directory().map_err(Error::io("syncing the folder"))?;
        let header = Header {
            key: self.key_pair.public(),
            signer: Some(self.key_pair.public()),
            fork: state.fork,
            length: state.length,
            tree_hash: Some(state.tree_hash()),
            signature: state.signature,
            hints: self.hints.clone(),
            contiguous: self.contiguous,
        };
        let (slot, bit) = self.slots.next();
        let mut bytes = codec::frame(&header.encode(), bit);
        bytes.resize(SLOT_BYTES, 0);
        let at = (slot * SLOT_BYTES) as u64;
        self.storage.write(File::Oplog, at, &bytes).map_err(Error::io("writing the header"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the header"))?;
        self.slots = self.slots.advanced();
        // Not optional: the header's bit tells only two neighbouring generations of entries apart.
        self.storage.truncate(File::Oplog, ENTRIES_AT).map_err(Error::io("cutting the oplog"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        self.oplog_end = ENTRIES_AT;
        self.dirty_pages.clear();
        self.reader.checkpointed();
        Ok(())
    }

    /// Makes durable what was found. After a sync that failed the system shows what it does not have on the
    /// disk, and no later sync brings it there unless it is written again. Before the tail is cut: under
    /// an older header it may be the log.
    fn write_again(&mut self) -> Result<()> {
        let found =
            self.storage.read(File::Oplog, 0, self.oplog_end).map_err(Error::io("reading the oplog"))?;
        self.storage.write(File::Oplog, 0, &found).map_err(Error::io("writing the oplog"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        self.storage.sync_directory().map_err(Error::io("syncing the folder"))
    }

    fn cut_torn_tail(&mut self, recovery: &Recovery) -> Result<()> {
        if recovery.tail_unproven {
            self.storage.truncate(File::Oplog, self.oplog_end).map_err(Error::io("cutting the torn tail"))?;
            self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        }
        Ok(())
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
        self.reader.clone()
    }

    /// Entries.
    pub fn length(&self) -> u64 {
        self.reader.length()
    }

    /// Bytes of all entries.
    pub fn byte_length(&self) -> u64 {
        self.reader.byte_length()
    }

    /// The fork: rises when the log's past is changed.
    pub fn fork(&self) -> u64 {
        self.reader.fork()
    }

    /// The hash that is signed.
    pub fn tree_hash(&self) -> Digest {
        self.reader.tree_hash()
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
        self.reader.get(index)
    }

    /// A proof of one entry; see [`Reader::prove`].
    ///
    /// # Errors
    ///
    /// As [`Reader::prove`].
    pub fn prove(&self, index: u64) -> Result<Proof> {
        self.reader.prove(index)
    }

    /// Checks everything; see [`Reader::verify`].
    ///
    /// # Errors
    ///
    /// As [`Reader::verify`].
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
        self.reader.verify(progress)
    }
}

/// Sets or clears a range in the pages, reading those that are not in memory yet.
pub(crate) fn mark(
    storage: &mut dyn Storage,
    pages: &mut BTreeMap<u64, Vec<u8>>,
    update: BitfieldUpdate,
) -> Result<()> {
    for index in update.start..update.start.saturating_add(update.length) {
        let (page, bit) = (index / (PAGE_BYTES * 8), index % (PAGE_BYTES * 8));
        let bytes = match pages.entry(page) {
            std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(read_page(storage, page)?),
        };
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        if update.drop {
            bytes[byte] &= !mask;
        } else {
            bytes[byte] |= mask;
        }
    }
    Ok(())
}

fn read_page(storage: &mut dyn Storage, page: u64) -> Result<Vec<u8>> {
    match storage.read(File::Bitfield, page * PAGE_BYTES, PAGE_BYTES) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(vec![0; PAGE_BYTES as usize]),
        Err(error) => Err(Error::io("reading the bitfield")(error)),
    }
}

fn pages_of(storage: &mut dyn Storage, updates: &[BitfieldUpdate]) -> Result<BTreeMap<u64, Vec<u8>>> {
    let mut pages = BTreeMap::new();
    let there = storage.len(File::Bitfield).map_err(Error::io("looking at the bitfield"))?.saturating_mul(8);
    for update in updates {
        let mut update = *update;
        if update.drop {
            // Past the pages there are, nothing is present.
            let paged = pages.last_key_value().map_or(0, |(page, _)| (page + 1) * PAGE_BYTES * 8);
            update.length = update.length.min(there.max(paged).saturating_sub(update.start));
        }
        mark(storage, &mut pages, update)?;
    }
    Ok(pages)
}

/// Nodes as runs of neighbouring ones: fewer, larger writes.
pub(crate) fn runs(nodes: &BTreeMap<u64, Node>) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (index, node) in nodes {
        match runs.last_mut() {
            Some((first, run)) if *first + run.len() as u64 / NODE_BYTES == *index => {
                run.extend_from_slice(&node.to_bytes());
            }
            _ => runs.push((*index, node.to_bytes().to_vec())),
        }
    }
    runs
}
