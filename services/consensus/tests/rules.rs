//! The rules of Consensus: checked before taken in, ordered once, final when attested.

use std::sync::Arc;

use consensus::{ConsensusMachine, Effect};
use ed25519_dalek::SigningKey;
use machine::testing::Bench;
use protocol::block::{Attestation, Block};
use protocol::consensus::{AdmitRequest, Answer, BlockRef, FinaliseRequest, Request, TxRef, TxStatus, TxView};
use protocol::genesis::Genesis;
use protocol::shared::Empty;
use protocol::state::Applied;
use protocol::transaction::{Intent, Transaction, TxReceipt};
use protocol::{BlockIndex, GenesisHash, Problem, StateRoot, signing};

struct Anything;

impl machine::module::Module for Anything {
    fn name(&self) -> &'static str {
        "kv"
    }
    fn genesis(&self, _: &Genesis, _: &mut dyn machine::module::ModuleState) {}
    fn check(&self, call: &str, _: &serde_json::Value) -> machine::module::Outcome {
        if call == "put" { Ok(()) } else { Err(Problem::new(protocol::ProblemKind::Invalid, "kv.unknown_call", call)) }
    }
    fn execute(
        &self,
        _: &machine::module::TxContext,
        _: &str,
        _: &serde_json::Value,
        _: &mut dyn machine::module::ModuleState,
    ) -> Result<machine::module::Outcome, machine::Fault> {
        Ok(Ok(()))
    }
    fn check_invariants(&self, _: &[machine::module::Change]) -> Result<(), String> {
        Ok(())
    }
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn genesis() -> Genesis {
    Genesis::solo("test", 1, signing::cell_id(&key(1)))
}

fn bench() -> Bench<ConsensusMachine> {
    Bench::new(ConsensusMachine { genesis: Arc::new(genesis()), modules: Arc::new([Arc::new(Anything)]) })
}

fn tx(nonce: u64) -> Transaction {
    let intent = Intent { module: "kv".into(), call: "put".into(), args: serde_json::json!({}), nonce: None };
    Transaction::sign(&key(2), genesis().hash(), &intent, nonce)
}

fn admit(bench: &mut Bench<ConsensusMachine>, transaction: Transaction) -> Result<TxView, String> {
    match bench.ask(Request::Admit(AdmitRequest { transaction })) {
        Ok(Answer::Admit(view)) => Ok(view),
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(problem.code.into_owned()),
    }
}

fn finalise(bench: &mut Bench<ConsensusMachine>, block: &Block, member: &SigningKey, ok: bool) -> Result<(), String> {
    let (root, cell) = (StateRoot::from_bytes([7; 32]), signing::cell_id(member));
    let error = (!ok).then(|| Problem::new(protocol::ProblemKind::Invalid, "kv.no", "no"));
    let receipts = block.transactions.iter().map(|tx| TxReceipt { id: tx.id(), ok, error: error.clone() }).collect();
    let signature = signing::sign(member, &Attestation::signed_text(&block.header, &root, &cell));
    let request = FinaliseRequest {
        applied: Applied { index: block.header.index, root, receipts },
        attestation: Attestation { member: cell, root, signature },
    };
    bench.ask(Request::Finalise(request)).map(|_| ()).map_err(|problem| problem.code.into_owned())
}

fn order(bench: &mut Bench<ConsensusMachine>) -> Option<Block> {
    bench.ask(Request::Order(Empty {})).expect("orders");
    bench.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Execute(block) => Some(*block),
        Effect::Order => None,
    })
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_taken_in() {
    let mut bench = bench();
    let wrong = |change: fn(&mut Transaction)| {
        let mut transaction = tx(5);
        change(&mut transaction);
        transaction
    };
    let cases = [
        (wrong(|tx| tx.genesis = GenesisHash::ZERO), "consensus.wrong_network"),
        (wrong(|tx| tx.module = "none".into()), "consensus.unknown_module"),
        (wrong(|tx| tx.call = "get".into()), "kv.unknown_call"),
        (wrong(|tx| tx.args = "{".into()), "consensus.bad_transaction"),
        (wrong(|tx| tx.nonce = u64::MAX), "consensus.bad_transaction"),
    ];
    for (transaction, code) in cases {
        assert_eq!(admit(&mut bench, transaction).expect_err(code), code);
    }
    assert!(bench.journal.is_empty());
    admit(&mut bench, tx(5)).expect("admits");
    assert_eq!(admit(&mut bench, tx(5)).expect("the same again").status, TxStatus::Accepted);
    assert_eq!(admit(&mut bench, tx(4)).expect_err("older"), "consensus.nonce_used");
    assert_eq!(bench.journal.len(), 1);
}

#[test]
fn a_transaction_goes_from_accepted_to_finalised() {
    let mut bench = bench();
    for nonce in [1, 2] {
        admit(&mut bench, tx(nonce)).expect("admits");
    }
    let first = order(&mut bench).expect("a block");
    assert_eq!((first.transactions.len(), first.header.index), (2, BlockIndex(0)));
    assert_eq!(order(&mut bench), None, "nothing waits");
    assert_eq!(bench.owed().len(), 1, "the block is still to be executed after a restart");
    admit(&mut bench, tx(3)).expect("admits");
    let second = order(&mut bench).expect("a block");
    assert_eq!(second.header.previous, first.header.hash());
    assert_eq!(finalise(&mut bench, &second, &key(1), true).expect_err("order"), "consensus.not_next");
    assert_eq!(finalise(&mut bench, &first, &key(9), true).expect_err("a stranger"), "consensus.bad_attestation");
    finalise(&mut bench, &first, &key(1), true).expect("finalises");
    finalise(&mut bench, &first, &key(1), true).expect("the same again");
    finalise(&mut bench, &second, &key(1), false).expect("finalises");
    let mut status = |nonce: u64| match bench.ask(Request::Tx(TxRef { id: tx(nonce).id() })) {
        Ok(Answer::Tx(view)) => (view.status, view.block),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(1), (TxStatus::Finalised, Some(BlockIndex(0))));
    assert_eq!(status(3), (TxStatus::Rejected, Some(BlockIndex(1))));
    match bench.ask(Request::GetBlock(BlockRef { index: BlockIndex(0) })) {
        Ok(Answer::GetBlock(block)) => {
            block.proof.check(&genesis()).expect("checks with nothing but the genesis");
            let mut forged = block.proof.clone();
            forged.block.transactions.pop();
            forged.check(&genesis()).expect_err("a transaction is missing");
            let other = Genesis { created_ms: 2, ..genesis() };
            block.proof.check(&other).expect_err("another network");
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.owed().is_empty());
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}
