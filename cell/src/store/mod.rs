//! Views on disk: one RocksDB, one column family a service.
//!
//! Rules:
//!
//! - No write-ahead log: the journal is the log. What a crash loses is folded from the journal again.
//! - Each keyspace stores the journal position that it reflects, atomically with the data; a position
//!   that the journal does not have means that the keyspace is discarded and rebuilt (DESIGN §9, rule 1).
//! - Only durable records arrive here: [`Keyspace::write`] is called after the journal's sync.
//!
//! The only room that names RocksDB.

mod cache;

use std::path::Path;
use std::sync::Arc;

use machine::{Fault, Overlay, Read, Scan};
use minicbor::{Decode, Encode};
use protocol::{Problem, ProblemKind, Service, codec};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, IteratorMode, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

pub use cache::Cached;

/// Where the position is kept; tables begin at `0x10`.
const POSITION_KEY: &[u8] = &[0x00];
/// Memory for one keyspace's newest changes; also bounds what a crash makes us fold again.
const WRITE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Files RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 256;

/// The place in a journal that a view reflects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Position {
    /// The log's public key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// The log's fork.
    #[n(1)]
    pub fork: u64,
    /// Entries folded into the view.
    #[n(2)]
    pub length: u64,
    /// The tree hash at that length.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub tree_hash: [u8; 32],
    /// The view's shape ([`machine::Machine::LAYOUT`]); 0 in views of builds that did not tell.
    #[n(4)]
    #[cbor(default)]
    pub layout: u32,
}

/// The views of a cell.
#[derive(Clone)]
pub struct Store {
    db: Arc<DB>,
}

impl Store {
    /// Opens the store in a folder, or makes it.
    ///
    /// # Errors
    ///
    /// `store.open` with RocksDB's words; `cell rebuild` makes the store anew.
    pub fn open(path: &Path, memory_mib: u64) -> Result<Self, Problem> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1024 * 1024);
        options.increase_parallelism(2);
        // One thread writes a keyspace, keys in order: the plain insertion goes on from the key before.
        options.set_allow_concurrent_memtable_write(false);
        let cache = rocksdb::Cache::new_lru_cache(usize::try_from(memory_mib).unwrap_or(16) * 1024 * 1024);
        let families =
            Service::ALL.map(|service| ColumnFamilyDescriptor::new(service.name(), keyspace_options(&cache)));
        let db = DB::open_cf_descriptors(&options, path, families).map_err(|error| {
            Problem::new(
                ProblemKind::Fault,
                "store.open",
                format!("the views in {} cannot be opened: {error}", path.display()),
            )
            .hint("the journals are the truth: stop the cell and run cell rebuild; is another process using the folder?")
        })?;
        Ok(Self { db: Arc::new(db) })
    }

    /// One service's keyspace.
    pub fn keyspace(&self, service: Service) -> Keyspace {
        Keyspace { db: Arc::clone(&self.db), service, reads: Arc::default() }
    }

    /// Writes what is in memory to disk, so that the next start has nothing to fold.
    ///
    /// # Errors
    ///
    /// `store.flush` with RocksDB's words. Nothing is lost: the journals have it all.
    pub fn flush(&self) -> Result<(), Problem> {
        for service in Service::ALL {
            let family = family(&self.db, service);
            self.db.flush_cf(family).map_err(|error| {
                Problem::new(
                    ProblemKind::Fault,
                    "store.flush",
                    format!("the {service} view was not flushed: {error}"),
                )
            })?;
        }
        Ok(())
    }
}

fn keyspace_options(cache: &rocksdb::Cache) -> Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    // Views are small and read by key: fewer rewrites are worth a few more files to look into.
    options.set_level_zero_file_num_compaction_trigger(8);
    // Most reads of a busy service are for keys that are new: a filter answers those.
    options.set_memtable_prefix_bloom_ratio(0.1);
    options.set_memtable_whole_key_filtering(true);
    options
}

fn family(db: &DB, service: Service) -> &ColumnFamily {
    db.cf_handle(service.name()).expect("every service's column family is made at open")
}

/// One service's view on disk.
#[derive(Clone)]
pub struct Keyspace {
    db: Arc<DB>,
    service: Service,
    /// The plain ones: making them anew costs as much as a read that hits.
    reads: Arc<ReadOptions>,
}

impl Keyspace {
    /// The journal position that this view reflects; `None` for an empty one.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it cannot be read.
    pub fn position(&self) -> Result<Option<Position>, Fault> {
        self.get(POSITION_KEY)?.map(|bytes| codec::decode(&bytes).map_err(Fault::from)).transpose()
    }

    /// Writes a layer of durable changes and the position it brings the view to, atomically.
    ///
    /// # Errors
    ///
    /// A [`Fault`] with RocksDB's words.
    pub fn write(&self, overlay: &Overlay, position: &Position) -> Result<(), Fault> {
        let family = family(&self.db, self.service);
        let mut batch = WriteBatch::default();
        for (key, value) in overlay.changes() {
            match value {
                Some(value) => batch.put_cf(family, key, value),
                None => batch.delete_cf(family, key),
            }
        }
        batch.put_cf(family, POSITION_KEY, codec::encode(position));
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|error| Fault(error.to_string()))
    }

    /// Removes everything: the view will be rebuilt.
    ///
    /// # Errors
    ///
    /// A [`Fault`] with RocksDB's words.
    pub fn discard(&self) -> Result<(), Fault> {
        let family = family(&self.db, self.service);
        let keys: Result<Vec<_>, _> =
            self.db.iterator_cf(family, IteratorMode::Start).map(|row| row.map(|(key, _)| key)).collect();
        let mut batch = WriteBatch::default();
        for key in keys.map_err(|error| Fault(error.to_string()))? {
            batch.delete_cf(family, key);
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|error| Fault(error.to_string()))
    }
}

impl Read for Keyspace {
    fn see(&self, key: &[u8], look: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Fault> {
        let value = self.db.get_pinned_cf_opt(family(&self.db, self.service), key, &self.reads);
        look(value.map_err(|error| Fault(error.to_string()))?.as_deref());
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool) -> Scan<'_> {
        if !to.is_empty() && from >= to {
            return Box::new(std::iter::empty());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if !to.is_empty() {
            options.set_iterate_upper_bound(to);
        }
        let mut iterator = self.db.raw_iterator_cf_opt(family(&self.db, self.service), options);
        if reverse {
            iterator.seek_to_last();
        } else {
            iterator.seek_to_first();
        }
        Box::new(Rows { iterator, reverse, failed: false })
    }
}

struct Rows<'a> {
    iterator: DBRawIterator<'a>,
    reverse: bool,
    failed: bool,
}

impl Iterator for Rows<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let Some((key, value)) = self.iterator.item() else {
            let status = self.iterator.status();
            self.failed = status.is_err();
            return status.err().map(|error| Err(Fault(error.to_string())));
        };
        let row = (key.to_vec(), value.to_vec());
        if self.reverse {
            self.iterator.prev();
        } else {
            self.iterator.next();
        }
        Some(Ok(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{MemoryStore, View};

    fn position(length: u64) -> Position {
        Position { key: [1; 32], fork: 0, length, tree_hash: [2; 32], layout: 0 }
    }

    #[test]
    fn a_keyspace_reads_like_a_store_in_memory_and_survives_a_reopen() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut memory = MemoryStore::default();
        let mut overlay = Overlay::default();
        for number in 0u8..50 {
            overlay.set(vec![0x10, number], (number % 3 != 0).then(|| vec![number]));
        }
        memory.absorb(&overlay);
        {
            let store = Store::open(dir.path(), 8).expect("opens");
            store.keyspace(Service::State).write(&overlay, &position(7)).expect("writes");
            store.flush().expect("flushes");
        }
        let store = Store::open(dir.path(), 8).expect("opens again");
        let keyspace = store.keyspace(Service::State);
        assert_eq!(keyspace.position(), Ok(Some(position(7))));
        for (from, to, reverse) in [(vec![0x10], vec![0x11], false), (vec![0x10, 9], vec![0x10, 30], true)] {
            let rows: Vec<_> = keyspace.scan(&from, &to, reverse).collect();
            assert_eq!(rows, memory.scan(&from, &to, reverse).collect::<Vec<_>>());
        }
        let mut top = Overlay::default();
        assert!(View::new(&keyspace, None, &mut top).get(&[0x10, 1]).expect("readable").is_some());
        assert_eq!(store.keyspace(Service::Market).position(), Ok(None), "keyspaces are apart");
        keyspace.discard().expect("discards");
        assert_eq!(keyspace.position(), Ok(None));
    }
}
