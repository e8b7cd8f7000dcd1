//! Keys that members rotate to: who may name one, from when on it counts, and what the one before still proves.

mod kit;

use consensus::Record;
use kit::{
    Cell, Keys, bench_of, block_of, cell, code, epoch, execute, executed, fork_by, four, hear, hear_in, key,
    keys, order_one, progress, result, root, tx_on, word,
};
use machine::module::{Change, Module, Outcome, TxContext};
use protocol::block::{Attestation, Block};
use protocol::consensus::{EnterRequest, ExecutedRequest, Request};
use protocol::genesis::Member;
use protocol::gossip::ForkProof;
use protocol::members::{MemberSet, SET_KEY, prove_key};
use protocol::rules::RULES_KEY;
use protocol::state::KeyProof;
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockIndex, MemberKey, codec};
use serde_json::{Value, json};

/// A call in a block of an epoch.
fn call(keys: &mut Keys, epoch: u64, sender: u8, call: &str, args: Value) -> Outcome {
    let (genesis, sender, index) = (four().hash(), cell(sender), BlockIndex(0));
    let context = TxContext {
        genesis,
        id: protocol::TxId::ZERO,
        sender,
        time_ms: 1,
        index,
        epoch,
        round: 1,
        members: protocol::Hash::ZERO,
    };
    let before = keys.0.clone();
    let outcome = consensus::members::Members.execute(&context, call, &args, keys).expect("no fault");
    if outcome.is_err() {
        keys.0 = before;
    }
    outcome
}

fn now(keys: &Keys) -> MemberSet {
    MemberSet::from_state(&keys.0["set"]).expect("members")
}

fn public(number: u8) -> MemberKey {
    MemberKey::from_bytes(key(number).verifying_key().to_bytes())
}

/// What a member says to rotate to the key of a number, which says that it is its own.
fn rotation(member: u8, to: u8) -> Value {
    json!({ "key": public(to), "proof": prove_key(&key(to), &four().hash(), &cell(member)) })
}

/// The four members, of whom one signs with the key of a number.
fn rotated(member: u8, to: u8) -> MemberSet {
    let of =
        |number: u8| Member { key: (number == member).then(|| public(to)), ..Member::new(cell(number), 1) };
    MemberSet::new((1..=4).map(of).collect())
}

fn fork(member: u8, by: u8, epoch: u64) -> ForkProof {
    fork_by(member, by, epoch, 1)
}

#[test]
fn a_member_rotates_to_a_key_that_says_so_and_is_nobody_elses() {
    let mut keys = keys();
    call(&mut keys, 0, 7, "join", json!({})).expect("asks");
    let good = rotation(1, 11);
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let other_network = prove_key(&key(11), &protocol::GenesisHash::ZERO, &cell(1));
    for (sender, args, expected) in [
        (9, rotation(9, 11), "members.no_member"),
        (2, good.clone(), "members.key_not_proven"),
        (1, with("proof", rotation(1, 12)["proof"].clone()), "members.key_not_proven"),
        (1, with("proof", json!(other_network)), "members.key_not_proven"),
        (1, with("key", json!(MemberKey::from_bytes([0; 32]))), "members.bad_key"),
        (1, with("key", json!(MemberKey::from_bytes([2; 32]))), "members.bad_key"),
        (1, rotation(1, 1), "members.key_in_use"),
        (1, rotation(1, 2), "members.key_in_use"),
        (1, rotation(1, 7), "members.key_in_use"),
    ] {
        assert_eq!(code(call(&mut keys, 0, sender, "rotate", args.clone())), expected, "{sender} {args}");
        assert_eq!(now(&keys), four().member_set());
    }
    call(&mut keys, 0, 1, "rotate", good.clone()).expect("rotates");
    assert_eq!(now(&keys), rotated(1, 11));
    assert_eq!(now(&keys).signer_of(&cell(1)), Some(cell(11)));
    assert_eq!(now(&keys).signer_of(&cell(2)), Some(cell(2)));
    assert_eq!(now(&keys).signer_of(&cell(9)), None);
    // Not to the one that it has, nor to one that another has or that it had; and nobody joins whose own key is a member's.
    assert_eq!(code(call(&mut keys, 1, 1, "rotate", good)), "members.key_in_use");
    assert_eq!(code(call(&mut keys, 1, 2, "rotate", rotation(2, 11))), "members.key_in_use");
    assert_eq!(code(call(&mut keys, 1, 11, "join", json!({}))), "members.key_in_use");
    call(&mut keys, 1, 1, "rotate", rotation(1, 12)).expect("again");
    assert_eq!(code(call(&mut keys, 2, 1, "rotate", rotation(1, 11))), "members.key_in_use");
    assert_eq!(code(call(&mut keys, 2, 1, "rotate", rotation(1, 1))), "members.key_in_use");
}

#[test]
fn a_rotation_is_checked_for_its_shape_and_ends_the_epoch_as_any_change() {
    let check = |args: Value| consensus::members::Members.check("rotate", &args);
    check(rotation(1, 11)).expect("well-formed");
    for bad in [json!({}), json!({ "key": public(11) }), json!({ "key": "x", "proof": "y" })] {
        assert_eq!(code(check(bad)), "members.bad_args");
    }
    let intent = Intent {
        module: "members".into(),
        call: "rotate".into(),
        args: rotation(1, 11),
        ..Intent::default()
    };
    let transaction = Transaction::sign(&key(1), four().hash(), &intent, 1);
    assert!(consensus::members::asks_for_change(&transaction, true));
    assert!(!consensus::members::asks_for_change(&transaction, false));
}

#[test]
fn no_key_stands_for_two() {
    let check = |set: MemberSet| {
        let change = Change { key: "set".into(), before: None, after: Some(set.to_state()) };
        consensus::members::Members.check_invariants(&[change])
    };
    check(rotated(1, 11)).expect("each its own");
    let with_key = |number: u8| Member { key: Some(public(11)), ..Member::new(cell(number), 1) };
    let twice = vec![with_key(1), with_key(2)];
    check(MemberSet::new(twice.clone())).expect_err("one key, two members");
    check(rotated(1, 2)).expect_err("another cell's own key");
    let weak = Member { key: Some(MemberKey::from_bytes([0; 32])), ..Member::new(cell(1), 1) };
    check(MemberSet::new(vec![weak])).expect_err("no key");
    // A genesis is held to the same.
    let genesis = protocol::genesis::Genesis { members: twice, ..four() };
    assert_eq!(genesis.check().expect_err("one key, two members").code, "genesis.invalid");
}

#[test]
fn a_fork_is_proven_by_the_key_of_its_epoch_and_by_no_other() {
    // Key 1 in epochs 0 to 4, key 11 in 5 to 8, key 12 from 9 on; key 13 was never in force.
    let begin = || {
        let mut keys = keys();
        call(&mut keys, 4, 1, "rotate", rotation(1, 11)).expect("rotates");
        call(&mut keys, 8, 1, "rotate", rotation(1, 13)).expect("rotates");
        call(&mut keys, 8, 1, "rotate", rotation(1, 12)).expect("and thinks better of it");
        keys
    };
    let convicts = |by: u8, epoch: u64| {
        let mut keys = begin();
        let outcome = call(&mut keys, 20, 9, "accuse", json!({ "proof": fork(1, by, epoch) }));
        let is_out = !now(&keys).contains(&cell(1));
        assert_eq!(outcome.is_ok(), is_out);
        if let Err(problem) = outcome {
            assert_eq!(problem.code, "fork.not_proven");
        }
        is_out
    };
    for epoch in 0..12 {
        for by in [1, 11, 12, 13] {
            let is_its_key = match by {
                1 => epoch <= 4,
                11 => (5..=8).contains(&epoch),
                12 => epoch >= 9,
                _ => false,
            };
            assert_eq!(convicts(by, epoch), is_its_key, "key {by} in epoch {epoch}");
        }
    }
}

#[test]
fn of_many_keys_the_last_are_remembered_and_older_epochs_convict_nobody() {
    let mut keys = keys();
    for number in 0..20 {
        call(&mut keys, u64::from(number), 1, "rotate", rotation(1, 100 + number)).expect("rotates");
    }
    // The present key is that of epoch 20 on; 16 before it are remembered, those of epochs 4 to 19.
    for (by, epoch, expected) in
        [(1, 0, false), (102, 3, false), (103, 3, false), (103, 4, true), (119, 20, true)]
    {
        let mut keys = Keys(keys.0.clone());
        let outcome = call(&mut keys, 20, 9, "accuse", json!({ "proof": fork(1, by, epoch) }));
        assert_eq!(outcome.is_ok(), expected, "key {by} in epoch {epoch}: {outcome:?}");
    }
}

#[test]
fn who_leaves_and_joins_anew_has_its_own_key_again_and_answers_for_the_one_before() {
    let begin = || {
        let mut keys = keys();
        call(&mut keys, 2, 1, "rotate", rotation(1, 11)).expect("rotates");
        call(&mut keys, 5, 1, "leave", json!({})).expect("leaves");
        call(&mut keys, 7, 1, "join", json!({})).expect("asks");
        for voter in 2..=4 {
            call(&mut keys, 8, voter, "accept", json!({ "cell": cell(1) })).expect("votes");
        }
        assert_eq!(now(&keys).signer_of(&cell(1)), Some(cell(1)));
        keys
    };
    for (by, epoch, expected) in
        [(1, 2, true), (11, 2, false), (11, 5, true), (1, 5, false), (1, 9, true), (11, 9, false)]
    {
        let outcome = call(&mut begin(), 9, 9, "accuse", json!({ "proof": fork(1, by, epoch) }));
        assert_eq!(outcome.is_ok(), expected, "key {by} in epoch {epoch}");
    }
}

fn enter(bench: &mut Cell, epoch: u64, members: &MemberSet, block: u64) {
    let proof = KeyProof {
        key: SET_KEY.to_owned(),
        value: Some(hex::encode(members.to_state())),
        index: Some(BlockIndex(block)),
        root: root(7),
        path: String::new(),
    };
    let rules = KeyProof { key: RULES_KEY.to_owned(), value: None, ..proof.clone() };
    let request = EnterRequest { epoch, members: members.clone(), proof, rules };
    bench.ask(Request::Enter(request)).expect("enters");
    bench.take_effects();
}

/// A member's word by the key of a number.
fn word_by(block: &Block, member: u8, by: u8) -> Attestation {
    Attestation::sign_as(cell(member), &key(by), &block.header, root(7))
}

/// Block 0 is final, and epoch 1 has begun, in which a member signs with the key of a number.
fn after_rotation(member: u8, to: u8) -> Cell {
    let mut bench = bench_of(four());
    let first = order_one(&mut bench, tx_on(&four(), 9, 1));
    execute(&mut bench, &first);
    hear(&mut bench, vec![word(&first, 2, 7), word(&first, 3, 7)]);
    bench.take_effects();
    enter(&mut bench, 1, &rotated(member, to), 0);
    bench
}

#[test]
fn a_block_is_final_and_proven_by_the_key_that_its_epoch_names() {
    let mut bench = after_rotation(1, 11);
    assert_eq!(epoch(&mut bench).members, rotated(1, 11));
    let block = order_one(&mut bench, tx_on(&four(), 9, 2));
    let came_to = |attestation| ExecutedRequest { attestation, ..result(&block, 1, true, 7) };
    let old = came_to(Some(word_by(&block, 1, 1)));
    assert_eq!(code(executed(&mut bench, old)), "consensus.bad_attestation");
    executed(&mut bench, came_to(Some(word_by(&block, 1, 11)))).expect("by the key in force");
    hear(&mut bench, vec![word(&block, 2, 7), word(&block, 3, 7)]);
    assert_eq!(progress(&mut bench), (2, 2, 2));
    let proof = block_of(&mut bench, 1).proof;
    assert_eq!(proof.check(&four().hash(), &rotated(1, 11)), Ok(root(7)));
    // The same words prove nothing if one is by a key that is not in force, whoever's it is.
    for by in [1, 12] {
        let mut forged = proof.clone();
        let own = forged.attestations.iter_mut().find(|word| word.member == cell(1)).expect("its word");
        *own = word_by(&block, 1, by);
        assert_eq!(code(forged.check(&four().hash(), &rotated(1, 11))), "block.not_proven");
    }
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

/// Rule 4: a restored cell executes, and says nothing.
#[test]
fn a_cell_that_only_follows_executes_and_gives_no_word() {
    let mut bench = bench_of(four());
    let block = order_one(&mut bench, tx_on(&four(), 9, 1));
    executed(&mut bench, ExecutedRequest { attestation: None, ..result(&block, 1, true, 7) })
        .expect("executes");
    assert!(bench.take_effects().is_empty() && bench.owed().is_empty(), "nothing is to be said");
    hear(&mut bench, vec![word(&block, 2, 7), word(&block, 3, 7)]);
    assert_eq!(progress(&mut bench), (1, 1, 0), "two of four");
    hear(&mut bench, vec![word(&block, 4, 7)]);
    assert_eq!(progress(&mut bench), (1, 1, 1));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
    // Its root is held against the others' as ever.
    let block = order_one(&mut bench, tx_on(&four(), 9, 2));
    hear(&mut bench, (2..=4).map(|member| word(&block, member, 8)).collect());
    executed(&mut bench, ExecutedRequest { attestation: None, ..result(&block, 1, true, 7) })
        .expect("executes");
    assert_eq!(code(executed(&mut bench, result(&block, 1, true, 7))), "consensus.diverged");
}

/// A word for a block of the next epoch that came in an event of this one was checked by the key before: it must not count.
#[test]
fn words_by_the_key_before_do_not_reach_into_the_next_epoch() {
    let ahead = {
        let mut bench = after_rotation(3, 13);
        order_one(&mut bench, tx_on(&four(), 9, 2))
    };
    let mut bench = bench_of(four());
    let first = order_one(&mut bench, tx_on(&four(), 9, 1));
    execute(&mut bench, &first);
    hear(&mut bench, vec![word(&first, 2, 7), word(&first, 3, 7)]);
    hear(&mut bench, vec![word(&ahead, 3, 7)]);
    bench.take_effects();
    enter(&mut bench, 1, &rotated(3, 13), 0);
    // Nor does one that comes now in an event of the epoch that is over.
    hear_in(&mut bench, 0, vec![word(&ahead, 3, 7)]);
    let second = order_one(&mut bench, tx_on(&four(), 9, 2));
    assert_eq!(second, ahead, "the block that the word is for");
    execute(&mut bench, &second);
    hear(&mut bench, vec![word(&second, 2, 7)]);
    assert_eq!(progress(&mut bench), (2, 2, 1), "two words by keys in force, and one by a key that is not");
    hear(&mut bench, vec![word_by(&second, 3, 13)]);
    assert_eq!(progress(&mut bench), (2, 2, 2));
    assert_eq!(block_of(&mut bench, 1).proof.check(&four().hash(), &rotated(3, 13)), Ok(root(7)));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

/// Epochs that pass without a change have the same keys: words of one count in the other.
#[test]
fn words_of_an_epoch_with_the_same_members_count() {
    let mut bench = after_rotation(3, 13);
    let block = order_one(&mut bench, tx_on(&four(), 9, 2));
    executed(&mut bench, ExecutedRequest { attestation: None, ..result(&block, 1, true, 7) })
        .expect("executes");
    hear_in(&mut bench, 2, vec![word(&block, 2, 7), word_by(&block, 3, 13), word(&block, 4, 7)]);
    assert_eq!(progress(&mut bench), (2, 2, 2));
}

/// What was journaled before followers gave no word reads as ever.
#[test]
fn a_result_with_a_word_is_journaled_as_ever() {
    let mut bench = bench_of(four());
    let block = order_one(&mut bench, tx_on(&four(), 9, 1));
    let ExecutedRequest { applied, attestation } = result(&block, 1, true, 7);
    let word = attestation.clone().expect("a word");
    let with = codec::encode(&Record::Executed { applied: applied.clone(), attestation });
    assert_eq!(with, codec::encode(&(5u64, (&applied, &word))));
    let without = codec::encode(&Record::Executed { applied: applied.clone(), attestation: None });
    assert_eq!(without, codec::encode(&(5u64, (&applied,))));
}

#[test]
fn evidence_is_taken_by_the_key_of_its_epoch() {
    let taken = |proof: ForkProof| {
        let mut bench = after_rotation(3, 13);
        let length = bench.journal.len();
        let outcome = bench.ask(Request::Accuse(proof));
        assert_eq!(outcome.is_ok(), bench.journal.len() > length);
        outcome.is_ok()
    };
    assert!(taken(fork(3, 3, 0)) && taken(fork(3, 13, 1)));
    assert!(!taken(fork(3, 13, 0)) && !taken(fork(3, 3, 1)));
}
