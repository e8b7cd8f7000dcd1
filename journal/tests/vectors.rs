//! The format, byte for byte: values measured on the JavaScript package `hypercore` 10.

use journal::storage::{File, Memory};
use journal::{Journal, KeyPair, hash};

fn pair() -> KeyPair {
    KeyPair::from_seed(&[0x2a; 32])
}

fn fresh() -> (Memory, Journal) {
    let memory = Memory::default();
    let journal = Journal::create_on(Box::new(memory.clone()), pair()).expect("creates");
    (memory, journal)
}

#[test]
fn keys_and_leaves() {
    let key = pair().public();
    assert_eq!(key.to_string(), "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61");
    assert_eq!(
        hex::encode(key.discovery_key()),
        "627f57cc851c912659941c91bcb560d1aee55f37050a82aed6bb8af7efc46357"
    );
    assert_eq!(
        hex::encode(hash::leaf(b"")),
        "5187b7a8021bf4f2c004ea3a54cfece1754f11c7624d2363c7f4cf4fddd1441e"
    );
    assert_eq!(
        hex::encode(hash::leaf(b"hello")),
        "f2391083cfaa8043205fed76cdff843902146ca92aebcd7a196814ec45d8c8f8"
    );
}

#[test]
fn tree_hashes_and_signatures_of_a_short_life() {
    let (memory, mut journal) = fresh();
    let at =
        |journal: &Journal, tree_hash: &str| assert!(hex::encode(journal.tree_hash()).starts_with(tree_hash));
    at(&journal, "bb30a42c1e62f0afda5f0a4e8a562f7a13a24cea00ee81917b86b89e801314aa");
    journal.append(&["hello"]).expect("appends");
    at(&journal, "b63bcd157c3725b402f0689f84ae3d04734d14fd2ebef2e10101447142e73305");
    assert!(hex::encode(journal.prove(0).expect("proves").signature).starts_with("ecefc554547c60db"));
    journal.append(&["world"]).expect("appends");
    at(&journal, "28ac717e6b6a3fe16b4363f16cf1a308edceccf4a05ec501bd05fdbe5b42215b");
    assert!(hex::encode(journal.prove(0).expect("proves").signature).starts_with("aa34d277fde07aba"));
    journal.append(&["a", "bb", "ccc"]).expect("appends");
    at(&journal, "dd47047bd51edaa8f8a9340a8954ce6873cd48c888c5149523ccdac2062d370f");
    assert!(hex::encode(journal.prove(0).expect("proves").signature).starts_with("5098ed6c1bf2e1e7"));
    journal.checkpoint().expect("checkpoints");
    let file = |file| blake2b_simd_hex(&memory.bytes(file));
    // Lengths of the files after the checkpoint, as measured; their content is checked by reopening.
    assert_eq!(memory.bytes(File::Tree).len(), 360);
    assert_eq!(memory.bytes(File::Bitfield)[0], 0x1f);
    assert_eq!(memory.bytes(File::Bitfield).len(), 4096);
    assert_eq!(memory.bytes(File::Data), b"helloworldabbccc");
    assert_eq!(memory.bytes(File::Oplog).len(), 8192);
    assert_ne!(file(File::Tree), file(File::Data));
}

fn blake2b_simd_hex(bytes: &[u8]) -> String {
    hex::encode(hash::leaf(bytes))
}

/// The oplog entry of the notes: "world" appended after a checkpoint of "hello", byte for byte.
#[test]
fn an_oplog_entry_byte_for_byte() {
    let (memory, mut journal) = fresh();
    journal.append(&["hello"]).expect("appends");
    journal.checkpoint().expect("checkpoints");
    journal.append(&["world"]).expect("appends");
    let expected = concat!(
        "f64ca936350200000e020205993ec5ef8bbc7f1d174f00e650b8d51599124a9bf93885f33cec5b9060b75c1c010a56826d33f98cbe17",
        "57d804b3ad818a97b61d7ae83d505ba5ca4fb619646355f900010240aa34d277fde07abac0e8e58a3144011491cc51b352092077f508",
        "9c9cec1aa6cd51238320a70106c2d9d2a6f327a787b673d3b2a0708c583833c02fb89d983c09000101"
    );
    assert_eq!(hex::encode(&memory.bytes(File::Oplog)[8192..]), expected);
}

/// A folder as the JavaScript package writes it, key pair in its header: read, and appended to.
#[test]
fn a_header_with_a_key_pair_is_read() {
    let header = concat!(
        "5908723cbd0400000106197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61000001004144eea531e483d5",
        "4e0c14f4ca68e0644f355343ff6fcb0f005200e12cd747cb197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d36",
        "8d6120197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61402a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a",
        "2a2a2a2a2a2a2a2a2a2a2a2a2a2a197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d6100000120b63bcd15",
        "7c3725b402f0689f84ae3d04734d14fd2ebef2e10101447142e7330540ecefc554547c60dbb0da01e1972de50ba5dd9da2644f03f04a",
        "fcebecf89cd6c3019533b205ff6165d9f301d94e283f4251e7bd049296c892fd5fb7d00e95d0080001"
    );
    // Slot 0 is the header of the creation, slot 1 the one after "hello" was flushed.
    let (memory, _) = fresh();
    let mut oplog = memory.bytes(File::Oplog);
    let slot = hex::decode(header).expect("hex");
    oplog[4096..4096 + slot.len()].copy_from_slice(&slot);
    memory.set_bytes(File::Oplog, oplog);
    memory.set_bytes(File::Data, b"hello".to_vec());
    let mut leaf = 5u64.to_le_bytes().to_vec();
    leaf.extend_from_slice(&hash::leaf(b"hello"));
    memory.set_bytes(File::Tree, leaf);
    let (mut journal, recovery) = Journal::open_on(Box::new(memory), pair(), 1).expect("opens");
    assert_eq!((journal.length(), recovery.tail_unproven), (1, false));
    assert_eq!(journal.get(0).expect("reads"), b"hello");
    journal.append(&["world"]).expect("appends");
    assert!(hex::encode(journal.tree_hash()).starts_with("28ac717e"));
}

#[test]
fn longer_logs() {
    let expected = [
        (1, "6b0b9931b6c6a4eadcec436bbdf34f1a2bee1d4a881b40564b5d129432e3a14f", "1e5c7bda672b379f"),
        (2, "555e1ddcec5e70fbee87974bbb65fe2747fef5a0c6595c1a0c7e6d93f154d8c5", "ea2a0b12241b604c"),
        (3, "5c4bb809071fab1feb4f0dae09569b7f0ea1c059f68abf6bf602246243e584a2", "523632f27428ea2f"),
        (4, "f42d412a4f8a37c3ada5e296db33924728b093926fa79068411a736b35c777ae", "50b9976d1d2799d1"),
        (5, "239e47d52108a23b0d7bae29a4480fa9b694756612f703a1a654153dc5fbf85e", "f41d4d400a70e62e"),
        (7, "ad70ab241c7f1bdf8346762de23d376b65781e5a887b680af9b3feb53942c063", "f32abaf9a734f68e"),
        (8, "85a2c6754323d63b06e8ac2ccf37903ca14da94194e700dc3d2b8888dfb2c1c2", "bf90fdf755465369"),
        (17, "0aeee37ea276fb14426eef45f2ca6c9f01582513fc4770d70c45564527918c0c", "b644c3276444dca4"),
        (100, "89393f83c716f433c25fc517a2f5371e06f13517f24023698b9404ec9e4aac0e", "a264df67d781a3fe"),
        (1000, "3b5805b2b54b76df1d48ebe558fdbe6f4b14066572630179e6dbf27a8b30c19a", "a33bebf516c21927"),
    ];
    let (memory, mut journal) = fresh();
    for (length, tree_hash, signature) in expected {
        let batch: Vec<String> = (journal.length()..length).map(|index| index.to_string()).collect();
        journal.append(&batch).expect("appends");
        assert_eq!(hex::encode(journal.tree_hash()), tree_hash, "length {length}");
        let proof = journal.prove(length - 1).expect("proves");
        assert!(hex::encode(proof.signature).starts_with(signature), "length {length}");
        proof.verify(&journal.key()).expect("the proof holds");
        assert_eq!(proof.entries[0].0, (length - 1).to_string().as_bytes());
    }
    drop(journal);
    let (journal, _) = Journal::open_on(Box::new(memory), pair(), 1000).expect("opens");
    assert_eq!(journal.verify(&mut |_, _| {}).expect("verifies").entries, 1000);
    assert_eq!(hex::encode(journal.reader().tree_hash_at(17).expect("known")), expected[7].1);
}
