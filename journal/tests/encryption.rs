//! An encrypted journal: who has its key reads it, who has not can check it, and the disk shows no entry.

use std::fs;
use std::path::Path;

use journal::storage::{File, Memory};
use journal::{Backend, Disk, ENCRYPTION_BYTES, EncryptionKey, Error, Journal, KeyPair, Reader};

const SECRET: &[u8] = b"nobody but the owner is to read this";

fn pair() -> KeyPair {
    KeyPair::from_seed(&[0x2a; 32])
}

fn key(byte: u8) -> EncryptionKey {
    EncryptionKey::from_bytes(&[byte; 32])
}

fn create(folder: &Path) -> Journal {
    let disk = Disk::create(folder, Backend::default()).expect("a disk");
    Journal::create_with(Box::new(disk), pair(), Some(&key(7))).expect("creates")
}

fn open(folder: &Path, key: Option<&EncryptionKey>) -> Result<Journal, Error> {
    let disk = Disk::open(folder, Backend::default())?;
    Journal::open_with(Box::new(disk), pair(), 0, key).map(|(journal, _)| journal)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("a file").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("reads")))
        .collect();
    files.sort();
    files
}

/// A journal of three entries, the first twice in one batch, checkpointed before the last.
fn three(folder: &Path) {
    let mut journal = create(folder);
    journal.append(&[SECRET, SECRET]).expect("appends");
    journal.checkpoint().expect("checkpoints");
    journal.append(&[SECRET]).expect("appends");
}

#[test]
fn no_file_shows_an_entry_and_no_two_are_stored_alike() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    three(folder.path());
    let seen = |folder: &Path, bytes: &[u8]| {
        files(folder).iter().any(|(_, file)| file.windows(bytes.len()).any(|window| window == bytes))
    };
    assert!(!seen(folder.path(), &SECRET[..12]));
    let data = fs::read(folder.path().join("data")).expect("reads");
    let stored: Vec<&[u8]> = data.chunks(SECRET.len() + ENCRYPTION_BYTES).collect();
    assert_eq!(stored.len(), 3);
    assert!(stored[0] != stored[1] && stored[1] != stored[2] && stored[0] != stored[2]);
    // The same look at a plain journal finds it.
    let plain = tempfile::tempdir().expect("a temporary folder");
    Journal::create(plain.path(), pair()).and_then(|mut journal| journal.append(&[SECRET])).expect("appends");
    assert!(seen(plain.path(), &SECRET[..12]));
}

#[test]
fn without_its_key_it_takes_nothing_and_shows_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    three(folder.path());
    let before = files(folder.path());
    assert!(matches!(open(folder.path(), None), Err(Error::Encrypted)));
    assert!(matches!(Journal::open(folder.path(), pair(), 0), Err(Error::Encrypted)));
    assert!(matches!(open(folder.path(), Some(&key(8))), Err(Error::WrongEncryptionKey)));
    assert!(matches!(Reader::open_with(folder.path(), Some(&key(8))), Err(Error::WrongEncryptionKey)));
    assert_eq!(files(folder.path()), before);
    // The key of another journal of the same owner, which has the same encryption key, is another one.
    let other = KeyPair::from_seed(&[1; 32]);
    let disk = || Disk::open(folder.path(), Backend::default()).expect("a disk");
    let opened = Journal::open_with(Box::new(disk()), other, 0, Some(&key(7)));
    assert!(matches!(opened, Err(Error::WrongKey)));
    // Refused or not, the right key still opens it.
    assert_eq!(open(folder.path(), Some(&key(7))).expect("opens").get(2).expect("reads"), SECRET);
}

#[test]
fn without_its_key_it_can_be_checked_proven_and_copied() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    three(folder.path());
    let closed = Reader::open(folder.path()).expect("opens");
    let open = Reader::open_with(folder.path(), Some(&key(7))).expect("opens");
    let stored = (SECRET.len() + ENCRYPTION_BYTES) as u64;
    for reader in [&closed, &open] {
        assert!(reader.is_encrypted());
        assert_eq!((reader.length(), reader.byte_length()), (3, 3 * stored));
        assert_eq!(reader.seek(stored).expect("there"), (1, 0));
        assert_eq!(reader.verify(&mut |_, _| {}).expect("in order").bytes, 3 * stored);
    }
    assert!(matches!(closed.get(1), Err(Error::Encrypted)));
    assert!(matches!(closed.get(3), Err(Error::NoEntry { .. })));
    let ranged: Vec<_> = closed.range(0, 3).collect();
    assert!(matches!(&ranged[..], [Err(Error::Encrypted)]));
    let read: Vec<Vec<u8>> = open.range(0, 3).map(|entry| entry.expect("reads")).collect();
    assert_eq!(read, [SECRET; 3]);

    let proof = closed.prove_range(1, 3, Some(1)).expect("proves");
    assert_eq!(proof, open.prove_range(1, 3, Some(1)).expect("proves"));
    proof.verify(&closed.key()).expect("holds");
    let cipher = key(7).cipher(&closed.key());
    assert_eq!(cipher.decrypt(2, proof.entries[1].0.clone()).expect("decrypts"), SECRET);

    let copy = folder.path().join("copy");
    closed.export(&copy, None, &mut |_, _| {}).expect("copies");
    assert_eq!(
        fs::read(copy.join("data")).expect("reads"),
        fs::read(folder.path().join("data")).expect("reads")
    );
    assert!(matches!(Reader::open(&copy).expect("opens").get(0), Err(Error::Encrypted)));
    let copied = Reader::open_with(&copy, Some(&key(7))).expect("opens");
    assert_eq!(copied.get(0).expect("reads"), SECRET);
    assert_eq!(copied.tree_hash(), closed.tree_hash());
}

#[test]
fn a_damaged_entry_is_damaged_before_it_is_encrypted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    three(folder.path());
    open(folder.path(), Some(&key(7))).and_then(Journal::close).expect("closes");
    let path = folder.path().join("data");
    let mut data = fs::read(&path).expect("reads");
    data[3] ^= 1;
    fs::write(&path, data).expect("writes");
    for key in [None, Some(&key(7))] {
        let reader = Reader::open_with(folder.path(), key).expect("opens");
        assert!(matches!(reader.get(0), Err(Error::Damaged { index: 0 })));
    }
}

#[test]
fn a_key_that_is_not_needed_is_not_used() {
    let memory = Memory::default();
    let mut journal = Journal::create_on(Box::new(memory.clone()), pair()).expect("creates");
    journal.append(&["one"]).expect("appends");
    drop(journal);
    let opened = Journal::open_with(Box::new(memory.clone()), pair(), 1, Some(&key(7)));
    let (mut journal, _) = opened.expect("opens");
    assert!(!journal.is_encrypted());
    journal.append(&["two"]).expect("appends");
    assert_eq!(memory.bytes(File::Data), b"onetwo");
}

/// A batch that was torn before it was acknowledged leaves its bytes on the disk; the one that takes its
/// place has another keystream, so both states of the disk together show nothing.
#[test]
fn a_torn_batch_and_the_one_in_its_place_share_no_keystream() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    create(folder.path()).append(&["first"]).expect("appends");
    let oplog = fs::read(folder.path().join("oplog")).expect("reads");
    let append = |entry: &[u8; 8]| {
        let mut journal = open(folder.path(), Some(&key(7))).expect("opens");
        assert_eq!(journal.append(&[entry]).expect("appends"), 1);
        drop(journal);
        let data = fs::read(folder.path().join("data")).expect("reads");
        data[5 + ENCRYPTION_BYTES..].to_vec()
    };
    let torn = append(b"attack A");
    fs::write(folder.path().join("oplog"), oplog).expect("writes");
    let kept = append(b"attack B");
    // Under one keystream the seven bytes that are alike would be alike here too.
    assert_ne!(torn[ENCRYPTION_BYTES..][..7], kept[ENCRYPTION_BYTES..][..7]);
}
