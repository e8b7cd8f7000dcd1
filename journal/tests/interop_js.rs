//! A journal and a core of the JavaScript package `hypercore` 10 are the same folder: each opens what the
//! other has written, in turns, and both hold the same entries under the same tree hash.
//!
//! Needs `node` and `npm`; the package is installed once, beside the build.

mod interop;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use journal::{
    Backend, Disk, ENCRYPTION_BYTES, EncryptionKey, Error, Journal, KeyPair, Reader, storage::Storage,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// The seed of every core here.
const SEED: [u8; 32] = [0x2a; 32];
/// The encryption key of those that are encrypted.
const ENCRYPTION_KEY: [u8; 32] = [0x17; 32];
/// Lives of a folder that are tried, each of several turns.
const LIVES: u32 = 6;

/// Where the package is installed; the first test to ask installs it.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| interop::install("interop"))
}

/// Has the JavaScript package take steps on a folder; what it holds then.
fn javascript(folder: &Path, core: Core, steps: &[Step]) -> Value {
    let steps: Vec<Value> = steps.iter().map(Step::json).collect();
    let asked = json!({
        "seed": hex::encode(SEED), "manifest": core.manifest, "steps": steps,
        "encryptionKey": core.encrypted.then(|| hex::encode(ENCRYPTION_KEY)),
    })
    .to_string();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(asked.as_bytes()).expect("written");
    let said = interop::node(installed(), "core.mjs", &[folder, file.path()]);
    serde_json::from_slice(&said).expect("one document")
}

/// What a core is to be.
#[derive(Clone, Copy)]
struct Core {
    /// The version of its manifest.
    manifest: u8,
    encrypted: bool,
}

impl Core {
    fn key(self) -> Option<EncryptionKey> {
        self.encrypted.then(|| EncryptionKey::from_bytes(&ENCRYPTION_KEY))
    }

    fn reader(self, folder: &Path) -> Reader {
        let reader = Reader::open_with(folder, self.key().as_ref()).expect("opens");
        assert_eq!(reader.is_encrypted(), self.encrypted);
        reader
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    /// To this part of the length, of 1 000.
    Truncate(u64),
    Clear(u64, u64),
    /// A pair of the header; JavaScript only.
    UserData(&'static str, Option<Vec<u8>>),
}

impl Step {
    fn json(&self) -> Value {
        match self {
            Self::Append(entries) => {
                json!({ "append": entries.iter().map(hex::encode).collect::<Vec<_>>() })
            }
            Self::Truncate(length) => json!({ "truncate": length }),
            Self::Clear(from, to) => json!({ "clear": [from, to] }),
            Self::UserData(name, value) => json!({ "userData": [name, value.as_ref().map(hex::encode)] }),
        }
    }

    /// The same with parts of the length made into places.
    fn at(&self, length: u64) -> Self {
        match self {
            Self::Append(_) | Self::UserData(..) => self.clone(),
            Self::Truncate(part) => Self::Truncate(length * part / 1_000),
            Self::Clear(from, to) => Self::Clear(length * from / 1_000, length * to / 1_000),
        }
    }
}

/// What both should hold; `None` where it was cleared.
#[derive(Default)]
struct Model {
    entries: Vec<Option<Vec<u8>>>,
    bytes: Vec<u64>,
    fork: u64,
}

impl Model {
    fn length(&self) -> u64 {
        self.entries.len() as u64
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(entries) => {
                self.entries.extend(entries.iter().cloned().map(Some));
                self.bytes.extend(entries.iter().map(|entry| entry.len() as u64));
            }
            Step::Truncate(length) => {
                self.fork += u64::from(*length < self.length());
                self.entries.truncate(usize::try_from(*length).expect("small"));
                self.bytes.truncate(self.entries.len());
            }
            Step::Clear(from, to) => {
                (*from..*to).for_each(|index| self.entries[usize::try_from(index).expect("small")] = None);
            }
            Step::UserData(..) => {}
        }
    }

    /// The reader holds this, and what JavaScript said is this too.
    fn assert_both(&self, reader: &Reader, said: &Value) {
        let more = if reader.is_encrypted() { ENCRYPTION_BYTES as u64 * self.length() } else { 0 };
        // JavaScript counts the bytes of an encrypted core without what encryption adds.
        let byte_length = reader.byte_length() - more;
        let ours = json!({
            "key": reader.key().to_string(), "length": reader.length(), "byteLength": byte_length,
            "fork": reader.fork(), "treeHash": hex::encode(reader.tree_hash()),
        });
        for (name, value) in ours.as_object().expect("an object") {
            assert_eq!(&said[name], value, "{name}");
        }
        assert_eq!((reader.length(), reader.fork()), (self.length(), self.fork));
        assert_eq!(byte_length, self.bytes.iter().sum::<u64>());
        reader.verify(&mut |_, _| {}).expect("in order");
        for (index, expected) in (0u64..).zip(&self.entries) {
            let theirs = said["entries"][index as usize].as_str().map(str::to_owned);
            assert_eq!(theirs, expected.as_ref().map(hex::encode), "entry {index}");
            match (reader.get(index), expected) {
                (Ok(read), Some(expected)) => assert_eq!(&read, expected, "entry {index}"),
                // Nothing to free, nothing gone: an empty entry, or zeros.
                (Ok(read), None) => assert!(read.iter().all(|byte| *byte == 0), "entry {index}"),
                (Err(Error::Absent { .. }), None) => {}
                (Err(error), _) => panic!("entry {index}: {error}"),
            }
        }
    }
}

/// Has a journal of ours take steps on a folder.
fn ours(folder: &Path, core: Core, steps: &[Step]) -> Reader {
    let key_pair = KeyPair::from_seed(&SEED);
    let key = core.key();
    let disk = |disk: journal::Result<Disk>| -> Box<dyn Storage> { Box::new(disk.expect("a disk")) };
    let journal = if folder.join("oplog").exists() {
        let disk = disk(Disk::open(folder, Backend::default()));
        Journal::open_with(disk, key_pair, 0, key.as_ref()).map(|(journal, _)| journal)
    } else {
        let disk = disk(Disk::create(folder, Backend::default()));
        Journal::create_with(disk, key_pair, key.as_ref())
    };
    let mut journal = journal.expect("opens");
    for step in steps {
        match step {
            Step::Append(entries) => journal.append(entries).map(drop),
            Step::Truncate(length) => journal.truncate(*length),
            Step::Clear(from, to) => journal.clear(*from, *to),
            Step::UserData(..) => unreachable!("JavaScript only"),
        }
        .expect("does it");
    }
    drop(journal);
    core.reader(folder)
}

fn step() -> impl Strategy<Value = Step> {
    let entry = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        2 => (1..=255u8, 4_000..70_000usize).prop_map(|(byte, length)| vec![byte; length]),
        1 => (1..=255u8, 900_000..=1_048_576usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop_oneof![
        6 => prop::collection::vec(entry, 1..12).prop_map(Step::Append),
        1 => (300..1_000u64).prop_map(Step::Truncate),
        1 => Just(Step::Truncate(0)),
        2 => (0..=1_000u64, 0..=1_000u64).prop_map(|(a, b)| Step::Clear(a.min(b), a.max(b))),
    ]
}

/// Turns of a life: who takes the steps, and which.
fn turns() -> impl Strategy<Value = Vec<(bool, Vec<Step>)>> {
    prop::collection::vec((any::<bool>(), prop::collection::vec(step(), 1..6)), 2..6)
}

fn in_turns(core: Core, first_is_javascript: Option<bool>) {
    let config = ProptestConfig { cases: LIVES, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&turns(), |turns| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut model = Model::default();
            for (number, (by_javascript, steps)) in turns.into_iter().enumerate() {
                let by_javascript = first_is_javascript.filter(|_| number == 0).unwrap_or(by_javascript);
                let mut placed = Vec::new();
                for step in &steps {
                    let step = step.at(model.length());
                    model.step(&step);
                    placed.push(step);
                }
                if number == 0 && by_javascript && core.encrypted {
                    // An entry that is there shows that it is encrypted; nothing else does.
                    let step = Step::Append(vec![b"it shows".to_vec()]);
                    model.step(&step);
                    placed.push(step);
                }
                let (said, reader) = if by_javascript {
                    let said = javascript(folder.path(), core, &placed);
                    (said, core.reader(folder.path()))
                } else {
                    let reader = ours(folder.path(), core, &placed);
                    (javascript(folder.path(), core, &[]), reader)
                };
                model.assert_both(&reader, &said);
                // Opening to write changes nothing of it either.
                model.assert_both(&ours(folder.path(), core, &[]), &said);
            }
            Ok(())
        })
        .expect("they agree");
}

#[test]
fn a_folder_is_written_in_turns() {
    in_turns(Core { manifest: 0, encrypted: false }, None);
}

/// What JavaScript makes unless told: a manifest of version 1. Ours keep the key and go on.
#[test]
fn a_folder_that_javascript_has_made_its_own_way_is_written_in_turns() {
    in_turns(Core { manifest: 1, encrypted: false }, Some(true));
}

#[test]
fn an_encrypted_folder_is_written_in_turns() {
    in_turns(Core { manifest: 0, encrypted: true }, None);
}

#[test]
fn a_folder_that_javascript_has_encrypted_is_written_in_turns() {
    in_turns(Core { manifest: 1, encrypted: true }, Some(true));
}

/// Through truncations, in which the fork goes up, by both sides.
#[test]
fn an_encrypted_folder_is_read_across_forks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let core = Core { manifest: 0, encrypted: true };
    let entries = |words: &[&str]| Step::Append(words.iter().map(|word| word.as_bytes().to_vec()).collect());
    let mut model = Model::default();
    let mut turn = |by_javascript: bool, steps: &[Step]| {
        steps.iter().for_each(|step| model.step(step));
        let (by_us, by_them) = if by_javascript { (&[][..], steps) } else { (steps, &[][..]) };
        let (reader, said) = if by_javascript {
            let said = javascript(folder.path(), core, by_them);
            (core.reader(folder.path()), said)
        } else {
            let reader = ours(folder.path(), core, by_us);
            (reader, javascript(folder.path(), core, &[]))
        };
        model.assert_both(&reader, &said);
    };
    turn(false, &[entries(&["one", "two", "three"]), Step::Truncate(2), entries(&["drei"])]);
    turn(true, &[Step::Truncate(1), entries(&["zwei", "", "vier"])]);
    turn(false, &[Step::Truncate(2), entries(&["trois"]), Step::Clear(0, 1)]);
    turn(true, &[Step::Truncate(2), Step::Truncate(1), entries(&["due", "tre"])]);
    assert_eq!(model.fork, 5);
}

/// Pairs that JavaScript keeps in the header outlive our writing it anew, be they in the slot, in the oplog
/// only, or too long for a slot; and so does ours with JavaScript.
#[test]
fn pairs_of_the_header_are_kept() {
    for core in [Core { manifest: 0, encrypted: true }, Core { manifest: 0, encrypted: false }] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let entry = || Step::Append(vec![b"entry".to_vec()]);
        ours(folder.path(), core, &[entry()]);
        let mut length = 1;
        // One after the other beside one that stays: in the slot, longer than it, longer still, in it again.
        for value in [&[1; 9][..], &[2; 5_000], &[3; 12_000], &[4; 4_500], &[5; 7]] {
            let set = |name, value: Option<&[u8]>| Step::UserData(name, value.map(<[u8]>::to_vec));
            let steps = [
                set("name", Some(b"alice")),
                set("gone", Some(b"soon")),
                set("state", Some(value)),
                set("gone", None),
                entry(),
            ];
            javascript(folder.path(), core, &steps);
            // A truncation writes the header at once.
            ours(
                folder.path(),
                core,
                &[entry(), entry(), Step::Truncate(length + 2), Step::Truncate(length + 1)],
            );
            ours(folder.path(), core, &[entry(), Step::Clear(0, 1)]);
            length += 2;
            let copy = tempfile::tempdir().expect("a temporary folder");
            Reader::open(folder.path())
                .and_then(|reader| reader.export(copy.path(), None, &mut |_, _| {}))
                .expect("copies");
            for folder in [&folder, &copy] {
                let said = javascript(folder.path(), core, &[]);
                let pairs = said["userData"].as_object().expect("an object");
                assert_eq!(pairs.len(), 2 + usize::from(core.encrypted));
                assert_eq!(pairs["name"], hex::encode("alice"));
                assert_eq!(pairs["state"], hex::encode(value));
                assert_eq!(said["length"], length);
                assert_eq!(said["entries"][1], hex::encode("entry"));
            }
        }
        assert_eq!(core.reader(folder.path()).length(), length);
    }
}
