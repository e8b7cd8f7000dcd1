//! A network of one by hand: its machine, transactions and attestations.

use std::sync::Arc;

use consensus::{ConsensusMachine, Effect};
use ed25519_dalek::SigningKey;
use machine::module::{Change, Module, ModuleState, Outcome, TxContext};
use machine::testing::Bench;
use protocol::block::{Attestation, Block};
use protocol::consensus::{AdmitRequest, Answer, FinaliseRequest, Request, TxView};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::Applied;
use protocol::transaction::{Intent, Transaction, TxReceipt};
use protocol::{CellId, Problem, ProblemKind, StateRoot, signing};

/// A module with one call, `put`, that takes anything.
struct Anything;

impl Module for Anything {
    fn name(&self) -> &'static str {
        "kv"
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
    ) -> Result<Outcome, machine::Fault> {
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[Change]) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn tx_sender(number: u8) -> CellId {
    signing::cell_id(&key(number))
}

pub(crate) fn genesis() -> Genesis {
    Genesis::solo("test", 1, tx_sender(1))
}

pub(crate) fn modules() -> Arc<[Arc<dyn Module>]> {
    Arc::new([Arc::new(Anything)])
}

pub(crate) fn bench() -> Bench<ConsensusMachine> {
    Bench::new(ConsensusMachine { genesis: Arc::new(genesis()), modules: modules() })
}

/// The one transaction of sender 2 with this nonce.
pub(crate) fn tx(nonce: u64) -> Transaction {
    let intent = Intent { module: "kv".into(), call: "put".into(), args: serde_json::json!({}), nonce: None };
    Transaction::sign(&key(2), genesis().hash(), &intent, nonce)
}

pub(crate) fn admit(
    bench: &mut Bench<ConsensusMachine>,
    transaction: Transaction,
) -> Result<TxView, Problem> {
    match bench.ask(Request::Admit(AdmitRequest { transaction }))? {
        Answer::Admit(view) => Ok(view),
        other => panic!("{other:?}"),
    }
}

/// A block's result and a member's word for it; the root is all `root`.
pub(crate) fn finalisation(block: &Block, member: &SigningKey, ok: bool, root: u8) -> FinaliseRequest {
    let (root, cell) = (StateRoot::from_bytes([root; 32]), signing::cell_id(member));
    let error = (!ok).then(|| Problem::new(ProblemKind::Invalid, "kv.no", "no"));
    let receipts =
        block.transactions.iter().map(|tx| TxReceipt { id: tx.id(), ok, error: error.clone() }).collect();
    let signature = signing::sign(member, &Attestation::signed_text(&block.header, &root, &cell));
    FinaliseRequest {
        applied: Applied { index: block.header.index, root, receipts },
        attestation: Attestation { member: cell, root, signature },
    }
}

pub(crate) fn finalise(
    bench: &mut Bench<ConsensusMachine>,
    block: &Block,
    member: &SigningKey,
    ok: bool,
) -> Result<(), Problem> {
    bench.ask(Request::Finalise(finalisation(block, member, ok, 7))).map(|_| ())
}

/// Orders; gives the block, if there was anything to order. Other effects are dropped.
pub(crate) fn order(bench: &mut Bench<ConsensusMachine>) -> Option<Block> {
    bench.take_effects();
    bench.ask(Request::Order(Empty {})).expect("orders");
    bench.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Execute(block) => Some(*block),
        Effect::Order => None,
    })
}
