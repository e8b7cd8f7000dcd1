//! Proof that a member has forked: found here, or told by the order.

mod kit;

use std::sync::Arc;

use consensus::ConsensusMachine;
use consensus::members::Members;
use kit::*;
use machine::module::{Module, RuleSets};
use machine::testing::Bench;
use protocol::block::{Attestation, Block, BlockProof};
use protocol::consensus::{Answer, EvidenceView, Request};
use protocol::gossip::ForkProof;
use protocol::transaction::{Intent, Transaction};

/// The proofs that a cell has, each checked.
fn evidence(bench: &mut Cell) -> Vec<ForkProof> {
    let (mut evidence, _cursors) = all(|list| match bench.ask(Request::ListEvidence(list)) {
        Ok(Answer::ListEvidence(page)) => (page.items, page.next),
        other => panic!("{other:?}"),
    });
    for EvidenceView { member, proof } in &evidence {
        assert_eq!(proof.check(&four().hash(), member), Ok(*member));
    }
    evidence.sort_by_key(|view| (1..=4).position(|number| cell(number) == view.member));
    evidence.into_iter().map(|view| view.proof).collect()
}

/// A fork of the first epoch.
fn fork(member: u8, first: u64) -> ForkProof {
    fork_by(member, member, 0, first)
}

#[test]
fn evidence_is_kept_once_a_member_and_anybody_can_check_it() {
    let mut bench = bench_of(four());
    for proof in [fork(3, 1), fork(3, 1), fork(3, 5), fork(2, 1), fork(4, 1)] {
        bench.ask(Request::Accuse(proof)).expect("it is taken");
    }
    assert_eq!(bench.journal.len(), 3);
    assert_eq!(names(&bench), ["consensus.forked"; 3]);
    assert_eq!(bench.events[0].data, serde_json::json!({ "member": cell(3) }));
    assert_eq!(evidence(&mut bench), [fork(2, 1), fork(3, 1), fork(4, 1)], "the first one of each");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn what_proves_no_fork_of_a_member_is_not_kept() {
    let mut bench = bench_of(four());
    let one = ForkProof { other: fork(3, 1).one, ..fork(3, 1) };
    assert_eq!(code(bench.ask(Request::Accuse(one))), "fork.not_proven");
    let mut forged = fork(3, 1);
    forged.other.time_us += 1;
    assert_eq!(code(bench.ask(Request::Accuse(forged))), "fork.not_proven");
    bench.ask(Request::Accuse(fork(9, 1))).expect("a stranger's forks are nobody's business");
    assert!(bench.journal.is_empty());
}

/// A cell whose members can be accused in the order.
fn cell_of_four() -> Cell {
    let mut modules = modules(&["kv"]);
    modules.push(Arc::new(Members) as Arc<dyn Module>);
    Bench::new(ConsensusMachine { genesis: Arc::new(four()), rules: RuleSets::first(modules) })
}

fn accusation(by: u8, nonce: u64, proof: &ForkProof) -> Transaction {
    let args = serde_json::json!({ "proof": proof });
    let intent = Intent { module: "members".into(), call: "accuse".into(), args, ..Intent::default() };
    Transaction::sign(&key(by), four().hash(), &intent, nonce)
}

/// Accusations, of which two prove something.
fn accusations() -> Vec<Transaction> {
    let mut forged = fork(2, 1);
    forged.other.time_us += 1;
    let accused = [forged, fork(3, 1), fork(3, 5), fork(9, 1), fork(4, 7)];
    (1..).zip(&accused).map(|(nonce, proof)| accusation(1, nonce, proof)).collect()
}

#[test]
fn who_found_no_fork_has_the_proof_from_the_order() {
    let mut bench = cell_of_four();
    order(&mut bench, accusations());
    assert_eq!(evidence(&mut bench), [fork(3, 1), fork(4, 7)]);
    order(&mut bench, vec![accusation(2, 1, &fork(3, 9))]);
    assert_eq!(evidence(&mut bench), [fork(3, 1), fork(4, 7)], "the first one of each");
    let (replayed, before) = bench.replay();
    assert_eq!(replayed, before);
}

#[test]
fn who_was_away_has_it_with_the_blocks_that_it_takes_over() {
    let mut there = cell_of_four();
    let blocks = order(&mut there, accusations());
    let proofs = blocks.iter().map(|block: &Block| {
        let attestations: Vec<Attestation> = (1..4).map(|member| word(block, member, 7)).collect();
        BlockProof { block: block.clone(), attestations, handoffs: Vec::new() }
    });
    let mut away = cell_of_four();
    adopt(&mut away, proofs.collect()).expect("takes over");
    assert_eq!(evidence(&mut away), [fork(3, 1), fork(4, 7)]);
}
