//! No content of the files makes a journal panic or hand out bytes that were not signed.

use journal::storage::{File, Memory};
use journal::{Journal, KeyPair};
use proptest::prelude::*;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[9; 32])
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").into_bytes().repeat(index as usize % 5)
}

fn written() -> Memory {
    let memory = Memory::default();
    let mut journal = Journal::create_on(Box::new(memory.clone()), pair()).expect("creates");
    for first in (0..40).step_by(4) {
        journal.append(&(first..first + 4).map(entry).collect::<Vec<_>>()).expect("appends");
        if first == 20 {
            journal.checkpoint().expect("checkpoints");
        }
    }
    memory
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_damaged_journal_gives_right_bytes_or_an_error(
        file in prop::sample::select(vec![File::Oplog, File::Tree, File::Data]),
        place in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>(),
    ) {
        let memory = written();
        let mut bytes = memory.bytes(file);
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] ^= flip }
        memory.set_bytes(file, bytes);
        if let Ok((journal, _)) = Journal::open_on(Box::new(memory), pair(), 0) {
            for index in 0..journal.length() {
                if let Ok(read) = journal.get(index) {
                    prop_assert_eq!(read, entry(index));
                }
            }
            let clean = journal.verify(&mut |_, _| {}).is_ok();
            prop_assert!(!clean || journal.length() <= 40);
        }
    }
}

#[test]
fn a_flipped_bit_of_a_checkpointed_entry_is_named() {
    let memory = written();
    let mut data = memory.bytes(File::Data);
    data[0] ^= 1;
    memory.set_bytes(File::Data, data);
    let (journal, _) =
        Journal::open_on(Box::new(memory), pair(), 40).expect("opens: it does not read the whole log");
    let error = journal.verify(&mut |_, _| {}).expect_err("damaged");
    assert!(error.to_string().contains("entry 1 "), "{error}");
}
