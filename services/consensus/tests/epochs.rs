//! Epochs with other members: when one may begin, whose words count in it, and what proves it.

mod kit;

use kit::{
    Cell, Keys, bench_of, block_of, cell, code, epoch, execute, four, hear, keys, order_one, order_rounds,
    progress, root, round, tx_on, word,
};
use machine::module::{Module, Outcome, TxContext};
use protocol::block::Block;
use protocol::consensus::{Answer, EnterRequest, MembersRequest, Request};
use protocol::genesis::{Genesis, JoinPolicy, Member};
use protocol::members::{MemberSet, SET_KEY};
use protocol::rules::RULES_KEY;
use protocol::shared::Empty;
use protocol::state::KeyProof;
use protocol::{BlockIndex, CellId, Problem, TxId};
use serde_json::{Value, json};

fn set(cells: &[u8]) -> MemberSet {
    MemberSet::new(cells.iter().map(|number| Member::new(cell(*number), 1)).collect())
}

/// What State would say: the set stands under the root of a block.
fn proof(block: u64, number: u8, members: &MemberSet) -> KeyProof {
    KeyProof {
        key: SET_KEY.to_owned(),
        value: Some(hex::encode(members.to_state())),
        index: Some(BlockIndex(block)),
        root: root(number),
        path: String::new(),
    }
}

/// That no version of the rules was activated, under the same root.
fn no_rules(proof: &KeyProof) -> KeyProof {
    KeyProof { key: RULES_KEY.to_owned(), value: None, ..proof.clone() }
}

fn enter(bench: &mut Cell, epoch: u64, members: &MemberSet, proof: KeyProof) -> Result<(), Problem> {
    let rules = no_rules(&proof);
    bench.ask(Request::Enter(EnterRequest { epoch, members: members.clone(), proof, rules })).map(|answer| {
        match answer {
            Answer::Enter(Empty {}) => bench.take_effects().clear(),
            other => panic!("{other:?}"),
        }
    })
}

fn members(bench: &mut Cell, at: Option<u64>) -> Vec<CellId> {
    let asked = MembersRequest { at: at.map(BlockIndex), ..MembersRequest::default() };
    match bench.ask(Request::Members(asked)) {
        Ok(Answer::Members(page)) => page.items.iter().map(|member| member.cell).collect(),
        other => panic!("{other:?}"),
    }
}

/// A block of one transaction of this nonce, executed here, with the words of so many others.
fn block(bench: &mut Cell, nonce: u64, words: &[u8]) -> Block {
    let block = order_one(bench, tx_on(&four(), 9, nonce));
    execute(bench, &block);
    hear(bench, words.iter().map(|member| word(&block, *member, 7)).collect());
    bench.take_effects();
    block
}

#[test]
fn an_epoch_begins_with_other_members_once_all_blocks_are_final() {
    let mut bench = bench_of(four());
    let next = set(&[1, 2, 3, 5]);
    assert_eq!(
        code(enter(&mut bench, 1, &next, proof(0, 7, &next))),
        "consensus.epoch_open",
        "no block, no change"
    );
    let first = block(&mut bench, 1, &[2]);
    assert_eq!(code(enter(&mut bench, 1, &next, proof(0, 7, &next))), "consensus.epoch_open");
    hear(&mut bench, vec![word(&first, 3, 7)]);
    for bad in [
        proof(0, 8, &next),
        proof(1, 7, &next),
        proof(0, 7, &set(&[1, 2, 3])),
        KeyProof { key: "kv/set".to_owned(), ..proof(0, 7, &next) },
    ] {
        assert_eq!(code(enter(&mut bench, 1, &next, bad)), "consensus.bad_members");
    }
    enter(&mut bench, 1, &next, proof(0, 7, &next)).expect("enters");
    let now = epoch(&mut bench);
    assert_eq!((now.epoch, now.base, now.round, now.events, now.members), (1, 1, 0, 0, next.clone()));
    // Asked again it is the same; with others, somebody lies.
    let records = bench.journal.len();
    enter(&mut bench, 1, &next, proof(0, 7, &next)).expect("again");
    assert_eq!(bench.journal.len(), records);
    assert_eq!(code(enter(&mut bench, 1, &set(&[1]), proof(0, 7, &set(&[1])))), "consensus.epoch_begun");
}

#[test]
fn in_each_epoch_its_own_members_words_count() {
    let mut bench = bench_of(four());
    let next = set(&[1, 2, 5, 6]);
    block(&mut bench, 1, &[2, 3]);
    enter(&mut bench, 1, &next, proof(0, 7, &next)).expect("enters");
    let second = block(&mut bench, 2, &[2, 3, 4]);
    assert_eq!(second.header.members, next.hash());
    assert_eq!((second.header.epoch, second.header.round), (1, 1));
    assert_eq!(progress(&mut bench), (2, 2, 1), "two of the members, and two that are none any more");
    hear(&mut bench, vec![word(&second, 6, 7)]);
    assert_eq!(progress(&mut bench), (2, 2, 2));
    assert_eq!(members(&mut bench, None), [1, 2, 5, 6].map(cell));
    assert_eq!(members(&mut bench, Some(0)), [1, 2, 3, 4].map(cell));
    assert_eq!(members(&mut bench, Some(1)), [1, 2, 5, 6].map(cell));
    let unknown =
        bench.ask(Request::Members(MembersRequest { at: Some(BlockIndex(2)), ..MembersRequest::default() }));
    assert_eq!(code(unknown), "consensus.unknown_block");
}

#[test]
fn a_block_comes_with_the_changes_of_members_before_it_and_a_replay_knows_them() {
    let mut bench = bench_of(four());
    let (next, last) = (set(&[1, 2, 5, 6]), set(&[1, 2, 5]));
    let first = block(&mut bench, 1, &[2, 3]);
    enter(&mut bench, 1, &next, proof(0, 7, &next)).expect("enters");
    block(&mut bench, 2, &[2, 5]);
    // Epoch 2 goes by with the same members: nothing is recorded of it.
    order_rounds(&mut bench, 2, vec![round(3, 9, vec![tx_on(&four(), 9, 3)])]).expect("orders");
    bench.take_effects();
    let third = block_of(&mut bench, 2).proof.block;
    assert_eq!((third.header.epoch, third.header.members), (2, next.hash()));
    execute(&mut bench, &third);
    hear(&mut bench, vec![word(&third, 2, 7), word(&third, 6, 7)]);
    enter(&mut bench, 3, &last, proof(2, 7, &last)).expect("enters");
    let fourth = block(&mut bench, 4, &[2, 5]);
    for _ in 0..2 {
        let handoffs = |bench: &mut Cell, index| -> Vec<u64> {
            block_of(bench, index).proof.handoffs.iter().map(|handoff| handoff.header.index.0).collect()
        };
        assert_eq!(handoffs(&mut bench, 0), [0u64; 0]);
        assert_eq!(handoffs(&mut bench, 1), [0]);
        assert_eq!(handoffs(&mut bench, 2), [0]);
        assert_eq!(handoffs(&mut bench, 3), [0, 2]);
        let proof = block_of(&mut bench, 3).proof;
        assert_eq!(proof.handoffs[0].header, first.header);
        assert_eq!(four().member_set().attested(&first.header, &proof.handoffs[0].attestations), Ok(root(7)));
        assert_eq!(proof.check(&four().hash(), &last), Ok(root(7)));
        assert_eq!(code(proof.check(&four().hash(), &four().member_set())), "block.not_proven");
        assert_eq!(fourth.header.members, last.hash());
        let (replayed, before) = bench.replay();
        assert_eq!(replayed, before);
    }
}

fn call(keys: &mut Keys, sender: u8, call: &str, args: Value) -> Outcome {
    at(keys, 1, sender, call, args)
}

fn at(keys: &mut Keys, time_ms: u64, sender: u8, call: &str, args: Value) -> Outcome {
    let context = TxContext {
        genesis: four().hash(),
        id: TxId::ZERO,
        sender: cell(sender),
        time_ms,
        index: BlockIndex(0),
        epoch: 0,
        round: 1,
        members: four().members_hash(),
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

#[test]
fn a_cell_joins_when_more_than_two_thirds_accept_what_it_asks_for() {
    let mut keys = keys();
    let addresses = json!(["/ip4/127.0.0.1/tcp/4001"]);
    assert_eq!(code(call(&mut keys, 1, "accept", json!({ "cell": cell(5) }))), "members.no_request");
    call(&mut keys, 5, "join", json!({ "weight": 2, "addresses": addresses })).expect("asks");
    assert_eq!(code(call(&mut keys, 1, "accept", json!({ "cell": cell(5) }))), "members.other_weight");
    assert_eq!(
        code(call(&mut keys, 5, "accept", json!({ "cell": cell(5), "weight": 2 }))),
        "members.no_member"
    );
    for voter in [1, 2, 1, 2] {
        call(&mut keys, voter, "accept", json!({ "cell": cell(5), "weight": 2 })).expect("votes");
        assert_eq!(now(&keys), four().member_set(), "two of four, however often they vote");
    }
    call(&mut keys, 4, "accept", json!({ "cell": cell(5), "weight": 2 })).expect("votes");
    let five = now(&keys);
    assert_eq!((five.weight_of(&cell(5)), five.weight_total(), five.all().len()), (2, 6, 5));
    assert_eq!(keys.0[&format!("address/{}", cell(5))], serde_json::to_vec(&addresses).expect("JSON"));
    assert_eq!(code(call(&mut keys, 5, "join", json!({}))), "members.is_member");
    assert_eq!(
        code(call(&mut keys, 3, "accept", json!({ "cell": cell(5), "weight": 2 }))),
        "members.no_request"
    );
    // Four of six are not more than two thirds, five are.
    call(&mut keys, 6, "join", json!({})).expect("asks");
    for voter in [5, 1, 2] {
        call(&mut keys, voter, "accept", json!({ "cell": cell(6) })).expect("votes");
    }
    assert_eq!(now(&keys), five);
    call(&mut keys, 3, "accept", json!({ "cell": cell(6) })).expect("votes");
    assert_eq!(now(&keys).all().len(), 6);
}

#[test]
fn who_decides_is_a_matter_of_the_genesis() {
    let network = |join| {
        let mut keys = Keys::default();
        consensus::members::Members.genesis(&Genesis { join, ..four() }, &mut keys);
        keys
    };
    let mut voted = network(Some(JoinPolicy::Vote));
    assert_eq!(voted.0, keys().0, "as where nothing is told");
    call(&mut voted, 5, "join", json!({})).expect("asks");
    call(&mut voted, 1, "accept", json!({ "cell": cell(5) })).expect("votes");
    assert_eq!(now(&voted), four().member_set());
    let mut sponsored = network(Some(JoinPolicy::Sponsor));
    call(&mut sponsored, 5, "join", json!({})).expect("asks");
    assert_eq!(code(call(&mut sponsored, 6, "accept", json!({ "cell": cell(5) }))), "members.no_member");
    assert_eq!(code(call(&mut sponsored, 5, "accept", json!({ "cell": cell(5) }))), "members.no_member");
    call(&mut sponsored, 3, "accept", json!({ "cell": cell(5) })).expect("votes");
    assert_eq!(now(&sponsored), set(&[1, 2, 3, 4, 5]));
    call(&mut sponsored, 1, "evict", json!({ "cell": cell(5) })).expect("votes");
    assert_eq!(now(&sponsored), set(&[1, 2, 3, 4, 5]), "nobody is evicted so");
    let mut closed = network(Some(JoinPolicy::Closed));
    assert_eq!(code(call(&mut closed, 5, "join", json!({}))), "members.closed");
    assert_eq!(code(call(&mut closed, 1, "accept", json!({ "cell": cell(5) }))), "members.no_request");
}

#[test]
fn asking_anew_asks_everybody_anew() {
    let mut keys = keys();
    call(&mut keys, 5, "join", json!({})).expect("asks");
    for voter in [1, 2] {
        call(&mut keys, voter, "accept", json!({ "cell": cell(5) })).expect("votes");
    }
    call(&mut keys, 5, "join", json!({ "weight": 1_000 })).expect("asks");
    call(&mut keys, 3, "accept", json!({ "cell": cell(5), "weight": 1_000 })).expect("votes");
    assert_eq!(now(&keys), four().member_set(), "the votes were for another weight");
}

#[test]
fn members_leave_and_are_evicted_and_the_last_one_stays() {
    let mut keys = keys();
    assert_eq!(code(call(&mut keys, 5, "leave", json!({}))), "members.no_member");
    call(&mut keys, 4, "leave", json!({})).expect("leaves");
    assert_eq!(now(&keys), set(&[1, 2, 3]));
    assert_eq!(code(call(&mut keys, 4, "evict", json!({ "cell": cell(1) }))), "members.no_member");
    assert_eq!(code(call(&mut keys, 1, "evict", json!({ "cell": cell(4) }))), "members.no_member");
    for voter in [1, 2] {
        call(&mut keys, voter, "evict", json!({ "cell": cell(3) })).expect("votes");
    }
    assert_eq!(now(&keys), set(&[1, 2, 3]), "two of three are not more than two thirds");
    call(&mut keys, 3, "evict", json!({ "cell": cell(3) })).expect("votes");
    assert_eq!(now(&keys), set(&[1, 2]));
    call(&mut keys, 1, "leave", json!({})).expect("leaves");
    assert_eq!(code(call(&mut keys, 2, "leave", json!({}))), "members.last");
    assert_eq!(now(&keys), set(&[2]));
}

#[test]
fn a_vote_of_one_that_has_left_counts_no_more() {
    let mut keys = keys();
    call(&mut keys, 5, "join", json!({})).expect("asks");
    for voter in [1, 2] {
        call(&mut keys, voter, "accept", json!({ "cell": cell(5) })).expect("votes");
    }
    for gone in [1, 2] {
        call(&mut keys, gone, "leave", json!({})).expect("leaves");
    }
    call(&mut keys, 3, "accept", json!({ "cell": cell(5) })).expect("votes");
    assert_eq!(now(&keys), set(&[3, 4]));
    call(&mut keys, 4, "accept", json!({ "cell": cell(5) })).expect("votes");
    assert_eq!(now(&keys), set(&[3, 4, 5]));
}

#[test]
fn requests_are_bounded_and_old_ones_make_room() {
    let mut keys = keys();
    for number in 100..164 {
        at(&mut keys, u64::from(number), number, "join", json!({})).expect("asks");
    }
    assert_eq!(code(at(&mut keys, 200, 200, "join", json!({}))), "members.too_many_requests");
    at(&mut keys, 200, 120, "join", json!({ "weight": 2 })).expect("it has a place");
    let week = 7 * 24 * 3600 * 1000;
    assert_eq!(code(at(&mut keys, week + 100, 200, "join", json!({}))), "members.too_many_requests");
    at(&mut keys, week + 101, 200, "join", json!({})).expect("the first one's time is over");
    assert_eq!(code(at(&mut keys, week + 101, 201, "join", json!({}))), "members.too_many_requests");
}

#[test]
fn a_fork_that_is_proven_evicts_and_nothing_else_does() {
    let event = |time_us| {
        let event = protocol::gossip::SignedEvent {
            epoch: 0,
            creator: cell(3),
            self_parent: None,
            other_parents: Vec::new(),
            time_us,
            payload: protocol::Hash::of(b""),
            signature: protocol::signing::Signature::from_bytes([0; 64]),
        };
        event.sign(&kit::key(3), &four().hash())
    };
    let mut keys = keys();
    let proof = |one, other| json!({ "proof": { "one": event(one), "other": event(other) } });
    assert_eq!(code(call(&mut keys, 1, "accuse", proof(1, 1))), "fork.not_proven");
    let mut forged = proof(1, 2);
    forged["proof"]["one"]["time_us"] = json!(3);
    assert_eq!(code(call(&mut keys, 1, "accuse", forged)), "fork.not_proven");
    assert_eq!(now(&keys), four().member_set());
    // Anybody may bring it.
    call(&mut keys, 9, "accuse", proof(1, 2)).expect("proven");
    assert_eq!(now(&keys), set(&[1, 2, 4]));
    assert_eq!(code(call(&mut keys, 1, "accuse", proof(1, 2))), "members.no_member");
}

#[test]
fn what_is_no_call_is_refused_before_it_is_taken_in() {
    let check = |call: &str, args: Value| code(consensus::members::Members.check(call, &args));
    assert_eq!(check("elect", json!({})), "members.unknown_call");
    assert_eq!(check("join", json!({ "weight": 0 })), "members.bad_weight");
    assert_eq!(check("join", json!({ "weight": 1_000_001 })), "members.bad_weight");
    assert_eq!(check("accept", json!({})), "members.bad_args");
    assert_eq!(check("leave", json!({ "cell": cell(1) })), "members.bad_args");
    assert_eq!(check("evict", json!({ "cell": "me" })), "members.bad_args");
    assert_eq!(check("accuse", json!({ "proof": {} })), "members.bad_args");
    assert_eq!(check("join", json!({ "addresses": vec!["a"; 9] })), "members.bad_addresses");
    assert_eq!(check("join", json!({ "addresses": ["a".repeat(257)] })), "members.bad_addresses");
}
