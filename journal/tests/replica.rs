//! A replica holds what the writer signed, wherever it came from, and nothing else.

use std::collections::BTreeMap;

use journal::replica::{Answer, Failed, Growth, Mirror, Replica, Request, Took, answer, decode, encode};
use journal::storage::{Faults, Faulty, File};
use journal::{EncryptionKey, Error, Journal, KeyPair, Memory, Reader};
use proptest::prelude::*;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[6; 32])
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes().repeat(index as usize % 4)
}

fn written(entries: std::ops::Range<u64>) -> Journal {
    let mut journal = Journal::create_on(Box::new(Memory::default()), pair()).expect("creates");
    append(&mut journal, entries);
    journal
}

fn append(journal: &mut Journal, entries: std::ops::Range<u64>) {
    for first in entries.clone().step_by(7) {
        let batch: Vec<_> = (first..entries.end.min(first + 7)).map(entry).collect();
        journal.append(&batch).expect("appends");
    }
}

fn empty(memory: &Memory) -> Mirror<&'static str> {
    let replica = Replica::create_on(Box::new(memory.clone()), pair().public()).expect("creates");
    Mirror::new(replica)
}

fn reopened(memory: &Memory) -> Mirror<&'static str> {
    Mirror::new(Replica::open_on(Box::new(memory.clone()), pair().public()).expect("opens"))
}

type Lie<'a> = &'a mut dyn FnMut(&str, &Request, Vec<u8>) -> Vec<u8>;
type Sources<'a> = BTreeMap<&'static str, &'a Reader>;

/// Asks and answers until there is nothing more to ask. `lie` may change an answer's bytes; gives who was
/// found to lie.
fn run(mirror: &mut Mirror<&'static str>, sources: &Sources<'_>, lie: Lie<'_>) -> Vec<&'static str> {
    let mut liars = Vec::new();
    sources.keys().for_each(|name| mirror.join(name));
    for _ in 0..100_000 {
        let Some((ticket, name, request)) = mirror.ask().expect("reads") else { return liars };
        let asked: Request = decode(&encode(&request)).expect("reads back");
        assert_eq!(asked, request);
        let bytes = encode(&answer(sources[name], &asked).expect("answers"));
        let taken = match decode::<Answer>(&lie(name, &request, bytes)) {
            Ok(answer) => mirror.answered(ticket, &answer),
            Err(error) => {
                mirror.leave(&name);
                Err(Failed::Lied(name, error))
            }
        };
        match taken {
            Ok(_) => {}
            Err(Failed::Lied(name, _)) => liars.push(name),
            Err(Failed::Stop(error)) => panic!("stopped: {error}"),
        }
    }
    panic!("it asks for ever");
}

fn honest(_: &str, _: &Request, bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn assert_same(replica: &Reader, source: &Reader) {
    assert_eq!(replica.head(), source.head());
    assert_eq!(replica.tree_hash(), source.tree_hash());
    for (index, (ours, theirs)) in (0..).zip(replica.range(0, u64::MAX).zip(source.range(0, u64::MAX))) {
        match theirs {
            Ok(theirs) => assert_eq!(ours.expect("is here"), theirs, "entry {index}"),
            Err(Error::Absent { .. }) => assert!(matches!(ours, Err(Error::Absent { .. }))),
            Err(error) => panic!("the source: {error}"),
        }
    }
    replica.verify(&mut |_, _| {}).expect("in order");
}

#[test]
fn a_replica_follows_and_goes_on_after_a_reopen() {
    let mut journal = written(0..3_000);
    let (memory, source) = (Memory::default(), journal.reader());
    let mut mirror = empty(&memory);
    mirror.join("a");
    assert!(!mirror.is_settled(), "nobody has said anything yet");
    assert!(run(&mut mirror, &Sources::from([("a", &source)]), &mut honest).is_empty());
    assert!(mirror.is_settled());
    assert_same(&mirror.reader(), &source);
    append(&mut journal, 3_000..3_005);
    assert_eq!(mirror.ask().expect("reads"), None, "it rests until it is woken");
    mirror.wake(&"a");
    assert!(run(&mut mirror, &Sources::from([("a", &source)]), &mut honest).is_empty());
    assert_same(&mirror.reader(), &source);
    drop(mirror);
    append(&mut journal, 3_005..4_500);
    let mut mirror = reopened(&memory);
    assert_eq!((mirror.replica().length(), mirror.replica().missing().is_empty()), (3_005, true));
    run(&mut mirror, &Sources::from([("a", &source)]), &mut honest);
    assert_same(&mirror.reader(), &source);
    // The same after its checkpoint, and as a source of its own.
    mirror.into_replica().close().expect("closes");
    let mirror = reopened(&memory);
    assert_same(&mirror.reader(), &source);
    let mut second = empty(&Memory::default());
    run(&mut second, &Sources::from([("replica", &mirror.reader())]), &mut honest);
    assert_same(&second.reader(), &source);
}

/// What goes over is what is stored, though the source has the key; the replica checks what it cannot read.
#[test]
fn an_encrypted_journal_is_followed_without_its_key() {
    let key = EncryptionKey::from_bytes(&[3; 32]);
    let source = Journal::create_with(Box::new(Memory::default()), pair(), Some(&key));
    let mut source = source.expect("creates");
    append(&mut source, 0..20);
    let reader = source.reader();
    let mut mirror = empty(&Memory::default());
    assert_eq!(run(&mut mirror, &BTreeMap::from([("source", &reader)]), &mut honest), Vec::<&str>::new());
    let replica = mirror.replica().reader();
    assert_eq!((replica.head(), replica.tree_hash()), (reader.head(), reader.tree_hash()));
    assert_eq!(replica.verify(&mut |_, _| {}).expect("in order").absent, 0);
    let cipher = key.cipher(&pair().public());
    for index in 0..20 {
        let stored = replica.get(index).expect("is here");
        assert_ne!(stored, entry(index));
        assert_eq!(cipher.decrypt(index, stored).expect("decrypts"), entry(index));
    }
}

#[test]
fn what_one_source_lacks_comes_from_another() {
    let long = written(0..5_500);
    let mut holey = written(0..5_000);
    holey.clear(100, 4_300).expect("clears");
    let short = written(0..4_000);
    let (long_reader, holey, short) = (long.reader(), holey.reader(), short.reader());
    // Alone, a source with holes leaves holes.
    let mut mirror = empty(&Memory::default());
    run(&mut mirror, &Sources::from([("holey", &holey)]), &mut honest);
    let missing: u64 = mirror.replica().missing().iter().map(|range| range.end - range.start).sum();
    assert!((2_100..=4_200).contains(&missing), "{missing}: zeros that were cleared are zeros still");
    assert!(matches!(mirror.reader().get(101), Err(Error::Absent { index: 101 })));
    assert_eq!(mirror.reader().verify(&mut |_, _| {}).expect("in order").absent, missing);
    assert_eq!(mirror.reader().get(4_999).expect("is here"), entry(4_999));
    let mut asked = BTreeMap::new();
    let sources = Sources::from([("holey", &holey), ("long", &long_reader), ("short", &short)]);
    run(&mut mirror, &sources, &mut |name, request, bytes| {
        *asked.entry((name.to_owned(), matches!(request, Request::Entries { .. }))).or_insert(0) += 1;
        bytes
    });
    assert_same(&mirror.reader(), &long_reader);
    assert!(asked.contains_key(&("short".to_owned(), true)), "a shorter source gives what it has: {asked:?}");
}

#[test]
fn no_part_is_asked_of_two_and_a_lost_one_is_asked_again() {
    let journal = written(0..9_000);
    let source = journal.reader();
    let mut mirror = empty(&Memory::default());
    ["a", "b"].into_iter().for_each(|name| mirror.join(name));
    let mut under_way = Vec::new();
    let mut parts = Vec::new();
    while let Some((ticket, name, request)) = mirror.ask().expect("reads") {
        match request {
            Request::Grow { .. } => {
                let answer = answer(&source, &request).expect("answers");
                mirror.answered(ticket, &answer).expect("holds");
            }
            Request::Entries { first, end, .. } => {
                parts.extend(first..end);
                under_way.push((ticket, name));
            }
        }
    }
    let (count, total) = (under_way.len(), parts.len());
    parts.sort_unstable();
    parts.dedup();
    assert_eq!((count, parts.len()), (8, total), "four parts of each, none twice");
    // One goes, the other fails: nothing is lost by it.
    mirror.leave(&"a");
    for (ticket, name) in under_way {
        mirror.failed(ticket);
        assert_eq!(mirror.answered(ticket, &Answer::Same).expect("is forgotten"), Took::Nothing, "{name}");
    }
    mirror.leave(&"b");
    run(&mut mirror, &Sources::from([("c", &source)]), &mut honest);
    assert_same(&mirror.reader(), &source);
    let mut dropped = false;
    while let Some((ticket, ..)) = {
        mirror.wake(&"c");
        mirror.ask().expect("reads")
    } {
        dropped = mirror.failed(ticket);
    }
    assert!(dropped && mirror.sources().count() == 0, "a source that never answers is dropped");
}

/// Whatever byte of whatever answer is changed: the source is dropped, or it made no difference; an honest
/// one completes the copy.
#[test]
fn a_lying_source_is_dropped_at_the_first_bad_node() {
    let journal = written(0..40);
    let source = journal.reader();
    let answers =
        [Request::Grow { fork: 0, since: 0 }, Request::Entries { fork: 0, under: 31, first: 3, end: 9 }]
            .map(|request| encode(&answer(&source, &request).expect("answers")).len());
    let mut lies = 0;
    for (kind, length) in answers.into_iter().enumerate() {
        for place in 0..length {
            let memory = Memory::default();
            let mut mirror = empty(&memory);
            let mut told = false;
            let liars =
                run(&mut mirror, &Sources::from([("liar", &source)]), &mut |_, request, mut bytes| {
                    let this = usize::from(matches!(request, Request::Entries { .. }));
                    if this == kind && !told && place < bytes.len() {
                        bytes[place] ^= 1 << (place % 8);
                        told = true;
                    }
                    bytes
                });
            lies += liars.len();
            let there = mirror.reader();
            for index in 0..there.length() {
                match there.get(index) {
                    Ok(bytes) => assert_eq!(bytes, entry(index), "place {place}"),
                    Err(Error::Absent { .. }) => {}
                    Err(error) => panic!("place {place}: {error}"),
                }
            }
            there.verify(&mut |_, _| {}).expect("in order");
            run(&mut mirror, &Sources::from([("honest", &source)]), &mut honest);
            assert_same(&mirror.reader(), &source);
        }
    }
    assert!(lies > 200, "{lies}");
}

/// A node's hash binds the sum of the sizes below it: a source that shifts bytes from one child to the other
/// would have entries written in the wrong place.
#[test]
fn sizes_that_are_shifted_between_siblings_are_seen() {
    let journal = written(0..64);
    let source = journal.reader();
    let mut mirror = empty(&Memory::default());
    let liars = run(&mut mirror, &Sources::from([("liar", &source)]), &mut |_, request, bytes| {
        let Ok(Answer::Entries(mut slice)) = decode(&bytes) else { return bytes };
        assert!(matches!(request, Request::Entries { .. }));
        let (shown, rest) = (slice.entries.len() / 2, slice.entries.len());
        assert!(rest > 2, "several of them");
        slice.entries.truncate(shown.max(1));
        bytes_of_shifted(&source, slice.under, shown as u64)
    });
    assert_eq!(liars, ["liar"]);
    // Nothing of it was kept.
    assert_eq!(mirror.reader().verify(&mut |_, _| {}).expect("in order").absent, 64);
}

fn bytes_of_shifted(source: &Reader, under: u64, end: u64) -> Vec<u8> {
    let request = Request::Entries { fork: 0, under, first: 1, end };
    let Ok(Answer::Entries(mut slice)) = answer(source, &request) else { panic!("entries") };
    slice.first = 1;
    let [first, .., last] = &mut slice.nodes[..] else { panic!("two nodes") };
    (first.size, last.size) = (first.size + 1, last.size.saturating_sub(1));
    encode(&Answer::Entries(slice))
}

#[test]
fn a_newer_fork_replaces_what_differs_and_keeps_the_rest() {
    for (cut, grown) in [(1_500, 1_700), (1_500, 2_600), (0, 5), (2_000, 2_000), (1_999, 1_999), (1, 1)] {
        let mut journal = written(0..2_100);
        let source = journal.reader();
        let memory = Memory::default();
        let mut mirror = empty(&memory);
        run(&mut mirror, &Sources::from([("a", &source)]), &mut honest);
        journal.truncate(cut).expect("truncates");
        if grown > cut {
            let batch: Vec<_> = (cut..grown).map(|index| format!("other {index}")).collect();
            journal.append(&batch).expect("appends");
        }
        let mut fetched = 0;
        run(&mut mirror, &Sources::from([("a", &source)]), &mut |_, request, bytes| {
            if let (Request::Entries { .. }, Ok(Answer::Entries(slice))) = (request, decode(&bytes)) {
                fetched += slice.entries.len() as u64;
            }
            bytes
        });
        assert_same(&mirror.reader(), &source);
        assert!(fetched <= grown - cut + 1, "{fetched} fetched after {cut} and {grown}");
        drop(mirror);
        let mirror = reopened(&memory);
        assert_same(&mirror.reader(), &source);
        assert!(mirror.replica().missing().is_empty());
    }
}

/// A takeover: the fork rises and no entry goes. Whoever has seen it takes nothing of the writer of the fork before; what that one wrote
/// alone is dropped where it has come to.
#[test]
fn a_fork_that_rose_alone_fences_the_writer_before() {
    for length in [0, 1, 7, 1_024, 2_100] {
        let (mut old, memory) = (written(0..length), Memory::default());
        let mut taken_over = written(0..length);
        taken_over.take_over(0).expect("forks");
        assert_eq!((taken_over.length(), taken_over.fork()), (length, 1));
        taken_over.verify(&mut |_, _| {}).expect("holds");
        old.append(&["late"]).expect("appends on its own disk");
        let mut of_the_old = empty(&memory);
        run(&mut of_the_old, &Sources::from([("old", &old.reader())]), &mut honest);
        assert_eq!(of_the_old.reader().length(), length + 1);
        taken_over.append(&["new", "newer"]).expect("appends");
        // Seen both ways round: the newer fork stands.
        let (before, after) = (old.reader(), taken_over.reader());
        for mirror in [&mut of_the_old, &mut empty(&Memory::default())] {
            mirror.leave(&"old");
            run(mirror, &Sources::from([("new", &after)]), &mut honest);
            run(mirror, &Sources::from([("old", &before), ("new", &after)]), &mut honest);
            assert_same(&mirror.reader(), &after);
        }
    }
}

/// What a copy knows of and has not is what its writer has told nobody about.
#[test]
fn a_copy_with_gaps_is_taken_over_up_to_the_first_one() {
    for gap in [0, 1, 1_000, 1_023, 2_099] {
        let (journal, memory) = (written(0..2_100), Memory::default());
        let mut mirror = empty(&memory);
        let source = journal.reader();
        run(&mut mirror, &Sources::from([("a", &source)]), &mut |_, request, bytes| match request {
            Request::Entries { first, end, .. } if (*first..*end).contains(&gap) => {
                encode(&Answer::Absent { end: *end })
            }
            _ => bytes,
        });
        let first = mirror.replica().missing().iter().next().expect("a gap").start;
        assert!(first <= gap);
        drop(mirror);
        let disk = Box::new(memory.clone());
        let (mut journal, _) = Journal::open_on(disk, pair(), first).expect("opens");
        journal.take_over(0).expect("takes over");
        assert_eq!((journal.length(), journal.fork()), (first, 1));
        assert_eq!(journal.append(&["goes on"]).expect("appends"), first);
        journal.verify(&mut |_, _| {}).expect("holds");
        let (again, _) = {
            drop(journal);
            Journal::open_on(Box::new(memory.clone()), pair(), first + 1).expect("opens")
        };
        let entries = (0..first).all(|index| again.get(index).expect("reads") == entry(index));
        assert!(entries && again.get(first).expect("reads") == b"goes on");
    }
}

#[test]
fn a_writer_that_signs_two_histories_is_found_out() {
    let (one, mut other) = (written(0..50), written(0..20));
    other.append(&(0..60).map(|index| format!("other {index}")).collect::<Vec<_>>()).expect("appends");
    let mut mirror = empty(&Memory::default());
    run(&mut mirror, &Sources::from([("one", &one.reader())]), &mut honest);
    mirror.join("other");
    mirror.wake(&"one");
    let found = loop {
        let (ticket, name, request) = mirror.ask().expect("reads").expect("a question");
        let source = if name == "one" { one.reader() } else { other.reader() };
        match mirror.answered(ticket, &answer(&source, &request).expect("answers")) {
            Ok(_) => {}
            Err(Failed::Stop(error)) => break error,
            Err(Failed::Lied(name, error)) => panic!("{name}: {error}"),
        }
    };
    assert!(matches!(found, Error::Contradiction { fork: 0, .. }), "{found}");
    let mut replica = mirror.into_replica();
    let shorter = written(0..30).reader().prove_range(0, 0, Some(0)).expect("proves");
    assert_eq!(replica.grow(&shorter).expect("the same history"), Growth::None);
}

/// Whatever is flipped on the replica's disk: it is found, dropped, fetched again, and no honest source is
/// blamed.
#[test]
fn a_damaged_replica_heals_from_a_source() {
    let journal = written(0..600);
    let source = journal.reader();
    let memory = Memory::default();
    let mut mirror = empty(&memory);
    run(&mut mirror, &Sources::from([("a", &source)]), &mut honest);
    mirror.into_replica().close().expect("closes");
    let mut healed = 0;
    for file in [File::Data, File::Tree, File::Bitfield] {
        let clean = memory.bytes(file);
        for place in (0..clean.len()).step_by(if file == File::Tree { 37 } else { 11 }) {
            let damaged = memory.copy();
            let mut bytes = clean.clone();
            bytes[place] ^= 0x41;
            damaged.set_bytes(file, bytes);
            let replica = match Replica::open_on(Box::new(damaged.clone()), pair().public()) {
                Ok(replica) => replica,
                // A root: the copy is begun anew.
                Err(Error::Corrupt(_)) if file == File::Tree => continue,
                Err(error) => panic!("{file:?} at {place}: {error}"),
            };
            let mut replica = replica;
            let lost = replica.drop_damaged(&mut |_, _| {}).expect("checks");
            let mut mirror = Mirror::new(replica);
            healed += mirror.replica().missing().iter().count();
            assert!(lost > 0 || file != File::Data, "{file:?} at {place}");
            assert!(run(&mut mirror, &Sources::from([("a", &source)]), &mut honest).is_empty());
            assert_same(&mirror.reader(), &source);
            drop(mirror);
            assert_same(&reopened(&damaged).reader(), &source);
        }
    }
    assert!(healed > 100, "{healed}");
}

/// The power goes at every operation in turn: what was taken is there, and the copy goes on from it.
#[test]
fn a_power_loss_at_any_operation_keeps_what_was_taken() {
    let mut journal = written(0..300);
    let source = journal.reader();
    let life = |disk: &Faulty| {
        let mut taken = Vec::new();
        let Ok(replica) = Replica::create_on(Box::new(disk.clone()), pair().public()) else { return taken };
        let mut mirror = Mirror::new(replica);
        mirror.join("a");
        while let Ok(Some((ticket, _, request))) = mirror.ask() {
            // Small parts, so that there are many.
            let request = match request {
                Request::Entries { fork, first, end, under } => {
                    Request::Entries { fork, under, first, end: end.min(first + 40) }
                }
                grow => grow,
            };
            match mirror.answered(ticket, &answer(&source, &request).expect("answers")) {
                Ok(Took::Filled(range)) => taken.extend(range),
                Ok(_) => {}
                Err(_) => return taken,
            }
        }
        let _ = mirror.into_replica().close();
        taken
    };
    let calm = Faulty::new(Faults::default());
    assert_eq!(life(&calm).len(), 300);
    journal.append(&["one more"]).expect("appends");
    for fail_from in 0..calm.operations() {
        let disk = Faulty::new(Faults { fail_from: Some(fail_from), ..Faults::default() });
        let taken = life(&disk);
        for (keep, torn) in (0..=disk.unsynced()).flat_map(|keep| [(keep, 0), (keep, 7), (keep, 900)]) {
            let left = disk.crash(keep, torn);
            let replica = match Replica::open_on(Box::new(left), pair().public()) {
                Ok(replica) => replica,
                Err(Error::NotCreated) if taken.is_empty() => continue,
                Err(error) => panic!("operation {fail_from}, keep {keep}, torn {torn}: {error}"),
            };
            let lost = taken.iter().find(|index| replica.missing().contains(index));
            assert_eq!(lost, None, "operation {fail_from}, keep {keep}, torn {torn}");
            let mut mirror = Mirror::new(replica);
            assert!(run(&mut mirror, &Sources::from([("a", &journal.reader())]), &mut honest).is_empty());
            assert_same(&mirror.reader(), &journal.reader());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Truncate(u16),
    Clear(u16, u8),
    /// Answers so many questions, of which some are lost.
    Exchange(u8, u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Append),
        1 => any::<u16>().prop_map(Step::Truncate),
        1 => any::<(u16, u8)>().prop_map(|(at, count)| Step::Clear(at, count)),
        6 => any::<(u8, u8)>().prop_map(|(count, lost)| Step::Exchange(count, lost)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Whatever the writer does, and whenever questions are answered or lost: in the end both are the same.
    #[test]
    fn in_the_end_it_is_the_same(steps in prop::collection::vec(step(), 1..40)) {
        let mut journal = written(0..0);
        let memory = Memory::default();
        let mut mirror = empty(&memory);
        let mut serial = 0u32;
        for step in steps {
            let length = journal.length();
            match step {
                Step::Append(count) => {
                    let batch: Vec<_> = (0..count).map(|_| { serial += 1; serial.to_le_bytes() }).collect();
                    journal.append(&batch).expect("appends");
                }
                Step::Truncate(to) => journal.truncate(u64::from(to) % (length + 1)).expect("truncates"),
                Step::Clear(at, count) => {
                    let at = u64::from(at) % (length + 1);
                    journal.clear(at, length.min(at + u64::from(count))).expect("clears");
                }
                Step::Exchange(count, lost) => {
                    mirror.join("a");
                    for number in 0..count {
                        let Some((ticket, _, request)) = mirror.ask().expect("reads") else { break };
                        if number % 8 == lost % 8 {
                            mirror.failed(ticket);
                            mirror.wake(&"a");
                        } else {
                            let answer = answer(&journal.reader(), &request).expect("answers");
                            prop_assert!(mirror.answered(ticket, &answer).is_ok());
                        }
                    }
                }
                Step::Reopen => {
                    drop(mirror);
                    mirror = reopened(&memory);
                }
            }
        }
        prop_assert!(run(&mut mirror, &Sources::from([("a", &journal.reader())]), &mut honest).is_empty());
        let (ours, theirs) = (mirror.reader(), journal.reader());
        if theirs.length() > 0 {
            prop_assert_eq!(ours.head(), theirs.head());
            for index in 0..theirs.length() {
                match (ours.get(index), theirs.get(index)) {
                    (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                    // What was cleared after it was fetched is still here.
                    (_, Err(Error::Absent { .. })) => {}
                    (ours, theirs) => prop_assert!(false, "entry {}: {:?}, {:?}", index, ours, theirs),
                }
            }
        }
        ours.verify(&mut |_, _| {}).expect("in order");
    }
}
