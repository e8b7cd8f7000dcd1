//! A journal is a list: whatever is appended, cut, cleared and reopened, in whatever order, and at whatever
//! point the power goes. Encrypted or not.

use journal::storage::{Faults, Faulty, Storage};
use journal::{ENCRYPTION_BYTES, EncryptionKey, Error, Journal, KeyPair, Recovery};
use proptest::prelude::*;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[5; 32])
}

fn key() -> EncryptionKey {
    EncryptionKey::from_bytes(&[9; 32])
}

fn create(disk: &Faulty, encrypted: bool) -> Journal {
    let journal = Journal::create_with(Box::new(disk.clone()), pair(), encrypted.then(key).as_ref());
    journal.expect("creates")
}

/// A key that is not needed is not used.
fn open(disk: impl Storage + 'static, witnessed: u64) -> (Journal, Recovery) {
    Journal::open_with(Box::new(disk), pair(), witnessed, Some(&key())).expect("opens")
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    /// Both as parts of the length, of 1 000.
    Clear(u64, u64),
    Truncate(u64),
    Checkpoint,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let entry = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 4_000..9_000usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop_oneof![
        6 => prop::collection::vec(entry, 0..9).prop_map(Step::Append),
        2 => (0..=1_000u64, 0..=1_000u64).prop_map(|(a, b)| Step::Clear(a.min(b), a.max(b))),
        2 => (0..=1_000u64).prop_map(Step::Truncate),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

/// What the journal should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// Each with whether it was cleared.
    entries: Vec<(Vec<u8>, bool)>,
    fork: u64,
}

impl Model {
    fn part(&self, of_1000: u64) -> usize {
        self.entries.len() * usize::try_from(of_1000).expect("small") / 1_000
    }

    /// Takes a step; also what the journal does for it.
    fn step(&mut self, step: &Step, journal: &mut Journal) -> Result<(), Error> {
        match step {
            Step::Append(entries) => {
                self.entries.extend(entries.iter().map(|entry| (entry.clone(), false)));
                journal.append(entries).map(drop)
            }
            Step::Clear(from, to) => {
                let (from, to) = (self.part(*from), self.part(*to));
                self.entries[from..to].iter_mut().for_each(|(_, cleared)| *cleared = true);
                journal.clear(from as u64, to as u64)
            }
            Step::Truncate(to) => {
                let to = self.part(*to);
                self.fork += u64::from(to < self.entries.len());
                self.entries.truncate(to);
                journal.truncate(to as u64)
            }
            Step::Checkpoint => journal.checkpoint(),
            Step::Reopen => Ok(()),
        }
    }

    fn assert_is(&self, journal: &Journal) {
        assert_eq!((journal.length(), journal.fork()), (self.entries.len() as u64, self.fork));
        let more = if journal.is_encrypted() { ENCRYPTION_BYTES } else { 0 };
        let bytes: usize = self.entries.iter().map(|(entry, _)| entry.len() + more).sum();
        assert_eq!(journal.byte_length(), bytes as u64);
        let ranged = journal.reader().range(0, u64::MAX);
        for ((index, (entry, cleared)), ranged) in (0u64..).zip(&self.entries).zip(ranged) {
            for read in [journal.get(index), ranged] {
                match read {
                    Ok(read) => assert_eq!((&read, index), (entry, index)),
                    Err(Error::Absent { index: named }) => assert!(*cleared && named == index),
                    Err(error) => panic!("entry {index}: {error}"),
                }
            }
            match journal.prove(index) {
                Ok(proof) => {
                    proof.verify(&journal.key()).expect("the proof holds");
                    let proven = proof.entries[0].0.clone();
                    assert_eq!(proven.len(), entry.len() + more);
                    let proven = match journal.is_encrypted() {
                        true => key().cipher(&journal.key()).decrypt(index, proven).expect("decrypts"),
                        false => proven,
                    };
                    assert_eq!(&proven, entry);
                }
                Err(Error::Absent { .. }) => assert!(*cleared),
                Err(error) => panic!("entry {index}: {error}"),
            }
        }
        let report = journal.verify(&mut |_, _| {}).expect("in order");
        assert_eq!(report.tree_hash, journal.tree_hash());
        // Zeros that were cleared are zeros still, and count as there.
        assert!(report.absent <= self.entries.iter().filter(|(_, cleared)| *cleared).count() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn it_is_a_list(encrypted: bool, steps in prop::collection::vec(step(), 1..14)) {
        let disk = Faulty::default();
        let mut journal = create(&disk, encrypted);
        let mut model = Model::default();
        for step in &steps {
            model.step(step, &mut journal).expect("does it");
            if matches!(step, Step::Reopen) {
                drop(journal);
                let (again, recovery) = open(disk.clone(), model.entries.len() as u64);
                prop_assert!(!recovery.tail_unproven);
                prop_assert_eq!(again.is_encrypted(), encrypted);
                journal = again;
            }
        }
        model.assert_is(&journal);
    }

    #[test]
    fn what_was_acknowledged_outlives_a_power_loss_anywhere(
        encrypted: bool, steps in prop::collection::vec(step(), 1..10), last in step(),
        at in 0..48u64, keep in 0..12usize, torn in any::<prop::sample::Index>(),
    ) {
        let disk = Faulty::default();
        let mut journal = create(&disk, encrypted);
        let mut before = Model::default();
        for step in &steps {
            before.step(step, &mut journal).expect("does it");
        }
        // The power goes within the last step, or after it.
        disk.set_faults(Faults { fail_from: Some(disk.operations() + at), ..Faults::default() });
        let mut after = before.clone();
        let acknowledged = after.step(&last, &mut journal).is_ok();
        let left = disk.crash(keep, torn.index(10_000));
        let (again, _) = open(left, 0);
        let fork_and_length = (again.fork(), again.length());
        let model = if fork_and_length == (after.fork, after.entries.len() as u64) { &after } else { &before };
        prop_assert!(!acknowledged || std::ptr::eq(model, &raw const after));
        // A clearing that was begun may be done or not.
        let mut model = model.clone();
        for ((_, cleared), (_, begun)) in model.entries.iter_mut().zip(&after.entries) {
            *cleared |= begun;
        }
        model.assert_is(&again);
    }
}
