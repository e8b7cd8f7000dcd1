//! Versions of the rules: who activates one, from when on blocks carry it, and what a build does that lacks it.

mod kit;

use consensus::members::{Members, activates, asks_for_change};
use consensus::{ConsensusMachine, Record};
use kit::{
    Cell, Keys, admit, bench_of, block_of, cell, code, epoch, execute, executed, four, hear, key, keys,
    machine_of, modules, order, order_one, order_rounds, progress, records, result, root, round, tx_on, word,
};
use machine::module::{Change, Module, Outcome, TxContext};
use protocol::block::{Block, BlockProof};
use protocol::consensus::{
    AdoptRequest, Answer, ConsensusStatus, EnterRequest, JumpRequest, RecordRequest, Request,
};
use protocol::members::{Handoff, MemberSet, SET_KEY};
use protocol::rules::{Activated, RULES_KEY, version_in};
use protocol::shared::Empty;
use protocol::state::KeyProof;
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockIndex, Problem, TxId, codec};
use serde_json::{Value, json};

/// A state with four members, and what they vote.
struct Votes(Keys);

impl Votes {
    fn new() -> Self {
        Self(keys())
    }

    /// A call in a block of an epoch.
    fn call(&mut self, epoch: u64, sender: u8, call: &str, args: Value) -> Outcome {
        let (genesis, sender, index) = (four().hash(), cell(sender), BlockIndex(0));
        let context = TxContext {
            genesis,
            id: TxId::ZERO,
            sender,
            time_ms: 1,
            index,
            epoch,
            round: 1,
            members: protocol::Hash::ZERO,
        };
        let before = self.0.0.clone();
        let outcome = Members.execute(&context, call, &args, &mut self.0).expect("no fault");
        let change = Change {
            key: "rules".to_owned(),
            before: before.get("rules").cloned(),
            after: self.0.0.get("rules").cloned(),
        };
        if change.before != change.after {
            Members.check_invariants(&[change]).expect("they rise by one");
        }
        if outcome.is_err() {
            self.0.0 = before;
        }
        outcome
    }

    fn vote(&mut self, epoch: u64, voter: u8, rules: u64) -> Outcome {
        self.call(epoch, voter, "activate", json!({ "rules": rules }))
    }

    /// The version of the epoch that comes next.
    fn version(&self) -> u64 {
        version_in(self.0.0.get("rules").map(Vec::as_slice)).expect("it can be read")
    }
}

#[test]
fn more_than_two_thirds_activate_the_next_version() {
    let mut keys = Votes::new();
    assert_eq!(keys.version(), 1);
    for voter in [1, 2, 1, 2] {
        keys.vote(3, voter, 2).expect("votes");
        assert_eq!(keys.version(), 1, "two of four, however often they vote");
    }
    assert_eq!(code(keys.vote(3, 9, 2)), "members.no_member");
    keys.vote(4, 3, 2).expect("votes");
    assert_eq!(keys.version(), 2);
    assert_eq!(keys.0.0["rules"], br#"{"version":2,"epoch":4}"#, "as every build has to read it");
    assert!(!keys.0.0.contains_key("activation"), "the votes are counted");
}

#[test]
fn versions_rise_by_one_and_none_is_passed_over() {
    let mut keys = Votes::new();
    for wrong in [3, u64::MAX] {
        assert_eq!(code(keys.vote(0, 1, wrong)), "members.other_rules");
    }
    for voter in 1..=3 {
        keys.vote(5, voter, 2).expect("votes");
    }
    // Until it is in force nobody votes for the next.
    assert_eq!(code(keys.vote(5, 4, 2)), "members.rules_changing");
    assert_eq!(code(keys.vote(5, 4, 3)), "members.rules_changing");
    assert_eq!(code(keys.vote(6, 4, 2)), "members.other_rules");
    for voter in 1..=3 {
        keys.vote(6, voter, 3).expect("votes");
    }
    assert_eq!(keys.version(), 3);
    let value = |version| Some(serde_json::to_vec(&Activated { version, epoch: 0 }).expect("JSON"));
    for (before, after) in [(None, 3), (None, 1), (value(3), 2), (value(3), 3), (value(3), 5)] {
        let change = Change { key: "rules".to_owned(), before, after: value(after) };
        Members.check_invariants(&[change]).expect_err("not the next one");
    }
    let gone = Change { key: "rules".to_owned(), before: value(3), after: None };
    Members.check_invariants(&[gone]).expect_err("back to the first");
}

#[test]
fn a_vote_of_one_that_has_left_counts_no_more() {
    let mut keys = Votes::new();
    for voter in [1, 2] {
        keys.vote(0, voter, 2).expect("votes");
    }
    for gone in [1, 2] {
        keys.call(0, gone, "leave", json!({})).expect("leaves");
    }
    keys.vote(1, 3, 2).expect("votes");
    assert_eq!(keys.version(), 1);
    keys.vote(1, 4, 2).expect("votes");
    assert_eq!(keys.version(), 2);
}

fn tx_of(sender: u8, nonce: u64, module: &str, call: &str, args: Value) -> Transaction {
    let intent = Intent { module: module.into(), call: call.into(), args, ..Intent::default() };
    Transaction::sign(&key(sender), four().hash(), &intent, nonce)
}

#[test]
fn a_vote_is_told_from_other_calls_and_ends_the_epoch() {
    let check = |args: Value| Members.check("activate", &args);
    check(json!({ "rules": 2 })).expect("well-formed");
    for bad in [json!({}), json!({ "rules": "2" }), json!({ "rules": 2, "more": 1 })] {
        assert_eq!(code(check(bad)), "members.bad_args");
    }
    let vote = tx_of(1, 1, "members", "activate", json!({ "rules": 2 }));
    assert_eq!(activates(&vote), Some(2));
    assert!(asks_for_change(&vote, true) && !asks_for_change(&vote, false));
    for other in [
        tx_of(1, 1, "kv", "activate", json!({ "rules": 2 })),
        tx_of(1, 1, "members", "leave", json!({})),
        tx_of(1, 1, "members", "activate", json!({})),
    ] {
        assert_eq!(activates(&other), None);
    }
}

/// A build with versions 1 and 2: the second knows a module `more`, and `kv` no longer.
fn newer() -> ConsensusMachine {
    let machine = machine_of(four());
    let rules = machine.rules.and_next(modules(&["more"]));
    ConsensusMachine { rules, ..machine }
}

fn more(nonce: u64) -> Transaction {
    tx_of(9, nonce, "more", "put", json!({}))
}

/// What State would say of a key after a block.
fn proof(block: u64, key: &str, value: Option<Vec<u8>>) -> KeyProof {
    KeyProof {
        key: key.to_owned(),
        value: value.map(hex::encode),
        index: Some(BlockIndex(block)),
        root: root(7),
        path: String::new(),
    }
}

fn request(epoch: u64, members: &MemberSet, block: u64, version: Option<u64>) -> EnterRequest {
    let rules = version.map(|version| Activated { version, epoch: epoch - 1 });
    let rules = rules.map(|rules| serde_json::to_vec(&rules).expect("JSON"));
    EnterRequest {
        epoch,
        members: members.clone(),
        proof: proof(block, SET_KEY, Some(members.to_state())),
        rules: proof(block, RULES_KEY, rules),
    }
}

fn enter(bench: &mut Cell, request: EnterRequest) -> Result<(), Problem> {
    bench.ask(Request::Enter(request)).map(|answer| match answer {
        Answer::Enter(Empty {}) => bench.take_effects().clear(),
        other => panic!("{other:?}"),
    })
}

/// Executes a block, and has the words of cells 2 and 3 for it: it is final.
fn close(bench: &mut Cell, block: &Block) {
    execute(bench, block);
    hear(bench, vec![word(block, 2, 7), word(block, 3, 7)]);
    bench.take_effects();
}

/// Block 0 is final, and epoch 1 has begun under version 2 with the same members.
fn upgraded(machine: ConsensusMachine) -> Cell {
    let mut bench = Cell::new(machine);
    let first = order_one(&mut bench, tx_on(&four(), 9, 1));
    close(&mut bench, &first);
    enter(&mut bench, request(1, &four().member_set(), 0, Some(2))).expect("enters");
    bench
}

fn status(bench: &mut Cell) -> ConsensusStatus {
    match bench.ask(Request::Status(Empty {})) {
        Ok(Answer::Status(status)) => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_of_the_next_epoch_carry_the_version_and_its_modules_decide() {
    let mut bench = upgraded(newer());
    assert_eq!(block_of(&mut bench, 0).proof.block.header.rules, 1);
    let now = epoch(&mut bench);
    assert_eq!((now.epoch, now.base, now.rules, status(&mut bench).rules), (1, 1, 2, 2));
    assert_eq!(code(admit(&mut bench, tx_on(&four(), 9, 2))), "consensus.unknown_module");
    admit(&mut bench, more(2)).expect("a module of version 2");
    // What an event carries that only version 1 takes is left out, by all alike.
    let blocks = order(&mut bench, vec![tx_on(&four(), 8, 1), more(2)]);
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].header.rules, &blocks[0].transactions), (2, &vec![more(2)]));
    close(&mut bench, &blocks[0]);
    assert_eq!(progress(&mut bench), (2, 2, 2));
    // The members stay, and the hand-off leads a client past the change.
    let proof = block_of(&mut bench, 1).proof;
    assert_eq!(proof.handoffs.len(), 1);
    assert_eq!(proof.check(&four().hash(), &four().member_set()), Ok(root(7)));
    // In epochs without another change it stays.
    order_rounds(&mut bench, 5, vec![round(3, 9, vec![more(3)])]).expect("orders");
    let third = block_of(&mut bench, 2).proof.block.header;
    assert_eq!((third.epoch, third.rules), (5, 2));
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn only_the_version_that_the_state_names_begins_and_none_before_it() {
    let members = four().member_set();
    let mut bench = Cell::new(newer());
    let good = |epoch| request(epoch, &members, 0, Some(2));
    assert_eq!(code(enter(&mut bench, good(1))), "consensus.epoch_open", "no block, no change");
    let first = order_one(&mut bench, tx_on(&four(), 9, 1));
    assert_eq!(code(enter(&mut bench, good(1))), "consensus.epoch_open");
    close(&mut bench, &first);
    let with = |change: fn(&mut KeyProof)| {
        let mut request = good(1);
        change(&mut request.rules);
        request
    };
    for bad in [
        with(|rules| rules.root = root(8)),
        with(|rules| rules.index = Some(BlockIndex(1))),
        with(|rules| rules.key = "kv/rules".to_owned()),
        with(|rules| rules.value = Some("00".to_owned())),
        with(|rules| rules.value = Some("no hex".to_owned())),
        request(1, &members, 0, Some(0)),
    ] {
        assert_eq!(code(enter(&mut bench, bad)), "consensus.bad_rules");
    }
    let length = bench.journal.len();
    enter(&mut bench, request(1, &members, 0, None)).expect("nothing changes");
    assert_eq!(bench.journal.len(), length, "and nothing is recorded");
    enter(&mut bench, good(1)).expect("enters");
    enter(&mut bench, good(1)).expect("again");
    assert_eq!(bench.journal.len(), length + 1);
    assert_eq!(code(enter(&mut bench, request(2, &members, 0, None))), "consensus.bad_rules", "it goes back");
}

/// Rule 7: a build that lacks the version takes no part, stays readable, and goes on once it is replaced.
#[test]
fn a_build_that_lacks_the_version_is_suspended_and_goes_on_when_it_is_upgraded() {
    let mut bench = upgraded(machine_of(four()));
    assert_eq!((epoch(&mut bench).epoch, epoch(&mut bench).rules), (1, 2), "it knows what it lacks");
    let theirs = {
        let mut other = upgraded(newer());
        let block = order_one(&mut other, more(2));
        close(&mut other, &block);
        block_of(&mut other, 1).proof
    };
    let length = bench.journal.len();
    let record = RecordRequest { epoch: 1, first: 0, events: vec![vec![1]] };
    let refused = [
        bench.ask(Request::Record(record.clone())).map(drop),
        order_rounds(&mut bench, 1, vec![round(1, 9, vec![more(2)])]).map(drop),
        bench.ask(Request::Adopt(AdoptRequest { proofs: vec![theirs.clone()] })).map(drop),
        admit(&mut bench, more(2)).map(drop),
        admit(&mut bench, tx_on(&four(), 9, 2)).map(drop),
    ];
    for refusal in refused {
        let problem = refusal.expect_err("refused");
        assert_eq!(problem.code, "consensus.upgrade_required");
        assert!(problem.hint.is_some_and(|hint| hint.contains("install a newer version")));
    }
    assert_eq!(bench.journal.len(), length, "nothing is journaled of the epoch");
    assert!(bench.owed().is_empty() && bench.effects.is_empty(), "nothing is to be executed or said");
    // What was before is there.
    let first = block_of(&mut bench, 0);
    assert!(first.summary.finalised);
    assert_eq!(first.proof.check(&four().hash(), &four().member_set()), Ok(root(7)));
    assert_eq!(status(&mut bench).finalised, Some(BlockIndex(0)));
    // The same journal under a build that has it.
    bench.machine = newer();
    bench.replay();
    bench.ask(Request::Record(record)).expect("records");
    bench.ask(Request::Adopt(AdoptRequest { proofs: vec![theirs.clone()] })).expect("takes over");
    bench.take_effects();
    executed(&mut bench, result(&theirs.block, 1, true, 7)).expect("executes");
    assert_eq!(progress(&mut bench), (2, 2, 2));
    assert_eq!(block_of(&mut bench, 1).proof.block, theirs.block);
    // And back: an older build over a journal that is further is suspended again.
    bench.machine = machine_of(four());
    bench.replay();
    let next = order_rounds(&mut bench, 1, vec![round(9, 9, vec![more(3)])]);
    assert_eq!(code(next), "consensus.upgrade_required");
}

#[test]
fn a_block_of_another_version_than_its_epochs_is_not_taken_over() {
    let theirs = {
        let mut other = upgraded(newer());
        let block = order_one(&mut other, more(2));
        close(&mut other, &block);
        [0, 1].map(|index| block_of(&mut other, index).proof)
    };
    // One that has not begun the epoch yet has to learn the version from the state first.
    let mut behind = Cell::new(newer());
    let adopt = |bench: &mut Cell, proof: &BlockProof| {
        bench.ask(Request::Adopt(AdoptRequest { proofs: vec![proof.clone()] })).map(drop)
    };
    adopt(&mut behind, &theirs[0]).expect("takes over");
    behind.take_effects();
    executed(&mut behind, result(&theirs[0].block, 1, true, 7)).expect("executes");
    assert_eq!(code(adopt(&mut behind, &theirs[1])), "consensus.bad_rules");
    enter(&mut behind, request(1, &four().member_set(), 0, Some(2))).expect("enters");
    adopt(&mut behind, &theirs[1]).expect("takes over");
    // And one that carries the version before it is no block of the epoch.
    let mut other = upgraded(newer());
    let mut forged = theirs[1].clone();
    forged.block.header.rules = 1;
    assert_eq!(code(adopt(&mut other, &forged)), "consensus.bad_rules");
}

#[test]
fn who_begins_at_a_checkpoint_has_the_version_of_its_block() {
    let proof = {
        let mut other = upgraded(newer());
        let block = order_one(&mut other, more(2));
        close(&mut other, &block);
        block_of(&mut other, 1).proof
    };
    for (machine, has_it) in [(newer(), true), (machine_of(four()), false)] {
        let mut bench = Cell::new(machine);
        let jump = JumpRequest { proof: proof.clone(), nonces: Vec::new() };
        bench.ask(Request::Jump(jump)).expect("jumps");
        assert_eq!((epoch(&mut bench).epoch, epoch(&mut bench).rules), (1, 2));
        let next = order_rounds(&mut bench, 1, vec![round(9, 9, vec![more(3)])]);
        assert_eq!(next.is_ok(), has_it);
        if has_it {
            assert_eq!(block_of(&mut bench, 2).proof.block.header.rules, 2);
        } else {
            assert_eq!(code(next), "consensus.upgrade_required");
        }
        let (replayed, before) = bench.replay();
        assert_eq!(replayed, before);
    }
}

/// Journals of before have no version in their epochs: it is the first.
#[test]
fn an_epoch_as_it_was_journaled_before_is_of_the_first_version() {
    let members = four().member_set();
    let mut bench = bench_of(four());
    let first = order_one(&mut bench, tx_on(&four(), 9, 1));
    close(&mut bench, &first);
    let (header, attestations) = (first.header, block_of(&mut bench, 0).proof.attestations);
    let handoff = Handoff { header, attestations, proof: proof(0, SET_KEY, Some(members.to_state())) };
    let before = codec::encode(&(9u64, (1u64, &members, &handoff)));
    let record = Record::Epoch { epoch: 1, members: members.clone(), handoff: handoff.clone(), rules: None };
    assert_eq!(codec::encode(&record), before, "an epoch of the first version is journaled as ever");
    assert_eq!(codec::decode::<Record>(&before), Ok(record));
    let later =
        Record::Epoch { epoch: 1, members: members.clone(), handoff: handoff.clone(), rules: Some(2) };
    assert_eq!(codec::encode(&later), codec::encode(&(9u64, (1u64, &members, &handoff, 2u64))));
    assert!(matches!(records(&upgraded(newer())).last(), Some(Record::Epoch { rules: Some(2), .. })));
}
