//! A journal and a core of the JavaScript package `hypercore` 10 are the same folder: each opens what the
//! other has written, in turns, and both hold the same entries under the same tree hash.
//!
//! Needs `node` and `npm`; the package is installed once, beside the build.

mod interop;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use journal::{Error, Journal, KeyPair, Reader};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// The seed of every core here.
const SEED: [u8; 32] = [0x2a; 32];
/// Lives of a folder that are tried, each of several turns.
const LIVES: u32 = 6;

/// Where the package is installed; the first test to ask installs it.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| interop::install("interop"))
}

/// Has the JavaScript package take steps on a folder; what it holds then.
fn javascript(folder: &Path, manifest: u8, steps: &[Step]) -> Value {
    let steps: Vec<Value> = steps.iter().map(Step::json).collect();
    let asked = json!({ "seed": hex::encode(SEED), "manifest": manifest, "steps": steps }).to_string();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(asked.as_bytes()).expect("written");
    let said = interop::node(installed(), "core.mjs", &[folder, file.path()]);
    serde_json::from_slice(&said).expect("one document")
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    /// To this part of the length, of 1 000.
    Truncate(u64),
    Clear(u64, u64),
}

impl Step {
    fn json(&self) -> Value {
        match self {
            Self::Append(entries) => {
                json!({ "append": entries.iter().map(hex::encode).collect::<Vec<_>>() })
            }
            Self::Truncate(length) => json!({ "truncate": length }),
            Self::Clear(from, to) => json!({ "clear": [from, to] }),
        }
    }

    /// The same with parts of the length made into places.
    fn at(&self, length: u64) -> Self {
        match self {
            Self::Append(entries) => Self::Append(entries.clone()),
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
        }
    }

    /// The reader holds this, and what JavaScript said is this too.
    fn assert_both(&self, reader: &Reader, said: &Value) {
        let ours = json!({
            "key": reader.key().to_string(), "length": reader.length(), "byteLength": reader.byte_length(),
            "fork": reader.fork(), "treeHash": hex::encode(reader.tree_hash()),
        });
        for (name, value) in ours.as_object().expect("an object") {
            assert_eq!(&said[name], value, "{name}");
        }
        assert_eq!((reader.length(), reader.fork()), (self.length(), self.fork));
        assert_eq!(reader.byte_length(), self.bytes.iter().sum::<u64>());
        reader.verify(&mut |_, _| {}).expect("in order");
        for (index, expected) in (0u64..).zip(&self.entries) {
            let theirs = said["entries"][index as usize].as_str().map(str::to_owned);
            assert_eq!(theirs, expected.as_ref().map(hex::encode), "entry {index}");
            match (reader.get(index), expected) {
                (Ok(read), Some(expected)) => assert_eq!(&read, expected, "entry {index}"),
                // Nothing to free, nothing gone: an empty entry, or zeros.
                (Ok(read), None) => assert!(read.iter().all(|byte| *byte == 0), "entry {index}"),
                (Err(Error::Cleared { .. }), None) => {}
                (Err(error), _) => panic!("entry {index}: {error}"),
            }
        }
    }
}

/// Has a journal of ours take steps on a folder.
fn ours(folder: &Path, steps: &[Step]) -> Reader {
    let key_pair = KeyPair::from_seed(&SEED);
    let journal = if folder.join("oplog").exists() {
        Journal::open(folder, key_pair, 0).map(|(journal, _)| journal)
    } else {
        Journal::create(folder, key_pair)
    };
    let mut journal = journal.expect("opens");
    for step in steps {
        match step {
            Step::Append(entries) => journal.append(entries).map(drop),
            Step::Truncate(length) => journal.truncate(*length),
            Step::Clear(from, to) => journal.clear(*from, *to),
        }
        .expect("does it");
    }
    drop(journal);
    Reader::open(folder).expect("opens")
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

fn in_turns(manifest: u8, first_is_javascript: Option<bool>) {
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
                let (said, reader) = if by_javascript {
                    let said = javascript(folder.path(), manifest, &placed);
                    (said, Reader::open(folder.path()).expect("opens"))
                } else {
                    let reader = ours(folder.path(), &placed);
                    (javascript(folder.path(), manifest, &[]), reader)
                };
                model.assert_both(&reader, &said);
                // Opening to write changes nothing of it either.
                model.assert_both(&ours(folder.path(), &[]), &said);
            }
            Ok(())
        })
        .expect("they agree");
}

#[test]
fn a_folder_is_written_in_turns() {
    in_turns(0, None);
}

/// What JavaScript makes unless told: a manifest of version 1. Ours keep the key and go on.
#[test]
fn a_folder_that_javascript_has_made_its_own_way_is_written_in_turns() {
    in_turns(1, Some(true));
}
