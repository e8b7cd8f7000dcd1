//! Clients that trust a genesis alone: through changes of members, block by block and transaction by transaction.

mod kit;

use std::sync::Arc;

use kit::*;
use machine::testing::Bench;
use proptest::prelude::*;
use protocol::MemberKey;
use protocol::block::{Attestation, Block, BlockProof, TxProof};
use protocol::genesis::Member;
use protocol::members::{Handoff, MemberSet, SET_KEY};
use protocol::shared::Empty;
use protocol::state::{KeyProof, Request};
use serde_json::json;
use state::{LightClient, StateMachine};

fn set(numbers: &[u8]) -> MemberSet {
    MemberSet::new(numbers.iter().map(|number| Member::new(cell(*number), 1)).collect())
}

/// Blocks 0 to 3, ordered by member 1; 1; 2 and 3; 4. Each has some transactions; 1 and 2 end with the next members. The proofs of the
/// changes, too.
fn history() -> (Vec<BlockProof>, Vec<Handoff>) {
    let machine = machine_of(vec![Arc::new(state::kv::Kv), Arc::new(Chosen)]);
    let mut bench: Bench<StateMachine> = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    let (mut chain, mut nonce) = (Chain::default(), 0);
    let (mut proofs, mut handoffs) = (Vec::new(), Vec::new());
    for (members, next) in
        [(&[1u8][..], None), (&[1], Some([2, 3].as_slice())), (&[2, 3], Some(&[4])), (&[4], None)]
    {
        let mut transactions = Vec::new();
        for key in 0..5 {
            nonce += 1;
            transactions.push(put(1, nonce, &format!("key{key}"), &nonce.to_string()));
        }
        if let Some(next) = next {
            nonce += 1;
            transactions.push(call_of("members", 1, nonce, "set", json!(set(next))));
        }
        chain.block(transactions);
        let block = chain.0.last_mut().expect("just made");
        block.header.members = set(members).hash();
        let block: Block = block.clone();
        let root = apply(&mut bench, block.clone()).root;
        let proof = BlockProof { handoffs: handoffs.clone(), ..attested_by(members, &block, root) };
        if next.is_some() {
            let header = block.header.clone();
            let index = header.index.0;
            let attestations = proof.attestations.clone();
            handoffs.push(Handoff { header, attestations, proof: prove(&mut bench, SET_KEY, Some(index)) });
        }
        proofs.push(proof);
    }
    (proofs, handoffs)
}

fn client() -> LightClient {
    LightClient::new(&genesis()).expect("a genesis")
}

#[test]
fn blocks_and_transactions_are_proven_by_the_genesis_through_every_change_of_members() {
    let (proofs, handoffs) = history();
    for proof in &proofs {
        let root = client().block(proof).expect("proven");
        assert_eq!(root, proof.attestations[0].root);
        for transaction in &proof.block.transactions {
            let one = TxProof::out_of(proof.clone(), &transaction.id()).expect("is in it");
            assert_eq!(client().transaction(&one), Ok(root));
        }
        assert!(TxProof::out_of(proof.clone(), &put(2, 1, "key", "value").id()).is_none());
    }
    // One that has followed needs only what is new, and takes what it knows.
    let mut followed = client();
    followed.follow(&handoffs[0]).expect("follows");
    assert_eq!(followed.members(), &set(&[2, 3]));
    let bare = BlockProof { handoffs: Vec::new(), ..proofs[2].clone() };
    followed.block(&bare).expect("by the members that it knows");
    followed.block(&proofs[3]).expect("with the change that it does not know yet");
    assert_eq!(client().block(&bare).expect_err("no way from the genesis").code, "block.not_proven");
    assert_eq!(followed.block(&proofs[1]).expect_err("older").code, "block.not_proven");
    assert_eq!(followed.follow(&handoffs[0]).expect_err("it goes back").code, "block.not_proven");
    assert_eq!(followed.members(), &set(&[2, 3]));
}

#[test]
fn nobody_but_the_old_members_names_the_new_ones() {
    let (proofs, handoffs) = history();
    let refused = |handoff: Handoff| {
        let proof = BlockProof { handoffs: vec![handoff], ..proofs[2].clone() };
        client().block(&proof).expect_err("refused").code.into_owned()
    };
    let good = &handoffs[0];
    let by = |numbers: &[u8]| attested_by(numbers, &proofs[1].block, good.proof.root).attestations;
    assert_eq!(refused(Handoff { attestations: by(&[2, 3]), ..good.clone() }), "block.not_proven");
    assert_eq!(refused(Handoff { attestations: Vec::new(), ..good.clone() }), "block.not_proven");
    assert_eq!(refused(handoffs[1].clone()), "block.not_proven");
    let other = KeyProof { value: Some(hex::encode(set(&[2, 4]).to_state())), ..good.proof.clone() };
    assert_eq!(refused(Handoff { proof: other, ..good.clone() }), "state.bad_proof");
    // A later state of the new members, and another key of the right one.
    assert_eq!(refused(Handoff { proof: handoffs[1].proof.clone(), ..good.clone() }), "state.bad_proof");
    let machine = machine_of(vec![Arc::new(state::kv::Kv), Arc::new(Chosen)]);
    let mut bench: Bench<StateMachine> = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    for proof in &proofs[..2] {
        apply(&mut bench, proof.block.clone());
    }
    let other_key = prove(&mut bench, "kv/key1", Some(1));
    assert_eq!(refused(Handoff { proof: other_key, ..good.clone() }), "block.not_proven");
}

#[test]
fn a_key_that_a_member_has_rotated_to_proves_what_comes_after_and_the_one_before_does_not() {
    let with_key = |number| {
        let key = MemberKey::from_bytes(*cell(number).as_bytes());
        MemberSet::new(vec![Member { key: Some(key), ..Member::new(cell(1), 1) }])
    };
    let machine = machine_of(vec![Arc::new(state::kv::Kv), Arc::new(Chosen)]);
    let mut bench: Bench<StateMachine> = Bench::new(machine);
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    let mut chain = Chain::default();
    let named = serde_json::to_value(with_key(11)).expect("JSON");
    let first = chain.block(vec![call_of("members", 1, 1, "name", named)]);
    let root = apply(&mut bench, first.clone()).root;
    let attestations = attested(&first, root).attestations;
    let handoff = Handoff { header: first.header, attestations, proof: prove(&mut bench, SET_KEY, Some(0)) };
    chain.block(vec![put(1, 2, "key", "value")]);
    let second = chain.0.last_mut().expect("just made");
    second.header.members = with_key(11).hash();
    let second = second.clone();
    let root = apply(&mut bench, second.clone()).root;
    let by = |number: u8| {
        let word = Attestation::sign_as(cell(1), &key(number), &second.header, root);
        let handoffs = vec![handoff.clone()];
        client().block(&BlockProof { block: second.clone(), attestations: vec![word], handoffs })
    };
    assert_eq!(by(11), Ok(root));
    for old in [1, 12] {
        assert_eq!(by(old).expect_err("not the key in force").code, "block.not_proven");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Whatever is changed in a proof of a transaction, it does not hold.
    #[test]
    fn a_changed_proof_of_a_transaction_proves_nothing(place in any::<prop::sample::Index>(), to in any::<u8>()) {
        let (proofs, _) = history();
        let id = proofs[2].block.transactions[3].id();
        let proof = TxProof::out_of(proofs[2].clone(), &id).expect("is in it");
        let text = serde_json::to_string(&proof).expect("JSON");
        let mut changed = text.clone().into_bytes();
        let at = place.index(changed.len());
        changed[at] = to;
        let read: Result<TxProof, _> = serde_json::from_slice(&changed);
        if let Ok(read) = read
            && read != proof
        {
            prop_assert!(client().transaction(&read).is_err(), "{}", String::from_utf8_lossy(&changed));
        }
    }
}
