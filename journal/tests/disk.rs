//! The real thing: a folder, by either backend.

use std::path::Path;

use journal::storage::{File, Lossy, ReadStorage, Storage};
use journal::{Backend, Disk, Error, Journal, KeyPair, Memory, Reader, Result};

fn pair() -> KeyPair {
    KeyPair::from_seed(&[3; 32])
}

fn create(folder: &Path, backend: Backend) -> Result<Journal> {
    Journal::create_on(Box::new(Disk::create(folder, backend)?), pair())
}

fn open(folder: &Path, backend: Backend, witnessed: u64) -> Result<(Journal, journal::Recovery)> {
    Journal::open_on(backend.open(folder)?, pair(), witnessed)
}

/// Whatever is promised holds with each.
fn with_each(check: impl Fn(Backend)) {
    [Backend::Positioned, Backend::RandomAccessDisk, Backend::Lossy].into_iter().for_each(check);
}

#[test]
fn what_is_appended_is_there_after_a_reopen() {
    with_each(appended_and_reopened);
}

fn appended_and_reopened(backend: Backend) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("state");
    let large = vec![0xab; 3 * 1024 * 1024 + 17];
    {
        let mut journal = create(&folder, backend).expect("creates");
        assert_eq!(journal.append(&["a".as_bytes(), &large, b""]).expect("appends"), 0);
        assert!(matches!(open(&folder, backend, 0), Err(Error::Locked)), "one writer at a time");
        let reader = Reader::open(&folder).expect("a reader needs no lock");
        assert_eq!((reader.length(), reader.get(1).expect("reads")), (3, large.clone()));
    }
    assert!(matches!(create(&folder, backend), Err(Error::Exists)));
    assert!(matches!(Journal::open(&folder, KeyPair::from_seed(&[4; 32]), 0), Err(Error::WrongKey)));
    assert!(matches!(open(&dir.path().join("none"), backend, 0), Err(Error::NotCreated)));
    let (mut journal, recovery) = open(&folder, backend, 3).expect("opens");
    assert_eq!(recovery, journal::Recovery::default());
    assert_eq!(journal.get(1).expect("reads"), large);
    for _ in 0..200 {
        journal.append(&vec![vec![7; 100]; 100]).expect("appends across checkpoints");
    }
    let entries: Vec<_> = journal.reader().range(0, u64::MAX).collect::<Result<_, _>>().expect("reads");
    assert_eq!(entries.len(), 20_003);
    journal.close().expect("closes");
    assert_eq!(
        Reader::open(&folder).expect("opens").verify(&mut |_, _| {}).expect("verifies").entries,
        20_003
    );
}

/// A reader on another handle sees a growing log that is always whole.
#[test]
fn a_reader_follows_a_writer() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut journal = Journal::create(dir.path(), pair()).expect("creates");
    let reader = journal.reader();
    let folder = dir.path().to_owned();
    let following = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < 3_000 {
            let length = reader.length();
            for (index, entry) in (seen..length).zip(reader.range(seen, length)) {
                assert_eq!(entry.expect("reads"), index.to_string().into_bytes());
            }
            seen = length;
            let outside = Reader::open(&folder).expect("opens while it is written");
            assert!(outside.length() >= seen.min(1));
        }
    });
    for first in (0..3_000u64).step_by(30) {
        let batch: Vec<String> = (first..first + 30).map(|index| index.to_string()).collect();
        journal.append(&batch).expect("appends");
        if first % 600 == 0 {
            journal.checkpoint().expect("checkpoints");
        }
    }
    following.join().expect("the reader saw only whole entries");
}

/// A disk that is full must not be acknowledged: `/dev/full` stands in for the data file.
#[test]
fn a_full_disk_is_reported_by_the_append_that_met_it() {
    with_each(full_disk_reported);
}

fn full_disk_reported(backend: Backend) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut journal = create(dir.path(), backend).expect("creates");
    std::os::unix::fs::symlink("/dev/full", dir.path().join("data")).expect("links");
    assert!(matches!(journal.append(&["lost"]), Err(Error::Io { .. })));
    assert!(matches!(journal.append(&["more"]), Err(Error::Faulted)));
    assert_eq!(journal.length(), 0);
}

/// What one backend has written the other goes on with.
#[test]
fn the_backends_write_the_same_files() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut files = Vec::new();
    for backend in [Backend::Positioned, Backend::RandomAccessDisk] {
        let folder = dir.path().join(format!("{backend:?}"));
        let mut journal = create(&folder, backend).expect("creates");
        for number in 0..300u32 {
            journal.append(&[number.to_le_bytes(), [7; 4]]).expect("appends");
        }
        // In the midst and at the end, where the file may be cut.
        journal.clear(100, 140).expect("clears");
        journal.clear(590, 600).expect("clears");
        journal.truncate(598).expect("truncates");
        journal.append(&[[9; 4], [8; 4]]).expect("appends");
        assert_eq!(journal.verify(&mut |_, _| {}).expect("in order").absent, 40 + 8);
        journal.close().expect("closes");
        let read = |name: &str| std::fs::read(folder.join(name)).expect("there");
        files.push(["oplog", "tree", "data", "bitfield"].map(read));
        let other =
            if backend == Backend::Positioned { Backend::RandomAccessDisk } else { Backend::Positioned };
        let (mut journal, _) = open(&folder, other, 600).expect("opens with the other");
        assert_eq!(journal.append(&["more"]).expect("appends"), 600);
    }
    assert!(files[0] == files[1], "file for file the same");
}

#[test]
fn what_is_not_synced_is_read_back_and_dies_with_the_process() {
    let below = Memory::default();
    let mut lossy = Lossy::new(below.clone());
    lossy.write(File::Data, 0, b"synced").expect("writes");
    lossy.sync(File::Data).expect("syncs");
    lossy.write(File::Data, 8, b"held").expect("writes");
    lossy.truncate(File::Data, 10).expect("cuts");
    lossy.write(File::Oplog, 0, b"other").expect("writes");
    assert_eq!(lossy.len(File::Data).expect("a length"), 10);
    assert_eq!(lossy.read(File::Data, 4, 6).expect("reads"), b"ed\0\0he");
    assert!(lossy.read(File::Data, 4, 7).is_err(), "longer than the file");
    drop(lossy);
    assert_eq!((below.bytes(File::Data), below.bytes(File::Oplog)), (b"synced".to_vec(), Vec::new()));
}

/// The crash test of cells rests on this: on [`Lossy`] a kill shows whether an append was synced.
#[test]
fn an_append_on_a_lossy_disk_is_there_for_the_next_process() {
    let below = Memory::default();
    let mut journal = Journal::create_on(Box::new(Lossy::new(below.clone())), pair()).expect("creates");
    for number in 0..300u32 {
        journal.append(&[number.to_le_bytes()]).expect("appends");
        let (left, _) = Journal::open_on(Box::new(below.copy()), pair(), 0).expect("opens");
        assert_eq!(left.length(), journal.length());
    }
}
