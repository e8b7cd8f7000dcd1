//! The Rust crate `hypercore` within its limits: it opens what is exported with its key pair and appends to
//! it; what it writes opens here. (It panics above 32 768 entries, cannot truncate, and its headers are
//! broken after a truncation: those cases are for `interop_js.rs`.)

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hypercore::{Hypercore, HypercoreBuilder, PartialKeypair, SigningKey, Storage, VerifyingKey};
use journal::{Backend, Disk, EncryptionKey, Error, Journal, KeyPair, Reader};

const SEED: [u8; 32] = [0x2a; 32];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime")
}

async fn theirs(folder: &Path, open: bool) -> Hypercore {
    let storage = Storage::new_disk(&folder.to_owned(), false).await.expect("a folder");
    let mut builder = HypercoreBuilder::new(storage).open(open);
    if !open {
        let secret = SigningKey::from_bytes(&SEED);
        let public: VerifyingKey = secret.verifying_key();
        builder = builder.key_pair(PartialKeypair { public, secret: Some(secret) });
    }
    builder.build().await.expect("opens")
}

/// Entries of all sizes up to 1 MiB, empty ones too.
fn entries(from: u64, count: u64) -> Vec<Vec<u8>> {
    let size = |index: u64| match index % 7 {
        0 => 0,
        1..=4 => index * 37 % 500,
        5 => 5_000 + index,
        _ => {
            if index % 35 == 6 {
                1024 * 1024
            } else {
                70_000
            }
        }
    };
    (from..from + count)
        .map(|index| vec![index as u8 | 1; usize::try_from(size(index)).expect("small")])
        .collect()
}

async fn assert_same(reader: &Reader, core: &mut Hypercore, expected: &[Vec<u8>], cleared: &[u64]) {
    let info = core.info();
    assert_eq!(
        (info.length, info.byte_length, info.fork),
        (reader.length(), reader.byte_length(), reader.fork())
    );
    assert_eq!(core.key_pair().public.as_bytes(), reader.key().as_bytes());
    assert_eq!(reader.length(), expected.len() as u64);
    reader.verify(&mut |_, _| {}).expect("in order");
    for (index, entry) in (0u64..).zip(expected) {
        let read = core.get(index).await.expect("readable");
        if cleared.contains(&index) {
            assert_eq!(read, None, "entry {index}");
            assert!(matches!(reader.get(index), Err(Error::Absent { .. })), "entry {index}");
        } else {
            assert_eq!(read.as_ref(), Some(entry), "entry {index}");
            assert_eq!(&reader.get(index).expect("there"), entry, "entry {index}");
        }
    }
}

#[test]
fn it_opens_what_is_exported_and_goes_on_from_there() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (own, copy) = (dir.path().join("own"), dir.path().join("copy"));
    let pair = KeyPair::from_seed(&SEED);
    let mut journal = Journal::create(&own, pair.clone()).expect("creates");
    let mut expected = entries(0, 90);
    for batch in expected.chunks(11) {
        journal.append(batch).expect("appends");
    }
    // The last batches are in the oplog alone: the copy has them checkpointed.
    journal.clear(22, 25).expect("clears");
    journal.append(&entries(90, 3)).expect("appends");
    expected.extend(entries(90, 3));
    journal.reader().export(&copy, Some(&pair), &mut |_, _| {}).expect("exports");
    assert!(matches!(journal.reader().export(&copy, None, &mut |_, _| {}), Err(Error::Exists)));
    let other = KeyPair::from_seed(&[1; 32]);
    let refused = journal.reader().export(&dir.path().join("other"), Some(&other), &mut |_, _| {});
    assert!(matches!(refused, Err(Error::WrongKey)));
    runtime().block_on(async {
        let mut core = theirs(&copy, true).await;
        let cleared = [22, 23, 24];
        assert_same(&Reader::open(&copy).expect("opens"), &mut core, &expected, &cleared).await;
        core.append_batch(entries(93, 4)).await.expect("appends");
        expected.extend(entries(93, 4));
        assert_same(&Reader::open(&copy).expect("opens"), &mut core, &expected, &cleared).await;
        drop(core);
        let (mut ours, _) = Journal::open(&copy, pair, expected.len() as u64).expect("opens");
        ours.append(&entries(97, 2)).expect("appends");
        expected.extend(entries(97, 2));
        assert_eq!(ours.verify(&mut |_, _| {}).expect("in order").absent, 3);
        assert_eq!(ours.get(98).expect("there"), expected[98]);
    });
}

#[test]
fn what_it_writes_opens_here() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    runtime().block_on(async {
        let mut core = theirs(dir.path(), false).await;
        let mut expected = Vec::new();
        for (batch, count) in [(0, 1), (1, 1), (2, 13), (15, 40)] {
            core.append_batch(entries(batch, count)).await.expect("appends");
            expected.extend(entries(batch, count));
            assert_same(&Reader::open(dir.path()).expect("opens"), &mut core, &expected, &[]).await;
        }
    });
}

/// It reads no header with pairs in it, and an encrypted journal has one.
#[test]
fn an_encrypted_journal_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pair = KeyPair::from_seed(&SEED);
    for (name, key) in [("plain", None), ("encrypted", Some(EncryptionKey::from_bytes(&[1; 32])))] {
        let disk = Disk::create(&dir.path().join("own").join(name), Backend::default()).expect("a disk");
        let mut journal = Journal::create_with(Box::new(disk), pair.clone(), key.as_ref()).expect("creates");
        journal.append(&["hello"]).expect("appends");
        let copy = dir.path().join(name);
        journal.reader().export(&copy, Some(&pair), &mut |_, _| {}).expect("exports");
        let opened = runtime().block_on(async {
            let storage = Storage::new_disk(&copy, false).await.expect("a folder");
            HypercoreBuilder::new(storage).open(true).build().await
        });
        assert_eq!(opened.is_err(), key.is_some(), "{name}");
    }
}

/// The header of a copy without a key pair holds no secret.
#[test]
fn no_secret_leaves_unless_asked() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pair = KeyPair::from_seed(&SEED);
    let mut journal = Journal::create(&dir.path().join("own"), pair.clone()).expect("creates");
    journal.append(&["hello"]).expect("appends");
    for (name, with, holds) in [("public", None, false), ("secret", Some(&pair), true)] {
        let folder = dir.path().join(name);
        journal.reader().export(&folder, with, &mut |_, _| {}).expect("exports");
        let oplog = std::fs::read(folder.join("oplog")).expect("there");
        assert_eq!(oplog.windows(32).any(|bytes| bytes == SEED), holds, "{name}");
        let mode = std::fs::metadata(&folder).expect("there").permissions().mode();
        assert!(!holds || mode & 0o077 == 0, "others can read the secret: {mode:o}");
    }
}
