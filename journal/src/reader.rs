//! Reading: from any thread, while the writer appends. A reader sees only what is durable.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::error::{Error, Result};
use crate::hash::{self, Digest};
use crate::key::PublicKey;
use crate::nodes::Nodes;
use crate::proof::{self, Proof};
use crate::recover::{self, State};
use crate::storage::{File, ReadOnlyDisk, ReadStorage};
use crate::tree::{self, NODE_BYTES, Node};
use crate::verify::{self, Report};

/// How many entries a range reads ahead.
const READ_AHEAD_ENTRIES: u64 = 256;
/// How many bytes a range reads ahead, unless one entry is larger.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;
/// How often opening a journal that is being written is tried again.
const OPEN_TRIES_MAX: u32 = 20;

/// A journal open for reading. Clones share it.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    key: PublicKey,
    state: RwLock<State>,
    files: Mutex<Files>,
}

struct Files {
    storage: Box<dyn ReadStorage>,
    nodes: Nodes,
}

impl Reader {
    pub(crate) fn new(storage: Box<dyn ReadStorage>, key: PublicKey, state: State) -> Self {
        let files = Mutex::new(Files { storage, nodes: Nodes::default() });
        Self(Arc::new(Inner { key, state: RwLock::new(state), files }))
    }

    /// Opens the journal of a folder as it stands now: no lock, nothing changed, whether another
    /// process writes it or not.
    ///
    /// # Errors
    ///
    /// [`Error::NotCreated`], [`Error::Corrupt`], [`Error::Io`].
    pub fn open(folder: &Path) -> Result<Self> {
        let mut tries = 0;
        loop {
            // A checkpoint between two of the reads makes files contradict each other for a moment.
            let mut storage = ReadOnlyDisk::new(folder);
            match recover::load(&mut storage) {
                Ok(loaded) => return Ok(Self::new(Box::new(storage), loaded.key, loaded.state)),
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

    /// Bytes of all entries.
    pub fn byte_length(&self) -> u64 {
        self.read_state().byte_length
    }

    /// The fork.
    pub fn fork(&self) -> u64 {
        self.read_state().fork
    }

    /// The journal's key.
    pub fn key(&self) -> PublicKey {
        self.0.key
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

    /// One entry, hashed and compared with the leaf that was signed.
    ///
    /// # Errors
    ///
    /// [`Error::NoEntry`], [`Error::Cleared`], [`Error::Damaged`], [`Error::Io`].
    pub fn get(&self, index: u64) -> Result<Vec<u8>> {
        let leaf = self.leaf(index)?;
        let offset = self.offset(index)?;
        let read = self.read(File::Data, offset, leaf.size, index);
        self.or_cleared(read.and_then(|bytes| check(index, &leaf, bytes)))
    }

    /// An entry that is damaged because its bytes were cleared is cleared.
    fn or_cleared<T>(&self, read: Result<T>) -> Result<T> {
        match read {
            Err(Error::Damaged { index }) if self.is_cleared(index)? => Err(Error::Cleared { index }),
            read => read,
        }
    }

    /// Whether the bytes of an entry were given up.
    pub(crate) fn is_cleared(&self, index: u64) -> Result<bool> {
        {
            let state = self.read_state();
            if let Some(last) = state.went.iter().rev().find(|update| update.holds(index)) {
                return Ok(last.drop);
            }
            if state.nodes.contains_key(&(index * 2)) {
                return Ok(false);
            }
        }
        match self.files().storage.read(File::Bitfield, index / 8, 1) {
            Ok(byte) => Ok(byte[0] & 1 << (index % 8) == 0),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(Error::io("reading the bitfield")(error)),
        }
    }

    /// Entries in order, read ahead and checked like [`Reader::get`]. Ends where the log ends now.
    pub fn range(&self, from: u64, to: u64) -> Range {
        Range {
            reader: self.clone(),
            next: from,
            end: to.min(self.length()),
            offset: None,
            ahead: VecDeque::new(),
        }
    }

    /// A proof that one entry is in this log, with the entry.
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
    /// [`Error::NoEntry`] past the end and for an empty log, [`Error::Cleared`], those of reading.
    pub fn prove_range(&self, first: u64, end: u64, since: Option<u64>) -> Result<Proof> {
        proof::prove(self, first, end, since)
    }

    /// Which entry a byte of the data belongs to, and which of its bytes it is.
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
        let state = self.read_state();
        State { nodes: BTreeMap::new(), went: Vec::new(), roots: state.roots.clone(), ..*state }
    }

    pub(crate) fn state_with_nodes(&self) -> State {
        self.read_state().clone()
    }

    /// A batch became durable: `next` holds the nodes it added.
    pub(crate) fn advance(&self, mut next: State) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = std::mem::take(&mut state.nodes);
        // Not `append`: that walks all nodes that are there, and few are new.
        nodes.extend(std::mem::take(&mut next.nodes));
        next.nodes = nodes;
        next.went = std::mem::take(&mut state.went);
        *state = next;
    }

    /// All nodes are in the `tree` file.
    pub(crate) fn checkpointed(&self) {
        // The chunk first: who finds a node no more among those that wait reads it anew.
        self.files().nodes.written();
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        state.nodes.clear();
        state.went.clear();
    }

    pub(crate) fn node(&self, index: u64) -> Result<Node> {
        if let Some(node) = self.read_state().nodes.get(&index) {
            return Ok(*node);
        }
        let mut files = self.files();
        let Files { storage, nodes } = &mut *files;
        nodes
            .get(&mut **storage, index)?
            .ok_or_else(|| Error::corrupt(format!("the tree lacks its node {index}")))
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
        if self.read_state().nodes.range(from * 2..to * 2).next().is_some() {
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
        let pending = |index: u64| state.nodes.get(&(index * 2)).copied();
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

    /// Where an entry's bytes begin: the sizes of all subtrees to its left.
    pub(crate) fn offset(&self, index: u64) -> Result<u64> {
        let state = self.state();
        let mut offset = 0u64;
        let mut node = None;
        for root in &state.roots {
            if index < tree::span(root.index).1 {
                node = Some(*root);
                break;
            }
            offset += root.size;
        }
        let mut at = node.ok_or(Error::NoEntry { index, length: state.length })?.index;
        while at != index * 2 {
            let (left, right) = tree::children(at);
            at = if index < tree::span(left).1 {
                left
            } else {
                let left = self.node(left)?;
                offset = offset.checked_add(left.size).ok_or_else(|| Error::corrupt("sizes overflow"))?;
                right
            };
        }
        Ok(offset)
    }

    /// Nodes were taken out of the tree.
    pub(crate) fn forget_nodes(&self) {
        self.files().nodes.forget();
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

/// Entries in order, [`Error::Cleared`] in place of cleared ones. After another error it ends.
pub struct Range {
    reader: Reader,
    next: u64,
    end: u64,
    offset: Option<u64>,
    ahead: VecDeque<Result<(Node, Vec<u8>)>>,
}

impl Range {
    fn read_ahead(&mut self) -> Result<()> {
        let from = self.next;
        let to = self.end.min(from + READ_AHEAD_ENTRIES);
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
        let bytes = match self.reader.read(File::Data, offset, total, from) {
            // The file ends within what was read ahead: one by one, up to there.
            Err(Error::Damaged { .. }) => {
                for (index, leaf) in (from..).zip(leaves) {
                    self.ahead.push_back(self.reader.get(index).map(|entry| (leaf, entry)));
                }
                self.offset = Some(after);
                return Ok(());
            }
            read => read?,
        };
        let mut rest = &bytes[..];
        for (index, leaf) in (from..).zip(&leaves) {
            let (entry, others) = rest.split_at(leaf.size as usize);
            rest = others;
            let entry = self.reader.or_cleared(check(index, leaf, entry.to_vec()));
            self.ahead.push_back(entry.map(|entry| (*leaf, entry)));
        }
        self.offset = Some(after);
        Ok(())
    }
}

impl Iterator for Range {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with_leaf().map(|next| next.map(|(_, entry)| entry))
    }
}

impl Range {
    /// The next entry, and its leaf, which it hashes to.
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
        if matches!(&entry, Some(Err(error)) if !matches!(error, Error::Cleared { .. })) {
            self.end = self.next;
        }
        entry
    }
}
