//! The writer: create, open, append, checkpoint. What takes entries away is in `shrink`.

use std::path::Path;

use crate::encryption::{EncryptionKey, Seal};
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
use crate::user_data::UserData;
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
    pub fn create_on(storage: Box<dyn Storage>, key_pair: KeyPair) -> Result<Self> {
        Self::create_with(storage, key_pair, None)
    }

    /// [`Journal::create_on`] with an encryption key: from then on it is needed to append and to read.
    ///
    /// # Errors
    ///
    /// As [`Journal::create`].
    pub fn create_with(
        mut storage: Box<dyn Storage>,
        key_pair: KeyPair,
        encryption_key: Option<&EncryptionKey>,
    ) -> Result<Self> {
        let mut user_data = UserData::default();
        if let Some(encryption_key) = encryption_key {
            encryption_key.cipher(&key_pair.public()).mark(&mut user_data);
        }
        Log::create(&mut *storage, key_pair.public(), user_data)?;
        Self::open_with(storage, key_pair, 0, encryption_key).map(|(journal, _)| journal)
    }

    /// [`Journal::open`] on any storage.
    ///
    /// # Errors
    ///
    /// As [`Journal::open`].
    pub fn open_on(storage: Box<dyn Storage>, key_pair: KeyPair, witnessed: u64) -> Result<(Self, Recovery)> {
        Self::open_with(storage, key_pair, witnessed, None)
    }

    /// [`Journal::open_on`] with the encryption key, if there is one. The journal knows whether it is
    /// encrypted: if it is not, the key is not used; see [`Reader::open_with`].
    ///
    /// # Errors
    ///
    /// As [`Journal::open`]; and [`Error::Encrypted`], [`Error::WrongEncryptionKey`], with nothing on disk
    /// changed.
    pub fn open_with(
        mut storage: Box<dyn Storage>,
        key_pair: KeyPair,
        witnessed: u64,
        encryption_key: Option<&EncryptionKey>,
    ) -> Result<(Self, Recovery)> {
        let loaded = recover::load(&mut *storage)?;
        if loaded.key != key_pair.public() {
            return Err(Error::WrongKey);
        }
        let seal = Seal::of(&loaded.user_data, &loaded.key, encryption_key)?;
        if matches!(seal, Seal::Closed) {
            return Err(Error::Encrypted);
        }
        if loaded.state.length < witnessed {
            return Err(Error::ShorterThanWitnessed { length: loaded.state.length, witnessed });
        }
        let (log, recovery) = Log::open(storage, loaded, seal)?;
        let log = log.recognised(encryption_key)?;
        Ok((Self { log, key_pair }, recovery))
    }

    /// Appends a batch: all of it or nothing. Durable when it returns; gives the index of the first. In an
    /// encrypted journal they are encrypted here.
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

    /// Bytes of all entries, as they are stored.
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

    /// Whether its entries are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.log.reader.is_encrypted()
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
    match log.reader.cipher() {
        None => append_stored(log, key_pair, &state, entries),
        Some(cipher) => {
            let encrypt = |(index, entry): (u64, &_)| cipher.encrypt(index, state.fork, AsRef::as_ref(entry));
            let stored: Vec<Vec<u8>> = (state.length..).zip(entries).map(encrypt).collect();
            append_stored(log, key_pair, &state, &stored)
        }
    }
}

fn append_stored(
    log: &mut Log,
    key_pair: &KeyPair,
    state: &State,
    entries: &[impl AsRef<[u8]>],
) -> Result<()> {
    let (next, entry) = batch(key_pair, state, entries);
    let mut data = Vec::with_capacity((next.byte_length - state.byte_length) as usize);
    entries.iter().for_each(|entry| data.extend_from_slice(entry.as_ref()));
    log.commit(Some((state.byte_length, &data)), &entry, next)?;
    log.checkpoint_if_long()
}

/// The state after a batch, and the oplog entry that brings it about.
fn batch(key_pair: &KeyPair, state: &State, entries: &[impl AsRef<[u8]>]) -> (State, OplogEntry) {
    let mut next = state.clone();
    let nodes = tree::extend(&mut next.roots, Node::of_entries(state.length, entries));
    next.byte_length += entries.iter().map(|entry| entry.as_ref().len() as u64).sum::<u64>();
    next.length += entries.len() as u64;
    let message = hash::signable(&next.tree_hash(), next.length, next.fork);
    next.signature = Some(key_pair.sign(&message));
    let upgrade =
        Upgrade { fork: next.fork, ancestors: state.length, length: next.length, signature: next.signature };
    let added = BitfieldUpdate { drop: false, start: state.length, length: entries.len() as u64 };
    (next, OplogEntry { upgrade: Some(upgrade), bitfield: Some(added), nodes, ..OplogEntry::default() })
}
