//! The real thing: a folder, by `random-access-disk`.

use journal::{Error, Journal, KeyPair, Reader};

fn pair() -> KeyPair {
    KeyPair::from_seed(&[3; 32])
}

#[test]
fn what_is_appended_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = dir.path().join("state");
    let large = vec![0xab; 3 * 1024 * 1024 + 17];
    {
        let mut journal = Journal::create(&folder, pair()).expect("creates");
        assert_eq!(journal.append(&["a".as_bytes(), &large, b""]).expect("appends"), 0);
        assert!(matches!(Journal::open(&folder, pair(), 0), Err(Error::Locked)), "one writer at a time");
        let reader = Reader::open(&folder).expect("a reader needs no lock");
        assert_eq!((reader.length(), reader.get(1).expect("reads")), (3, large.clone()));
    }
    assert!(matches!(Journal::create(&folder, pair()), Err(Error::Exists)));
    assert!(matches!(Journal::open(&folder, KeyPair::from_seed(&[4; 32]), 0), Err(Error::WrongKey)));
    assert!(matches!(Journal::open(&dir.path().join("none"), pair(), 0), Err(Error::NotCreated)));
    let (mut journal, recovery) = Journal::open(&folder, pair(), 3).expect("opens");
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
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut journal = Journal::create(dir.path(), pair()).expect("creates");
    std::os::unix::fs::symlink("/dev/full", dir.path().join("data")).expect("links");
    assert!(matches!(journal.append(&["lost"]), Err(Error::Io { .. })));
    assert!(matches!(journal.append(&["more"]), Err(Error::Faulted)));
    assert_eq!(journal.length(), 0);
}
