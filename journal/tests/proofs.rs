//! What a proof promises: it holds for the log it was made of, without the log; and nothing else passes.

use journal::storage::Memory;
use journal::{Error, Journal, KeyPair, Proof};
use proptest::prelude::*;

fn pair() -> KeyPair {
    KeyPair::from_seed(&[3; 32])
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index} ").into_bytes().repeat(usize::try_from(index % 5).expect("small"))
}

/// A log of this length, and the tree hash it had at each length before.
fn log(length: u64) -> (Journal, Vec<[u8; 32]>) {
    let mut journal = Journal::create_on(Box::new(Memory::default()), pair()).expect("creates");
    let mut hashes = vec![journal.tree_hash()];
    for index in 0..length {
        journal.append(&[entry(index)]).expect("appends");
        hashes.push(journal.tree_hash());
    }
    (journal, hashes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_proof_holds_without_the_log(
        length in 1..200u64, from in 0..=1_000u64, to in 0..=1_000u64, since in prop::option::of(0..=1_000u64),
    ) {
        let (journal, hashes) = log(length);
        let (from, to) = (length * from.min(to) / 1_000, length * from.max(to) / 1_000);
        let since = since.map(|part| length * part / 1_000);
        let proof = journal.reader().prove_range(from, to, since).expect("proves");
        for read in [
            Proof::from_cbor(&proof.to_cbor()).expect("CBOR"),
            serde_json::from_str(&serde_json::to_string(&proof).expect("JSON")).expect("JSON"),
        ] {
            prop_assert_eq!(&read, &proof);
            let proven = read.verify(&pair().public()).expect("holds");
            prop_assert_eq!(proven.tree_hash, journal.tree_hash());
            prop_assert_eq!(proven.byte_length, journal.byte_length());
            prop_assert_eq!(proven.tree_hash_since, since.map(|since| hashes[since as usize]));
            for (index, shown) in (from..).zip(&read.entries) {
                prop_assert_eq!(&shown.0, &entry(index));
            }
        }
        // Its tree part is as small as can be: two ways down at most, and one for the shorter log.
        prop_assert!(proof.nodes.len() as u64 <= 3 * (64 - u64::from(length.leading_zeros())) + 3);
    }

    #[test]
    fn a_changed_proof_does_not_pass(
        length in 2..100u64, at in any::<prop::sample::Index>(), flip in 1u8..,
        from in any::<prop::sample::Index>(), count in 0..4u64, since in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (journal, hashes) = log(length);
        let from = from.index(usize::try_from(length).expect("small")) as u64;
        let since = since.map(|since| since.index(usize::try_from(length).expect("small")) as u64);
        let proof = journal.reader().prove_range(from, length.min(from + count), since).expect("proves");
        let mut bytes = proof.to_cbor();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(changed) = Proof::from_cbor(&bytes)
            && let Ok(proven) = changed.verify(&pair().public())
        {
            // Sizes of siblings can be shifted against each other; nothing that is shown changes by that.
            prop_assert_eq!(proven.tree_hash, journal.tree_hash());
            prop_assert_eq!(&changed.entries, &proof.entries);
            // Where nothing is shown, it is shown nowhere.
            prop_assert!(changed.first == proof.first || proof.entries.is_empty());
            if let (Some(since), Some(shown)) = (changed.since, proven.tree_hash_since) {
                prop_assert_eq!(shown, hashes[since as usize]);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(proof) = Proof::from_cbor(&bytes) {
            prop_assert!(proof.verify(&pair().public()).is_err());
        }
    }
}

#[test]
fn what_cannot_be_proven_is_refused() {
    let (mut journal, _) = log(10);
    let reader = journal.reader();
    for (from, to, since) in [(0, 11, None), (11, 11, None), (3, 2, None), (0, 1, Some(11))] {
        assert!(matches!(reader.prove_range(from, to, since), Err(Error::NoEntry { .. })), "{from} {to}");
    }
    let proof = reader.prove(4).expect("proves");
    assert!(matches!(proof.verify(&KeyPair::from_seed(&[4; 32]).public()), Err(Error::WrongKey)));
    let mut huge = proof.clone();
    huge.length = u64::MAX;
    assert!(matches!(huge.verify(&pair().public()), Err(Error::BadProof(_))));
    journal.checkpoint().expect("checkpoints");
    journal.clear(4, 5).expect("clears");
    assert!(matches!(reader.prove(4), Err(Error::Absent { index: 4 })));
    reader.prove(3).expect("its neighbour is proven still").verify(&pair().public()).expect("holds");
}

#[test]
fn a_byte_is_found_in_its_entry() {
    let (journal, _) = log(57);
    let reader = journal.reader();
    let mut byte = 0;
    for index in 0..57 {
        for within in 0..entry(index).len() as u64 {
            assert_eq!(reader.seek(byte).expect("found"), (index, within));
            byte += 1;
        }
    }
    assert!(matches!(reader.seek(byte), Err(Error::NoByte { .. })));
}
