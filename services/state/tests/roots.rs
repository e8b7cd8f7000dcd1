//! Roots: a function of the content alone, the same however blocks and replays are cut.

mod kit;

use std::collections::BTreeMap;

use kit::*;
use proptest::prelude::*;
use protocol::StateRoot;
use protocol::transaction::Transaction;
use sha2::{Digest, Sha256};

type Content = BTreeMap<String, Vec<u8>>;

/// The root of a content by definition (Diem's sparse Merkle tree, as `jmt` publishes it): no keys give
/// the placeholder, one key its leaf, more split on the next bit of the key's hash. Inserts all at once,
/// and shares no code with the tree under test.
fn root_by_definition(content: &Content) -> StateRoot {
    let sha = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
    let leaves: Vec<_> = content.iter().map(|(key, value)| (sha(key.as_bytes()), sha(value))).collect();
    StateRoot::from_bytes(subtree(&leaves, 0))
}

fn subtree(leaves: &[([u8; 32], [u8; 32])], depth: usize) -> [u8; 32] {
    match leaves {
        [] => *b"SPARSE_MERKLE_PLACEHOLDER_HASH__",
        [(key, value)] => Sha256::digest([b"JMT::LeafNode".as_slice(), key, value].concat()).into(),
        _ => {
            let right = |key: &[u8; 32]| key[depth / 8] >> (7 - depth % 8) & 1 == 1;
            let (right, left): (Vec<_>, Vec<_>) = leaves.iter().copied().partition(|(key, _)| right(key));
            let (left, right) = (subtree(&left, depth + 1), subtree(&right, depth + 1));
            Sha256::digest([b"JMT::IntrnalNode".as_slice(), &left, &right].concat()).into()
        }
    }
}

/// What a step does to the content by the rules of `kv`; whether it is carried out.
fn model(content: &mut Content, nonce: u64, (signer, key, value): Step) -> bool {
    let did = cell(signer).to_string();
    content.insert(format!("nonce/{did}"), nonce.to_string().into_bytes());
    let (key, owner) = (format!("kv/k{key}"), format!("kv/@k{key}"));
    let allowed = match content.get(&owner) {
        Some(owner) => *owner == did.as_bytes(),
        None => value.is_some(),
    };
    if allowed {
        match value {
            Some(value) => {
                content.insert(key, format!("v{value}").into_bytes());
                content.insert(owner, did.into_bytes());
            }
            None => {
                content.remove(&key);
                content.remove(&owner);
            }
        }
    }
    allowed
}

fn transaction(nonce: u64, (signer, key, value): Step) -> Transaction {
    match value {
        Some(value) => put(signer, nonce, &format!("k{key}"), &format!("v{value}")),
        None => delete(signer, nonce, &format!("k{key}")),
    }
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = (1u8..4, 0u8..8, proptest::option::weighted(0.6, any::<u8>()));
    prop::collection::vec(prop::collection::vec(step, 0..12), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_root_is_that_of_the_content_and_refusals_change_nothing(blocks in steps()) {
        let (mut bench, mut chain, mut content, mut nonce) = (bench(), Chain::default(), Content::new(), 0);
        prop_assert_eq!(root(&mut bench, None), root_by_definition(&content));
        let mut roots = Vec::new();
        for steps in blocks {
            let (mut transactions, mut expected) = (Vec::new(), Vec::new());
            for step in steps {
                nonce += 1;
                transactions.push(transaction(nonce, step));
                expected.push(model(&mut content, nonce, step));
            }
            let applied = apply(&mut bench, chain.block(transactions));
            prop_assert_eq!(applied.receipts.iter().map(|receipt| receipt.ok).collect::<Vec<_>>(), expected);
            prop_assert_eq!(applied.root, root_by_definition(&content));
            roots.push(applied.root);
        }
        for (at, expected) in (0..).zip(roots) {
            prop_assert_eq!(root(&mut bench, Some(at)), expected);
        }
    }

    #[test]
    fn a_replay_gives_the_same_view_however_it_is_cut(
        blocks in steps(), cuts in prop::collection::vec(0usize..9, 0..6),
    ) {
        let (mut bench, mut chain, mut nonce) = (bench(), Chain::default(), 0);
        for steps in blocks {
            let transactions = steps.into_iter().map(|step| { nonce += 1; transaction(nonce, step) }).collect();
            apply(&mut bench, chain.block(transactions));
        }
        prop_assert_eq!(fold(&bench.journal, &cuts), bench.view.clone());
        let (replayed, before) = bench.replay();
        prop_assert_eq!(replayed, before);
    }

    #[test]
    fn the_root_does_not_depend_on_how_transactions_are_cut_into_blocks(blocks in steps()) {
        let mut nonce = 0;
        let all: Vec<Transaction> =
            blocks.iter().flatten().map(|step| { nonce += 1; transaction(nonce, *step) }).collect();
        let sizes: Vec<usize> = blocks.iter().map(Vec::len).collect();
        let root_of = |sizes: &[usize]| {
            let (mut bench, mut chain, mut rest) = (bench(), Chain::default(), all.as_slice());
            for size in sizes {
                let (now, later) = rest.split_at(*size);
                apply(&mut bench, chain.block(now.to_vec()));
                rest = later;
            }
            root(&mut bench, None)
        };
        prop_assert_eq!(root_of(&sizes), root_of(&[all.len()]));
    }
}
