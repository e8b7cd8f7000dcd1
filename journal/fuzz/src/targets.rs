//! What hostile input must not do: make a journal panic, take memory or time that the input's size does not
//! warrant, or have it say what is not so.
//!
//! Run by cargo-fuzz (`cargo xtask campaign fuzz`), guided by coverage, and by `journal/tests/hostile.rs`, on
//! the corpus and changes of it.

#![allow(dead_code, reason = "each program uses its own target")]

#[path = "folder.rs"]
pub(crate) mod folder;

use std::io;
use std::sync::LazyLock;

use journal::replica::{self, Answer, Failed, Mirror, Replica, Request};
use journal::storage::{File, Memory, ReadStorage, Storage};
use journal::{Error, Journal, KeyPair, Proof, Reader};

/// No file of a test grows longer: in memory, where a disk would have a hole.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Entries that are read one by one.
const ENTRIES_MAX: u64 = 300;

/// The seed of the key pair that inputs are signed with.
pub(crate) const SEED: [u8; 32] = [9; 32];

/// Opens a folder made of the input (see [`folder`]) and uses it in every way there is.
pub(crate) fn open(input: &[u8]) {
    let files = folder::read(input);
    let pair = KeyPair::from_seed(&SEED);
    let Ok((mut journal, _)) = Journal::open_on(Box::new(Small(files.clone())), pair.clone(), 0) else {
        return;
    };
    let whole = read(&journal.reader());
    let length = journal.length();
    // What was in order takes entries, and what it takes is there; what was not may say no.
    let Ok(index) = journal.append(&["more"]) else { return };
    let there = journal.get(index);
    assert!(!whole || there.is_ok_and(|entry| entry == b"more"), "an acknowledged entry is another one");
    let kept = journal.checkpoint().is_ok();
    let read_again = journal.get(index);
    assert!(!whole || !kept || read_again.is_ok_and(|entry| entry == b"more"), "lost by a checkpoint");
    let shrunk = journal.clear(length / 2, length).and_then(|()| journal.truncate(length)).is_ok();
    assert!(!shrunk || journal.length() == length);
    let _ = journal.close();
    let again = Journal::open_on(Box::new(Small(files)), pair, 0);
    if let Ok((journal, _)) = &again {
        read(&journal.reader());
    }
    if whole && kept && shrunk {
        assert_eq!(again.expect("it was in order").0.length(), length);
    }
}

/// Reads in every way there is; gives whether everything is in order.
fn read(reader: &Reader) -> bool {
    let length = reader.length();
    let whole = match reader.verify(&mut |_, _| {}) {
        Ok(report) => {
            assert_eq!((report.entries, report.tree_hash), (length, reader.tree_hash()));
            true
        }
        Err(_) => false,
    };
    for index in (0..length.min(ENTRIES_MAX)).chain(length.saturating_sub(3)..=length) {
        let got = reader.get(index);
        let in_order = matches!(&got, Ok(_) | Err(Error::Absent { .. }));
        assert!(!whole || index >= length || in_order, "{got:?} in a journal that is in order");
        if let (Ok(proof), Ok(entry)) = (reader.prove(index), got) {
            assert_eq!(proof.entries[0].0, entry);
            // A signature is slow to check.
            let holds = index % 7 != 0 || proof.verify(&reader.key()).is_ok();
            assert!(!whole || holds, "a proof that does not hold");
        }
        let _ = reader.tree_hash_at(index);
    }
    for entry in reader.range(0, length) {
        assert!(!whole || matches!(entry, Ok(_) | Err(Error::Absent { .. })));
    }
    for byte in [0, 1, 1000, reader.byte_length() / 2, reader.byte_length()] {
        let _ = reader.seek(byte);
    }
    for (first, end, since) in [(0, length, None), (0, 0, Some(length / 2)), (length / 3, length, Some(1))] {
        if let Ok(proof) = reader.prove_range(first, end, since) {
            assert!(!whole || proof.verify(&reader.key()).is_ok(), "a proof that does not hold");
        }
    }
    whole
}

/// Reads a proof from the input, as CBOR where the first byte is even, else as JSON, and checks it.
pub(crate) fn proof(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let read = if kind % 2 == 0 { Proof::from_cbor(bytes).ok() } else { serde_json::from_slice(bytes).ok() };
    let Some(proof) = read else { return };
    assert_eq!(Proof::from_cbor(&proof.to_cbor()).as_ref().ok(), Some(&proof));
    let json = serde_json::to_string(&proof).expect("JSON takes it");
    assert_eq!(serde_json::from_str::<Proof>(&json).ok().as_ref(), Some(&proof));
    let key = KeyPair::from_seed(&SEED).public();
    if let Ok(proven) = proof.verify(&key) {
        let (log, hashes) = folder::known_log();
        assert_eq!((proof.length, proven.tree_hash), (log.len() as u64, hashes[log.len()]));
        for (index, entry) in (proof.first..).zip(&proof.entries) {
            assert_eq!(entry.0, log[index as usize], "an entry that was never signed");
        }
        if let (Some(since), Some(hash)) = (proof.since, proven.tree_hash_since) {
            assert_eq!(hash, hashes[since as usize], "a past that never was");
        }
    }
}

/// The known log, for whoever asks of it.
static SOURCE: LazyLock<Reader> = LazyLock::new(|| {
    let mut journal =
        Journal::create_on(Box::new(Memory::default()), KeyPair::from_seed(&SEED)).expect("creates");
    for entry in folder::known_log().0 {
        journal.append(&[entry]).expect("appends");
    }
    journal.reader()
});

/// How many questions of a replica an input answers.
const QUESTIONS_MAX: usize = 8;

/// Where the first byte is even: a question of a replica, that a source answers. Else the answers to a replica's
/// questions, each after its length as two little-endian bytes; where that is zero the source is honest.
pub(crate) fn frames(input: &[u8]) {
    let Some((kind, mut bytes)) = input.split_first() else { return };
    if kind % 2 == 0 {
        let Ok(request) = replica::decode::<Request>(bytes) else { return };
        assert_eq!(replica::decode::<Request>(&replica::encode(&request)).as_ref().ok(), Some(&request));
        if let Ok(answer) = replica::answer(&SOURCE, &request) {
            let size = replica::encode(&answer).len();
            assert!(size < 8192, "{size} bytes of a log of 46");
        }
        return;
    }
    let files = Memory::default();
    let key = KeyPair::from_seed(&SEED).public();
    let replica = Replica::create_on(Box::new(Small(files.clone())), key).expect("creates");
    let mut mirror = Mirror::new(replica);
    mirror.join(());
    for _ in 0..QUESTIONS_MAX {
        let Ok(Some((ticket, (), request))) = mirror.ask() else { break };
        let (length, rest) = bytes.split_first_chunk::<2>().unwrap_or((&[0, 0], &[]));
        let (frame, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        bytes = rest;
        let answer = if frame.is_empty() {
            replica::answer(&SOURCE, &request).ok()
        } else {
            replica::decode::<Answer>(frame).ok()
        };
        let Some(answer) = answer else { break };
        match mirror.answered(ticket, &answer) {
            Ok(_) => {}
            Err(Failed::Lied(..)) => break,
            Err(Failed::Stop(error)) => panic!("the writer is honest: {error}"),
        }
    }
    let (log, hashes) = folder::known_log();
    let held = |reader: &Reader| {
        assert_eq!(Some(&reader.tree_hash()), hashes.get(reader.length() as usize), "a log that never was");
        for (index, entry) in (0..reader.length()).zip(&log) {
            match reader.get(index) {
                Ok(read) => assert_eq!(&read, entry, "an entry that was never signed"),
                Err(error) => assert!(matches!(error, Error::Absent { .. }), "{error}"),
            }
        }
        reader.verify(&mut |_, _| {}).expect("in order");
    };
    held(&mirror.reader());
    drop(mirror);
    let again = Replica::open_on(Box::new(Small(files)), key).expect("opens");
    held(&again.reader());
}

/// Files in memory that do not grow past a bound.
struct Small(Memory);

impl ReadStorage for Small {
    fn read(&mut self, file: File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.0.read(file, offset, length)
    }

    fn len(&mut self, file: File) -> io::Result<u64> {
        self.0.len(file)
    }
}

impl Storage for Small {
    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match offset.checked_add(bytes.len() as u64) {
            Some(end) if end <= FILE_BYTES_MAX => self.0.write(file, offset, bytes),
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn truncate(&mut self, file: File, length: u64) -> io::Result<()> {
        if length > FILE_BYTES_MAX {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            self.0.truncate(file, length)
        }
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        self.0.sync(file)
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.0.sync_directory()
    }

    fn reader(&mut self) -> io::Result<Box<dyn ReadStorage>> {
        Ok(Box::new(Self(self.0.clone())))
    }
}
