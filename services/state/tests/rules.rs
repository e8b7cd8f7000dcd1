//! The rules of State: blocks in order, refusals roll back, roots and proofs hold.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use machine::module::Module;
use machine::testing::Bench;
use protocol::block::{Block, BlockHeader, RULES_VERSION};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{Answer, Applied, ApplyRequest, GetRequest, HistoryRequest, KeyProof, Request, RootRequest, StateProof};
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockHash, BlockIndex, signing};
use state::kv::Kv;
use state::{StateMachine, verify_key_proof, verify_state_proof};

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn machine() -> StateMachine {
    let modules: Vec<Arc<dyn Module>> = vec![Arc::new(Kv)];
    let genesis = Genesis::solo("test", 1, signing::cell_id(&key(1)));
    StateMachine { genesis: Arc::new(genesis), modules: modules.into() }
}

fn bench() -> Bench<StateMachine> {
    let mut bench = Bench::new(machine());
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    bench
}

fn call(signer: u8, nonce: u64, call: &str, args: serde_json::Value) -> Transaction {
    let intent = Intent { module: "kv".into(), call: call.into(), args, nonce: None };
    Transaction::sign(&key(signer), machine().genesis.hash(), &intent, nonce)
}

fn put(signer: u8, nonce: u64, key: &str, value: &str) -> Transaction {
    call(signer, nonce, "put", serde_json::json!({ "key": key, "value": value }))
}

/// A chain of blocks.
struct Chain(Vec<Block>);

impl Chain {
    fn block(&mut self, transactions: Vec<Transaction>) -> Block {
        let genesis = machine().genesis;
        let header = BlockHeader {
            genesis: genesis.hash(),
            index: BlockIndex(self.0.len() as u64),
            time_ms: 5,
            previous: self.0.last().map_or(BlockHash::ZERO, |block| block.header.hash()),
            transactions_root: Block::transactions_root(&transactions),
            members: genesis.members_hash(),
            rules: RULES_VERSION,
        };
        self.0.push(Block { header, transactions });
        self.0.last().expect("just pushed").clone()
    }
}

fn apply(bench: &mut Bench<StateMachine>, block: Block) -> Applied {
    match bench.ask(Request::Apply(ApplyRequest { block })) {
        Ok(Answer::Apply(applied)) => applied,
        other => panic!("{other:?}"),
    }
}

fn get(bench: &mut Bench<StateMachine>, key: &str, at: Option<u64>) -> Option<String> {
    match bench.ask(Request::Get(GetRequest { key: key.into(), at: at.map(BlockIndex) })) {
        Ok(Answer::Get(answer)) => answer.value,
        other => panic!("{other:?}"),
    }
}

fn prove(bench: &mut Bench<StateMachine>, key: &str) -> KeyProof {
    match bench.ask(Request::ProveKey(GetRequest { key: key.into(), at: None })) {
        Ok(Answer::ProveKey(proof)) => proof,
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_history_and_refusals() {
    let (mut bench, mut chain) = (bench(), Chain(vec![]));
    let first = chain.block(vec![put(1, 1, "colour", "blue"), put(2, 1, "colour", "red"), put(2, 2, "size", "5")]);
    let applied = apply(&mut bench, first.clone());
    let codes: Vec<_> = applied.receipts.iter().map(|r| r.error.as_ref().map(|e| e.code.to_string())).collect();
    assert_eq!(codes, [None, Some("kv.not_owner".to_owned()), None]);
    assert_eq!(apply(&mut bench, first.clone()), applied, "the same block gives the same answer");
    let second = chain.block(vec![
        put(1, 1, "colour", "replayed"),
        put(1, 2, "colour", "green"),
        call(2, 3, "delete", serde_json::json!({ "key": "size" })),
        call(2, 4, "delete", serde_json::json!({ "key": "none" })),
        call(2, 5, "put", serde_json::json!({ "key": 5 })),
    ]);
    let applied = apply(&mut bench, second);
    let codes: Vec<_> = applied.receipts.iter().map(|r| r.error.as_ref().map_or("ok", |e| &e.code).to_owned()).collect();
    assert_eq!(codes, ["state.nonce_used", "ok", "ok", "kv.no_such_key", "kv.bad_args"]);
    assert_eq!(get(&mut bench, "kv/colour", None).as_deref(), Some("green"));
    assert_eq!(get(&mut bench, "kv/colour", Some(0)).as_deref(), Some("blue"));
    assert_eq!(get(&mut bench, "kv/size", None), None);
    assert_eq!(get(&mut bench, "kv/size", Some(0)).as_deref(), Some("5"));
    match bench.ask(Request::History(HistoryRequest { key: "kv/size".into(), limit: None, cursor: None })) {
        Ok(Answer::History(page)) => {
            let versions: Vec<_> = page.items.into_iter().map(|v| (v.index.0, v.value)).collect();
            assert_eq!(versions, [(1, None), (0, Some("5".to_owned()))]);
        }
        other => panic!("{other:?}"),
    }
    let fork = Chain(vec![first.clone(), first]).block(vec![]);
    let problem = bench.ask(Request::Apply(ApplyRequest { block: fork })).expect_err("does not follow");
    assert_eq!(problem.code, "state.wrong_parent");
    let far = BlockHeader { index: BlockIndex(9), ..chain.0[0].header.clone() };
    let far = Block { header: far, transactions: vec![] };
    assert_eq!(bench.ask(Request::Apply(ApplyRequest { block: far })).expect_err("gap").code, "state.gap");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before, "a replay folds write sets, without executing, to the same view");
}

#[test]
fn proofs_hold_for_what_is_there_and_for_nothing_else() {
    let (mut bench, mut chain) = (bench(), Chain(vec![]));
    let genesis_proof = StateProof { proof: prove(&mut bench, "kv/a"), block: None };
    verify_state_proof(&genesis_proof, &machine()).expect("the genesis state is provable");
    let puts = (0..20).map(|number| put(1, number + 1, &format!("key{number}"), "value")).collect();
    apply(&mut bench, chain.block(puts));
    for (key, there) in [("kv/key7", true), ("kv/none", false)] {
        let proof = prove(&mut bench, key);
        assert_eq!(proof.value.is_some(), there);
        verify_key_proof(&proof).expect("holds");
        let wrong = KeyProof { value: Some(hex_of("other")), ..proof.clone() };
        assert_eq!(verify_key_proof(&wrong).expect_err("wrong value").code, "state.bad_proof");
        let opposite = KeyProof { value: if there { None } else { Some(hex_of("x")) }, ..proof.clone() };
        verify_key_proof(&opposite).expect_err("opposite");
        for place in 0..proof.path.len() / 2 {
            let mut path = proof.path.clone().into_bytes();
            path[place * 2] = if path[place * 2] == b'0' { b'1' } else { b'0' };
            let changed = KeyProof { path: String::from_utf8(path).expect("hex"), ..proof.clone() };
            assert!(verify_key_proof(&changed).is_err(), "byte {place} of the path changed");
        }
    }
}

fn hex_of(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_root_is_a_function_of_the_content() {
    let root = |transactions: Vec<Vec<Transaction>>| {
        let (mut bench, mut chain) = (bench(), Chain(vec![]));
        for transactions in transactions {
            let block = chain.block(transactions);
            apply(&mut bench, block);
        }
        match bench.ask(Request::Root(RootRequest::default())) {
            Ok(Answer::Root(answer)) => answer.root,
            other => panic!("{other:?}"),
        }
    };
    let all: Vec<Transaction> = (1..9).map(|nonce| put(1, nonce, &format!("k{nonce}"), "v")).collect();
    let at_once = root(vec![all.clone()]);
    let one_by_one = root(all.into_iter().map(|transaction| vec![transaction]).collect());
    assert_eq!(at_once, one_by_one);
    assert_ne!(at_once, root(vec![vec![put(1, 8, "k", "v")]]));
}
