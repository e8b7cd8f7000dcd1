//! What the writer and a replica share: the files, the oplog that makes a change count, the checkpoint.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::codec;
use crate::encryption::{EncryptionKey, Seal};
use crate::error::{Error, Result};
use crate::external::{self, Place};
use crate::key::PublicKey;
use crate::oplog::{BitfieldUpdate, ENTRIES_AT, HINTS_MAX, Header, OplogEntry, SLOT_BYTES, Slots};
use crate::reader::Reader;
use crate::recover::{Loaded, Recovery, State};
use crate::storage::{File, Storage};
use crate::tree::{self, NODE_BYTES};
use crate::user_data::UserData;

/// Oplog entries beyond which a checkpoint is due. Smaller ones cost speed, larger ones memory and
/// time at open.
const CHECKPOINT_BYTES: u64 = 1024 * 1024;
/// Bytes of a bitfield page: 32 768 entries.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Entries of a page.
const PAGE_BITS: u64 = PAGE_BYTES * 8;

/// A log open for writing by its one writer, or by the one replica that follows it in a folder.
pub(crate) struct Log {
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) slots: Slots,
    /// Where the current header lies, if not in its slot.
    external: Option<Place>,
    /// The last truncations: fork before, fork after, length.
    pub(crate) hints: Vec<[u64; 3]>,
    /// Entries present from the first on without a gap, as far as is known.
    pub(crate) contiguous: u64,
    pub(crate) oplog_end: u64,
    pub(crate) reader: Reader,
    /// Entries present, as pages by number; only pages that changed since the last checkpoint.
    pub(crate) dirty_pages: BTreeMap<u64, Vec<u8>>,
    /// Whether the name of the file `data` is known to be durable.
    data_named: bool,
    faulted: bool,
}

/// Bytes of entries that lie side by side, and where they begin.
pub(crate) type Run<'a> = (u64, &'a [u8]);

impl Log {
    /// Writes the header of an empty log. Durable when it returns.
    pub(crate) fn create(storage: &mut dyn Storage, key: PublicKey, user_data: UserData) -> Result<()> {
        let there = storage.len(File::Oplog).map_err(Error::io("looking at the oplog"))?;
        if there >= ENTRIES_AT {
            return Err(Error::Exists);
        }
        let header = Header {
            key,
            signer: Some(key),
            user_data,
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
        storage.sync_directory().map_err(Error::io("syncing the folder"))
    }

    /// Goes on from what was loaded; what it had to repair is repaired.
    pub(crate) fn open(
        mut storage: Box<dyn Storage>,
        loaded: Loaded,
        seal: Seal,
    ) -> Result<(Self, Recovery)> {
        let dirty_pages = pages_of(&mut *storage, &loaded.bitfield)?;
        // What was there is named durably with the folder, below.
        let data_named = storage.len(File::Data).map_err(Error::io("looking at the entries"))? > 0;
        let files = storage.reader().map_err(Error::io("opening a reader"))?;
        let reader = Reader::new(files, loaded.key, loaded.state, loaded.user_data, seal);
        let mut log = Self {
            storage,
            slots: loaded.slots,
            external: loaded.external,
            hints: loaded.hints,
            contiguous: loaded.contiguous,
            oplog_end: loaded.oplog_end,
            reader,
            dirty_pages,
            data_named,
            faulted: false,
        };
        log.write_again()?;
        log.cut_torn_tail(&loaded.recovery)?;
        if loaded.shrunk {
            log.write_shrunk()?;
        }
        Ok((log, loaded.recovery))
    }

    /// The same; if JavaScript has encrypted it with this key, its header says so from now on.
    pub(crate) fn recognised(mut self, encryption_key: Option<&EncryptionKey>) -> Result<Self> {
        let known = self.reader.is_encrypted();
        self.reader = self.reader.recognised(encryption_key);
        if self.reader.is_encrypted() && !known {
            // Before the first entry of ours, by which JavaScript's key is not known.
            self.write_checkpoint()?;
        }
        Ok(self)
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

    /// Makes a change, and none after one that failed.
    pub(crate) fn guarded<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.faulted {
            return Err(Error::Faulted);
        }
        let result = change(self);
        self.faulted |= result.is_err();
        result
    }

    /// Makes a change durable: bytes of entries first, then the oplog entry by which they count. Readers
    /// see `next` when it returns, with the nodes of the oplog entry beside those that waited.
    pub(crate) fn commit(&mut self, data: Option<Run<'_>>, entry: &OplogEntry, next: State) -> Result<()> {
        if let Some((offset, bytes)) = data {
            self.storage.write(File::Data, offset, bytes).map_err(Error::io("writing entries"))?;
            self.storage.sync(File::Data).map_err(Error::io("syncing entries"))?;
            if !self.data_named {
                self.storage.sync_directory().map_err(Error::io("syncing the folder"))?;
                self.data_named = !bytes.is_empty();
            }
        }
        self.append_to_oplog(entry)?;
        if let Some(update) = entry.bitfield {
            if update.drop {
                self.contiguous = self.contiguous.min(update.start);
            } else if self.contiguous >= update.start {
                self.contiguous = self.contiguous.max(update.start + update.length);
            }
        }
        self.reader.advance(next, &entry.nodes);
        Ok(())
    }

    fn append_to_oplog(&mut self, entry: &OplogEntry) -> Result<()> {
        let frame = codec::frame(&entry.encode(), self.slots.current());
        self.storage.write(File::Oplog, self.oplog_end, &frame).map_err(Error::io("writing the oplog"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        self.oplog_end += frame.len() as u64;
        entry.bitfield.map_or(Ok(()), |update| mark(&mut *self.storage, &mut self.dirty_pages, update))
    }

    /// A page of the bitfield as it is now.
    pub(crate) fn bitfield_page(&mut self, page: u64) -> Result<Vec<u8>> {
        match self.dirty_pages.get(&page) {
            Some(bytes) => Ok(bytes.clone()),
            None => read_page(&mut *self.storage, page),
        }
    }

    /// Writes a checkpoint once the oplog is long.
    pub(crate) fn checkpoint_if_long(&mut self) -> Result<()> {
        if self.oplog_end - ENTRIES_AT >= CHECKPOINT_BYTES { self.write_checkpoint() } else { Ok(()) }
    }

    /// Writes a checkpoint unless the oplog is empty.
    pub(crate) fn checkpoint_if_due(&mut self) -> Result<()> {
        if self.oplog_end > ENTRIES_AT { self.write_checkpoint() } else { Ok(()) }
    }

    pub(crate) fn write_checkpoint(&mut self) -> Result<()> {
        let state = self.reader.state();
        for (first, run) in self.reader.pending_runs() {
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
        let key = self.reader.key();
        let header = Header {
            key,
            signer: Some(key),
            user_data: self.reader.user_data().clone(),
            fork: state.fork,
            length: state.length,
            tree_hash: Some(state.tree_hash()),
            signature: state.signature,
            hints: self.hints.clone(),
            contiguous: self.contiguous,
        };
        let (slot, bit) = self.slots.next();
        let (payload, external) = external::placed(&mut *self.storage, self.external, header.encode())?;
        let mut bytes = codec::frame(&payload, bit);
        bytes.resize(SLOT_BYTES, 0);
        let at = (slot * SLOT_BYTES) as u64;
        self.storage.write(File::Oplog, at, &bytes).map_err(Error::io("writing the header"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the header"))?;
        self.slots = self.slots.advanced();
        self.external = external;
        // Not optional: the header's bit tells only two neighbouring generations of entries apart.
        self.storage.truncate(File::Oplog, ENTRIES_AT).map_err(Error::io("cutting the oplog"))?;
        self.storage.sync(File::Oplog).map_err(Error::io("syncing the oplog"))?;
        self.oplog_end = ENTRIES_AT;
        self.dirty_pages.clear();
        self.reader.checkpointed();
        Ok(())
    }

    /// Writes the checkpoint of a log that has become shorter, and takes out of the tree what it no longer
    /// has. In this order: until the header is there, the header before it needs those nodes.
    pub(crate) fn write_shrunk(&mut self) -> Result<()> {
        let length = self.reader.length();
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
}

/// Sets or clears a range in the pages, reading those that are not in memory yet.
pub(crate) fn mark(
    storage: &mut dyn Storage,
    pages: &mut BTreeMap<u64, Vec<u8>>,
    update: BitfieldUpdate,
) -> Result<()> {
    let end = update.start.saturating_add(update.length);
    let mut at = update.start;
    while at < end {
        let page = at / PAGE_BITS;
        let bytes = match pages.entry(page) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(read_page(storage, page)?),
        };
        let page_end = end.min((page + 1).saturating_mul(PAGE_BITS));
        for bit in at..page_end {
            let (byte, mask) = ((bit % PAGE_BITS / 8) as usize, 1 << (bit % 8));
            if update.drop {
                bytes[byte] &= !mask;
            } else {
                bytes[byte] |= mask;
            }
        }
        at = page_end;
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
            let paged = pages.last_key_value().map_or(0, |(page, _)| (page + 1) * PAGE_BITS);
            update.length = update.length.min(there.max(paged).saturating_sub(update.start));
        }
        mark(storage, &mut pages, update)?;
    }
    Ok(pages)
}
