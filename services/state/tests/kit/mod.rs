//! A state by hand: its machine, blocks, and what is asked of it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use machine::module::Module;
use machine::testing::Bench;
use protocol::block::{Attestation, Block, BlockHeader, BlockProof, RULES_VERSION};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{Answer, Applied, ApplyRequest, GetRequest, KeyProof, ListKeys, Request, RootRequest};
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockHash, BlockIndex, CellId, Problem, StateRoot, signing};
use serde_json::{Value, json};
use state::StateMachine;
use state::kv::Kv;

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn cell(number: u8) -> CellId {
    signing::cell_id(&key(number))
}

pub(crate) fn genesis() -> Genesis {
    Genesis::solo("test", 1, cell(1))
}

pub(crate) fn machine_of(modules: Vec<Arc<dyn Module>>) -> StateMachine {
    StateMachine { genesis: Arc::new(genesis()), modules: modules.into() }
}

pub(crate) fn machine() -> StateMachine {
    machine_of(vec![Arc::new(Kv)])
}

/// An initialised state with `kv` alone.
pub(crate) fn bench() -> Bench<StateMachine> {
    let mut bench = Bench::new(machine());
    bench.ask(Request::Initialise(Empty {})).expect("initialises");
    bench
}

pub(crate) fn call_of(module: &str, signer: u8, nonce: u64, call: &str, args: Value) -> Transaction {
    let intent = Intent { module: module.into(), call: call.into(), args, nonce: None };
    Transaction::sign(&key(signer), genesis().hash(), &intent, nonce)
}

pub(crate) fn call(signer: u8, nonce: u64, call: &str, args: Value) -> Transaction {
    call_of("kv", signer, nonce, call, args)
}

pub(crate) fn put(signer: u8, nonce: u64, key: &str, value: &str) -> Transaction {
    call(signer, nonce, "put", json!({ "key": key, "value": value }))
}

pub(crate) fn delete(signer: u8, nonce: u64, key: &str) -> Transaction {
    call(signer, nonce, "delete", json!({ "key": key }))
}

/// A chain of blocks.
#[derive(Default)]
pub(crate) struct Chain(pub(crate) Vec<Block>);

impl Chain {
    pub(crate) fn block(&mut self, transactions: Vec<Transaction>) -> Block {
        let genesis = genesis();
        let header = BlockHeader {
            genesis: genesis.hash(),
            index: BlockIndex(self.0.len() as u64),
            time_ms: 5,
            previous: self.0.last().map_or(BlockHash::ZERO, |block| block.header.hash()),
            transactions_root: Block::transactions_root(&transactions),
            members: genesis.members_hash(),
            rules: RULES_VERSION,
            epoch: 0,
            round: self.0.len() as u64 + 1,
        };
        self.0.push(Block { header, transactions });
        self.0.last().expect("just pushed").clone()
    }
}

/// A block as its only member proves it.
pub(crate) fn attested(block: &Block, root: StateRoot) -> BlockProof {
    attested_by(&[1], block, root)
}

/// A block with these members' words.
pub(crate) fn attested_by(members: &[u8], block: &Block, root: StateRoot) -> BlockProof {
    let word = |member: &u8| Attestation::sign(&key(*member), &block.header, root);
    BlockProof { block: block.clone(), attestations: members.iter().map(word).collect() }
}

pub(crate) fn try_apply(bench: &mut Bench<StateMachine>, block: Block) -> Result<Applied, Problem> {
    match bench.ask(Request::Apply(ApplyRequest { block }))? {
        Answer::Apply(applied) => Ok(applied),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn apply(bench: &mut Bench<StateMachine>, block: Block) -> Applied {
    try_apply(bench, block).expect("applies")
}

/// "ok" or the code of each receipt.
pub(crate) fn codes(applied: &Applied) -> Vec<String> {
    applied.receipts.iter().map(|r| r.error.as_ref().map_or("ok", |error| &error.code).to_owned()).collect()
}

pub(crate) fn get(bench: &mut Bench<StateMachine>, key: &str, at: Option<u64>) -> Option<String> {
    match bench.ask(Request::Get(GetRequest { key: key.into(), at: at.map(BlockIndex) })) {
        Ok(Answer::Get(answer)) => answer.value,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn root(bench: &mut Bench<StateMachine>, at: Option<u64>) -> StateRoot {
    match bench.ask(Request::Root(RootRequest { at: at.map(BlockIndex) })) {
        Ok(Answer::Root(answer)) => answer.root,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn prove(bench: &mut Bench<StateMachine>, key: &str, at: Option<u64>) -> KeyProof {
    match bench.ask(Request::ProveKey(GetRequest { key: key.into(), at: at.map(BlockIndex) })) {
        Ok(Answer::ProveKey(proof)) => proof,
        other => panic!("{other:?}"),
    }
}

/// All keys and values, now or as of a block.
pub(crate) fn list(bench: &mut Bench<StateMachine>, at: Option<u64>) -> Vec<(String, Option<String>)> {
    let at = at.map(BlockIndex);
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let asked = ListKeys { prefix: String::new(), limit: Some(7), cursor, at };
        match bench.ask(Request::List(asked)) {
            Ok(Answer::List(page)) => {
                found.extend(page.items.into_iter().map(|item| (item.key, item.value)));
                cursor = page.next;
            }
            other => panic!("{other:?}"),
        }
        if cursor.is_none() {
            return found;
        }
    }
}
