//! The rules of State: blocks in order and once, refusals roll back, versions stay readable.

mod kit;

use std::sync::Arc;

use kit::*;
use machine::module::{Change, Module, ModuleState, Outcome, TxContext};
use machine::testing::Bench;
use machine::{At, Context, Entry, Fault, Machine, MemoryStore, Overlay, View};
use protocol::block::{Block, BlockHeader};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{Answer, ApplyRequest, GetRequest, HistoryRequest, ListKeys, NonceRequest, Request};
use protocol::{BlockIndex, Caller, GenesisHash, Problem, ProblemKind};
use serde_json::{Value, json};
use state::kv::Kv;
use state::{Record, StateMachine};

#[test]
fn a_state_begins_with_its_genesis_once() {
    let mut bench = Bench::new(machine());
    let get = Request::Get(GetRequest { key: "kv/a".into(), at: None });
    assert_eq!(bench.ask(get).expect_err("nothing yet").code, "state.not_initialised");
    for _ in 0..2 {
        bench.ask(Request::Initialise(Empty {})).expect("initialises");
        assert_eq!(bench.journal.len(), 1);
    }
    assert_eq!(kit::get(&mut bench, "kv/a", None), None);
    assert_eq!(bench.ask(Request::Head(Empty {})).expect_err("no block").code, "state.no_blocks");
}

#[test]
fn values_belong_to_whoever_wrote_them_first() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let steps = [
        (put(1, 1, "colour", "blue"), "ok"),
        (put(2, 1, "colour", "red"), "kv.not_owner"),
        (delete(2, 2, "colour"), "kv.not_owner"),
        (put(1, 2, "colour", "green"), "ok"),
        (delete(1, 3, "none"), "kv.no_such_key"),
        (delete(1, 4, "colour"), "ok"),
        (put(2, 3, "colour", "red"), "ok"),
    ];
    for (transaction, code) in steps {
        let block = chain.block(vec![transaction]);
        assert_eq!(codes(&apply(&mut bench, block)), [code]);
    }
    let values = [Some("blue"), Some("blue"), Some("blue"), Some("green"), Some("green"), None, Some("red")];
    for (at, value) in (0..).zip(values) {
        assert_eq!(get(&mut bench, "kv/colour", Some(at)).as_deref(), value, "after block {at}");
    }
    assert_eq!(get(&mut bench, "kv/colour", None).as_deref(), Some("red"));
    let far = Request::Get(GetRequest { key: "kv/colour".into(), at: Some(BlockIndex(7)) });
    assert_eq!(bench.ask(far).expect_err("not yet").code, "state.no_such_block");
}

#[test]
fn calls_of_another_shape_are_refused_before_and_in_a_block() {
    let long = "x".repeat(64 * 1024 + 1);
    let cases = [
        ("get", json!({ "key": "a" }), "kv.unknown_call"),
        ("put", json!({ "key": "a" }), "kv.bad_args"),
        ("put", json!({ "key": "a", "value": 5 }), "kv.bad_args"),
        ("put", json!({ "key": "a", "value": "b", "ttl": "1" }), "kv.bad_args"),
        ("put", Value::Null, "kv.bad_args"),
        ("put", json!({ "key": "", "value": "b" }), "kv.bad_key"),
        ("put", json!({ "key": "x".repeat(257), "value": "b" }), "kv.bad_key"),
        ("put", json!({ "key": "@a", "value": "b" }), "kv.bad_key"),
        ("delete", json!({ "key": "@a" }), "kv.bad_key"),
        ("put", json!({ "key": "a", "value": long }), "kv.value_too_large"),
        ("put", json!({ "key": "a", "value": "b", long.as_str(): "c" }), "kv.bad_args"),
    ];
    let (mut bench, mut chain) = (bench(), Chain::default());
    for (nonce, (name, args, code)) in (1..).zip(cases) {
        let problem = Kv.check(name, &args).expect_err(code);
        assert_eq!(problem.code, code);
        assert!(problem.cause.len() < 1_000, "the cause does not repeat all that was sent");
        let block = chain.block(vec![call(1, nonce, name, args)]);
        assert_eq!(codes(&apply(&mut bench, block)), [code]);
    }
    let widest = json!({ "key": "x".repeat(256), "value": "x".repeat(64 * 1024) });
    Kv.check("put", &widest).expect("the limits are inclusive");
    let block = chain.block(vec![call(1, 99, "put", widest)]);
    assert_eq!(codes(&apply(&mut bench, block)), ["ok"]);
    let widest = get(&mut bench, &format!("kv/{}", "x".repeat(256)), None);
    assert_eq!(widest.expect("is there").len(), 64 * 1024);
}

#[test]
fn a_nonce_is_used_once_whatever_becomes_of_its_call() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let block = chain.block(vec![
        put(1, 5, "a", "1"),
        put(1, 5, "a", "2"),
        put(1, 4, "a", "3"),
        delete(1, 6, "none"),
        put(1, 6, "a", "4"),
        call_of("none", 1, 7, "put", json!({})),
    ]);
    let expected = [
        "ok",
        "state.nonce_used",
        "state.nonce_used",
        "kv.no_such_key",
        "state.nonce_used",
        "state.unknown_module",
    ];
    assert_eq!(codes(&apply(&mut bench, block)), expected);
    let block = chain.block(vec![put(1, 7, "a", "5")]);
    let before = root(&mut bench, None);
    assert_eq!(codes(&apply(&mut bench, block)), ["state.nonce_used"]);
    assert_eq!(root(&mut bench, None), before, "a block that changes nothing keeps the root");
    assert_eq!(get(&mut bench, "kv/a", None).as_deref(), Some("1"));
    match bench.ask(Request::Nonce(NonceRequest { cell: cell(1) })) {
        Ok(Answer::Nonce(nonce)) => assert_eq!(nonce.last, 7),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_next_block_of_this_network_is_applied() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let [first, second, third] = [1, 2, 3].map(|nonce| chain.block(vec![put(1, nonce, "a", "b")]));
    let applied = apply(&mut bench, first.clone());
    let code =
        |bench: &mut Bench<StateMachine>, block: Block| try_apply(bench, block).expect_err("refused").code;
    assert_eq!(code(&mut bench, third), "state.gap");
    let with = |change: fn(&mut Block)| {
        let mut block = second.clone();
        change(&mut block);
        block
    };
    for (block, expected) in [
        (with(|block| block.header.genesis = GenesisHash::ZERO), "state.wrong_network"),
        (with(|block| block.header.rules += 1), "state.upgrade_required"),
        (with(|block| block.header.previous = protocol::BlockHash::ZERO), "state.wrong_parent"),
        (with(|block| block.transactions.clear()), "state.bad_block"),
        (with(|block| block.transactions.push(put(1, 9, "x", "y"))), "state.bad_block"),
    ] {
        assert_eq!(code(&mut bench, block), expected);
    }
    let rival = Block { header: BlockHeader { time_ms: 6, ..first.header.clone() }, ..first.clone() };
    assert_eq!(code(&mut bench, rival), "state.wrong_parent", "another block stands at this index");
    let length = bench.journal.len();
    assert_eq!(apply(&mut bench, first), applied, "the same block gives the same answer");
    assert_eq!(bench.journal.len(), length);
    let last = apply(&mut bench, second);
    assert_eq!(bench.ask(Request::Head(Empty {})), Ok(Answer::Head(last.clone())));
    let event = bench.events.last().expect("one a block");
    assert_eq!(event.data, json!({ "index": 1, "root": last.root, "transactions": 1 }));
}

/// A module whose genesis holds `sum` = 10, and that takes a call to break it.
struct Leaky;

impl Module for Leaky {
    fn name(&self) -> &'static str {
        "leaky"
    }
    fn genesis(&self, _: &Genesis, state: &mut dyn ModuleState) {
        state.put("sum", b"10".to_vec());
    }
    fn check(&self, _: &str, _: &Value) -> Outcome {
        Ok(())
    }
    fn execute(
        &self,
        _: &TxContext,
        call: &str,
        _: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        state.put("sum", b"11".to_vec());
        state.delete("none");
        if call == "leak" {
            Ok(Ok(()))
        } else {
            Ok(Err(Problem::new(ProblemKind::Invalid, "leaky.no", "no")))
        }
    }
    fn check_invariants(&self, changes: &[Change]) -> Result<(), String> {
        match changes.iter().find(|change| change.key == "sum" && change.before != change.after) {
            Some(change) => Err(format!("{change:?}")),
            None => Ok(()),
        }
    }
}

fn context() -> Context {
    Context { now_ms: 0, entropy: [0; 32], caller: Caller::Internal }
}

#[test]
fn a_broken_invariant_stops_the_service() {
    let mut bench = Bench::new(machine_of(vec![Arc::new(Leaky), Arc::new(Kv)]));
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    assert_eq!(
        get(&mut bench, "leaky/sum", None).as_deref(),
        Some("10"),
        "the genesis is there before any block"
    );
    let mut chain = Chain::default();
    let refused = chain.block(vec![call_of("leaky", 1, 1, "try", json!({}))]);
    assert_eq!(codes(&apply(&mut bench, refused)), ["leaky.no"]);
    assert_eq!(get(&mut bench, "leaky/sum", None).as_deref(), Some("10"), "a refusal rolls back");
    let block = chain.block(vec![put(1, 2, "a", "b"), call_of("leaky", 1, 3, "leak", json!({}))]);
    let fault = bench.machine.decide(&bench.view, &context(), Request::Apply(ApplyRequest { block }));
    let fault = fault.expect_err("a fault");
    assert!(fault.0.contains("invariant") && fault.0.contains("leaky"), "{fault}");
}

#[test]
fn a_write_set_that_does_not_give_its_root_stops_the_service() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let block = chain.block(vec![put(1, 1, "a", "b")]);
    apply(&mut bench, block);
    let mut store = MemoryStore::default();
    let fold = |store: &mut MemoryStore, record: &Record| {
        let mut top = Overlay::default();
        let mut view = View::new(&*store, None, &mut top);
        machine().apply(&mut view, At { index: 0, time_ms: 0 }, record).map(|_| ())?;
        store.absorb(&top);
        Ok::<_, Fault>(())
    };
    let records: Vec<Record> =
        bench.journal.iter().map(|bytes| Entry::decode(bytes).expect("an entry").record).collect();
    fold(&mut store, &records[0]).expect("the genesis folds");
    let Record::Applied { applied, hash, mut writes } = records[1].clone() else { panic!("block 0") };
    writes.0.insert("kv/a".to_owned(), Some(b"c".to_vec()));
    let fault = fold(&mut store, &Record::Applied { applied, hash, writes }).expect_err("another root");
    assert!(fault.0.contains("root"), "{fault}");
    fold(&mut store, &records[1]).expect("the one that was journaled folds");
    assert_eq!(store, bench.view);
}

#[test]
fn lists_and_histories_are_paged_and_stay_with_what_was_asked() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let keys = ["a", "b", "b/c", "c"];
    for (nonce, key) in (1..).zip(keys) {
        let block = chain.block(vec![put(1, nonce, key, key)]);
        apply(&mut bench, block);
    }
    let list = |bench: &mut Bench<StateMachine>, cursor: Option<String>| {
        bench.ask(Request::List(ListKeys { prefix: "kv/b".into(), limit: Some(1), cursor, at: None }))
    };
    let Ok(Answer::List(page)) = list(&mut bench, None) else { panic!("no page") };
    assert_eq!((page.items[0].key.as_str(), page.next.as_deref()), ("kv/b", Some("kv/b")));
    let Ok(Answer::List(page)) = list(&mut bench, page.next) else { panic!("no page") };
    assert_eq!((page.items[0].key.as_str(), page.next), ("kv/b/c", None));
    let problem = list(&mut bench, Some("kv/a".to_owned())).expect_err("a cursor of another list");
    assert_eq!(problem.code, "state.bad_cursor");
    let mut asked = HistoryRequest { key: "kv/a".into(), limit: Some(1), cursor: None };
    let block = chain.block(vec![delete(1, 9, "a")]);
    apply(&mut bench, block);
    let mut versions = Vec::new();
    loop {
        let Ok(Answer::History(page)) = bench.ask(Request::History(asked.clone())) else { panic!("no page") };
        versions.extend(
            page.items.into_iter().map(|version| (version.index.map(|index| index.0), version.value)),
        );
        asked.cursor = page.next;
        if asked.cursor.is_none() {
            break;
        }
    }
    assert_eq!(versions, [(Some(4), None), (Some(0), Some("a".to_owned()))]);
    let without_module = HistoryRequest { key: "a".into(), limit: None, cursor: None };
    assert_eq!(bench.ask(Request::History(without_module)).expect_err("no key").code, "state.bad_key");
}

#[test]
fn the_whole_state_is_read_as_of_any_block() {
    let (mut bench, mut chain) = (bench(), Chain::default());
    let steps = [put(1, 1, "a", "1"), put(1, 2, "b", "2"), delete(1, 3, "a"), put(1, 4, "a", "3")];
    let mut seen = Vec::new();
    for transaction in steps {
        let block = chain.block(vec![transaction]);
        apply(&mut bench, block);
        seen.push(list(&mut bench, None));
    }
    for (at, seen) in (0..).zip(seen) {
        assert_eq!(list(&mut bench, Some(at)), seen, "after block {at}");
        for (key, value) in seen {
            assert_eq!(get(&mut bench, &key, Some(at)), value);
            state::verify_key_proof_under(&prove(&mut bench, &key, Some(at)), &root(&mut bench, Some(at)))
                .expect("holds");
        }
    }
    let far = ListKeys { at: Some(BlockIndex(4)), ..Default::default() };
    assert_eq!(bench.ask(Request::List(far)).expect_err("not yet").code, "state.no_such_block");
}
