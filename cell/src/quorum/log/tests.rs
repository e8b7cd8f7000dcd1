//! The log against openraft's own suite, and against losses.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use journal::storage::Lossy;
use journal::{Backend, EncryptionKey, KeyPair};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, RaftLogReader, StorageError};
use tempfile::TempDir;

use super::*;
use crate::quorum::machine::Machine;
use crate::quorum::tests::Notes;
use crate::quorum::types::{Entry, Payload, Types, Vote, Voter, log_id};

fn place(dir: &Path) -> LogPlace {
    let encryption_key = Some(EncryptionKey::from_bytes(&[8; 32]));
    LogPlace { folder: dir.join("quorum"), key_pair: KeyPair::from_seed(&[7; 32]), encryption_key }
}

struct Builder;

impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = Log::open(place(dir.path())).await.expect("opens");
        let notes = Arc::new(Notes::open(dir.path()));
        let ready = Arc::new(AtomicBool::new(true));
        let machine = Machine::open(notes, log.clone(), 1024, ready).await.expect("opens");
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn openraft_finds_nothing_wrong_with_log_and_machine() {
    Suite::test_all(Builder).await.expect("the suite passes");
}

fn entry(term: u64, index: u64, payload: &[u8]) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload(payload.into())) }
}

fn vote(term: u64) -> Vote {
    openraft::Vote::new(term, Voter::from(1))
}

/// Appends, and waits until it is acknowledged.
async fn append(log: &mut Log, entries: Vec<Entry>) {
    let (told, done) = Types::oneshot();
    log.append(entries, IOFlushed::signal(told)).await.expect("is taken");
    done.await.expect("is told").expect("is written");
}

async fn contents(log: &mut Log) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(..).await.expect("readable");
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[tokio::test]
async fn what_counts_is_the_same_after_cuts_purges_and_restarts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut log = Log::open(place(dir.path())).await.expect("opens");
    for index in 0..40 {
        append(&mut log, vec![entry(1, index, &[u8::try_from(index).expect("small"); 100])]).await;
    }
    log.save_vote(&vote(2)).await.expect("is written");
    log.truncate_after(Some(log_id(1, 29))).await.expect("is written");
    append(&mut log, (30..35).map(|index| entry(2, index, b"other")).collect()).await;
    log.purge(log_id(1, 9)).await.expect("is purged");
    log.save_vote(&vote(3)).await.expect("is written");
    let expected: Vec<(u64, u64)> =
        (10..30).map(|index| (1, index)).chain((30..35).map(|index| (2, index))).collect();
    assert_eq!(contents(&mut log).await, expected);
    for _ in 0..2 {
        log.close().await;
        log = Log::open(place(dir.path())).await.expect("opens again");
        assert_eq!(contents(&mut log).await, expected);
        assert_eq!(log.read_vote().await.expect("readable"), Some(vote(3)));
        assert_eq!(log.purged(), Some(log_id(1, 9)));
    }
    log.purge(log_id(2, 50)).await.expect("all of it, and more: a snapshot reached further");
    assert_eq!(contents(&mut log).await, []);
    append(&mut log, vec![entry(2, 51, b"next")]).await;
    log.close().await;
    let mut log = Log::open(place(dir.path())).await.expect("opens again");
    assert_eq!(contents(&mut log).await, [(2, 51)]);
    assert_eq!(log.read_vote().await.expect("readable"), Some(vote(3)), "a purge forgets no vote");
}

/// A journal that loses what is not synced when it goes.
fn lossy(folder: &Path) -> Log {
    let disk = |disk| Box::new(Lossy::new(disk));
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let journal = match Disk::open(folder, Backend::default()) {
        Ok(there) => Journal::open_on(disk(there), key_pair, 0).expect("opens").0,
        Err(_) => Journal::create_on(disk(Disk::create(folder, Backend::default()).expect("new")), key_pair)
            .expect("creates"),
    };
    Log::of(journal, Witness::open(folder).expect("opens")).expect("holds")
}

#[tokio::test]
async fn what_was_acknowledged_was_synced() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("quorum");
    std::fs::create_dir(&folder).expect("a folder");
    for round in 0..10 {
        let mut log = lossy(&folder);
        assert_eq!(contents(&mut log).await.len() as u64, round, "before round {round}");
        assert_eq!(log.read_vote().await.expect("readable"), (round > 0).then(|| vote(round)));
        append(&mut log, vec![entry(1, round, b"acknowledged")]).await;
        log.save_vote(&vote(round + 1)).await.expect("is acknowledged");
        // What the storage holds back goes with it.
        log.close().await;
    }
}

#[tokio::test]
async fn a_log_of_another_key_and_a_damaged_one_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut log = Log::open(place(dir.path())).await.expect("opens");
    for index in 0..20 {
        append(&mut log, vec![entry(1, index, &[1; 1000])]).await;
    }
    log.close().await;
    let refused =
        |place| async move { Log::open(place).await.err().map(|problem| problem.code.into_owned()) };
    let other = LogPlace { key_pair: KeyPair::from_seed(&[9; 32]), ..place(dir.path()) };
    assert_eq!(refused(other).await.as_deref(), Some("quorum.log"));
    let data = dir.path().join("quorum/data");
    let mut bytes = std::fs::read(&data).expect("there");
    bytes[700] ^= 1;
    std::fs::write(&data, bytes).expect("writable");
    for _ in 0..2 {
        assert_eq!(refused(place(dir.path())).await.as_deref(), Some("quorum.log"), "each time");
    }
}

#[tokio::test]
async fn what_is_sent_at_once_is_bound() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut log = Log::open(place(dir.path())).await.expect("opens");
    let large = vec![1; 400 * 1024];
    append(&mut log, (0..8).map(|index| entry(1, index, &large)).collect()).await;
    append(&mut log, vec![entry(1, 8, &vec![1; 2 * 1024 * 1024])]).await;
    let count = |read: Vec<Entry>| read.len();
    assert_eq!(log.limited_get_log_entries(0, 9).await.map(count).expect("readable"), 2);
    assert_eq!(log.limited_get_log_entries(8, 9).await.map(count).expect("readable"), 1, "one goes always");
    assert_eq!(log.try_get_log_entries(0..9).await.map(count).expect("readable"), 9);
}
