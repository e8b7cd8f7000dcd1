//! Acknowledged means durable: a crash at any operation, with any part of what was not synced on disk,
//! keeps every acknowledged batch whole, and of the last one all or nothing.

use journal::storage::{Faults, Faulty};
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
        let disk = Faulty::new(Faults { fail_from: Some(fail_from) });
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
    let bytes = left.bytes(journal::storage::File::Oplog);
    let torn = left.copy();
    torn.set_bytes(journal::storage::File::Oplog, bytes[..bytes.len() - 3].to_vec());
    let result = Journal::open_on(Box::new(torn.clone()), pair(), acknowledged);
    assert!(matches!(result, Err(Error::ShorterThanWitnessed { .. })));
    assert_eq!(torn.bytes(journal::storage::File::Oplog).len(), bytes.len() - 3, "nothing was cut");
    let (_, recovery) =
        Journal::open_on(Box::new(torn), pair(), acknowledged - 3).expect("opens for a lesser witness");
    assert!(recovery.tail_unproven);
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_batch_leaves_the_batches_before() {
    let disk = Faulty::new(Faults::default());
    let mut journal = Journal::create_on(Box::new(disk.clone()), pair()).expect("creates");
    journal.append(&batch(1)).expect("appends");
    let before = disk.crash(0, 0).bytes(journal::storage::File::Oplog).len();
    journal.append(&batch(2)).expect("appends");
    let whole = disk.crash(0, 0);
    let oplog = whole.bytes(journal::storage::File::Oplog);
    for end in before..oplog.len() {
        let torn = whole.copy();
        torn.set_bytes(journal::storage::File::Oplog, oplog[..end].to_vec());
        let (journal, _) = Journal::open_on(Box::new(torn), pair(), 0).expect("opens");
        assert_eq!(journal.length(), batch(1).len() as u64, "cut at {end}");
    }
}
