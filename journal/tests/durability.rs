//! Acknowledged means durable: a crash at any operation, with any part of what was not synced on disk,
//! keeps every acknowledged batch whole, and of the last one all or nothing.

use journal::storage::{Faults, Faulty, File};
use journal::{Error, Journal, KeyPair};

fn pair() -> KeyPair {
    KeyPair::from_seed(&[7; 32])
}

fn batch(number: u64) -> Vec<Vec<u8>> {
    (0..1 + number % 4)
        .map(|part| format!("batch {number} part {part}").into_bytes().repeat(1 + number as usize % 3))
        .collect()
}

/// Appends batches, with a checkpoint now and then, until the disk fails; gives what was acknowledged.
fn work(disk: &Faulty, batches: u64) -> Vec<Vec<u8>> {
    let mut acknowledged = Vec::new();
    let Ok(mut journal) = Journal::create_on(Box::new(disk.clone()), pair()) else { return acknowledged };
    for number in 0..batches {
        if journal.append(&batch(number)).is_err() {
            assert!(
                matches!(journal.append(&batch(number)), Err(Error::Faulted)),
                "a failed journal takes no more"
            );
            return acknowledged;
        }
        acknowledged.extend(batch(number));
        if number % 5 == 4 && journal.checkpoint().is_err() {
            return acknowledged;
        }
    }
    acknowledged
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_acknowledged() {
    let calm = Faulty::new(Faults::default());
    let all = work(&calm, 12);
    let whole: Vec<Vec<u8>> = (0..13).flat_map(batch).collect();
    assert!(whole.starts_with(&all));
    for fail_from in 0..calm.operations() {
        let disk = Faulty::new(Faults { fail_from: Some(fail_from), ..Faults::default() });
        let acknowledged = work(&disk, 12);
        for keep in 0..=disk.unsynced() {
            for torn in [0, 1, 9, 40, 5000] {
                let left = disk.crash(keep, torn);
                match Journal::open_on(Box::new(left), pair(), 0) {
                    Ok((journal, _)) => {
                        let there: Vec<Vec<u8>> =
                            journal.reader().range(0, u64::MAX).map(|e| e.expect("reads")).collect();
                        assert!(
                            there.starts_with(&acknowledged),
                            "lost at operation {fail_from}, keep {keep}, torn {torn}"
                        );
                        assert!(
                            whole.starts_with(&there),
                            "invented at operation {fail_from}, keep {keep}, torn {torn}"
                        );
                        journal.verify(&mut |_, _| {}).expect("verifies");
                    }
                    Err(Error::NotCreated) => assert!(acknowledged.is_empty()),
                    Err(error) => panic!("operation {fail_from}, keep {keep}, torn {torn}: {error}"),
                }
            }
        }
    }
}

#[test]
fn a_log_shorter_than_a_witness_has_seen_is_refused_and_left_alone() {
    let disk = Faulty::new(Faults::default());
    let acknowledged = work(&disk, 3).len() as u64;
    let left = disk.crash(0, 0);
    let bytes = left.bytes(File::Oplog);
    let torn = left.copy();
    torn.set_bytes(File::Oplog, bytes[..bytes.len() - 3].to_vec());
    let result = Journal::open_on(Box::new(torn.clone()), pair(), acknowledged);
    assert!(matches!(result, Err(Error::ShorterThanWitnessed { .. })));
    assert_eq!(torn.bytes(File::Oplog).len(), bytes.len() - 3, "nothing was cut");
    let (_, recovery) =
        Journal::open_on(Box::new(torn), pair(), acknowledged - 3).expect("opens for a lesser witness");
    assert!(recovery.tail_unproven);
}

/// Of the last three batches, all those that are whole in both files are there, and it is said that others
/// may have been.
#[test]
fn a_tail_torn_at_any_byte_of_the_last_batches_leaves_those_before() {
    let disk = Faulty::new(Faults::default());
    let mut journal = Journal::create_on(Box::new(disk.clone()), pair()).expect("creates");
    // What each batch leaves: entries, and how long the two files are then.
    let mut whole = Vec::new();
    for number in 1..=4 {
        journal.append(&batch(number)).expect("appends");
        let files = disk.crash(0, 0);
        whole.push((journal.length(), files.bytes(File::Oplog).len(), files.bytes(File::Data).len()));
    }
    drop(journal);
    let files = disk.crash(0, 0);
    for file in [File::Oplog, File::Data] {
        let bytes = files.bytes(file);
        let end_of = |(_, oplog, data): (u64, usize, usize)| if file == File::Oplog { oplog } else { data };
        for end in end_of(whole[0])..bytes.len() {
            // Cut there, and with what a disk may leave behind the cut.
            for rest in [None, Some(0), Some(0xa5)] {
                let torn = files.copy();
                let mut left = bytes[..end].to_vec();
                if let Some(byte) = rest {
                    left.resize(bytes.len(), byte);
                }
                if left == bytes {
                    continue;
                }
                torn.set_bytes(file, left);
                let (journal, recovery) = Journal::open_on(Box::new(torn), pair(), 0).expect("opens");
                let kept = whole.iter().rev().find(|batch| end_of(**batch) <= end).expect("the first one");
                let at_least = kept.0;
                assert!(journal.length() >= at_least, "{file:?} cut at {end}, {rest:?}");
                assert!(whole.iter().any(|(length, ..)| *length == journal.length()), "a whole batch");
                // Zeros behind a whole batch are room that was made beforehand.
                let room = file == File::Oplog && rest == Some(0) && end == end_of(*kept);
                let boundary = file == File::Oplog && rest.is_none() && end == end_of(*kept);
                assert!(
                    recovery.tail_unproven || room || boundary,
                    "{file:?} cut at {end}, {rest:?}: unsaid"
                );
                journal.verify(&mut |_, _| {}).expect("in order");
            }
        }
    }
}
