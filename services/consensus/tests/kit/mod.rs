//! Networks by hand: machines, transactions, rounds, results, words.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::sync::Arc;

use consensus::{ConsensusMachine, Effect, Record};
use ed25519_dalek::SigningKey;
use machine::module::{Change, Module, ModuleState, Outcome, RuleSets, TxContext};
use machine::testing::Bench;
pub(crate) use machine::testing::Keys;
use machine::{Entry, Fault};
use protocol::block::{Attestation, Block, BlockProof};
use protocol::consensus::{
    AdmitRequest, AdoptRequest, Answer, AttestedRequest, BlockAnswer, BlockRef, EpochView, ExecutedRequest,
    OrderRequest, OrderedRound, Progress, Request, TxRef, TxStatus, TxView, Waiting,
};
use protocol::genesis::{Genesis, Member};
use protocol::gossip::{ForkProof, SignedEvent};
use protocol::shared::{Empty, ListRequest};
use protocol::signing::{self, Signature};
use protocol::state::Applied;
use protocol::transaction::{Intent, Lane, Transaction, TxReceipt};
use protocol::{BlockIndex, CellId, Hash, Problem, ProblemKind, StateRoot};

pub(crate) type Cell = Bench<ConsensusMachine>;

/// A module of this name with one call, `put`, that takes anything.
struct Anything(&'static str);

impl Module for Anything {
    fn name(&self) -> &'static str {
        self.0
    }
    fn genesis(&self, _: &Genesis, _: &mut dyn ModuleState) {}
    fn check(&self, call: &str, _: &serde_json::Value) -> Outcome {
        if call == "put" { Ok(()) } else { Err(Problem::new(ProblemKind::Invalid, "kv.unknown_call", call)) }
    }
    fn execute(
        &self,
        _: &TxContext,
        _: &str,
        _: &serde_json::Value,
        _: &mut dyn ModuleState,
    ) -> Result<Outcome, Fault> {
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn cell(number: u8) -> CellId {
    signing::cell_id(&key(number))
}

/// A network of one: cell 1.
pub(crate) fn genesis() -> Genesis {
    Genesis::solo("test", 1, cell(1))
}

/// A network of cells 1, 2, … with these weights.
pub(crate) fn network(weights: &[u64]) -> Genesis {
    let members = (1..).zip(weights).map(|(number, weight)| Member::new(cell(number), *weight));
    Genesis { members: members.collect(), ..genesis() }
}

/// Cells 1 to 4, equals.
pub(crate) fn four() -> Genesis {
    network(&[1; 4])
}

/// A cell of a network.
pub(crate) fn bench_of(genesis: Genesis) -> Cell {
    Bench::new(machine_of(genesis))
}

pub(crate) fn machine_of(genesis: Genesis) -> ConsensusMachine {
    ConsensusMachine { genesis: Arc::new(genesis), rules: RuleSets::first(modules(&["kv"])) }
}

/// Modules of these names.
pub(crate) fn modules(names: &[&'static str]) -> Vec<Arc<dyn Module>> {
    names.iter().map(|name| Arc::new(Anything(name)) as Arc<dyn Module>).collect()
}

pub(crate) fn bench() -> Cell {
    bench_of(genesis())
}

/// The one transaction of a sender with this nonce.
pub(crate) fn tx_on(genesis: &Genesis, sender: u8, nonce: u64) -> Transaction {
    let intent =
        Intent { module: "kv".into(), call: "put".into(), args: serde_json::json!({}), ..Intent::default() };
    Transaction::sign(&key(sender), genesis.hash(), &intent, nonce)
}

/// The same in a lane, with arguments of so many bytes beside.
pub(crate) fn tx_in(genesis: &Genesis, sender: u8, nonce: u64, lane: Lane, bytes: usize) -> Transaction {
    let (module, call, args) = ("kv".into(), "put".into(), "x".repeat(bytes).into());
    let intent = Intent { module, call, args, lane: Some(lane), ..Intent::default() };
    Transaction::sign(&key(sender), genesis.hash(), &intent, nonce)
}

/// Sender 2's, on the network of one.
pub(crate) fn tx(nonce: u64) -> Transaction {
    tx_on(&genesis(), 2, nonce)
}

pub(crate) fn admit(bench: &mut Cell, transaction: Transaction) -> Result<TxView, Problem> {
    match bench.ask(Request::Admit(AdmitRequest { transaction }))? {
        Answer::Admit(view) => Ok(view),
        other => panic!("{other:?}"),
    }
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
    result.expect_err("it is refused").code.into_owned()
}

pub(crate) fn round(round: u64, time_ms: u64, transactions: Vec<Transaction>) -> OrderedRound {
    OrderedRound { round, time_us: time_ms * 1_000, transactions, drawn: None }
}

pub(crate) fn order_rounds(
    bench: &mut Cell,
    epoch: u64,
    rounds: Vec<OrderedRound>,
) -> Result<Progress, Problem> {
    match bench.ask(Request::Order(OrderRequest { epoch, rounds }))? {
        Answer::Order(progress) => Ok(progress),
        other => panic!("{other:?}"),
    }
}

/// Takes final blocks of others over.
pub(crate) fn adopt(bench: &mut Cell, proofs: Vec<BlockProof>) -> Result<Progress, Problem> {
    match bench.ask(Request::Adopt(AdoptRequest { proofs }))? {
        Answer::Adopt(progress) => Ok(progress),
        other => panic!("{other:?}"),
    }
}

/// Orders one more round of the present epoch, at the bench's time; gives the blocks that it fills. Effects are dropped.
pub(crate) fn order(bench: &mut Cell, transactions: Vec<Transaction>) -> Vec<Block> {
    let now = epoch(bench);
    let next = round(now.round + 1, bench.now_ms, transactions);
    let progress = order_rounds(bench, now.epoch, vec![next]).expect("orders");
    bench.take_effects();
    (now.progress.ordered..progress.ordered).map(|index| block_of(bench, index).proof.block).collect()
}

/// Orders one more round with one block of this one transaction.
pub(crate) fn order_one(bench: &mut Cell, transaction: Transaction) -> Block {
    order(bench, vec![transaction]).pop().expect("a block")
}

pub(crate) fn root(number: u8) -> StateRoot {
    StateRoot::from_bytes([number; 32])
}

/// A member's word for a block; the root is all `number`.
pub(crate) fn word(block: &Block, member: u8, number: u8) -> Attestation {
    Attestation::sign(&key(member), &block.header, root(number))
}

/// A block's result, with a member's word for it.
pub(crate) fn result(block: &Block, member: u8, ok: bool, number: u8) -> ExecutedRequest {
    let error = (!ok).then(|| Problem::new(ProblemKind::Invalid, "kv.no", "no"));
    let receipts = block
        .transactions
        .iter()
        .map(|tx| TxReceipt { id: tx.id(), ok, error: error.clone(), fee: None })
        .collect();
    ExecutedRequest {
        applied: Applied { index: block.header.index, root: root(number), receipts },
        attestation: Some(word(block, member, number)),
    }
}

pub(crate) fn executed(bench: &mut Cell, request: ExecutedRequest) -> Result<Progress, Problem> {
    match bench.ask(Request::Executed(request))? {
        Answer::Executed(progress) => Ok(progress),
        other => panic!("{other:?}"),
    }
}

/// Cell 1 executes a block: it comes to root 7.
pub(crate) fn execute(bench: &mut Cell, block: &Block) -> Progress {
    executed(bench, result(block, 1, true, 7)).expect("executes")
}

/// Words that came in events of the present epoch.
pub(crate) fn hear(bench: &mut Cell, attestations: Vec<Attestation>) -> Progress {
    let epoch = epoch(bench).epoch;
    hear_in(bench, epoch, attestations)
}

pub(crate) fn hear_in(bench: &mut Cell, epoch: u64, attestations: Vec<Attestation>) -> Progress {
    match bench.ask(Request::Attested(AttestedRequest { epoch, attestations })) {
        Ok(Answer::Attested(progress)) => progress,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn epoch(bench: &mut Cell) -> EpochView {
    match bench.ask(Request::GetEpoch(Empty {})) {
        Ok(Answer::GetEpoch(epoch)) => epoch,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn progress(bench: &mut Cell) -> (u64, u64, u64) {
    let Progress { ordered, executed, finalised } = epoch(bench).progress;
    (ordered, executed, finalised)
}

pub(crate) fn block_of(bench: &mut Cell, index: u64) -> BlockAnswer {
    match bench.ask(Request::GetBlock(BlockRef { index: BlockIndex(index) })) {
        Ok(Answer::GetBlock(block)) => block,
        other => panic!("{other:?}"),
    }
}

/// All that waits, oldest first.
pub(crate) fn waiting(bench: &mut Cell) -> Vec<Waiting> {
    match bench.ask(Request::Waits(ListRequest { limit: Some(1_000), cursor: None })) {
        Ok(Answer::Waits(page)) => page.items,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn view_of(bench: &mut Cell, transaction: &Transaction) -> Option<TxView> {
    match bench.ask(Request::Tx(TxRef { id: transaction.id() })) {
        Ok(Answer::Tx(view)) => Some(view),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => {
            assert_eq!(problem.code, "consensus.unknown_tx");
            None
        }
    }
}

pub(crate) fn status(bench: &mut Cell, transaction: &Transaction) -> Option<TxStatus> {
    view_of(bench, transaction).map(|view| view.status)
}

/// The journaled records.
pub(crate) fn records(bench: &Cell) -> Vec<Record> {
    bench.journal.iter().map(|bytes| Entry::decode(bytes).expect("an entry").record).collect()
}

/// The names of the events so far.
pub(crate) fn names(bench: &Cell) -> Vec<&str> {
    bench.events.iter().map(|event| event.event.as_str()).collect()
}

/// Runs effects as a network of one does, and what they lead to; gives the blocks that it executed.
pub(crate) fn run(bench: &mut Cell, effects: Vec<Effect>) -> Vec<Arc<Block>> {
    let (mut queue, mut said, mut blocks) = (VecDeque::from(effects), Vec::new(), Vec::new());
    loop {
        match queue.pop_front() {
            Some(Effect::Say(waiting)) => said.push(waiting.transaction.clone()),
            Some(Effect::Execute(block)) => {
                execute(bench, &block);
                blocks.push(block);
            }
            // The only member's word was counted when it was given.
            Some(Effect::Attest(_) | Effect::Final(_)) => {}
            None if said.is_empty() => return blocks,
            None => {
                let now = epoch(bench);
                let next = round(now.round + 1, bench.now_ms, std::mem::take(&mut said));
                order_rounds(bench, now.epoch, vec![next]).expect("orders");
            }
        }
        queue.extend(bench.take_effects());
    }
}

/// Starts again: runs what is owed until nothing is; gives the blocks that were executed.
pub(crate) fn resume(bench: &mut Cell) -> Vec<Arc<Block>> {
    let mut blocks = Vec::new();
    for _ in 0..16 {
        let owed: Vec<Effect> = bench.owed().into_iter().map(|owed| owed.effect).collect();
        if owed.is_empty() {
            return blocks;
        }
        let length = bench.journal.len();
        blocks.extend(run(bench, owed));
        assert!(bench.journal.len() > length, "what is owed leads on");
    }
    panic!("something is owed for ever: {} effects", bench.owed().len());
}

/// A member's two events of an epoch on one self-parent, made at this time and after, and signed with the key of a number.
pub(crate) fn fork_by(member: u8, by: u8, epoch: u64, first: u64) -> ForkProof {
    let [one, other] = [first, first + 1].map(|time_us| {
        let event = SignedEvent {
            epoch,
            creator: cell(member),
            self_parent: None,
            other_parents: Vec::new(),
            time_us,
            payload: Hash::of(b""),
            signature: Signature::from_bytes([0; 64]),
        };
        event.sign(&key(by), &four().hash())
    });
    ForkProof { one, other }
}

/// A state with four members.
pub(crate) fn keys() -> Keys {
    let mut keys = Keys::default();
    consensus::members::Members.genesis(&four(), &mut keys);
    keys
}

/// All items of a list, taken in pages of two, with the cursors.
pub(crate) fn all<T>(
    mut page_of: impl FnMut(ListRequest) -> (Vec<T>, Option<String>),
) -> (Vec<T>, Vec<String>) {
    let (mut items, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let (page, next) = page_of(ListRequest { limit: Some(2), cursor: cursors.last().cloned() });
        assert!(page.len() <= 2);
        items.extend(page);
        match next {
            Some(next) => cursors.push(next),
            None => return (items, cursors),
        }
    }
}
