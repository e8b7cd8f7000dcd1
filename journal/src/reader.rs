//! Reading: from any thread, while the writer appends. A reader sees only what is durable.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::encryption::{self, EncryptionKey, EntryCipher, Seal};
use crate::entries::Entries;
use crate::error::{Error, Result};
use crate::hash::{self, Digest};
use crate::key::PublicKey;
use crate::nodes::Nodes;
use crate::proof::{self, Proof};
use crate::recover::{self, State};
use crate::storage::{File, ReadOnlyDisk, ReadStorage};
use crate::tree::{self, NODE_BYTES, Node};
use crate::user_data::UserData;
use crate::verify::{self, Report};

/// How many entries a range reads ahead.
const READ_AHEAD_ENTRIES: u64 = 256;
/// How many bytes a range reads ahead, unless one entry is larger.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;
/// Entries whose presence is read at once.
const BITS_AT_ONCE: u64 = 32 * 1024;
/// How often opening a journal that is being written is tried again.
const OPEN_TRIES_MAX: u32 = 20;

/// A journal open for reading. Clones share it.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    key: PublicKey,
    user_data: UserData,
    seal: Seal,
    state: RwLock<State>,
    files: Mutex<Files>,
    entries: Mutex<Entries>,
}

struct Files {
    storage: Box<dyn ReadStorage>,
    nodes: Nodes,
}

impl Files {
    /// A node of the `tree` file.
    fn node(&mut self, index: u64) -> Result<Node> {
        let node = self.nodes.get(&mut *self.storage, index)?;
        node.ok_or_else(|| Error::corrupt(format!("the tree lacks its node {index}")))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fork, length) = self.head();
        write!(f, "Reader({}, fork {fork}, length {length})", self.key())
    }
}

impl Reader {
    pub(crate) fn new(
        storage: Box<dyn ReadStorage>,
        key: PublicKey,
        state: State,
        user_data: UserData,
        seal: Seal,
    ) -> Self {
        let files = Mutex::new(Files { storage, nodes: Nodes::default() });
        Self(Arc::new(Inner {
            key,
            user_data,
            seal,
            state: RwLock::new(state),
            files,
            entries: Mutex::default(),
        }))
    }

    /// The same, before it is shared, with the key of a journal that JavaScript may have encrypted.
    pub(crate) fn recognised(mut self, encryption_key: Option<&EncryptionKey>) -> Self {
        if !self.is_encrypted()
            && let Some(cipher) = encryption_key.and_then(|key| encryption::recognise(&self, key))
            && let Some(inner) = Arc::get_mut(&mut self.0)
        {
            cipher.mark(&mut inner.user_data);
            inner.seal = Seal::Open(cipher);
        }
        self
    }

    /// Opens the journal of a folder as it stands now: no lock, nothing changed, whether another
    /// process writes it or not. Of an encrypted journal everything can be had but the entries.
    ///
    /// # Errors
    ///
    /// [`Error::NotCreated`], [`Error::Corrupt`], [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, None)
    }

    /// [`Reader::open`] with the encryption key, if there is one. The journal knows whether it is encrypted:
    /// if it is not, the key is not used. One that JavaScript has encrypted is known by its entries; with
    /// another key than its own, it passes for one that is not encrypted.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`]; and [`Error::WrongEncryptionKey`].
    pub fn open_with(folder: &Path, encryption_key: Option<&EncryptionKey>) -> Result<Self> {
        let mut tries = 0;
        loop {
            // A checkpoint between two of the reads makes files contradict each other for a moment.
            let mut storage = ReadOnlyDisk::new(folder);
            match recover::load(&mut storage) {
                Ok(loaded) => {
                    let seal = Seal::of(&loaded.user_data, &loaded.key, encryption_key)?;
                    let reader =
                        Self::new(Box::new(storage), loaded.key, loaded.state, loaded.user_data, seal);
                    return Ok(reader.recognised(encryption_key));
                }
                Err(Error::NotCreated) => return Err(Error::NotCreated),
                Err(_) if tries < OPEN_TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Entries.
    pub fn length(&self) -> u64 {
        self.read_state().length
    }

    /// Bytes of all entries, as they are stored.
    pub fn byte_length(&self) -> u64 {
        self.read_state().byte_length
    }

    /// The fork.
    pub fn fork(&self) -> u64 {
        self.read_state().fork
    }

    /// Fork and length at one moment.
    pub fn head(&self) -> (u64, u64) {
        let state = self.read_state();
        (state.fork, state.length)
    }

    /// The journal's key.
    pub fn key(&self) -> PublicKey {
        self.0.key
    }

    /// Whether the entries are encrypted.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self.0.seal, Seal::Plain)
    }

    pub(crate) fn cipher(&self) -> Option<&EntryCipher> {
        if let Seal::Open(cipher) = &self.0.seal { Some(cipher) } else { None }
    }

    pub(crate) fn user_data(&self) -> &UserData {
        &self.0.user_data
    }

    /// The hash that is signed.
    pub fn tree_hash(&self) -> Digest {
        self.read_state().tree_hash()
    }

    /// The tree hash the log had at an earlier length.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`] past the end, [`Error::Corrupt`] if a node is missing.
    pub fn tree_hash_at(&self, length: u64) -> Result<Digest> {
        let now = self.length();
        if length > now {
            return Err(Error::NoEntry { index: length, length: now });
        }
        let roots: Result<Vec<Node>> =
            tree::roots_of(length).into_iter().map(|index| self.node(index)).collect();
        Ok(hash::tree(&roots?))
    }

    /// One entry, hashed and compared with the leaf that was signed, then decrypted if it is encrypted.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`], [`Error::Absent`], [`Error::Damaged`], [`Error::Encrypted`] without the key,
    /// [`Error::Io`].
    pub fn get(&self, index: u64) -> Result<Vec<u8>> {
        let leaf = self.or_absent(index, self.leaf(index))?;
        // Not held while the entry is read.
        let kept = self.entries().get(&leaf.hash);
        if let Some(stored) = kept {
            return self.0.seal.read(index, stored);
        }
        let stored = self.or_absent(index, self.read_entry(index, &leaf))?;
        self.entries().keep(leaf.hash, &stored);
        self.0.seal.read(index, stored)
    }

    /// One entry as it is stored, and its leaf, which it hashes to.
    pub(crate) fn get_with_leaf(&self, index: u64) -> Result<(Node, Vec<u8>)> {
        let leaf = self.or_absent(index, self.leaf(index))?;
        let stored = self.or_absent(index, self.read_entry(index, &leaf))?;
        Ok((leaf, stored))
    }

    fn read_entry(&self, index: u64, leaf: &Node) -> Result<Vec<u8>> {
        let bytes = self.read(File::Data, self.offset(index)?, leaf.size, index)?;
        check(index, leaf, bytes)
    }

    /// What is missing or damaged because the entry is absent is no damage.
    fn or_absent<T>(&self, index: u64, read: Result<T>) -> Result<T> {
        match read {
            Err(Error::Damaged { .. } | Error::Corrupt(_)) if self.is_absent(index)? => {
                Err(Error::Absent { index })
            }
            read => read,
        }
    }

    /// Whether the bytes of an entry are not kept here.
    pub(crate) fn is_absent(&self, index: u64) -> Result<bool> {
        {
            let state = self.read_state();
            if let Some(last) = state.changes.iter().rev().find(|update| update.holds(index)) {
                return Ok(last.drop);
            }
            // Whoever appends only keeps no list: what is not checkpointed is there.
            if !state.sparse && state.nodes.get(index * 2).is_some() {
                return Ok(false);
            }
        }
        match self.files().storage.read(File::Bitfield, index / 8, 1) {
            Ok(byte) => Ok(byte[0] & 1 << (index % 8) == 0),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(Error::io("reading the bitfield")(error)),
        }
    }

    /// Entries in order, read ahead, checked and decrypted like [`Reader::get`]. Ends where the log ends now.
    pub fn range(&self, from: u64, to: u64) -> Range {
        Range {
            reader: self.clone(),
            next: from,
            end: to.min(self.length()),
            offset: None,
            ahead: VecDeque::new(),
            only_checks: false,
        }
    }

    /// [`Reader::range`] of what was checked, with nothing in place of the entries.
    pub(crate) fn checked_range(&self, from: u64, to: u64) -> Range {
        Range { only_checks: true, ..self.range(from, to) }
    }

    /// [`Reader::range`] of the entries as they are stored.
    pub(crate) fn stored_range(&self, from: u64, to: u64) -> impl Iterator<Item = Result<Vec<u8>>> {
        let mut range = self.range(from, to);
        std::iter::from_fn(move || range.next_with_leaf()).map(|next| next.map(|(_, stored)| stored))
    }

    /// A proof that one entry is in this log, with the entry as it is stored.
    ///
    /// # Errors
    ///
    /// As [`Reader::prove_range`].
    pub fn prove(&self, index: u64) -> Result<Proof> {
        self.prove_range(index, index.saturating_add(1), None)
    }

    /// A proof that the entries from `first` up to `end` (excluded, may be none) are in this log, and that
    /// it has grown out of the log that it was at the length `since`.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`] past the end and for an empty log, [`Error::Absent`], those of reading.
    pub fn prove_range(&self, first: u64, end: u64, since: Option<u64>) -> Result<Proof> {
        proof::prove(self, first, end, since)
    }

    /// Which entry a byte of what is stored belongs to, and which of its bytes it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoByte`] past the end, [`Error::Corrupt`] if a node is missing.
    pub fn seek(&self, byte: u64) -> Result<(u64, u64)> {
        let state = self.state();
        let mut rest = byte;
        let mut at = None;
        for root in state.roots {
            if rest < root.size {
                at = Some(root);
                break;
            }
            rest -= root.size;
        }
        let mut node = at.ok_or(Error::NoByte { byte, bytes: state.byte_length })?;
        while tree::level(node.index) > 0 {
            let (left, right) = tree::children(node.index);
            let left = self.node(left)?;
            node = if rest < left.size {
                left
            } else {
                rest -= left.size;
                self.node(right)?
            };
        }
        Ok((node.index / 2, rest))
    }

    /// Checks every entry, every node, the roots and the signature. `progress` is told how many
    /// entries of how many are done.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Corrupt`] with the first thing that is wrong.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Report> {
        verify::verify(self, progress)
    }

    /// The state without the nodes that are not checkpointed.
    pub(crate) fn state(&self) -> State {
        self.read_state().without_nodes()
    }

    /// What a checkpoint writes into the `tree` file.
    pub(crate) fn pending_runs(&self) -> Vec<(u64, Vec<u8>)> {
        self.read_state().nodes.runs()
    }

    /// A change became durable. It added these nodes; `next` holds, if the log is sparse, what came and went.
    pub(crate) fn advance(&self, mut next: State, added: &[Node]) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        next.nodes = std::mem::take(&mut state.nodes);
        next.nodes.extend(added.iter().copied());
        let mut changes = std::mem::take(&mut state.changes);
        changes.append(&mut next.changes);
        next.changes = changes;
        *state = next;
    }

    /// All nodes are in the `tree` file.
    pub(crate) fn checkpointed(&self) {
        // The chunk first: who finds a node no more among those that wait reads it anew.
        self.files().nodes.written();
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.nodes.clear();
        state.changes.clear();
    }

    pub(crate) fn node(&self, index: u64) -> Result<Node> {
        if let Some(node) = self.read_state().nodes.get(index) {
            return Ok(node);
        }
        self.files().node(index)
    }

    /// A node, if it is known.
    pub(crate) fn known_node(&self, index: u64) -> Result<Option<Node>> {
        match self.node(index) {
            Ok(node) => Ok(Some(node)),
            Err(Error::Corrupt(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first entry of a range that the bitfield's file names as kept.
    pub(crate) fn first_kept(&self, from: u64, to: u64) -> Result<Option<u64>> {
        let mut files = self.files();
        let there = files.storage.len(File::Bitfield).map_err(Error::io("looking at the bitfield"))?;
        let to = to.min(there.saturating_mul(8));
        let mut from = from;
        while from < to {
            let end = to.min(from / BITS_AT_ONCE * BITS_AT_ONCE + BITS_AT_ONCE);
            let bytes = files
                .storage
                .read(File::Bitfield, from / 8, end.div_ceil(8) - from / 8)
                .map_err(Error::io("reading the bitfield"))?;
            let first = from / 8;
            let kept = |index: &u64| bytes[(index / 8 - first) as usize] & 1 << (index % 8) != 0;
            if let Some(index) = (from..end).find(kept) {
                return Ok(Some(index));
            }
            from = end;
        }
        Ok(None)
    }

    pub(crate) fn leaf(&self, index: u64) -> Result<Node> {
        let length = self.length();
        if index >= length {
            return Err(Error::NoEntry { index, length });
        }
        self.node(index * 2)
    }

    /// The nodes from the leaf of `from` up to the leaf before `to`, as they lie in the file; `None` where some
    /// are not checkpointed, or the file ends.
    pub(crate) fn run(&self, from: u64, to: u64) -> Result<Option<Vec<Option<Node>>>> {
        if self.read_state().nodes.any_of(from * 2..to * 2) {
            return Ok(None);
        }
        let bytes = (2 * (to - from) - 1) * NODE_BYTES;
        let read = self.files().storage.read(File::Tree, from * 2 * NODE_BYTES, bytes);
        match read {
            Ok(bytes) => {
                let nodes = (from * 2..).zip(bytes.chunks(NODE_BYTES as usize));
                Ok(Some(nodes.map(|(index, node)| Node::from_bytes(index, node)).collect()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(Error::io("reading the tree")(error)),
        }
    }

    /// The leaves of a run of entries, in as few reads as there are places they lie in.
    pub(crate) fn leaves(&self, from: u64, to: u64) -> Result<Vec<Node>> {
        let state = self.read_state();
        let pending = |index: u64| state.nodes.get(index * 2);
        let first_pending = (from..to).find(|index| pending(*index).is_some()).unwrap_or(to);
        let mut leaves = Vec::with_capacity((to - from) as usize);
        if first_pending > from {
            let bytes = (2 * (first_pending - from) - 1) * NODE_BYTES;
            let run = self.read(File::Tree, from * 2 * NODE_BYTES, bytes, from)?;
            for (index, node) in (from..first_pending).zip(run.chunks(2 * NODE_BYTES as usize)) {
                let leaf = Node::from_bytes(index * 2, node);
                leaves.push(
                    leaf.ok_or_else(|| Error::corrupt(format!("the tree lacks the leaf of entry {index}")))?,
                );
            }
        }
        drop(state);
        for index in first_pending..to {
            leaves.push(self.node(index * 2)?);
        }
        Ok(leaves)
    }

    pub(crate) fn read(&self, file: File, offset: u64, length: u64, index: u64) -> Result<Vec<u8>> {
        self.files().storage.read(file, offset, length).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof if file == File::Data => Error::Damaged { index },
            std::io::ErrorKind::UnexpectedEof => {
                Error::corrupt(format!("the {} file is too short", file.name()))
            }
            _ => Error::io("reading the journal")(error),
        })
    }

    /// Where an entry's bytes begin.
    pub(crate) fn offset(&self, index: u64) -> Result<u64> {
        let state = self.read_state();
        if index >= state.length {
            return Err(Error::NoEntry { index, length: state.length });
        }
        // Locked once for the whole way down.
        let mut files = self.files();
        let offset = tree::offset(&state.roots, index, |left| match state.nodes.get(left) {
            Some(node) => Ok(node),
            None => files.node(left),
        })?;
        offset.ok_or_else(|| Error::corrupt("the sizes of the tree overflow"))
    }

    /// Nodes were taken out of the tree.
    pub(crate) fn forget_nodes(&self) {
        self.files().nodes.forget();
    }

    /// Entries were cleared.
    pub(crate) fn forget_entries(&self) {
        self.entries().forget();
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(index: u64, leaf: &Node, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if hash::leaf(&bytes) == leaf.hash { Ok(bytes) } else { Err(Error::Damaged { index }) }
}

/// Entries in order, [`Error::Absent`] in place of those that are not kept here. After another error it ends.
pub struct Range {
    reader: Reader,
    next: u64,
    end: u64,
    offset: Option<u64>,
    ahead: VecDeque<Result<(Node, Vec<u8>)>>,
    /// Whether the entries are checked and not kept.
    only_checks: bool,
}

impl Range {
    fn read_ahead(&mut self) -> Result<()> {
        let from = self.next;
        let to = self.end.min(from + READ_AHEAD_ENTRIES);
        match self.read_run(from, to) {
            // The file ends within the run, or some of it was never here: one by one.
            Err(Error::Damaged { .. } | Error::Corrupt(_)) => {
                let mut total = 0;
                for index in from..to {
                    let entry = self.reader.get_with_leaf(index);
                    total += entry.as_ref().map_or(0, |(leaf, _)| leaf.size);
                    self.ahead.push_back(entry);
                    if total > READ_AHEAD_BYTES {
                        break;
                    }
                }
                self.offset = None;
                Ok(())
            }
            read => read,
        }
    }

    fn read_run(&mut self, from: u64, to: u64) -> Result<()> {
        let offset = match self.offset {
            Some(offset) => offset,
            None => self.reader.offset(from)?,
        };
        let mut leaves = self.reader.leaves(from, to)?;
        let mut total = 0u64;
        let mut count = 0;
        for leaf in &leaves {
            if count > 0 && total.saturating_add(leaf.size) > READ_AHEAD_BYTES {
                break;
            }
            total = total.checked_add(leaf.size).ok_or_else(|| Error::corrupt("sizes overflow"))?;
            count += 1;
        }
        leaves.truncate(count);
        let after = offset.checked_add(total).ok_or_else(|| Error::corrupt("sizes overflow"))?;
        let bytes = self.reader.read(File::Data, offset, total, from)?;
        let mut rest = &bytes[..];
        let entry = |leaf: &Node| rest.split_off(..leaf.size as usize);
        let entries: Vec<&[u8]> = leaves.iter().map_while(entry).collect();
        for ((entry, leaf), hash) in entries.iter().zip(&leaves).zip(hash::leaves(&entries)) {
            let index = leaf.index / 2;
            let kept = if self.only_checks { &[] } else { *entry };
            let whole = if hash == leaf.hash { Ok(kept.to_vec()) } else { Err(Error::Damaged { index }) };
            let entry = self.reader.or_absent(index, whole);
            self.ahead.push_back(entry.map(|entry| (*leaf, entry)));
        }
        self.offset = Some(after);
        Ok(())
    }
}

impl Iterator for Range {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        let stored = match self.next_with_leaf()? {
            Ok((_, stored)) => stored,
            Err(error) => return Some(Err(error)),
        };
        let entry = self.reader.0.seal.read(index, stored);
        if entry.is_err() {
            self.end = self.next;
        }
        Some(entry)
    }
}

impl Range {
    /// The next entry as it is stored, and its leaf, which it hashes to.
    pub(crate) fn next_with_leaf(&mut self) -> Option<Result<(Node, Vec<u8>)>> {
        if self.next >= self.end {
            return None;
        }
        if self.ahead.is_empty()
            && let Err(error) = self.read_ahead()
        {
            self.end = self.next;
            return Some(Err(error));
        }
        let entry = self.ahead.pop_front();
        self.next += 1;
        if matches!(&entry, Some(Err(error)) if !matches!(error, Error::Absent { .. })) {
            self.end = self.next;
        }
        entry
    }
}
