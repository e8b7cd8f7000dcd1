//! The fuzz targets of `journal/fuzz` on stable: every input of the corpus, and thousands of changes of them.
//! `HOSTILE_CASES` says how many; `cargo xtask campaign fuzz` goes on for longer, guided by coverage.

#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use journal::replica::{Answer, Request, answer, encode};
use journal::storage::Memory;
use journal::{Journal, KeyPair};
use nix::sys::resource::{Resource, setrlimit};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestCaseError, TestRunner};

/// What this whole program may take of memory: much more than any input needs, and less than a length
/// that was believed.
const MEMORY_BYTES_MAX: u64 = 3 << 30;

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    /// One of the numbers at which bounds lie.
    Number(Index, usize),
    Cut(Index),
    Take(Index, usize),
    Insert(Index, Vec<u8>),
    /// A part of another input over a part of this one.
    Splice(Index, Index, Index, usize),
}

const NUMBERS: [&[u8]; 7] = [
    &[0; 8],
    &[0xff; 9],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0, 0, 0, 0, 0, 1, 0, 0],
    &[0xfe, 0xff, 0xff, 0xff, 0xff],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0],
];

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<Index>;
        prop_oneof![
            (place(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (place(), 0..8u8).prop_map(|(at, bit)| Self::Flip(at, 1 << bit)),
            (place(), 0..NUMBERS.len()).prop_map(|(at, number)| Self::Number(at, number)),
            place().prop_map(Self::Cut),
            (place(), 1..50usize).prop_map(|(at, count)| Self::Take(at, count)),
            (place(), prop::collection::vec(any::<u8>(), 1..20))
                .prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (place(), place(), place(), 1..400usize)
                .prop_map(|(at, of, from, count)| Self::Splice(at, of, from, count)),
        ]
    }

    fn make(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = |at: &Index, length: usize| at.index(length + 1);
        let over = |input: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            let end = input.len().min(at + bytes.len());
            input.splice(at..end, bytes.iter().copied());
        };
        match self {
            Self::Set(place, byte) => over(input, at(place, input.len()), &[*byte]),
            Self::Flip(place, bit) => {
                let place = at(place, input.len());
                input.get_mut(place).into_iter().for_each(|byte| *byte ^= bit);
            }
            Self::Number(place, number) => over(input, at(place, input.len()), NUMBERS[*number]),
            Self::Cut(place) => input.truncate(at(place, input.len())),
            Self::Take(place, count) => {
                let from = at(place, input.len());
                input.drain(from..input.len().min(from + count));
            }
            Self::Insert(place, bytes) => {
                let place = at(place, input.len());
                input.splice(place..place, bytes.iter().copied());
            }
            Self::Splice(place, of, from, count) => {
                let other = of.get(corpus);
                let from = at(from, other.len());
                over(input, at(place, input.len()), &other[from..other.len().min(from + count)]);
            }
        }
    }
}

fn folder(target: &str) -> PathBuf {
    // Asked when it runs: a build that is kept may be of another folder.
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo test runs it");
    Path::new(&package).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder(target))
        .expect("the corpus is there")
        .map(|entry| entry.expect("read").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("read")).collect()
}

/// Runs a target on its corpus and on changes of it; `kind` is the way the first byte says to read them.
fn check(target: &str, run: fn(&[u8]), kinds: u8) {
    setrlimit(Resource::RLIMIT_AS, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX).expect("a bound on memory");
    let corpus = corpus(target);
    assert!(corpus.len() >= 8, "the corpus of {target} is lost");
    corpus.iter().for_each(|input| run(input));
    let cases = std::env::var("HOSTILE_CASES").map_or(Ok(10_000), |cases| cases.parse()).expect("a number");
    let mut runner = TestRunner::new(ProptestConfig { cases, ..ProptestConfig::with_source_file(file!()) });
    let changed = (any::<Index>(), 0..2 * kinds, prop::collection::vec(Change::any(), 0..6));
    let result = runner.run(&changed, |(of, kind, changes)| {
        let mut input = of.get(&corpus).clone();
        changes.iter().for_each(|change| change.make(&mut input, &corpus));
        if kind < kinds && !input.is_empty() {
            input[0] = kind;
        }
        run(&input);
        Ok::<(), TestCaseError>(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn no_folder_makes_a_journal_panic_or_lie() {
    check("open", targets::open, 3);
}

#[test]
fn no_proof_makes_its_reader_panic_or_believe() {
    check("proof", targets::proof, 2);
}

#[test]
fn no_frame_makes_a_source_or_a_replica_panic_or_believe() {
    check("frames", targets::frames, 2);
}

/// Seeds from real journals and proofs. When the format or a target's reading of its input changes, make them
/// anew: `RENEW_SEEDS=1 cargo test --release -p journal --test hostile`.
#[test]
fn the_seeds_are_what_the_code_makes_today() {
    let renew = std::env::var_os("RENEW_SEEDS").is_some();
    let seed = |target: &str, name: &str, bytes: Vec<u8>| {
        let file = folder(target).join(format!("seed-{name}"));
        if renew {
            fs::write(&file, &bytes).expect("written");
        }
        let there = fs::read(&file).unwrap_or_default();
        assert!(there == bytes, "{} is out of date: set RENEW_SEEDS=1", file.display());
    };
    let kinds = |name: &str, files: &Memory| {
        let mut input = targets::folder::pack(files);
        seed("open", &format!("{name}-raw"), input.clone());
        input[0] = 1;
        seed("open", &format!("{name}-mended"), input);
    };
    let files = Memory::default();
    let pair = KeyPair::from_seed(&targets::SEED);
    let mut journal = Journal::create_on(Box::new(files.clone()), pair.clone()).expect("creates");
    kinds("empty", &files);
    journal.append(&["one", "", "three"]).expect("appends");
    journal.append(&["four"]).expect("appends");
    kinds("pending", &files);
    journal.checkpoint().expect("checkpoints");
    kinds("checkpointed", &files);
    journal.append(&[[5; 9]; 9]).expect("appends");
    kinds("both", &files);
    journal.truncate(11).expect("cuts");
    journal.append(&["after"]).expect("appends");
    kinds("truncated", &files);
    journal.clear(2, 5).expect("clears");
    journal.append(&["more"]).expect("appends");
    kinds("cleared", &files);
    for (number, script) in [
        &[2, 0, 5, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 0, 0, 0][..],
        &[2, 0, 3, 3, 0, 4, 0, 5, 0, 0, 0, 0, 0, 0, 2, 7, 0, 8, 0, 0, 0, 0, 0, 0],
        &[2, 0, 6, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 0, 0],
        &[2, 0, 6, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 0, 7, 60, 0, 3, 1, 2, 0, 0, 0, 0, 3, 1, 1, 0, 0],
        &[
            2, 0, 6, 3, 199, 4, 199, 5, 0, 6, 0, 7, 0, 8, 0, 0, 0, 0, 0, 1, 3, 9, 197, 9, 0, 9, 0, 0, 0, 0,
            0, 0,
        ],
        &[
            2, 196, 4, 3, 0, 4, 0, 5, 0, 6, 0, 0, 0, 0, 0, 3, 0, 200, 0, 196, 1, 2, 3, 0, 3, 0, 0, 0, 0, 195,
            196,
        ],
    ]
    .into_iter()
    .enumerate()
    {
        seed("open", &format!("script-{number}"), script.to_vec());
    }

    let (log, _) = targets::folder::known_log();
    let mut journal = Journal::create_on(Box::new(Memory::default()), pair).expect("creates");
    for entry in &log {
        journal.append(&[entry]).expect("appends");
    }
    let length = journal.length();
    for (first, end, since) in [
        (0, 1, None),
        (7, 9, Some(5)),
        (0, length, None),
        (0, 0, Some(16)),
        (22, 23, Some(23)),
        (9, 9, Some(0)),
    ] {
        let proof = journal.reader().prove_range(first, end, since).expect("proves");
        let name = format!("{first}-{end}-since-{since:?}").replace(['(', ')'], "").to_lowercase();
        seed("proof", &format!("cbor-{name}"), [&[0], &proof.to_cbor()[..]].concat());
        let json = serde_json::to_vec(&proof).expect("JSON");
        seed("proof", &format!("json-{name}"), [&[1], &json[..]].concat());
    }

    let reader = journal.reader();
    let grow = Request::Grow { fork: 0, since: 0 };
    let entries = |under, first, end| Request::Entries { fork: 0, under, first, end };
    let honest = |request: &Request| encode(&answer(&reader, request).expect("answers"));
    let frame = |bytes: Vec<u8>| [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat();
    for (name, request) in [
        ("grow", grow.clone()),
        ("grow-newer", Request::Grow { fork: 1, since: 3 }),
        ("grow-since", Request::Grow { fork: 0, since: 16 }),
        ("entries", entries(15, 0, 16)),
        ("entries-some", entries(35, 17, 19)),
        ("entries-outside", entries(15, 15, 17)),
    ] {
        seed("frames", &format!("ask-{name}"), [&[0], &encode(&request)[..]].concat());
    }
    for (name, frames) in [
        ("honest", vec![]),
        ("grown", vec![honest(&grow)]),
        (
            "all",
            vec![
                honest(&grow),
                encode(&Answer::Same),
                honest(&entries(15, 0, 16)),
                honest(&entries(35, 16, 20)),
            ],
        ),
        ("some", vec![honest(&grow), encode(&Answer::Same), honest(&entries(15, 0, 3))]),
        ("absent", vec![honest(&grow), encode(&Answer::Same), encode(&Answer::Absent { end: 9 })]),
        ("behind", vec![encode(&Answer::Behind { fork: 0, length: 7 })]),
    ] {
        let frames: Vec<u8> = frames.into_iter().flat_map(frame).collect();
        seed("frames", &format!("answers-{name}"), [&[1], &frames[..]].concat());
    }
}
