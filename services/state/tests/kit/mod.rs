//! A state by hand: its machine, blocks, and what is asked of it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use machine::module::{Change, Module, ModuleState, Outcome, RuleSets, TxContext};
use machine::testing::Bench;
use machine::{At, Entry, Machine, MemoryStore, Overlay, Read, View};
use protocol::block::{Attestation, Block, BlockHeader, BlockProof};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::{
    Answer, Applied, ApplyRequest, Checkpoint, CheckpointRequest, Chunk, ChunkRequest, GetRequest, KeyProof,
    ListKeys, PruneAnswer, PruneRequest, Request, ResetAnswer, ResetChunkRequest, RootRequest,
};
use protocol::transaction::{Intent, Transaction};
use protocol::{BlockHash, BlockIndex, CellId, Hash, Problem, StateRoot, signing};
use serde_json::{Value, json};
use state::kv::Kv;
use state::{Job, Record, StateMachine, Workers};

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
    StateMachine::new(Arc::new(genesis()), RuleSets::first(modules))
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
    signed(signer, nonce, &Intent { module: module.into(), call: call.into(), args, ..Intent::default() })
}

pub(crate) fn signed(signer: u8, nonce: u64, intent: &Intent) -> Transaction {
    Transaction::sign(&key(signer), genesis().hash(), intent, nonce)
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
pub(crate) struct Chain(pub(crate) Vec<Block>, Genesis);

impl Default for Chain {
    fn default() -> Self {
        Self::of(&genesis())
    }
}

impl Chain {
    pub(crate) fn of(genesis: &Genesis) -> Self {
        Self(Vec::new(), genesis.clone())
    }

    pub(crate) fn block(&mut self, transactions: Vec<Transaction>) -> Block {
        self.block_with(transactions, |_| ())
    }

    /// A block whose header is changed before it is hashed.
    pub(crate) fn block_with(
        &mut self,
        transactions: Vec<Transaction>,
        change: impl FnOnce(&mut BlockHeader),
    ) -> Block {
        let genesis = &self.1;
        let mut header = BlockHeader {
            genesis: genesis.hash(),
            index: BlockIndex(self.0.len() as u64),
            time_ms: 5,
            previous: self.0.last().map_or(BlockHash::ZERO, |block| block.header.hash()),
            transactions_root: Block::transactions_root(&transactions),
            members: genesis.members_hash(),
            rules: protocol::rules::FIRST,
            epoch: 0,
            round: self.0.len() as u64 + 1,
            beacon: None,
        };
        change(&mut header);
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
    BlockProof {
        block: block.clone(),
        attestations: members.iter().map(word).collect(),
        handoffs: Vec::new(),
    }
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

pub(crate) fn checkpoint(bench: &mut Bench<StateMachine>, at: Option<u64>) -> Checkpoint {
    match bench.ask(Request::GetCheckpoint(CheckpointRequest { at: at.map(BlockIndex) })) {
        Ok(Answer::GetCheckpoint(checkpoint)) => checkpoint,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn chunk(
    bench: &mut Bench<StateMachine>,
    at: u64,
    after: Option<Hash>,
    bytes_max: Option<u64>,
) -> Chunk {
    match bench.ask(Request::GetChunk(ChunkRequest { at: BlockIndex(at), after, bytes_max })) {
        Ok(Answer::GetChunk(chunk)) => chunk,
        other => panic!("{other:?}"),
    }
}

/// All chunks of a checkpoint, each with the `after` it was asked for with.
pub(crate) fn chunks(
    bench: &mut Bench<StateMachine>,
    checkpoint: &Checkpoint,
    bytes_max: Option<u64>,
) -> Vec<(Option<Hash>, Chunk)> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let chunk = chunk(bench, checkpoint.index.0, after, bytes_max);
        let next = state::verify_chunk(&checkpoint.root, after.as_ref(), &chunk).expect("holds");
        all.push((after, chunk));
        after = next;
        if after.is_none() {
            return all;
        }
    }
}

pub(crate) fn begin(bench: &mut Bench<StateMachine>, checkpoint: &Checkpoint) -> ResetAnswer {
    match bench.ask(Request::Reset(checkpoint.clone())) {
        Ok(Answer::Reset(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn bring(
    bench: &mut Bench<StateMachine>,
    after: Option<Hash>,
    chunk: &Chunk,
) -> Result<ResetAnswer, Problem> {
    match bench.ask(Request::ResetChunk(ResetChunkRequest { after, chunk: chunk.clone() }))? {
        Answer::ResetChunk(answer) => Ok(answer),
        other => panic!("{other:?}"),
    }
}

/// Resets a state to a checkpoint of another.
pub(crate) fn reset(
    bench: &mut Bench<StateMachine>,
    source: &mut Bench<StateMachine>,
    at: Option<u64>,
    bytes_max: Option<u64>,
) -> Checkpoint {
    let checkpoint = checkpoint(source, at);
    begin(bench, &checkpoint);
    let chunks = chunks(source, &checkpoint, bytes_max);
    let count = chunks.len();
    for (number, (after, chunk)) in (1..).zip(chunks) {
        assert_eq!(bring(bench, after, &chunk).expect("is taken").done, number == count);
    }
    checkpoint
}

pub(crate) fn prune(bench: &mut Bench<StateMachine>, keep_blocks: u64) -> PruneAnswer {
    match bench.ask(Request::Prune(PruneRequest { keep_blocks })) {
        Ok(Answer::Prune(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Prunes until nothing is left to remove; how many rows went.
pub(crate) fn prune_all(bench: &mut Bench<StateMachine>, keep_blocks: u64) -> u64 {
    let mut removed = 0;
    loop {
        let answer = prune(bench, keep_blocks);
        removed += answer.removed;
        if !answer.more {
            return removed;
        }
    }
}

/// How many rows a view has whose keys begin so.
pub(crate) fn rows(view: &MemoryStore, from: &[u8], to: &[u8]) -> usize {
    view.scan(from, to, false).count()
}

/// Signer, key, and the value to put (or a deletion).
pub(crate) type Step = (u8, u8, Option<u8>);

/// The transactions of each block; nonces rise over all of them.
pub(crate) fn transactions(blocks: &[Vec<Step>]) -> Vec<Vec<Transaction>> {
    let mut nonce = 0;
    let mut transaction = |(signer, key, value): &Step| {
        nonce += 1;
        match value {
            Some(value) => put(*signer, nonce, &format!("k{key}"), &format!("v{value}")),
            None => delete(*signer, nonce, &format!("k{key}")),
        }
    };
    blocks.iter().map(|steps| steps.iter().map(&mut transaction).collect()).collect()
}

/// What a state answers to everything that can be asked of it as of a block.
pub(crate) fn all_of(bench: &mut Bench<StateMachine>, at: u64) -> Vec<(String, Option<String>, KeyProof)> {
    let root = root(bench, Some(at));
    let mut keys: Vec<String> = list(bench, Some(at)).into_iter().map(|(key, _)| key).collect();
    keys.push("kv/none".to_owned());
    let mut answer = |key: String| {
        let proof = prove(bench, &key, Some(at));
        state::verify_key_proof_under(&proof, &root).expect("holds");
        (key.clone(), get(bench, &key, Some(at)), proof)
    };
    keys.into_iter().map(&mut answer).collect()
}

/// Folds a journal the way the actor does, in batches of which the last is still being synced while
/// the next is filled.
pub(crate) fn fold(journal: &[Vec<u8>], cuts: &[usize]) -> MemoryStore {
    let mut store = MemoryStore::default();
    let (mut syncing, mut filling) = (Overlay::default(), Overlay::default());
    for (index, bytes) in journal.iter().enumerate() {
        let record = Entry::<Record>::decode(bytes).expect("an entry").record;
        let mut view = View::new(&store, Some(&syncing), &mut filling);
        machine().apply(&mut view, At { index: index as u64, time_ms: 0 }, &record).expect("folds");
        if cuts.contains(&index) {
            store.absorb(&std::mem::replace(&mut syncing, std::mem::take(&mut filling)));
        }
    }
    store.absorb(&syncing);
    store.absorb(&filling);
    store
}

/// Stands for the module `members`: whoever asks has the set that it names.
pub(crate) struct Chosen;

impl Module for Chosen {
    fn name(&self) -> &'static str {
        "members"
    }
    fn genesis(&self, genesis: &Genesis, state: &mut dyn ModuleState) {
        state.put("set", genesis.member_set().to_state());
    }
    fn check(&self, _: &str, _: &Value) -> Outcome {
        Ok(())
    }
    fn execute(
        &self,
        _: &TxContext,
        _: &str,
        args: &Value,
        state: &mut dyn ModuleState,
    ) -> Result<Outcome, machine::Fault> {
        state.put("set", serde_json::to_vec(args).expect("JSON"));
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

/// Two threads, the last job first.
pub(crate) struct Threads;

impl Workers for Threads {
    fn are_worth(&self, _: usize) -> bool {
        true
    }
    fn run(&self, jobs: Vec<Job<'_>>) {
        std::thread::scope(|scope| {
            for job in jobs.into_iter().rev() {
                scope.spawn(job);
            }
        });
    }
}
